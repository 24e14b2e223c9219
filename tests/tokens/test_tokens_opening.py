"""Tokenizers made elsewhere: their ids are kept, documents can end, what is lost is said."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from textmill.base.errors import Failure, UsageError
from textmill.base.progress import Progress
from textmill.base.run import Run
from textmill.tokens.build import tokenize_corpus
from textmill.tokens.config import TokenizerConfig
from textmill.tokens.opening import open_tokenizer
from textmill.tokens.shards import Shards
from textmill.tokens.special import NAMED
from textmill.tokens.splitting import PATTERNS
from textmill.tokens.tokenizer import Tokenizer, train_tokenizer
from textmill.tokens.vocabulary_bytes import byte_alphabet

QUIET = Progress("quiet")
TEXTS = ("Mr. Speaker, it's  1,234,567!\n\n 天下大势 <|end|> x", "", "  two  spaces ", "naïve 🙂")


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory, speeches: list[str]) -> Path:
    """A WordPiece tokenizer in BERT's manner: lower case, [UNK], [CLS] … [SEP]."""
    library = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer()
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=500, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False
    )
    library.train_from_iterator(speeches[:2], trainer=trainer)
    library.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    path = tmp_path_factory.mktemp("bert") / "tokenizer.json"
    library.save(str(path))
    return path


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory, speeches: list[str]) -> Path:
    """A tiktoken rank file, made of merges learned here."""
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    library.train_from_iterator(speeches[:2], trainer=trainer)
    alphabet = byte_alphabet()
    path = tmp_path_factory.mktemp("ranks") / "gpt2.tiktoken"
    lines = []
    for token, rank in library.get_vocab().items():
        spelled = bytes(alphabet[letter] for letter in token)
        lines.append(f"{base64.b64encode(spelled).decode()} {rank + (rank >= 600)}")  # rank 600 is left out
    path.write_text("\n".join(lines))
    return path


def test_a_tokenizer_json_keeps_its_ids_and_is_completed(bert: Path, speeches: list[str]) -> None:
    library = tokenizers.Tokenizer.from_file(str(bert))
    opened = open_tokenizer(str(bert))
    assert opened.encode(speeches[0]) == library.encode(speeches[0], add_special_tokens=False).ids
    assert opened.vocabulary % 64 == 0
    assert set(NAMED) <= set(opened.special)
    assert opened.document_end >= 500
    assert not opened.lossless
    assert opened.unknown == 1
    assert open_tokenizer(str(bert.parent)).to_json() == opened.to_json()


def test_what_it_does_not_know_counts_no_bytes(bert: Path) -> None:
    opened = open_tokenizer(str(bert))
    ids = opened.encode("the 🙂")
    assert ids[-1] == opened.unknown
    assert opened.byte_lengths[opened.unknown] == 0
    assert opened.decode(ids).strip() == "the"


def test_our_own_tokenizer_is_taken_over_as_it_is(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    assert open_tokenizer(str(tmp_path)).to_json() == tokenizer.to_json()


def test_a_rank_file_gives_tiktokens_ids(ranks: Path, speeches: list[str]) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    opened = open_tokenizer(str(ranks))
    lines = [line.split() for line in ranks.read_bytes().splitlines()]
    table = {base64.b64decode(token): int(rank) for token, rank in lines}
    theirs = tiktoken.Encoding("own", pat_str=PATTERNS["gpt2"], mergeable_ranks=table, special_tokens={})
    for text in (*TEXTS, *speeches[:5]):
        assert opened.encode(text) == theirs.encode_ordinary(text)
        assert opened.decode(opened.encode(text)) == text
    assert opened.lossless


def test_a_rank_file_of_another_name_needs_its_pattern(ranks: Path, tmp_path: Path) -> None:
    other = tmp_path / "mine.tiktoken"
    other.write_bytes(ranks.read_bytes())
    with pytest.raises(UsageError, match="--pattern"):
        open_tokenizer(str(other))
    assert open_tokenizer(str(other), "cl100k").lossless
    other.write_text("nonsense here\n")
    with pytest.raises(Failure, match="damaged"):
        open_tokenizer(str(other), "gpt2")


def test_a_vocabulary_and_its_merges_are_opened(tmp_path: Path, speeches: list[str]) -> None:
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    library.train_from_iterator(speeches[:2], trainer=trainer)
    library.model.save(str(tmp_path))
    opened = open_tokenizer(str(tmp_path))
    assert opened.encode(speeches[1]) == library.encode(speeches[1]).ids
    assert opened.special["<|endoftext|>"] == 0
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(UsageError, match="merges"):
        open_tokenizer(str(tmp_path / "vocab.json"))


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize("fallback", [True, False])
@pytest.mark.parametrize("rule", ["nmt_nfkc", "identity"])
def test_a_sentencepiece_model_gives_its_ids(
    kind: str, fallback: bool, rule: str, speeches: list[str], tmp_path: Path
) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter("\n".join(speeches[:3]).splitlines()),
        model_writer=written,
        vocab_size=800,
        model_type=kind,
        byte_fallback=fallback,
        normalization_rule_name=rule,
        minloglevel=2,
    )
    (tmp_path / "my.model").write_bytes(written.getvalue())
    opened = open_tokenizer(str(tmp_path))
    theirs = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    texts = [*TEXTS[1:], *(paragraph for speech in speeches[3:6] for paragraph in speech.splitlines())]
    equal = [opened.encode(text) == theirs.encode(text) for text in texts]
    assert sum(equal) >= 0.99 * len(equal)  # Unigram breaks ties between equally probable cuts in another way
    assert kind == "unigram" or all(equal)
    assert opened.decode(opened.encode("the people")) == " the people"  # SentencePiece puts a space before a text


def test_nonsense_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        open_tokenizer(str(tmp_path / "missing.json"))
    with pytest.raises(UsageError, match="holds no tokenizer"):
        open_tokenizer(str(tmp_path))
    for name, data in (("a.json", b"{"), ("b.model", b"\xff\xff\xff"), ("c.model", b""), ("d.json", b"\xff\xfe")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(Failure):
            open_tokenizer(str(tmp_path / name))


def test_a_stage_with_a_lossy_tokenizer_says_what_is_lost(
    bert: Path, make_corpus: Callable[..., Run], speeches: list[str]
) -> None:
    run = make_corpus([(speeches[0], "train"), ("Ein 🙂 Wort", "validation"), ("the people", "test")])
    index = tokenize_corpus(run, TokenizerConfig(tokenizer=str(bert)), QUIET)
    assert index["lossless"] is False
    assert index["kind"] == "wordpiece"
    assert index["loss"]["unknown_tokens"] >= 1
    assert index["loss"]["changed_documents"] == index["loss"]["checked_documents"] == 3
    assert index["loss"]["decoded_bytes"] != index["loss"]["bytes"]
    shards = Shards(run / "tokens", "validation")
    assert shards.document(0)[-1] == index["document_end"]
    again = tokenize_corpus(run, TokenizerConfig(tokenizer=str(bert)), QUIET)
    assert again == index


def test_a_changed_tokenizer_file_is_taken_over_again(
    tmp_path: Path, make_corpus: Callable[..., Run], speeches: list[str]
) -> None:
    run = make_corpus([(speeches[0], "train")])
    for size in (512, 768):
        train_tokenizer(speeches[:1], size).save(tmp_path / "mine")
        config = TokenizerConfig(tokenizer=str(tmp_path / "mine"))
        assert tokenize_corpus(run, config, QUIET)["vocabulary"] == size


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TokenizerConfig(tokenizer="x", kind="word"), "kind would have no effect"),
        (TokenizerConfig(tokenizer="x", vocabulary=1024), "vocabulary would have no effect"),
        (TokenizerConfig(pattern="gpt2"), "pattern would have no effect"),
        (TokenizerConfig(kind="byte", vocabulary=512), "vocabulary would have no effect"),
    ],
)
def test_a_setting_without_effect_is_an_error(
    config: TokenizerConfig, message: str, make_corpus: Callable[..., Run]
) -> None:
    with pytest.raises(UsageError, match=message):
        tokenize_corpus(make_corpus([("text", "train")]), config, QUIET)


def test_the_definition_of_a_model_is_plain_json(bert: Path) -> None:
    assert json.loads(open_tokenizer(str(bert)).to_json())["post_processor"] is None

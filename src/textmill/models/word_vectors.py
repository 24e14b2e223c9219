"""Word vectors by skip-gram or CBOW (gensim does the learning): train, save, look up, measure, and give as embeddings.

A vectors folder holds `vectors.safetensors` (one tensor "vectors", float32 [n, D]), `vectors.json` (units, settings,
words and counts in the rows' order) and `vectors.txt` (word2vec's text format, which other programs open).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from textmill import __version__
from textmill.base.errors import Failure, UsageError, nearest
from textmill.base.files import read_json, write_atomic, write_json
from textmill.base.progress import Progress
from textmill.models.word_vectors_config import VectorsConfig
from textmill.tokens.shards import Shards
from textmill.tokens.tokenizer import Tokenizer, describe_token

FOLDER = "vectors"
RECORD, WEIGHTS, TEXT = "vectors.json", "vectors.safetensors", "vectors.txt"
PIECE = 10_000
"""gensim cuts off what a sentence holds beyond so many words."""


def gensim() -> Any:
    """The package, or an error that says how to install it."""
    try:
        import gensim as package
        import gensim.models
        import gensim.test.utils
    except ImportError as error:
        raise UsageError(
            "Word vectors need gensim.", f"It is not installed here ({error}).", 'Type: pip install "textmill[vectors]"'
        ) from error
    return package


def tokenizer_key(tokenizer: Tokenizer) -> str:
    """What tells one tokenizer from another: BLAKE2b-128 of its definition, hex."""
    return hashlib.blake2b(tokenizer.to_json().encode(), digest_size=16).hexdigest()


class TokenSentences:
    """Documents of token shards as lists of ids written as numbers; may be read again and again."""

    def __init__(self, shards: Shards) -> None:
        self.shards = shards
        self.names = np.array([str(i) for i in range(shards.vocabulary)], dtype=object)

    def __iter__(self) -> Iterator[list[str]]:
        for i in range(self.shards.documents):
            ids = self.shards.document(i)[:-1]
            for begin in range(0, len(ids), PIECE):
                yield self.names[ids[begin : begin + PIECE]].tolist()


class WordSentences:
    """Lines of the training documents of a corpus as lists of lower-case words; may be read again and again.

    Args:
        corpus: folder of the corpus stage.
    """

    def __init__(self, corpus: Path) -> None:
        self.corpus = corpus

    def __iter__(self) -> Iterator[list[str]]:
        from textmill.corpus.cleaning.words import segment
        from textmill.corpus.texts import Texts
        from textmill.tokens.reading import read_groups

        for group in read_groups(self.corpus):
            rows = group.rows("train").tolist()
            texts = Texts.from_bytes([group.texts[row] for row in rows])
            # Languages are not asked for: only Japanese would be cut otherwise, and it has kana between.
            words = segment(texts, np.full(len(texts), ""))
            for row in range(len(words)):
                for line in words.string(row).lower().split("\n"):
                    found = [word for word in line.split() if any(character.isalnum() for character in word)]
                    for begin in range(0, len(found), PIECE):
                        yield found[begin : begin + PIECE]


class Vectors:
    """Words (or tokens) with their vectors.

    Args:
        words: the words, most frequent first; in units of tokens their ids written as numbers.
        counts: int64 [n], how often each was seen.
        matrix: float32 [n, D].
        config: how they were made.
        tokenizer: key of the tokenizer whose tokens they are; "" for words.
    """

    def __init__(
        self, words: Sequence[str], counts: np.ndarray, matrix: np.ndarray, config: VectorsConfig, tokenizer: str = ""
    ) -> None:
        self.words, self.counts, self.matrix = list(words), counts, matrix
        self.config, self.tokenizer = config, tokenizer
        self.number = {word: i for i, word in enumerate(self.words)}

    def save(self, folder: Path) -> None:
        """Write vectors.json, vectors.safetensors and vectors.txt into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"vectors": np.ascontiguousarray(self.matrix, dtype=np.float32)}, folder / WEIGHTS)
        write_json(
            folder / RECORD,
            {
                "textmill_vectors": 1,
                "textmill_version": __version__,
                "configuration": asdict(self.config),
                "tokenizer": self.tokenizer,
                "words": self.words,
                "counts": self.counts.tolist(),
            },
        )
        lines = [f"{len(self.words)} {self.matrix.shape[1]}"]
        for word, row in zip(self.words, self.matrix, strict=True):
            lines.append(f"{word} {' '.join(f'{value:.6g}' for value in row.tolist())}")
        write_atomic(folder / TEXT, "\n".join(lines) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Vectors:
        """Open a vectors folder.

        Raises:
            UsageError: there are no vectors.
            Failure: a file is damaged.
        """
        try:
            record = read_json(folder / RECORD)
            matrix = load_file(folder / WEIGHTS)["vectors"]
            words, counts = record["words"], np.array(record["counts"], dtype=np.int64)
            config, tokenizer = VectorsConfig(**record["configuration"]), record["tokenizer"]
            if not (len(matrix) == len(words) == len(counts)) or matrix.ndim != 2:
                raise ValueError(f"{len(words)} words, but vectors of shape {list(matrix.shape)}")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UsageError(
                f"There are no word vectors at {folder}.",
                f"It has no {RECORD} and {WEIGHTS}.",
                f"Make them with: textmill vectors {folder.parent}",
            ) from error
        except (json.JSONDecodeError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise Failure(
                f"The word vectors in {folder} cannot be read.",
                f"A file is damaged ({type(error).__name__}: {error}).",
                f"Delete the folder and type: textmill vectors {folder.parent}",
            ) from error
        return cls(words, counts, matrix, config, tokenizer)

    def neighbours(self, word: str, count: int = 10) -> list[tuple[str, float]]:
        """The words nearest to `word` and their cosine similarity, nearest first.

        Raises:
            UsageError: it has no vector.
        """
        if word not in self.number:
            raise UsageError(
                f'"{word}" has no vector.{nearest(word, self.words[:50_000])}',
                f"{len(self.words):,} {self.config.units} were seen at least {self.config.min_count} times.",
                "Ask for another, or give more text.",
            )
        lengths = np.linalg.norm(self.matrix, axis=1)
        unit = self.matrix / np.maximum(lengths, 1e-12)[:, None]
        place = self.number[word]
        similarity = unit @ unit[place]
        similarity[place] = -np.inf
        best = np.argsort(-similarity, kind="stable")[: min(count, len(self.words) - 1)]
        return [(self.words[i], float(similarity[i])) for i in best]

    def keyed(self) -> Any:
        """The same as gensim's KeyedVectors."""
        vectors = gensim().models.KeyedVectors(self.matrix.shape[1])
        vectors.add_vectors(self.words, self.matrix)
        for word, count in zip(self.words, self.counts.tolist(), strict=True):
            vectors.set_vecattr(word, "count", count)
        return vectors


def train_vectors(
    sentences: Iterable[list[str]], config: VectorsConfig, tokenizer: str = "", progress: Progress | None = None
) -> Vectors:
    """Learn vectors from `sentences`, which are read `passes` + 1 times.

    Raises:
        UsageError: gensim is not installed.
        Failure: no word is frequent enough.
    """
    package = gensim()
    model = package.models.Word2Vec(
        vector_size=config.dimensions,
        window=config.window,
        sg=int(config.architecture == "skip-gram"),
        negative=config.negative,
        sample=config.sample,
        min_count=config.min_count,
        seed=config.seed,
        workers=config.workers,
        epochs=config.passes,
    )
    reporter = progress or Progress("quiet")
    with reporter.task("Counting words") as task:
        model.build_vocab(sentences)
        task.update(task.done, f"{len(model.wv):,} with a vector")
    if not len(model.wv):
        raise Failure(
            "There is nothing to learn vectors from.",
            f"No word occurs {config.min_count} times.",
            "Give more text, or lower --min-count.",
        )
    with reporter.task("Learning vectors", config.passes * model.corpus_total_words, "words") as task:

        class Report(package.models.callbacks.CallbackAny2Vec):  # type: ignore[name-defined]
            def on_epoch_end(self, trained: Any) -> None:
                task.advance(trained.corpus_total_words)

        model.train(
            sentences, total_examples=model.corpus_count, epochs=config.passes, callbacks=[Report()], report_delay=1e9
        )
    words = model.wv.index_to_key
    counts = np.array([model.wv.get_vecattr(word, "count") for word in words], dtype=np.int64)
    return Vectors(words, counts, np.asarray(model.wv.vectors, dtype=np.float32), config, tokenizer)


def embedding_from_vectors(
    folder: Path | str, tokenizer: Tokenizer, width: int | None = None, seed: int = 0
) -> np.ndarray:
    """Word vectors as the beginning of an embedding table.

    A token that has no vector (too rare, special, or no word) gets a random one with the mean and deviation of the
    others. In units of words, a token has the vector of the word that it spells, without spaces and letter case.

    Args:
        folder: a vectors folder, such as RUN/vectors; of the same tokenizer where its units are tokens.
        tokenizer: whose ids the rows are for.
        width: size of an embedding, which the vectors must have; None takes theirs.
        seed: of the random vectors.

    Returns:
        float32 [V, D].

    Raises:
        UsageError: there are no vectors, they are of another tokenizer or of another size, or no token has one.
    """
    folder = Path(folder)
    vectors = Vectors.load(folder)
    size = vectors.matrix.shape[1]
    if width is not None and width != size:
        raise UsageError(
            f"The vectors in {folder} cannot begin the embeddings of this model.",
            f"They have {size} dimensions, its width is {width}.",
            f"Type: textmill vectors {folder.parent} --dimensions {width}",
        )
    if vectors.config.units == "tokens" and vectors.tokenizer != tokenizer_key(tokenizer):
        raise UsageError(
            f"The vectors in {folder} are of another tokenizer.",
            "Their rows stand for other tokens.",
            f"Make them again with: textmill vectors {folder.parent}",
        )
    ids, rows = _rows_for(vectors, tokenizer)
    if not len(ids):
        raise UsageError(
            f"No token has a vector in {folder}.",
            "Its words are not among the tokens.",
            f"Type: textmill vectors {folder.parent} --units tokens",
        )
    found = vectors.matrix[rows]
    noise = np.random.default_rng(seed).standard_normal((tokenizer.vocabulary, size))
    table = (found.mean(axis=0) + found.std(axis=0) * noise).astype(np.float32)
    table[ids] = found
    return table


def _rows_for(vectors: Vectors, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the tokens that have a vector, and its row."""
    if vectors.config.units == "tokens":
        return np.array([int(word) for word in vectors.words], dtype=np.int64), np.arange(len(vectors.words))
    pairs = []
    for token in range(tokenizer.vocabulary):
        text = tokenizer.decode_bytes([token]).decode("utf-8", "replace").strip().lower()
        row = vectors.number.get(text)
        if row is not None:
            pairs.append((token, row))
    found = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def readable(vectors: Vectors, tokenizer: Tokenizer | None) -> Vectors:
    """The same vectors under names for people: tokens by what they spell (the first of those that spell the same)."""
    if vectors.config.units == "words" or tokenizer is None:
        return vectors
    names: dict[str, int] = {}
    for row, word in enumerate(vectors.words):
        names.setdefault(describe_token(tokenizer, int(word)), row)
    rows = list(names.values())
    return Vectors(list(names), vectors.counts[rows], vectors.matrix[rows], vectors.config, vectors.tokenizer)


def measure_vectors(vectors: Vectors) -> dict[str, Any]:
    """English analogies and word similarities, on the lists that come with gensim, and how much of them is covered.

    Returns:
        {"analogies": {"accuracy", "asked", "of", "sections": {NAME: {"accuracy", "asked"}}}, "wordsim353" and
        "simlex999": {"spearman", "asked", "of"}}. `accuracy` (share right among those asked) and `spearman` (rank
        correlation with people's judgement) are None where fewer than 2 are asked; `asked` counts the questions
        whose words all have a vector, of `of` in the list: with little text, few and frequent ones, so figures
        compare only at equal coverage.
    """
    package = gensim()
    datapath = package.test.utils.datapath
    keyed = vectors.keyed()
    if vectors.config.units == "tokens":
        keyed = _stripped(vectors, package)
    result: dict[str, Any] = {}
    questions = Path(datapath("questions-words.txt"))
    total = sum(1 for line in questions.read_text(encoding="utf-8").splitlines() if line and not line.startswith(":"))
    # Words that are lower case already are not changed by gensim's folding to upper case, but may clash: kept first.
    _, sections = keyed.evaluate_word_analogies(str(questions), restrict_vocab=len(keyed), case_insensitive=True)
    found = {
        section["section"]: (len(section["correct"]), len(section["correct"]) + len(section["incorrect"]))
        for section in sections
    }
    right, asked = found.pop("Total accuracy")
    result["analogies"] = {
        "accuracy": right / asked if asked >= 2 else None,
        "asked": asked,
        "of": total,
        "sections": {name: {"accuracy": r / n, "asked": n} for name, (r, n) in found.items() if n},
    }
    for name, file in (("wordsim353", "wordsim353.tsv"), ("simlex999", "simlex999.txt")):
        result[name] = _similarity(keyed, Path(datapath(file)))
    return result


def _stripped(vectors: Vectors, package: Any) -> Any:
    keyed = package.models.KeyedVectors(vectors.matrix.shape[1])
    seen: dict[str, int] = {}
    for row, word in enumerate(vectors.words):
        if word.strip():
            seen.setdefault(word.strip(), row)
    keyed.add_vectors(list(seen), vectors.matrix[list(seen.values())])
    return keyed


def _similarity(keyed: Any, file: Path) -> dict[str, Any]:
    """Spearman correlation of cosine similarity with a list's judgements (a mean rank for ties)."""
    folded = {word.lower(): i for i, word in reversed(list(enumerate(keyed.index_to_key)))}
    unit = keyed.get_normed_vectors()
    ours, theirs, total = [], [], 0
    for line in file.read_text(encoding="utf-8").splitlines():
        cells = line.split("\t")
        if line.startswith("#") or len(cells) < 3:
            continue
        try:
            judged = float(cells[2])
        except ValueError:  # a heading
            continue
        total += 1
        first, second = folded.get(cells[0].lower()), folded.get(cells[1].lower())
        if first is not None and second is not None:
            ours.append(float(unit[first] @ unit[second]))
            theirs.append(judged)
    correlation = None
    if len(ours) >= 2:
        ranks = [_ranks(np.array(values)) for values in (ours, theirs)]
        if all(np.ptp(values) > 0 for values in ranks):
            correlation = float(np.corrcoef(ranks[0], ranks[1])[0, 1])
    return {"spearman": correlation, "asked": len(ours), "of": total}


def _ranks(values: np.ndarray) -> np.ndarray:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[places])

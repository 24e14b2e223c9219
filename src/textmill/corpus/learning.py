"""Judgements that are learned from the user's own examples before the corpus is measured. Writes `*.model` files into
the stage's folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from textmill.base.errors import UsageError
from textmill.base.files import hash_file, hash_json
from textmill.base.progress import Progress
from textmill.base.run import Run
from textmill.corpus.chunks import Chunk, plan_chunks
from textmill.corpus.cleaning.batch import clean_texts
from textmill.corpus.config import CorpusConfig
from textmill.corpus.inputs import find_inputs
from textmill.corpus.measure import Models
from textmill.corpus.readers import read_chunk
from textmill.corpus.tally import Tally
from textmill.corpus.texts import Texts

MOST_BYTES = 32 << 20
"""Text that is learned from, at most; more changes a linear classifier and a small n-gram model little."""
SEED = 0


def content_hash(name: str) -> str:
    """A hash over what a setting names: a file, a folder or a sample."""
    path = Path(name)
    if path.is_file():
        return hash_file(path)
    if path.is_dir():
        files = sorted(one for one in path.rglob("*") if one.is_file())
        return hash_json([[str(one.relative_to(path)), hash_file(one)] for one in files])
    if name.startswith("sample:"):
        return name
    raise UsageError(f"There is no {name}.", "A setting names it as text to learn from or to compare with.")


def _chunks(names: Sequence[str], config: CorpusConfig) -> list[Chunk]:
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        inputs, _ = find_inputs(list(names), Run.create(Path(folder) / "run"), tally, Progress("quiet"))
        return plan_chunks(inputs, config, tally)


def _read(chunks: Sequence[Chunk], config: CorpusConfig, limit: int) -> Iterator[Texts]:
    """Cleaned texts of chunks spread evenly over all of them, up to about `limit` bytes."""
    count = len(chunks)
    step = max(1, count * (8 << 20) // max(1, limit))
    order = [*range(0, count, step), *(at for at in range(count) if at % step)]
    share = max(1, limit // max(1, min(count, len(range(0, count, step)))))
    total = 0
    for at in order:
        here = 0
        for drafts in read_chunk(chunks[at], config, Tally()):
            texts = clean_texts(drafts.texts, config).texts
            here += int(texts.offsets[-1])
            yield texts
            if here >= share:
                break
        total += here
        if total >= limit:
            return


def texts_named(names: Sequence[str], config: CorpusConfig, limit: int = MOST_BYTES) -> Texts:
    """The cleaned documents of what settings name.

    Raises:
        UsageError: there is no text in it.
    """
    found = list(_read(_chunks(names, config), config, limit))
    texts = Texts.concatenate(found) if found else Texts.from_bytes([])
    if not len(texts) or not texts.offsets[-1]:
        raise UsageError(f"There is no text in {', '.join(names)}.", fix="Name files or folders with text in them.")
    return texts


def _others(names: Sequence[str], chunks: Sequence[Chunk], config: CorpusConfig) -> Texts:
    """The other class of a classifier: what a setting names, else a sample of the corpus."""
    if names:
        return texts_named(names, config)
    found = list(_read(chunks, config, MOST_BYTES))
    return Texts.concatenate(found) if found else Texts.from_bytes([])


def learn(folder: Path, config: CorpusConfig, chunks: Sequence[Chunk], progress: Progress) -> Models:
    """Train what the settings ask for, unless an attempt before did."""
    paths = {"classifier": "", "perplexity": "", "toxicity": "", "contamination": ""}
    if config.good:
        from textmill.corpus.judging.classifier import Classifier
        from textmill.corpus.judging.perplexity import Perplexity

        classifier, perplexity = folder / "quality.model", folder / "perplexity.model"
        paths["classifier"], paths["perplexity"] = str(classifier), str(perplexity)
        if not (classifier.exists() and perplexity.exists()):
            progress.say(f"Learning quality from {', '.join(config.good)}")
            good = texts_named(config.good, config)
            trained = Classifier.train(good, _others(config.bad, chunks, config), SEED)
            trained.save(classifier)
            progress.say(trained.summary())
            Perplexity.train(good).save(perplexity)
    if config.toxic:
        from textmill.corpus.judging.classifier import Classifier

        toxicity = folder / "toxicity.model"
        paths["toxicity"] = str(toxicity)
        if not toxicity.exists():
            progress.say(f"Learning toxicity from {', '.join(config.toxic)}")
            trained = Classifier.train(
                texts_named(config.toxic, config), _others(config.harmless, chunks, config), SEED, ("toxic", "harmless")
            )
            trained.save(toxicity)
            progress.say(trained.summary("toxicity", "toxic"))
    if config.decontaminate:
        from textmill.corpus.deduplication.contamination import Contamination

        contamination = folder / "contamination.model"
        paths["contamination"] = str(contamination)
        if not contamination.exists():
            files = [Path(name) for name in config.decontaminate]
            Contamination.from_files(files, config.contamination_words).save(contamination)
    return Models(**paths)

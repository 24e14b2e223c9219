"""One chunk of raw input to measured documents: read, clean, protect, judge, sign. Writes `measured/NNNNN.parquet`,
`.npz` and `.json`; the last of them says that the chunk is done.

Everything here depends on the chunk and the settings alone, so any process on any machine may do it, in any order.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from textmill.base.files import write_json
from textmill.corpus.chunks import Chunk
from textmill.corpus.config import CorpusConfig
from textmill.corpus.judging.measures import measure_groups
from textmill.corpus.split import document_ids
from textmill.corpus.tally import Tally
from textmill.corpus.texts import Texts

FOLDER = "measured"
BEFORE_LINES = ("gopher", "c4")
"""Groups measured before single lines are removed, in the order of FineWeb's pipeline; the others see what is left."""
AFTER_LINES = ("fineweb", "chinese", "code")


@dataclass(frozen=True)
class Models:
    """Trained judgements and lists that every worker loads.

    Attributes:
        classifier: file of the quality classifier, "" for none.
        perplexity: file of the n-gram model, "" for none.
        toxicity: file of the toxicity classifier, "" for none.
        contamination: file of the evaluation texts' n-grams, "" for none.
    """

    classifier: str = ""
    perplexity: str = ""
    toxicity: str = ""
    contamination: str = ""


@dataclass(frozen=True)
class Job:
    """What a worker needs to measure one chunk."""

    chunk: Chunk
    folder: str
    config: CorpusConfig
    groups: tuple[str, ...]
    line_rules: str
    models: Models


def paths_of(folder: Path, number: int) -> dict[str, Path]:
    """The files of one measured chunk."""
    return {kind: folder / FOLDER / f"{number:05d}.{kind}" for kind in ("parquet", "npz", "json")}


def is_measured(folder: Path, number: int) -> bool:
    """Whether a chunk was measured to its end."""
    return paths_of(folder, number)["json"].exists()


def measure_chunk(job: Job) -> int:
    """Measure one chunk, unless it is done already; gives the chunk's number."""
    folder = Path(job.folder)
    paths = paths_of(folder, job.chunk.number)
    if paths["json"].exists():
        return job.chunk.number
    tally = Tally()
    beside = paths["parquet"].with_suffix(f".{os.getpid()}.new")
    writer: pq.ParquetWriter | None = None
    keys: list[np.ndarray] = []
    digests: list[np.ndarray] = []
    rows = 0
    from textmill.corpus.readers import read_chunk

    try:
        for drafts in read_chunk(job.chunk, job.config, tally):
            table, signatures = _batch(drafts, job)
            if table.num_rows == 0:
                continue
            rows += table.num_rows
            tally.repaired += int(np.count_nonzero(table["repaired"].to_numpy()))
            if signatures is not None:
                keys.append(signatures.keys)
                digests.append(signatures.digest)
            if writer is None:
                writer = pq.ParquetWriter(
                    beside,
                    table.schema,
                    compression="zstd",
                    compression_level=1,
                    use_dictionary=["language", "origin", "kind", "unreadable"],
                    write_statistics=False,
                )
            writer.write_table(table, row_group_size=max(1, table.num_rows))
    finally:
        if writer is not None:
            writer.close()
    if writer is not None:
        beside.replace(paths["parquet"])
    if keys:
        np.savez(beside, keys=np.concatenate(keys), digest=np.concatenate(digests))
        beside.with_name(beside.name + ".npz").replace(paths["npz"])
    write_json(paths["json"], {"rows": rows, "tally": tally.to_json()})
    return job.chunk.number


SENTENCE = "The river runs under the old bridge. Call the harbour, +1 650 253 0000, or write to harbour@example.org! "
"""What is cleaned, redacted and judged to load the code for it."""


def measure_sentence(config: CorpusConfig, groups: tuple[str, ...], line_rules: str) -> None:
    """Load the tables and the compiled code that chunks need, by measuring one sentence."""
    from textmill.corpus.readers.drafts import Drafts, Row

    drafts = Drafts.from_rows([Row("", SENTENCE.encode())])
    _batch(drafts, Job(Chunk(0, (), 0), "", config, groups, line_rules, Models()))


def _batch(drafts: Any, job: Job) -> tuple[pa.Table, Any]:
    """One batch of drafts, measured, as a table in the order of reading."""
    from textmill.corpus.cleaning.batch import clean_texts
    from textmill.corpus.judging import characters, language

    config = job.config
    cleaned = clean_texts(drafts.texts, config)
    texts = cleaned.texts
    columns: dict[str, Any] = {}
    privacy = privacy_of(config)
    if privacy is not None:
        from textmill.corpus.privacy.redact import redact

        texts, counts = redact(texts, privacy)
        columns.update(counts)
    found = language.identify(texts)
    codes = np.asarray(found.language)
    if config.segment or config.stop_words:
        from textmill.corpus.cleaning.words import to_words

        texts = to_words(texts, codes, config)
    before = [name for name in BEFORE_LINES if name in job.groups and not (name == "c4" and job.line_rules)]
    columns.update(measure_groups(texts, before, codes))
    if job.line_rules:
        from textmill.corpus.judging.c4 import clean_lines

        texts, lines = clean_lines(texts, job.line_rules)
        columns.update(lines)
    columns.update(characters.measure(texts))
    sources = drafts.sources if isinstance(drafts.sources, list) else drafts.sources.to_pylist()
    columns.update(measure_groups(texts, [name for name in AFTER_LINES if name in job.groups], codes, sources))
    if "toxicity" in job.groups:
        from textmill.corpus.judging import toxicity

        columns.update(toxicity.measure(texts, config.toxic_words))
    columns.update(_trained(texts, job.models))
    signatures = None
    if config.near_duplicates:
        from textmill.corpus.deduplication.minhash import sign

        signatures = sign(texts)
    return _table(drafts, texts, cleaned, found, columns), signatures


def privacy_of(config: CorpusConfig) -> Any:
    """The settings of the privacy step, None when nothing is looked for."""
    if config.pii == "off" or (config.pii == "measure" and "pii" not in config.measures):
        return None
    from textmill.corpus.privacy.config import PrivacyConfig

    return PrivacyConfig(mode=config.pii, phone_regions=config.phone_regions)


def _trained(texts: Texts, models: Models) -> dict[str, np.ndarray]:
    columns: dict[str, np.ndarray] = {}
    if models.classifier:
        from textmill.corpus.judging.classifier import Classifier

        columns.update(Classifier.load(Path(models.classifier)).measure(texts))
    if models.toxicity:
        from textmill.corpus.judging.classifier import Classifier

        columns["toxicity_score"] = Classifier.load(Path(models.toxicity)).scores(texts)
    if models.perplexity:
        from textmill.corpus.judging.perplexity import Perplexity

        columns.update(Perplexity.load(Path(models.perplexity)).measure(texts))
    if models.contamination:
        from textmill.corpus.deduplication.contamination import Contamination

        columns.update(Contamination.load(Path(models.contamination)).measure(texts))
    return columns


def _table(drafts: Any, texts: Texts, cleaned: Any, found: Any, columns: dict[str, Any]) -> pa.Table:
    count = len(texts)
    data: dict[str, Any] = {
        "id": pa.array(document_ids(texts), pa.string()),
        "text": texts.to_arrow(),
        "source": drafts.sources,
        "origin": pa.array([drafts.origin] * count, pa.string()),
        "kind": pa.array([drafts.kind] * count, pa.string()),
        "language": pa.array(found.language, pa.string()),
        "meta": drafts.metas,
        "unreadable": pa.array(drafts.unreadable, pa.string()),
        "bytes": texts.sizes,
        "raw_bytes": pa.array(drafts.raw_bytes, pa.int64()),
        "repaired": cleaned.repaired,
        "damage": cleaned.damage,
        "language_confidence": found.confidence,
        "languages": pa.array(found.paragraphs, pa.string()),
        "zh_traditional_share": found.traditional,
    }
    return pa.table({**data, **columns})

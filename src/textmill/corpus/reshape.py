"""Steps that change the documents themselves after the decision: passages cut out that occurred before, and the long
documents of a small corpus cut into pieces. Writes `cut/NNNNN.parquet` beside `measured/`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from textmill.corpus.cleaning.text import document_pieces
from textmill.corpus.config import CorpusConfig
from textmill.corpus.decide import KEPT, Chunks, Rows, halves, mark_exact
from textmill.corpus.split import document_ids, wanted_splits
from textmill.corpus.texts import Texts

ENOUGH_PIECES = 20
SHORT_PIECE = 250
LEAST_PIECE = 20
GIANT_SHARE = 0.1
"""A document with more of the text than this makes the splits lopsided."""

Change = Callable[[pa.Table, np.ndarray], tuple[pa.Table, np.ndarray]]
"""From a chunk's table and its first row's number to the changed table and, for each new row, the old row."""


def _rewrite(chunks: Chunks, rows: Rows, name: str, change: Change) -> tuple[Chunks, Rows]:
    """Apply a change to every chunk; rows follow their documents, and repeats point at the new rows."""
    folder = chunks.folder / name
    folder.mkdir(exist_ok=True)
    taken: list[np.ndarray] = []
    identity: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    characters: list[np.ndarray] = []
    for number, table in chunks.tables():
        start = int(chunks.starts[number])
        changed, old = change(table, start + np.arange(table.num_rows))
        beside = folder / f"{number:05d}.new"
        pq.write_table(changed, beside, compression="zstd", compression_level=1)
        beside.replace(folder / f"{number:05d}.parquet")
        taken.append(old)
        identity.append(halves(changed["id"].to_pylist()))
        sizes.append(Texts.from_arrow(changed["text"]).sizes)
        characters.append(changed["characters"].to_numpy().astype(np.int64))
    old = np.concatenate(taken) if taken else np.zeros(0, np.int64)
    place = np.full(len(rows) + 1, -1, np.int64)  # the last stands for "no row"
    place[old[::-1]] = np.arange(len(old))[::-1]  # a cut document is represented by its first piece
    size = np.concatenate(sizes) if sizes else old
    found = dataclasses.replace(
        rows,
        identity=np.concatenate(identity) if identity else rows.identity,
        size=np.where(rows.reason[old] == 0, rows.size[old], size),
        characters=np.concatenate(characters) if characters else old,
        language=rows.language[old],
        origin=rows.origin[old],
        reason=rows.reason[old],
        value=rows.value[old],
        kept_row=place[rows.kept_row[old]],
        score=rows.score[old],
    )
    return Chunks(chunks.folder, len(chunks.files), name), found


def _with_texts(table: pa.Table, texts: Texts) -> pa.Table:
    """The table with other texts, and what follows from them: ids and lengths."""
    arrow = texts.to_arrow()
    import pyarrow.compute as pc

    columns = {
        "id": pa.array(document_ids(texts), pa.string()),
        "text": arrow,
        "characters": pc.utf8_length(arrow),
        "bytes": pa.array(texts.sizes),
    }
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        kind = table.schema.field(place).type
        table = table.set_column(place, name, values.cast(kind))
    return table


def piece_size(rows: Rows, config: CorpusConfig) -> int:
    """The length of pieces if this corpus must be cut, else 0: the configured one, or a quarter, a sixteenth… of it
    where that makes too few pieces. Enough is twenty; but below 250 characters a piece says little, so there one for
    each split must do."""
    kept = rows.kept
    count, total = int(np.count_nonzero(kept)), int(rows.size[kept].sum())
    if count == 0 or config.small_corpus == 0 or len(wanted_splits(config)) == 1:
        return 0
    longest = int(rows.size[kept].max())
    if count >= config.small_corpus and longest <= GIANT_SHARE * total:
        return 0
    size = config.piece_characters
    while size > LEAST_PIECE:
        pieces = int(np.maximum(1, rows.characters[kept] // size).sum())
        if pieces >= ENOUGH_PIECES or (size <= SHORT_PIECE and pieces >= len(wanted_splits(config))):
            break
        size //= 4
    return max(size, LEAST_PIECE)


def cut_documents(chunks: Chunks, rows: Rows, size: int) -> tuple[Chunks, Rows, int]:
    """Cut kept documents longer than `size` characters at blank lines, and drop pieces that repeat one another.

    Returns:
        the new chunks and rows, and how many documents were cut.
    """
    cut = 0
    marks: list[np.ndarray] = []

    def change(table: pa.Table, numbers: np.ndarray) -> tuple[pa.Table, np.ndarray]:
        nonlocal cut
        texts = Texts.from_arrow(table["text"])
        sources = table["source"].to_pylist()
        take: list[int] = []
        pieces: list[bytes] = []
        names: list[str] = []
        empty: list[bool] = []
        for row, number in enumerate(numbers.tolist()):
            if rows.reason[number] != KEPT or rows.characters[number] <= size:
                take.append(row)
                pieces.append(texts[row])
                names.append(sources[row])
                empty.append(False)
                continue
            cut += 1
            for part, text in enumerate(document_pieces(texts.string(row), size), 1):
                take.append(row)
                pieces.append(text.encode())
                names.append(f"{sources[row]}~{part}")
                empty.append(not text)
        keep = np.flatnonzero(~np.array(empty, bool))
        indices = np.array(take, np.int64)[keep]
        changed = table.take(pa.array(indices))
        changed = _with_texts(changed, Texts.from_bytes([pieces[at] for at in keep.tolist()]))
        place = changed.schema.get_field_index("source")
        changed = changed.set_column(
            place, "source", pa.array([names[at] for at in keep.tolist()]).cast(changed.schema.field(place).type)
        )
        marks.append(numbers[indices])
        return changed, numbers[indices]

    new_chunks, new_rows = _rewrite(chunks, rows, "cut", change)
    mark_exact(new_rows)
    return new_chunks, new_rows, cut


def remove_repeats(chunks: Chunks, rows: Rows, config: CorpusConfig) -> tuple[Chunks, Rows, dict[str, Any]]:
    """Cut out paragraphs, lines and passages that occurred before, as the settings ask.

    Returns:
        the new chunks and rows, and for the card what was removed.
    """
    removed: dict[str, Any] = {}
    for unit, copies in (("paragraph", config.repeated_paragraphs), ("line", config.repeated_lines)):
        if copies:
            chunks, rows, removed[f"{unit}s"] = _remove_units(chunks, rows, config, unit, copies)
    if config.repeated_substrings:
        chunks, rows, removed["passages"] = _remove_substrings(chunks, rows, config)
    return chunks, rows, removed


def _edit(
    chunks: Chunks, rows: Rows, config: CorpusConfig, name: str, edit: Callable[[Texts, np.ndarray], Texts]
) -> tuple[Chunks, Rows, dict[str, int]]:
    """Rewrite the kept texts of every chunk; what becomes too short is dropped as "repeated"."""
    amounts = {"documents": 0, "bytes": 0}

    def change(table: pa.Table, numbers: np.ndarray) -> tuple[pa.Table, np.ndarray]:
        texts = Texts.from_arrow(table["text"])
        kept = np.flatnonzero(rows.reason[numbers] == KEPT)
        before = texts.take(kept)
        after = edit(before, numbers[kept])
        differ = before.sizes != after.sizes
        amounts["documents"] += int(np.count_nonzero(differ))
        amounts["bytes"] += int((before.sizes - after.sizes).sum())
        new = texts.replace({int(kept[at]): after[at] for at in np.flatnonzero(differ).tolist()})
        return _with_texts(table, new), numbers

    new_chunks, found = _rewrite(chunks, rows, name, change)
    short = found.kept & (found.characters != rows.characters) & (found.characters * 3 < config.min_characters)
    short |= found.kept & (found.size == 0)
    found.reason[short] = found.reasons.index("repeated")
    found.value[short] = found.characters[short]
    mark_exact(found)
    return new_chunks, found, amounts


def _kept_texts(chunks: Chunks, rows: Rows) -> Any:
    for number, table in chunks.tables(["text"]):
        start = int(chunks.starts[number])
        kept = np.flatnonzero(rows.reason[start : start + table.num_rows] == KEPT)
        yield number, start + kept, Texts.from_arrow(table["text"]).take(kept)


def _remove_units(
    chunks: Chunks, rows: Rows, config: CorpusConfig, unit: Any, copies: int
) -> tuple[Chunks, Rows, dict[str, int]]:
    from textmill.corpus.deduplication.units import UnitIndex

    index = UnitIndex(unit, copies)
    for _, _, texts in _kept_texts(chunks, rows):
        index.add(texts)
    index.finish()
    return _edit(chunks, rows, config, f"cut-{unit}", lambda texts, _: index.remove(texts))


def _remove_substrings(chunks: Chunks, rows: Rows, config: CorpusConfig) -> tuple[Chunks, Rows, dict[str, int]]:
    from textmill.corpus.deduplication.substrings import remove_spans, repeated_spans

    parts = [(numbers, texts) for _, numbers, texts in _kept_texts(chunks, rows)]
    spans = repeated_spans(Texts.concatenate([texts for _, texts in parts]), config.repeated_substrings)
    numbers = np.concatenate([numbers for numbers, _ in parts])
    del parts
    by_row = numbers[spans.row]

    def edit(texts: Texts, here: np.ndarray) -> Texts:
        first, last = (int(here[0]), int(here[-1])) if len(here) else (0, -1)
        chosen = np.flatnonzero((by_row >= first) & (by_row <= last))
        local = np.searchsorted(here, by_row[chosen])
        return remove_spans(texts, type(spans)(local, spans.begin[chosen], spans.end[chosen]))

    return _edit(chunks, rows, config, "cut-passages", edit)


def needed(config: CorpusConfig) -> Sequence[str]:
    """Which of the removing steps the settings ask for."""
    steps = {
        "paragraphs": config.repeated_paragraphs,
        "lines": config.repeated_lines,
        "substrings": config.repeated_substrings,
    }
    return [name for name, value in steps.items() if value]


def folders(folder: Path) -> list[Path]:
    """The folders that these steps may leave behind in a stage's folder."""
    return [folder / name for name in ("cut", "cut-paragraph", "cut-line", "cut-passages", "ordered")]


BUCKET_BYTES = 8 << 20


def order_documents(chunks: Chunks, rows: Rows, config: CorpusConfig) -> tuple[Chunks, Rows]:
    """Put the documents in the order of a curriculum (Bengio et al. 2009): what is to be read first comes first.

    Two passes over the disk in bounded memory: every document goes to the file of its new place, then each file is
    sorted.
    """
    key = rows.characters if config.order == "short-first" else rows.score
    new_order = np.lexsort((np.arange(len(rows)), key))
    bucket = np.empty(len(rows), np.int64)
    bucket[new_order] = np.cumsum(rows.size[new_order]) // BUCKET_BYTES
    place = np.empty(len(rows), np.int64)
    place[new_order] = np.arange(len(rows))
    folder = chunks.folder / "ordered"
    folder.mkdir(exist_ok=True)
    writers: dict[int, pq.ParquetWriter] = {}
    for number, table in chunks.tables():
        here = int(chunks.starts[number]) + np.arange(table.num_rows)
        table = table.append_column("place", pa.array(place[here]))
        for target in np.unique(bucket[here]).tolist():
            if target not in writers:
                writers[target] = pq.ParquetWriter(folder / f"{target:05d}.new", table.schema, compression="zstd")
            writers[target].write_table(table.take(pa.array(np.flatnonzero(bucket[here] == target))))
    for target, writer in writers.items():
        writer.close()
        table = pq.read_table(folder / f"{target:05d}.new", use_threads=False).sort_by("place").drop_columns(["place"])
        beside = folder / f"{target:05d}.sorted"
        pq.write_table(table, beside, compression="zstd", compression_level=1)
        beside.replace(folder / f"{target:05d}.parquet")
        (folder / f"{target:05d}.new").unlink()
    arrays = {
        name: getattr(rows, name)[new_order]
        for name in ("identity", "size", "characters", "language", "origin", "reason", "value", "score")
    }
    of = rows.kept_row[new_order]
    kept_row = np.where(of >= 0, place[np.maximum(of, 0)], -1)
    ordered = dataclasses.replace(rows, **arrays, kept_row=kept_row)
    return Chunks(chunks.folder, int(bucket.max()) + 1, "ordered"), ordered

"""The corpus stage: files to clean, judged, deduplicated, split documents. Writes `RUN/corpus/` through a
stage."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from textmill.base.errors import Failure
from textmill.base.files import read_json, write_json
from textmill.base.progress import Progress
from textmill.base.run import Run, Stage
from textmill.base.settings import to_mapping
from textmill.corpus.card import Card
from textmill.corpus.clean import clean, document_pieces
from textmill.corpus.config import CorpusConfig
from textmill.corpus.inputs import Input, find_inputs, fingerprint, nothing_read
from textmill.corpus.judge import judge
from textmill.corpus.readers import Draft, read_file
from textmill.corpus.split import SPLITS, document_id, fill_empty, split_of, wanted_splits
from textmill.corpus.store import DOCUMENT_SCHEMA, REJECTED_SCHEMA, Writer, move_documents
from textmill.corpus.tally import Tally

VERSION = 1
CARD = "card.json"
ENOUGH_PIECES = 20
SHORT_PIECE = 250
LEAST_PIECE = 20
SHOW_EVERY = 1 << 20


class Document(NamedTuple):
    """A document that passed every rule, its text as UTF-8 bytes."""

    identity: str
    utf8: bytes
    source: str
    language: str
    meta: str
    characters: int
    symbol_ratio: float
    origin: str


class Corpus:
    """Takes drafts, keeps and rejects; holds documents back until it is known whether the corpus is small.

    Args:
        folder: the stage's partial folder.
        config: the settings.
    """

    def __init__(self, folder: Path, config: CorpusConfig) -> None:
        self.config = config
        self.card = Card()
        self.kept = Writer(folder, "documents", DOCUMENT_SCHEMA)
        self.rejected = Writer(folder, "rejected", REJECTED_SCHEMA)
        self.seen: set[bytes] = set()
        self.held: list[Document] | None = []
        self.held_bytes = 0
        self.split_counts = dict.fromkeys(SPLITS, 0)
        # No document can be longer than this, so with ten times as much text none can hold a tenth of it.
        self.enough_bytes = 10 * 4 * 2 * config.max_document_characters
        self.taken = self.repaired = 0

    def take(self, draft: Draft, origin: str) -> None:
        """Clean and judge one draft, and keep or reject it."""
        if draft.rejected:
            self._reject(draft, "", b"", 0, 0.0, "", "binary", draft.rejected, draft.bytes)
            return
        if not draft.text:
            return
        self.taken += 1
        cleaned = clean(draft.text, self.config.repair)
        self.repaired += cleaned.repaired
        utf8 = cleaned.utf8
        found = judge(cleaned, self.config)
        identity = document_id(utf8)
        rule, value = found.rule, found.value
        key = bytes.fromhex(identity)
        if not rule and key in self.seen:
            rule, value = "duplicate", "exact"
        length = len(cleaned.text)
        if rule:
            self._reject(draft, identity, utf8, length, found.symbol_ratio, found.language, rule, value, len(utf8))
            return
        self.seen.add(key)
        document = Document(
            identity, utf8, draft.source, found.language, draft.meta, length, found.symbol_ratio, origin
        )
        if self.held is None:
            self._write(document)
            return
        self.held.append(document)
        self.held_bytes += len(utf8)
        if len(self.held) >= self.config.small_corpus and self.held_bytes >= self.enough_bytes:
            self._release(self.held)

    def _reject(
        self,
        draft: Draft,
        identity: str,
        utf8: bytes,
        characters: int,
        ratio: float,
        language: str,
        rule: str,
        value: str,
        size: int,
    ) -> None:
        row = (identity, utf8, draft.source, language, draft.meta, "", characters, ratio, rule, value)
        self.rejected.add(row, len(utf8))
        self.card.drop(rule, value, draft.source, utf8, size)

    def _write(self, document: Document) -> None:
        split = split_of(document.identity, self.config)
        self.split_counts[split] += 1
        self.kept.add(
            (
                document.identity,
                document.utf8,
                document.source,
                document.language,
                document.meta,
                split,
                document.characters,
                document.symbol_ratio,
            ),
            len(document.utf8),
        )
        self.card.keep(document.origin, document.language, split, document.characters, len(document.utf8))

    def _release(self, documents: list[Document]) -> None:
        self.held = None
        for document in documents:
            self._write(document)

    def _cut(self, document: Document, size: int) -> Iterator[Document]:
        """A document's pieces, themselves deduplicated and named by their own content."""
        if document.characters <= size:
            yield document
            return
        for number, text in enumerate(document_pieces(document.utf8.decode(), size), 1):
            utf8 = text.encode()
            identity = document_id(utf8)
            key = bytes.fromhex(identity)
            part = document._replace(
                identity=identity, utf8=utf8, source=f"{document.source}~{number}", characters=len(text)
            )
            if key not in self.seen:
                self.seen.add(key)
                yield part
            elif text:
                draft = Draft(part.source, "", document.meta)
                ratio, language = document.symbol_ratio, document.language
                self._reject(draft, identity, utf8, len(text), ratio, language, "duplicate", "exact", len(utf8))

    def _piece_size(self, documents: list[Document]) -> int:
        """The configured length of pieces, or a quarter, a sixteenth… of it where that makes too few of them.

        Enough is twenty; but below 250 characters a piece says little, so there one for each split must do.
        """
        size = self.config.piece_characters
        while size > LEAST_PIECE:
            count = sum(max(1, document.characters // size) for document in documents)
            if count >= ENOUGH_PIECES or (size <= SHORT_PIECE and count >= len(wanted_splits(self.config))):
                break
            size //= 4
        return max(size, LEAST_PIECE)

    def _finish_small(self, documents: list[Document]) -> None:
        """Cut the long documents when there are few, or when one outweighs the rest; then write
        everything."""
        longest = max((len(document.utf8) for document in documents), default=0)
        few = len(documents) < self.config.small_corpus
        off = self.config.small_corpus == 0 or len(wanted_splits(self.config)) == 1
        if off or (not few and 10 * longest <= self.held_bytes):
            self._release(documents)
            return
        size = self._piece_size(documents)
        self.held = None
        whole = 0
        for document in documents:
            whole += document.characters > size
            for part in self._cut(document, size):
                self._write(part)
        if whole:
            reason = (
                f"the corpus has fewer than {self.config.small_corpus} documents"
                if few
                else "one document holds more than a tenth of the text"
            )
            self.card.cut = {
                "documents": whole,
                "characters": size,
                "rule": f"Documents longer than {size} characters were cut into pieces at blank lines, "
                f"because {reason}; training, validation and test hold pieces of the same documents.",
            }

    def finish(self) -> None:
        """Write what is held back, close the files, and see to it that no wanted split is empty.

        Raises:
            Failure: nothing was kept, or too little distinct text to fill the splits.
        """
        if self.held is not None:
            self._finish_small(self.held)
        self.kept.close()
        self.rejected.close()
        kept = self.card.documents
        if kept == 0:
            raise self._all_rejected()
        wanted = wanted_splits(self.config)
        if kept < len(wanted):
            raise Failure(
                "The corpus is too small to split.",
                f"Distinct pieces of text in it: {kept}; {', '.join(wanted)} need one each.",
                "Give more text, or set --test-share 0 and --validation-share 0.",
            )
        if all(self.split_counts[name] for name in wanted):
            return
        import pyarrow.parquet as pq

        splits: dict[str, str] = {}
        for path in self.kept.files:
            table = pq.read_table(path, columns=["id", "split"])
            splits.update(zip(table["id"].to_pylist(), table["split"].to_pylist(), strict=True))
        moved = fill_empty(splits, self.config)
        for identity, (old, size) in move_documents(self.kept.files, moved).items():
            self.card.move(identity, old, moved[identity], size)

    def _all_rejected(self) -> Failure:
        counts = {rule: dropped["documents"] for rule, dropped in self.card.dropped.items()}
        first_rule, first = next(iter(self.card.dropped.items()))
        fix = {
            "too_short": "Lower --min-characters, or put the texts together into longer documents.",
            "symbols": "Raise --max-symbol-ratio (1 switches the rule off).",
            "binary": "Convert the files to text first (.txt, .md, .html, .jsonl, .csv or .parquet).",
        }[first_rule]
        example = first["examples"][0]
        return Failure(
            "Every document was rejected.",
            f"By rule: {', '.join(f'{rule} {count}' for rule, count in counts.items())}. "
            f"For example {example['source']} ({first_rule}: {example['value']}).",
            fix,
        )


def _read(inputs: list[Input], corpus: Corpus, tally: Tally, progress: Progress) -> None:
    total = sum(item.size for item in inputs)
    with progress.task("Reading", total, "B") as task:
        before = shown = 0.0

        def position(place: float) -> None:
            nonlocal shown
            if before + place - shown >= SHOW_EVERY:
                shown = before + place
                task.update(shown, f"{corpus.card.documents + len(corpus.held or ())} documents")

        for item in inputs:
            for draft in read_file(item, corpus.config, tally, position):
                corpus.take(draft, item.origin)
            before += item.size
            position(0)
        task.update(total, f"{corpus.card.documents + len(corpus.held or ())} documents")


def build_corpus(paths: list[str], run: Run, config: CorpusConfig, progress: Progress) -> dict[str, Any]:
    """Make `RUN/corpus/` out of what was typed, or find it made already.

    Args:
        paths: files, folders, patterns, "-" for standard input, or `sample:NAME`.
        run: the run to write into.
        config: the settings.
        progress: where to report.

    Returns:
        the data card, as in `corpus/card.json`.

    Raises:
        UsageError: no such path, an empty folder, an unknown sample or column.
        Failure: no readable text, every document rejected, or too little text to split.
    """
    tally = Tally()
    try:
        inputs, licences = find_inputs(paths, run, tally, progress)
        stage = Stage(
            run,
            "corpus",
            inputs=fingerprint(inputs, licences, progress),
            configuration=to_mapping(config),
            version=VERSION,
        )
        if stage.is_finished():
            return dict(read_json(stage.folder / CARD))
        with stage.work() as folder:
            for left in folder.glob("*.parquet*"):  # of an attempt that was killed; reading again is cheap
                left.unlink()
            corpus = Corpus(folder, config)
            try:
                _read(inputs, corpus, tally, progress)
                if corpus.taken == 0 and not corpus.card.dropped:
                    raise nothing_read(tally, config.text_column)
                corpus.finish()
            except Failure:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            tally.repaired = corpus.repaired
            card = corpus.card.as_json(tally, licences, config)
            write_json(folder / CARD, card)
            stage.counts = {"documents": card["kept"]["documents"], "bytes": card["kept"]["bytes"]}
        return card
    finally:
        for spooled in run.path.glob(".input-*"):
            spooled.unlink()

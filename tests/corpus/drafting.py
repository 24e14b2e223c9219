"""What the tests of reading share: files to drafts without the rest of the stage."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from textmill.base.progress import Progress
from textmill.base.run import Run
from textmill.corpus.chunks import CHUNK_BYTES, Chunk, plan_chunks
from textmill.corpus.config import CorpusConfig
from textmill.corpus.inputs import find_inputs
from textmill.corpus.readers import Drafts, read_chunk
from textmill.corpus.tally import Tally


class Read(NamedTuple):
    """Everything that came out of some files, in order."""

    texts: list[str]
    sources: list[str]
    metas: list[str]
    kinds: list[str]
    unreadable: list[str]
    tally: Tally
    batches: list[Drafts]
    chunks: list[Chunk]

    @property
    def card(self) -> dict[str, Any]:
        return self.tally.card()

    @property
    def problems(self) -> list[str]:
        return [one["problem"] for one in self.tally.problems]


def read_all(*paths: Path | str, place: Path, chunk_bytes: int = CHUNK_BYTES, **settings: Any) -> Read:
    """Find, plan and read `paths`; `place` is an empty folder for the run."""
    config = CorpusConfig(**settings)
    tally = Tally()
    place.mkdir(parents=True, exist_ok=True)
    run = Run.create(Path(tempfile.mkdtemp(dir=place)) / "run")
    inputs, _ = find_inputs([str(path) for path in paths], run, tally, Progress("quiet"))
    chunks = plan_chunks(inputs, config, tally, chunk_bytes)
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    batches = []
    for chunk in chunks:
        alone = Tally()
        for drafts in read_chunk(Chunk.from_json(chunk.to_json()), config, alone):
            assert len(drafts.texts) == len(drafts.sources) == len(drafts.metas)
            assert len(drafts.unreadable) == len(drafts.raw_bytes) == len(drafts)
            batches.append(drafts)
        tally.merge(Tally.from_json(alone.to_json()))
    columns = [[value for batch in batches for value in getattr(batch, name)] for name in ("sources", "metas")]
    return Read(
        [text for batch in batches for text in batch.texts.strings()],
        *columns,
        [batch.kind for batch in batches for _ in batch.sources],
        [reason for batch in batches for reason in batch.unreadable],
        tally,
        batches,
        chunks,
    )

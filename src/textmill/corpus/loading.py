"""Importing this loads what a worker needs: libraries, tables, compiled code. Only the foundry's process imports it."""

from __future__ import annotations

import json
import os
from contextlib import suppress

from textmill.base.lean import start_lean


def load(settings: str) -> None:
    """Load what chunks with these settings (JSON) need, by measuring a sentence with them."""
    start_lean()
    from textmill.corpus.config import CorpusConfig
    from textmill.corpus.decide import ruling
    from textmill.corpus.measure import measure_sentence
    from textmill.corpus.readers import jsonl, read_chunk  # noqa: F401

    config = CorpusConfig(**json.loads(settings))
    found = ruling(config)
    measure_sentence(config, found.groups, found.line_rules)


with suppress(Exception):  # the first job meets the same, where it can be told
    if found := os.environ.pop("TEXTMILL_FOUNDRY", ""):
        load(found)

"""Which split a document belongs to, by its id alone. Touches nothing."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import numpy as np

from textmill.corpus.config import CorpusConfig
from textmill.corpus.texts import Texts

SPLITS = ("train", "validation", "test")


def document_id(utf8: bytes) -> str:
    """The id of a cleaned text: BLAKE2b-128 of its UTF-8 bytes, hex."""
    return hashlib.blake2b(utf8, digest_size=16).hexdigest()


def document_ids(texts: Texts) -> list[str]:
    """The id of every text."""
    data: Any = texts.data
    places = texts.offsets.tolist()
    new = hashlib.blake2b
    return [new(data[begin:end], digest_size=16).hexdigest() for begin, end in itertools.pairwise(places)]


def position_of(identity: str) -> float:
    """Where an id falls in [0, 1), evenly."""
    return int(identity[:13], 16) / 16**13


def split_of(identity: str, config: CorpusConfig) -> str:
    """The split of a document. It depends on the id and the shares alone, so adding files moves no
    document."""
    position = position_of(identity)
    if position < config.test_share:
        return "test"
    if position < config.test_share + config.validation_share:
        return "validation"
    return "train"


def splits_of(identity: np.ndarray, config: CorpusConfig) -> np.ndarray:
    """`split_of` for many ids, given as uint64 [n, 2]: int8 [n], index into SPLITS."""
    position = (identity[:, 0] >> np.uint64(12)).astype(np.float64) / 16.0**13
    test = position < config.test_share
    validation = position < config.test_share + config.validation_share
    return np.where(test, 2, np.where(validation, 1, 0)).astype(np.int8)


def wanted_splits(config: CorpusConfig) -> list[str]:
    """The splits that must not be empty: all whose share is not zero."""
    shares = {"test": config.test_share, "validation": config.validation_share, "train": 1.0}
    return [name for name, share in shares.items() if share > 0]


def fill_empty(ids: dict[str, str], config: CorpusConfig) -> dict[str, str]:
    """New splits for the few documents of a small corpus that must move so that no wanted split is empty.

    An empty test or validation split gets the training document whose position lies nearest above its
    range: the same as widening the range until it holds one document. An empty training split gets the
    highest of the rest.

    Args:
        ids: split by document id, for every kept document (at least as many as there are wanted splits).
        config: the shares.
    """
    now = dict(ids)
    moved: dict[str, str] = {}
    for name in wanted_splits(config):
        if name in now.values():
            continue
        counts = {split: list(now.values()).count(split) for split in SPLITS}
        spare = [identity for identity, split in now.items() if counts[split] > 1 or name == "train" == split]
        train = [identity for identity in spare if now[identity] == "train"]
        if name == "train":
            chosen = max(spare, key=position_of)
        else:
            chosen = min(train or spare, key=position_of)
        now[chosen] = moved[chosen] = name
    return moved

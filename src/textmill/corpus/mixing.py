"""How often each training document is read: wanted shares by source and language, within a largest number of
repeats. Touches nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from textmill.base.errors import UsageError, nearest
from textmill.corpus.config import CorpusConfig
from textmill.corpus.decide import Rows


def mixture(rows: Rows, split: np.ndarray, config: CorpusConfig) -> tuple[np.ndarray | None, dict[str, Any] | None]:
    """Copies of every document so that the training text has the wanted shares.

    A group is repeated or thinned by the factor share · total / size, at most `max_copies`; the total is what the
    training text has now. A factor of 1.3 means one copy of all and a second of three documents in ten, chosen by
    the id alone, so that the choice depends on neither order nor workers.

    Args:
        rows: the decisions.
        split: int8 [n], 0 for training.
        config: `mix` and `max_copies`.

    Returns:
        int32 [n] (1 outside training) and what was reached, for the card; None and None without a mixture.

    Raises:
        UsageError: a name that is neither a source nor a language of this corpus.
    """
    if not config.mix:
        return None, None
    train = rows.kept & (split == 0)
    group = np.full(len(rows), -1, np.int32)
    names = list(config.mix)
    for number, name in enumerate(names):
        if name in rows.origins:
            chosen = rows.origin == rows.origins.index(name)
        elif name in rows.languages:
            chosen = rows.language == rows.languages.index(name)
        else:
            known = [*rows.origins, *(code for code in rows.languages if code)]
            raise UsageError(
                f'--mix.{name}: there is no source and no language "{name}" in this corpus.{nearest(name, known)}',
                f"Sources: {', '.join(rows.origins)}. Languages: {', '.join(sorted(filter(None, rows.languages)))}.",
                "Name one of them.",
            )
        group[chosen & (group < 0)] = number
    sizes = np.array([float(rows.size[train & (group == number)].sum()) for number in range(-1, len(names))])
    total = sizes.sum()
    shares = np.array([max(0.0, 1 - sum(config.mix.values())), *config.mix.values()])
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = np.where(sizes > 0, shares * total / sizes, 0.0)
    limited = np.minimum(factors, config.max_copies)
    factor = limited[group + 1]
    whole = np.floor(factor)
    chance = (rows.identity[:, 1] >> np.uint64(11)).astype(np.float64) / 2.0**53
    copies = np.where(train, whole + (chance < factor - whole), 1).astype(np.int32)
    read = np.array([float((rows.size * copies)[train & (group == at)].sum()) for at in range(-1, len(names))])
    card = {
        label: {
            "wanted": round(float(shares[at]), 6),
            "reached": round(float(read[at] / read.sum()), 6) if read.sum() else 0.0,
            "copies": round(float(limited[at]), 4),
            "bytes": int(sizes[at]),
            "limited": bool(factors[at] > config.max_copies or (shares[at] and not sizes[at])),
        }
        for at, label in enumerate(["everything else", *names])
        if sizes[at] or shares[at]
    }
    return copies, card

"""Counts of personal data by document, and texts with placeholders in its place. Touches nothing."""

from __future__ import annotations

import numpy as np

from textmill.corpus.judging.rules import Rule
from textmill.corpus.privacy.config import KINDS, PrivacyConfig
from textmill.corpus.privacy.find import findings
from textmill.corpus.texts import Texts

_MEANINGS = {
    "secret": "Keys, tokens, passwords and private key blocks in the document.",
    "email": "Mail addresses in the document, those at domains for documentation left out.",
    "resident_id": "Resident identity numbers of China with a right check character in the document.",
    "iban": "International bank account numbers with right check digits in the document.",
    "card": "Payment card numbers with an issuer's prefix and a right check digit in the document.",
    "bank_card": "UnionPay card numbers with a right check digit in the document.",
    "ssn": "US social security numbers in the document.",
    "mobile": "Mobile phone numbers of China in the document.",
    "phone": "Phone numbers that their country's numbering plan has, in the document.",
    "ip": "Public IP addresses, version 4 and 6, in the document.",
    "mac": "Addresses of network cards in the document.",
}
COLUMNS: dict[str, str] = {f"pii_{kind}": _MEANINGS[kind] for kind in KINDS} | {
    "pii_total": "Pieces of personal data of every kind in the document."
}

PLACEHOLDERS = {kind: f"<{kind}>" for kind in KINDS}
"""What stands in place of each kind: constant, so that the same text gives the same result anywhere."""

RULES = (
    Rule(
        "pii",
        "pii_total",
        "max",
        0,
        "Holds personal data: a mail address, a phone or card number, a key, or the like.",
        source="asked for by mode drop",
    ),
)
"""The rule of mode "drop"."""


def redact(texts: Texts, config: PrivacyConfig | None = None) -> tuple[Texts, dict[str, np.ndarray]]:
    """Find personal data and do with it what the mode says.

    Args:
        texts: any.
        config: what is looked for, and the mode.

    Returns:
        the texts (the very same ones unless the mode is "replace" and something was found), and the columns of
        `COLUMNS`, int32 [n] each.
    """
    config = config or PrivacyConfig()
    counts = {name: np.zeros(len(texts), dtype=np.int32) for name in COLUMNS}
    replaced: dict[int, bytes] = {}
    for row, found in findings(texts, config):
        for one in found:
            counts[f"pii_{one.kind}"][row] += 1
        counts["pii_total"][row] = len(found)
        if config.mode == "replace":
            raw, parts, read = texts[row], [], 0
            for one in found:
                parts += [raw[read : one.begin], PLACEHOLDERS[one.kind].encode()]
                read = one.end
            replaced[row] = b"".join([*parts, raw[read:]])
    return texts.replace(replaced), counts

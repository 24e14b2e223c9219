"""Settings of the privacy step. Touches nothing and imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from textmill.base.errors import UsageError, nearest

KINDS = ("secret", "email", "resident_id", "iban", "card", "bank_card", "ssn", "mobile", "phone", "ip", "mac")
"""Every kind of personal data that is looked for; where two overlap, the one named first here stays."""

MODES = ("measure", "replace", "drop")


@dataclass(frozen=True)
class PrivacyConfig:
    """What personal data is looked for, and what happens to it."""

    mode: Literal["measure", "replace", "drop"] = "measure"
    """measure: count it and leave the text. replace: put a constant placeholder such as <email> in its place.
    drop: a document that holds any is rejected."""

    kinds: tuple[str, ...] = KINDS
    """Which kinds are looked for."""

    phone_regions: tuple[str, ...] = ("US", "CN")
    """Countries (ISO 3166) whose national phone formats are looked for; numbers with a leading + are found for
    every country. Each further country finds more, and takes more other numbers for phone numbers."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UsageError(
                f'"{self.mode}" is not a privacy mode.{nearest(self.mode, MODES)}', fix=f"Write {', '.join(MODES)}."
            )
        for kind in self.kinds:
            if kind not in KINDS:
                raise UsageError(
                    f'"{kind}" is not a kind of personal data.{nearest(kind, KINDS)}', fix=f"Known: {', '.join(KINDS)}."
                )
        for region in self.phone_regions:
            if len(region) != 2 or not (region.isascii() and region.isupper()):
                raise UsageError(
                    f'"{region}" is not a country code.', "Two capital letters are expected.", "Write for example US."
                )

"""Frozen dataclasses as configuration: from mappings, with unknown keys answered by the nearest known one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from textmill.base.errors import UsageError, nearest

T = TypeVar("T")

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def from_mapping(kind: type[T], values: Mapping[str, Any]) -> T:
    """Build the dataclass `kind` from `values`; an unknown key is a `UsageError` naming the nearest known one."""
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise UsageError(
                f'Unknown setting "{key}" for {kind.__name__}.{nearest(key, known)}',
                fix=f"Known settings: {', '.join(sorted(known))}.",
            )
    return kind(**values)


def to_mapping(config: Any) -> dict[str, Any]:
    """The settings of a dataclass as a plain dictionary."""
    return dataclasses.asdict(config)


def parse_duration(text: str) -> float:
    """Seconds in "90s", "10m", "1h30m" or a bare number of seconds."""
    compact = text.strip().lower().replace(" ", "")
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd]?)", compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise UsageError(
            f'"{text}" is not a length of time.',
            fix='Write it like "90s", "10m", "1h30m" or "2d".',
        )
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def show_duration(seconds: float) -> str:
    """Seconds for people: 41 s, 4 min 10 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def show_bytes(count: float) -> str:
    """Bytes for people, in powers of 1000: 812 B, 12.3 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def show_count(count: float) -> str:
    """Counts for people: 812, 12.3 k, 4.2 M."""
    for unit in ("", " k", " M", " G"):
        if abs(count) < 1000:
            plain = f"{count:.1f}" if count != round(count) and abs(count) < 10 else f"{count:.0f}"
            return plain if unit == "" else f"{count:.1f}{unit}"
        count /= 1000
    return f"{count:.1f} T"

"""Durations, quantities and settings: read as people write them, refused with the nearest right name."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textmill.base.errors import UsageError, nearest
from textmill.base.settings import (
    from_mapping,
    parse_duration,
    show_bytes,
    show_count,
    show_duration,
    to_mapping,
)


@dataclass(frozen=True)
class Settings:
    min_characters: int = 100
    keep_html: bool = False


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("2d", 172800),
        ("45", 45),
        (" 1 H 30 M ", 5400),
        ("0.5h", 1800),
        ("1m30", 90),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "ten minutes", "10 min", "-5m", "5mm", "m5", "1h,30m", "5.m", "十分钟"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_duration(text)
    assert '"10m"' in caught.value.fix


@given(st.integers(0, 9), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_any_written_duration_is_the_sum_of_its_parts(days: int, hours: int, minutes: int, seconds: int) -> None:
    text = f"{days}d{hours}h{minutes}m{seconds}s"
    assert parse_duration(text) == ((days * 24 + hours) * 60 + minutes) * 60 + seconds


@given(st.text(max_size=8))
def test_any_text_is_a_duration_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert parse_duration(text) >= 0


@given(st.floats(0, 1e7))
def test_shown_durations_are_within_a_minute_and_never_show_sixty(seconds: float) -> None:
    shown = show_duration(seconds)
    assert "60" not in shown.split(" h ")[-1].replace(" ", "").split("min")[-1]
    read = parse_duration(shown.replace("min", "m").replace(" ", ""))
    assert abs(read - seconds) <= 60


def test_quantities_for_people() -> None:
    assert [show_bytes(n) for n in (0, 812, 12_300_000, 25.3e9, 5e12)] == [
        "0 B",
        "812 B",
        "12.3 MB",
        "25.3 GB",
        "5.0 TB",
    ]
    assert [show_count(n) for n in (812, 12_300, 4.2e6)] == ["812", "12.3 k", "4.2 M"]
    assert [show_duration(s) for s in (4.14, 41, 250, 7500)] == ["4.1 s", "41 s", "4 min 10 s", "2 h 05 min"]


def test_unknown_setting_names_the_nearest_known_one() -> None:
    assert from_mapping(Settings, {"min_characters": 5}) == Settings(min_characters=5)
    with pytest.raises(UsageError, match='Did you mean "min_characters"') as caught:
        from_mapping(Settings, {"min_charcters": 5})
    assert "keep_html" in caught.value.fix
    assert to_mapping(Settings()) == {"min_characters": 100, "keep_html": False}


def test_nearest_says_nothing_when_nothing_is_near() -> None:
    assert nearest("temprature", ["temperature", "seed"]) == ' Did you mean "temperature"?'
    assert nearest("xyz", ["temperature", "seed"]) == ""

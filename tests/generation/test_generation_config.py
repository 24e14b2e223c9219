"""SamplingConfig refuses what is out of range and what would have no effect, each with a way out."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from textmill.base.errors import UsageError
from textmill.generation.config import SamplingConfig


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": 1e-30}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"min_p": -0.1}, "min_p"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"seed": -1}, "seed"),
        ({"stop": ("",)}, "stop"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 0}, "n "),
    ],
)
def test_values_out_of_range_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError) as caught:
        SamplingConfig(**settings)
    assert named in caught.value.what.lower()
    assert caught.value.fix


@pytest.mark.parametrize("idle", [{"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.2}, {"seed": 1}, {"n": 2}])
def test_settings_of_the_draw_are_refused_where_nothing_is_drawn(idle: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no effect"):
        SamplingConfig(temperature=0, **idle)


def test_greedy_alone_needs_no_other_setting() -> None:
    assert SamplingConfig(temperature=0).temperature == 0
    assert SamplingConfig(temperature=0, repetition_penalty=1.2, stop=("x",)).stop == ("x",)


def test_one_stop_text_may_be_given_as_a_string() -> None:
    assert SamplingConfig(stop="ab").stop == ("ab",)  # type: ignore[arg-type]


def test_the_settings_import_no_torch() -> None:
    code = "import sys, textmill.generation.config, textmill.cli.generate, textmill.cli.chat\n"
    code += "assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

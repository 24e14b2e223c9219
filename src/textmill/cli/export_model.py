"""`textmill export`: a model for other programs. Reads a run, writes a folder or a file."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from textmill.base.errors import UsageError
from textmill.cli.options import Json, Quiet

if TYPE_CHECKING:
    from textmill.models.exporter import Exported

FILES = {".gguf": "gguf", ".onnx": "onnx", ".keras": "keras"}
"""Endings of a name that tell the format."""


def export_model(
    run: Path,
    /,
    *,
    out: Path,
    format: Literal["huggingface", "gguf", "onnx", "keras"] | None = None,
    numbers: Literal["f32", "f16", "bf16", "q8_0"] | None = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a model for other programs: transformers, llama.cpp, ONNX Runtime, Keras.

    A model in the arrangement of GPT-2, Llama, Qwen, Gemma, Mistral or Mixtral (build with --plan.arrangement) opens
    in the class that transformers has for it, and as GGUF. Textmill's own arrangement, the default, carries a file of
    code for transformers instead and has no like in llama.cpp.

    Examples:

        textmill export runs/mine --out exported/

        textmill export runs/mine --out mine.gguf --numbers q8_0

        textmill export runs/mine --out mine.onnx

        textmill export runs/lstm --out lstm.keras

    Parameters
    ----------
    run
        The run (or a model folder).
    out
        The folder to make; a name that ends in .gguf, .onnx or .keras is a file of that kind. ONNX takes a Transformer,
        RNN, GRU or LSTM (pip install "textmill[onnx]"), Keras an RNN, GRU or LSTM (pip install "textmill[keras]").
    format
        huggingface, gguf, onnx or keras; left out, the name tells.
    numbers
        How weights are stored: f32, f16, bf16 (folders), q8_0 (GGUF). Left out: f32 in a folder, f16 in a file.
    """
    from textmill.base.progress import Progress
    from textmill.generation.loading import model_folder
    from textmill.models.exporter import export_folder, export_gguf

    chosen = format or FILES.get(out.suffix, "huggingface")
    if out.suffix in FILES and chosen != FILES[out.suffix]:
        raise UsageError(
            f"{out} would be a {chosen} export with another name.", fix=f"Leave out --format, or {out.suffix}."
        )
    folder = model_folder(run)
    if chosen in ("onnx", "keras"):
        if numbers is not None:
            raise UsageError(f"--numbers has no effect on {chosen}.", "Weights are stored as f32.", "Leave it out.")
        _door(folder, out, chosen, json, quiet)
        return
    with Progress("quiet" if quiet or json else None).task(f"Writing {out.name}"):
        if chosen == "gguf":
            exported = export_gguf(folder, out, numbers or "f16")
        else:
            exported = export_folder(folder, out, numbers or "f32")
    if json:
        record = {"path": str(out), "format": chosen, "class": exported.cls, "stock": exported.stock}
        print(json_format.dumps({**record, "bytes": exported.bytes}))
    elif not quiet:
        _tell(exported, chosen)


def _door(folder: Path, out: Path, chosen: str, json: bool, quiet: bool) -> None:
    """Write a model as ONNX or for Keras."""
    from textmill.base.progress import Progress
    from textmill.base.settings import show_bytes
    from textmill.models.load import load_model
    from textmill.tokens.tokenizer import Tokenizer

    model = load_model(folder, "cpu")
    with Progress("quiet" if quiet or json else None).task(f"Writing {out.name}"):
        if chosen == "onnx":
            from textmill.models.export.onnx import export_onnx

            written = export_onnx(model, out)
        else:
            from textmill.models.export.keras import export_keras

            written = export_keras(model, Tokenizer.load(folder), out)
    size = sum(path.stat().st_size for path in written)
    if json:
        record = {"path": str(out), "format": chosen, "files": [str(path) for path in written], "bytes": size}
        print(json_format.dumps(record))
    elif not quiet:
        print(f"{out}: {show_bytes(size)}")
        opens = "onnxruntime.InferenceSession" if chosen == "onnx" else "keras.models.load_model"
        print(f'It opens with {opens}("{out}")')


def _tell(exported: Exported, chosen: str) -> None:
    from textmill.base.settings import show_bytes

    print(f"{exported.path}: {show_bytes(exported.bytes)}")
    if chosen == "gguf":
        print(f"llama.cpp opens it (architecture {exported.cls}): llama-cli -m {exported.path}")
    elif exported.stock:
        print(f'transformers opens it as {exported.cls}: AutoModelForCausalLM.from_pretrained("{exported.path}")')
    else:
        print(
            "transformers opens it with the code that it carries: "
            f'AutoModelForCausalLM.from_pretrained("{exported.path}", trust_remote_code=True)'
        )

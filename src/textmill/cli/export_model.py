"""`textmill export`: a model for other programs. Reads a run, writes a folder or a file."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from textmill.base.errors import UsageError
from textmill.cli.options import Json, Quiet

if TYPE_CHECKING:
    from textmill.models.export_model import Exported


def export_model(
    run: Path,
    /,
    *,
    out: Path,
    format: Literal["huggingface", "gguf"] | None = None,
    numbers: Literal["f32", "f16", "bf16", "q8_0"] | None = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a model for other programs: a folder for transformers, or a GGUF file for llama.cpp.

    A model in the arrangement of GPT-2, Llama, Qwen, Gemma, Mistral or Mixtral (build with --plan.arrangement) opens
    in the class that transformers has for it, and as GGUF. Textmill's own arrangement, the default, carries a file of
    code for transformers instead and has no like in llama.cpp.

    Examples:

        textmill export runs/mine --out exported/

        textmill export runs/mine --out mine.gguf --numbers q8_0

    Parameters
    ----------
    run
        The run (or a model folder).
    out
        The folder to make; a name that ends in .gguf is a GGUF file.
    format
        huggingface or gguf; left out, the name tells.
    numbers
        How weights are stored: f32, f16, bf16 (folders), q8_0 (GGUF). Left out: f32 in a folder, f16 in a file.
    """
    from textmill.base.progress import Progress
    from textmill.generation.loading import model_folder
    from textmill.models.export_model import export_folder, export_gguf

    chosen = format or ("gguf" if out.suffix == ".gguf" else "huggingface")
    if out.suffix == ".gguf" and chosen != "gguf":
        raise UsageError(f"{out} would be a folder with the name of a file.", fix="Leave out --format, or .gguf.")
    folder = model_folder(run)
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

"""`textmill import`: a model made elsewhere becomes a run. Writes RUN/model."""

from __future__ import annotations

import json as json_format
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textmill.base.errors import TextmillError, UsageError
from textmill.cli.options import Json, Quiet

if TYPE_CHECKING:
    from textmill.models.importer import Imported


def import_model(
    source: Path,
    /,
    *,
    out: Path,
    context: int | None = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Take over a model that was made elsewhere: a folder of safetensors, or a GGUF file of llama.cpp.

    GPT-2, Llama 2 and 3, SmolLM2, Mistral, Mixtral, Qwen 2, 2.5 and 3 (dense and mixture of experts), Gemma 1, 2 and
    3 (text). Quantized GGUF weights (Q8_0, Q6_K, Q4_K_M and others) become 32-bit floats again; `generate`, `chat` and
    `serve` also take a GGUF file itself and leave them as they are. Nothing is downloaded,
    no code that lies beside a model is run, and pickled weights (.bin) are refused.

    The tokenizer comes along as it is; a text is read after the token that the model's own tokenizer puts first, or
    else after the one that ended documents in its training. A model that was fine-tuned to answer does so in `chat`,
    with its own chat template.

    Examples:

        textmill import models/SmolLM2-135M-Instruct/ --out runs/smollm2

        textmill import model.Q4_K_M.gguf --out runs/other

        textmill chat runs/smollm2

    Parameters
    ----------
    source
        A folder with config.json, model.safetensors (or several with an index) and tokenizer.json; or a .gguf file.
    out
        The run to make.
    context
        See only so many tokens, fewer than the model could.
    """
    from textmill.base.progress import Progress
    from textmill.base.run import Run, Stage
    from textmill.models.importer import find_source
    from textmill.models.importer import import_model as take_over

    found = find_source(source)
    fresh = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    run = Run.create(out)
    stage = Stage(run, "model", inputs=_content(found), configuration={"imported": True, "context": context})
    with run.lock():
        if stage.is_finished():
            imported: dict[str, Any] = (stage.record() or {})["counts"]
        else:
            before = stage.record()
            if before is not None and not (before.get("configuration") or {}).get("imported"):
                raise UsageError(f"{out} holds a model already.", "It was trained there.", "Give --out a new folder.")
            try:
                with (
                    Progress("quiet" if quiet or json else None).task(f"Importing {found.name}"),
                    stage.work() as folder,
                ):
                    imported = stage.counts = _facts(take_over(found, folder, context=context))
            except TextmillError:
                if fresh:  # nothing came of it: leave no run behind
                    shutil.rmtree(out, ignore_errors=True)
                raise
    if json:
        print(json_format.dumps({"run": str(out), **imported}))
    elif not quiet:
        _tell(out, imported)


def _content(source: Path) -> list[Any]:
    """What tells one source from another without reading gigabytes: names, sizes and times of its files."""
    files = [source] if source.is_file() else sorted(path for path in source.iterdir() if path.is_file())
    return [[str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def _facts(imported: Imported) -> dict[str, Any]:
    config = imported.config
    return {
        "type": imported.kind,
        "parameters": imported.parameters,
        "layers": config.layers,
        "width": config.width,
        "vocabulary": config.vocabulary,
        "context": config.context,
        "answers": imported.answers,
        "stored": imported.types,
    }


def _tell(out: Path, imported: dict[str, Any]) -> None:
    from textmill.base.settings import show_count

    print(
        f"{show_count(imported['parameters'])} parameters ({imported['type']}, {imported['layers']} layers of "
        f"{imported['width']}, {imported['vocabulary']:,} tokens), context {imported['context']:,}."
    )
    if imported["answers"]:
        print(f"It was fine-tuned to answer: textmill chat {out}")
    else:
        print(f'It continues text: textmill generate {out} "Once upon a time"')

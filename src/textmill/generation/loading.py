"""From what a person types (a run, or a model folder) to a model ready to write. Reads that folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from textmill.base.errors import Failure, UsageError
from textmill.base.files import read_json
from textmill.base.run import RUN_FILE, Run
from textmill.models.families import FAMILIES, family_of
from textmill.models.protocol import LanguageModel
from textmill.tokens.tokenizer import Tokenizer

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class OpenModel:
    """A loaded model with its tokenizer."""

    folder: Path
    """The model folder."""
    model: LanguageModel
    """Ready for inference."""
    tokenizer: Tokenizer
    """The one that it was trained with."""
    chat: bool
    """Whether it was fine-tuned to answer (`"chat": true` in textmill.json or config.json)."""


def model_folder(path: Path | str) -> Path:
    """The model folder that `path` means: a run's `model/`, or the folder itself when it holds a model."""
    path = Path(path)
    if (path / RUN_FILE).exists():
        return Run.open(path).require("model", f"textmill build my_texts/ --out {path}")
    if is_gguf(path):
        raise UsageError(
            f"{path} is a GGUF file, which can be written with and served as it is, but not this.",
            fix=f"Make a run of it first: textmill import {path} --out runs/{path.stem}",
        )
    if (path / "config.json").exists() and ((path / WEIGHTS).exists() or family_of(path) != "transformer"):
        return path
    raise UsageError(
        f"There is no model at {path}.",
        "There is no such folder."
        if not path.exists()
        else f"It is neither a run (no {RUN_FILE}) nor a model folder (config.json, model.safetensors).",
        f"Make one with: textmill build my_texts/ --out {path if not path.exists() else 'runs/mine'}",
    )


def is_gguf(path: Path) -> bool:
    """Whether a path means a GGUF file."""
    return path.suffix.lower() == ".gguf" and not path.is_dir()


def is_chat(folder: Path) -> bool:
    """Whether the model in `folder` was fine-tuned to answer."""
    for name in ("textmill.json", "config.json"):
        try:
            facts = read_json(folder / name)
        except FileNotFoundError:
            continue
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise Failure(f"{folder / name} is damaged.", str(error), "Train the model again.") from error
        if isinstance(facts, dict) and facts.get("chat") is True:
            return True
    return False


def open_model(path: Path | str, device: str | None = None, lora: Path | str | None = None) -> OpenModel:
    """Load the model and tokenizer of a run, a model folder or a GGUF file, for writing text.

    Args:
        path: the run, the model folder, or the .gguf file, whose matrices then stay in the blocks that it has them in.
        device: "cpu", "cuda"…; None chooses.
        lora: folder of an adapter to write with.

    Raises:
        UsageError: there is no model, it is of a family that cannot write, or the adapter does not fit it.
    """
    if lora is not None:
        from textmill.models.lora import apply_lora

        opened = open_model(path, device)
        return replace(opened, model=apply_lora(opened.model, lora).model)
    from textmill.models.load import load_model

    if is_gguf(Path(path)):
        return _open_gguf(Path(path), device)
    folder = model_folder(path)
    family = FAMILIES.get(family_of(folder))
    if family is not None and not family.generates:
        raise UsageError(
            f"The model in {path} cannot write: it is a {family.label} encoder.",
            "It reads in both directions and has no distribution of the next token.",
            f"Use it for embeddings: textmill embed {path} TEXT; or train a family that writes: "
            "textmill build my_texts/ --family transformer",
        )
    chat = is_chat(folder)
    tokenizer = Tokenizer.load(folder)
    return OpenModel(folder, load_model(folder, device), tokenizer, chat)


def _open_gguf(path: Path, device: str | None) -> OpenModel:
    import tokenizers
    import torch

    from textmill.models.gguf.contents import gguf_tokenizer, read_gguf, stored_model
    from textmill.models.gguf.reader import GgufFile
    from textmill.models.imported_tokenizer import describe
    from textmill.models.transformer import Transformer

    file = GgufFile(path)
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if place == "cpu":
        model: Transformer = stored_model(file)
    else:
        _, config, weights = read_gguf(file)
        with torch.device("meta"):
            model = Transformer(config)
        model.load_state_dict(weights, assign=True)
        model = model.to(place).eval()
    source = gguf_tokenizer(file)
    record = describe(source, model.vocabulary)
    tokenizer = Tokenizer(tokenizers.Tokenizer.from_str(source.definition), record)
    return OpenModel(path, model, tokenizer, bool(record["turn_ends"]))


def open_draft(path: str, tokenizer: Tokenizer) -> LanguageModel | None:
    """The model that guesses ahead for another; None if `path` is empty.

    Args:
        path: its run or model folder.
        tokenizer: that of the model that it guesses for.

    Raises:
        UsageError: there is no such model, or its tokens are others.
    """
    if not path:
        return None
    draft = open_model(path, "cpu")
    theirs = draft.tokenizer
    same = theirs.vocabulary == tokenizer.vocabulary and all(
        theirs.decode_bytes([token]) == tokenizer.decode_bytes([token]) for token in range(tokenizer.vocabulary)
    )
    if not same:
        raise UsageError(
            f"The draft model {path} has other tokens than the model that it should guess for.",
            "It has to be trained with the same tokenizer.",
            "Train one so: textmill build TEXTS --family ngram --tokenizer.tokenizer RUN/model --out runs/draft",
        )
    return draft.model

"""Models made elsewhere, taken over: a folder of safetensors, or a GGUF file, becomes a model folder of ours.

Reads the source, writes the folder; nothing is downloaded and no code of the source is run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import tokenizers
import torch

from textmill.base.errors import Failure, UsageError
from textmill.models.config import TransformerConfig
from textmill.models.gguf.contents import gguf_tokenizer, read_gguf
from textmill.models.gguf.reader import GgufFile
from textmill.models.imported_tokenizer import TokenizerSource, describe, ids_of, library_text, write_tokenizer
from textmill.models.load import save_model
from textmill.models.safetensors_folder import read_folder, read_settings, special_text
from textmill.models.transformer import Transformer
from textmill.tokens.opening import PAIRS, open_tokenizer
from textmill.tokens.sentencepiece_model import sentencepiece_definition

KEPT = ("generation_config.json", "special_tokens_map.json", "chat_template.jinja")
"""Files of a folder that are kept as they are."""


@dataclass(frozen=True)
class Imported:
    """What was imported.

    Attributes:
        kind: the stock model's `model_type`.
        config: the arrangement.
        parameters: number of weights, a tied matrix once.
        answers: whether it was fine-tuned to answer.
        types: how the weights were stored, with how many tensors each.
    """

    kind: str
    config: TransformerConfig
    parameters: int
    answers: bool
    types: dict[str, int]


def find_source(source: Path) -> Path:
    """The .gguf file, or the folder with config.json, that a person means.

    Raises:
        UsageError: there is neither.
    """
    source = source.expanduser()
    if not source.exists():
        raise UsageError(
            f"{source} does not exist.",
            "Nothing is downloaded.",
            "Give a folder with config.json, model.safetensors and tokenizer.json, or a .gguf file.",
        )
    if source.is_dir() and not (source / "config.json").exists():
        found = sorted(source.glob("*.gguf"))
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(f"{source} holds several GGUF files.", fix=f"Give one of them, such as {found[0]}.")
    return source


def import_model(source: Path, folder: Path, *, context: int | None = None) -> Imported:
    """Import a model into `folder`.

    Args:
        source: a folder of safetensors with config.json and tokenizer, or a .gguf file.
        folder: the model folder to write into.
        context: see only so many tokens, fewer than the model could (its memory grows with them).

    Raises:
        UsageError, Failure: what is missing, not supported or damaged, by name.
    """
    source = find_source(source)
    if source.is_dir():
        stock, config, weights = read_folder(source)
        tokens = _folder_tokenizer(source)
        types: dict[str, int] = {}
    else:
        file = GgufFile(source)
        stock, config, weights = read_gguf(file)
        tokens = gguf_tokenizer(file)
        types = {}
        for tensor in file.tensors.values():
            types[tensor.type] = types.get(tensor.type, 0) + 1
    if context is not None:
        if config.position == "learned" or not 1 <= context <= config.context:
            raise UsageError(
                f"This model cannot have a context of {context}.",
                "Its positions are a learned table."
                if config.position == "learned"
                else f"It was made for at most {config.context}.",
            )
        config = replace(config, context=context)
    record = describe(tokens, config.vocabulary)
    with torch.device("meta"):
        model = Transformer(config)
    model.load_state_dict(weights, assign=True)
    del weights
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = write_tokenizer(tokens, record, folder)
    save_model(model, folder, document_end=tokenizer.document_end, more=ids_of(tokenizer))
    return Imported(stock.name, config, model.size, bool(record["turn_ends"]), types)


# ---- a folder --------------------------------------------------------------------------------------------------------


def _folder_tokenizer(folder: Path) -> TokenizerSource:
    settings = read_settings(folder, "tokenizer_config.json")
    definition = _folder_definition(folder)
    library = tokenizers.Tokenizer.from_str(definition)
    ends: list[str] = []
    for values in (read_settings(folder, "generation_config.json"), read_settings(folder, "config.json")):
        given = values.get("eos_token_id")
        ids = given if isinstance(given, list) else [given]
        ends += [token for i in ids if isinstance(i, int) and (token := library.id_to_token(i)) is not None]
    if eos := special_text(settings.get("eos_token")):
        ends.append(eos)
    template = settings.get("chat_template")
    if isinstance(template, list):  # several by name
        named = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}
        template = named.get("default", next(iter(named.values()), None))
    if (folder / "chat_template.jinja").exists():
        template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    files = {name: (folder / name).read_text(encoding="utf-8") for name in KEPT if (folder / name).exists()}
    return TokenizerSource(definition, settings, list(dict.fromkeys(ends)), template, files)


def _folder_definition(folder: Path) -> str:
    """The text of tokenizer.json, or what says the same as the older files."""
    if (folder / "tokenizer.json").exists():
        try:
            definition = (folder / "tokenizer.json").read_text(encoding="utf-8")
            tokenizers.Tokenizer.from_str(definition)
        except Exception as error:  # the library raises bare Exception for a damaged file
            raise Failure(f"{folder / 'tokenizer.json'} is damaged.", str(error), "Fetch the file again.") from error
        return definition
    if (folder / "tokenizer.model").exists():
        return sentencepiece_definition((folder / "tokenizer.model").read_bytes())
    if any((folder / vocabulary).exists() and (folder / merges).exists() for vocabulary, merges in PAIRS):
        # GPT-2's old pair of files. Our own special tokens, which opening it adds at the end, are taken off again.
        opened = json.loads(open_tokenizer(str(folder)).to_json())
        size = len(opened["model"]["vocab"])
        opened["added_tokens"] = [token for token in opened["added_tokens"] if token["id"] < size]
        return library_text(opened)
    raise UsageError(
        f"There is no tokenizer in {folder}.",
        "It has neither tokenizer.json nor tokenizer.model nor vocab.json with merges.txt.",
        "Fetch tokenizer.json too.",
    )

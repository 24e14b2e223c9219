"""Models made elsewhere, taken over: a folder of safetensors, or a GGUF file, becomes a model folder of ours.

Reads the source, writes the folder; nothing is downloaded and no code of the source is run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from torch import Tensor

from textmill.base.errors import Failure, UsageError
from textmill.models.config import TransformerConfig
from textmill.models.gguf.architectures import (
    FREQUENCIES,
    file_name,
    from_file,
    llama3_scaling,
    stock_settings,
    to_file,
)
from textmill.models.gguf.reader import GgufFile
from textmill.models.gguf.tokenizer import definition_of
from textmill.models.imported_tokenizer import TokenizerSource, describe, ids_of, library_text, write_tokenizer
from textmill.models.load import save_model
from textmill.models.safetensors_folder import read_folder, read_settings, special_text
from textmill.models.stock.config import Stock, read_stock
from textmill.models.stock.tensors import check_shapes, join_weights, shapes_of, slots
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
        tokens = _gguf_tokenizer(file)
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


# ---- a GGUF file -----------------------------------------------------------------------------------------------------


def read_gguf(file: GgufFile) -> tuple[Stock, TransformerConfig, dict[str, Tensor]]:
    """The model in a GGUF file: its type, its arrangement, its weights as our state dict (float32).

    Raises:
        Failure: what is missing, not supported, or does not fit together.
    """
    source = str(file.path)
    file.check_types()
    settings = stock_settings(file.values, set(file.tensors), source)
    repeated = "output.weight" in file.tensors and _repeats_embedding(file)
    if repeated:
        settings["tie_word_embeddings"] = True
    if FREQUENCIES in file.tensors:
        settings["rope_scaling"] = llama3_scaling(file.tensor(FREQUENCIES), settings["rope_theta"], source)
    stock, config = read_stock(settings, source)
    places = slots(config, stock.name)
    wanted: dict[str, tuple[int, ...]] = {}
    for name, size in shapes_of(config, places).items():
        place, expert = file_name(name, stock.name)
        as_file = _file_shape(size, name, config, stock.name)
        wanted[place] = as_file if expert is None else (config.experts, *as_file)
    stored = {name: tensor.shape for name, tensor in file.tensors.items() if name != FREQUENCIES}
    check_shapes(wanted, stored, source, tied=("output.weight",) if repeated else ())

    cached: dict[str, Any] = {}

    def fetch(name: str) -> Tensor:
        place, expert = file_name(name, stock.name)
        if expert is None:
            values = file.tensor(place)
        else:
            if place not in cached:
                if len(cached) >= 3:  # gate, up and down of one layer
                    cached.clear()
                cached[place] = file.tensor(place)
            values = cached[place][expert]
        return torch.from_numpy(from_file(values, name, config, stock.name).copy())

    return stock, config, join_weights(places, fetch)


def _file_shape(size: tuple[int, ...], name: str, config: TransformerConfig, kind: str) -> tuple[int, ...]:
    """The shape that a tensor of the stock model has in the file."""
    shape: tuple[int, ...] = to_file(np.broadcast_to(np.float32(0), size), name, config, kind).shape
    return shape


def _repeats_embedding(file: GgufFile) -> bool:
    """Whether the output matrix is the embedding once more (files of tied models written so)."""
    first, second = file.tensors["token_embd.weight"], file.tensors["output.weight"]
    if (first.type, first.shape) != (second.type, second.shape):
        return False
    here = file.data[first.start : first.start + first.size]
    there = file.data[second.start : second.start + second.size]
    return bool((here == there).all())


def _gguf_tokenizer(file: GgufFile) -> TokenizerSource:
    values, source = file.values, str(file.path)
    definition = definition_of(values, source)
    tokens = values["tokenizer.ggml.tokens"]

    def token(*names: str) -> list[str]:
        ids = [values.get(f"tokenizer.ggml.{name}_token_id") for name in names]
        return [tokens[i] for i in ids if isinstance(i, int) and 0 <= i < len(tokens)]

    bos, ends = token("bos"), token("eos", "eot", "eom")
    kind, rule = values["tokenizer.ggml.model"], values.get("tokenizer.ggml.pre")
    adds = values.get("tokenizer.ggml.add_bos_token", kind == "llama" or rule in ("llama-bpe", "llama3", "llama-v3"))
    if adds and bos:
        definition["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": bos[0], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                {"SpecialToken": {"id": bos[0], "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": bos[0], "type_id": 1}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {bos[0]: {"id": bos[0], "ids": [tokens.index(bos[0])], "tokens": [bos[0]]}},
        }
    template = values.get("tokenizer.chat_template")
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    if bos:
        settings["bos_token"] = bos[0]
    if ends:
        settings["eos_token"] = ends[0]
    if template:
        settings["chat_template"] = template
    return TokenizerSource(library_text(definition), settings, ends, template, {})

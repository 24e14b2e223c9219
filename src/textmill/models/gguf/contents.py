"""What a GGUF file holds: a model's arrangement, its weights and its tokenizer. Reads one file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from textmill.models.config import TransformerConfig
from textmill.models.gguf.architectures import (
    FREQUENCIES,
    file_name,
    from_file,
    llama3_scaling,
    stock_settings,
    to_file,
)
from textmill.models.gguf.quantization import KINDS
from textmill.models.gguf.reader import GgufFile
from textmill.models.gguf.stored import Stored, StoredEmbedding, StoredLinear, StoredTransformer
from textmill.models.gguf.tokenizer import definition_of
from textmill.models.imported_tokenizer import TokenizerSource, library_text
from textmill.models.stock.config import Stock, read_stock
from textmill.models.stock.tensors import Slot, check_shapes, join_weights, shapes_of, slots
from textmill.models.transformer import Transformer


def read_gguf(file: GgufFile) -> tuple[Stock, TransformerConfig, dict[str, Tensor]]:
    """The model in a GGUF file: its type, its arrangement, its weights as our state dict (float32).

    Raises:
        Failure: what is missing, not supported, or does not fit together.
    """
    stock, config = _arrangement(file)
    return stock, config, join_weights(slots(config, stock.name), _floats(file, stock, config))


def stored_model(file: GgufFile) -> Transformer:
    """The model in a GGUF file, on the CPU, its matrices left in the blocks that the file has them in.

    What changes besides whole rows' places (experts, parts of one matrix in blocks of different types) is in float32.

    Raises:
        Failure: as `read_gguf`.
    """
    stock, config = _arrangement(file)
    with torch.device("meta"):
        model = StoredTransformer(config)
    model.values = sum(value.numel() for value in model.state_dict().values())
    fetch = _floats(file, stock, config)
    rest: dict[str, Tensor] = {}
    for slot in slots(config, stock.name):
        place, _, leaf = slot.ours.rpartition(".")
        stored = _stored(file, slot, stock, config) if leaf == "weight" else None
        if stored is None:
            rest |= join_weights([slot], fetch)
            continue
        module = model.get_submodule(place)
        kept: torch.nn.Module = (
            StoredEmbedding(stored)
            if isinstance(module, torch.nn.Embedding)
            else StoredLinear(stored, getattr(module, "bias", None))
        )
        parent, _, name = place.rpartition(".")
        setattr(model.get_submodule(parent), name, kept)
    model.load_state_dict(rest, assign=True)
    return model.eval()


def _arrangement(file: GgufFile) -> tuple[Stock, TransformerConfig]:
    """What model it is, once every tensor is known to be there and to fit."""
    source = str(file.path)
    file.check_types()
    settings = stock_settings(file.values, set(file.tensors), source)
    repeated = "output.weight" in file.tensors and _repeats_embedding(file)
    if repeated:
        settings["tie_word_embeddings"] = True
    if FREQUENCIES in file.tensors:
        settings["rope_scaling"] = llama3_scaling(file.tensor(FREQUENCIES), settings["rope_theta"], source)
    stock, config = read_stock(settings, source)
    wanted: dict[str, tuple[int, ...]] = {}
    for name, size in shapes_of(config, slots(config, stock.name)).items():
        place, expert = file_name(name, stock.name)
        as_file = _file_shape(size, name, config, stock.name)
        wanted[place] = as_file if expert is None else (config.experts, *as_file)
    stored = {name: tensor.shape for name, tensor in file.tensors.items() if name != FREQUENCIES}
    check_shapes(wanted, stored, source, tied=("output.weight",) if repeated else ())
    return stock, config


def _floats(file: GgufFile, stock: Stock, config: TransformerConfig) -> Callable[[str], Tensor]:
    """A function that gives a tensor of the stock model by name."""
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

    return fetch


def _stored(file: GgufFile, slot: Slot, stock: Stock, config: TransformerConfig) -> Stored | None:
    """A matrix of ours in the blocks of the file; None if it has none, or they cannot be joined."""
    places = [file_name(name, stock.name) for name in slot.theirs]
    tensors = [file.tensors[place] for place, _ in places]
    kinds = {tensor.type for tensor in tensors}
    if len(kinds) > 1 or any(expert is not None for _, expert in places) or any(len(one.shape) != 2 for one in tensors):
        return None
    kind = kinds.pop()
    if KINDS[kind].values == 1:  # floats of some kind: nothing is gained
        return None
    # Going from the file's layout to ours exchanges whole rows and no more (GPT-2's two transpositions undo each
    # other), so rows of blocks go the same way as rows of numbers.
    parts = []
    for name, tensor in zip(slot.theirs, tensors, strict=True):
        raw = file.data[tensor.start : tensor.start + tensor.size].reshape(tensor.shape[0], -1)
        parts.append(torch.from_numpy(from_file(raw, name, config, stock.name)))
    rows = sum(tensor.shape[0] for tensor in tensors)
    return Stored(kind, (rows, tensors[0].shape[1]), slot.join(parts).numpy())


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


def gguf_tokenizer(file: GgufFile) -> TokenizerSource:
    """The tokenizer, chat template and all."""
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
    if padding := token("padding"):
        settings["pad_token"] = padding[0]
    if template:
        settings["chat_template"] = template
    return TokenizerSource(library_text(definition), settings, ends, template, {})

"""A Transformer in the compiled forward pass: its weights packed, its cache in pages. Needs a C++ compiler once."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from textmill.base.hardware import hardware
from textmill.generation.native.compiler import NoLibraryError, library
from textmill.generation.native.packing import KINDS, CacheType, Kind, Weights, pack, pack_stored
from textmill.models import transformer_shape as shape
from textmill.models.gguf.stored import Stored, StoredTransformer, stored_of
from textmill.models.transformer import Transformer
from textmill.models.transformer_parts import rotary_frequencies

PAGE = 32
"""Positions of a page of the cache."""
MANY_PARAMETERS = 50_000_000
"""From so many on memory decides the speed of writing, and int8 is worth its small loss."""
NORMS = {"rms": 0, "layer": 1, "rms-weight": 2, "rms-offset": 2}
ACTIVATIONS = {"relu2": 0, "gelu": 1, "gelu-exact": 2, "silu": 3}

_Floats = ctypes.c_void_p


class _Matrix(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("kind", "rows", "columns", "blocks")),
        ("data", ctypes.c_void_p), ("bias", _Floats),
    )  # fmt: skip


class _Config(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in (
            "vocabulary", "layers", "width", "heads", "groups", "size", "hidden", "gated", "norm", "activation",
            "rotated", "qk_norm", "embedding_norm", "residual_lambdas", "bigram_buckets", "smear", "post_norm",
            "cache_int8",
        )),
        *((name, ctypes.c_float) for name in (
            "epsilon", "attention_scale", "attention_cap", "embedding_scale", "logit_cap",
        )),
    )  # fmt: skip


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, _Matrix) for name in ("qkv", "out", "up", "down")),
        *((name, _Floats) for name in (
            "norm_1", "norm_1_bias", "norm_2", "norm_2_bias", "post_1", "post_1_bias", "post_2", "post_2_bias",
            "query_norm", "key_norm", "mix", "value_gate", "value_table",
        )),
        ("reach", ctypes.c_int32), ("local", ctypes.c_int32),
    )  # fmt: skip


class _Tables(ctypes.Structure):
    _fields_ = (
        ("head", _Matrix), ("table", _Matrix),
        *((name, _Floats) for name in (
            "embedding", "bigram", "position", "smear", "final", "final_bias", "frequency", "frequency_local",
        )),
    )  # fmt: skip


def why_not(model: Any) -> str:
    """Why the compiled pass cannot run this model; "" if it can."""
    if not isinstance(model, Transformer):
        return "it is no Transformer"
    if model.device.type != "cpu":
        return "its weights are not in the memory of the CPU"
    if model.config.experts:
        return "it has experts"
    if model.config.position == "sinusoidal":
        return "its positions are sinusoidal"
    try:
        library()
    except NoLibraryError as error:
        return str(error)
    return ""


def best_weights(model: Any, wanted: str = "auto") -> Weights:
    """How to keep a model's matrices: as asked, or by its size; those of a GGUF file as they are there."""
    if wanted != "auto":
        return wanted  # type: ignore[return-value]
    if isinstance(model, StoredTransformer):
        return "stored"
    return "int8" if model.size >= MANY_PARAMETERS else "float32"


class Cache:
    """Keys and values in pages.

    Args:
        model: whose.
        pages: how many.
    """

    def __init__(self, model: NativeModel, pages: int) -> None:
        self.pages = pages
        self.values = np.zeros(model.page_bytes * pages, np.uint8)
        self._parts = model.page_parts

    @property
    def bytes(self) -> int:
        """Memory, bytes."""
        return int(self.values.nbytes)

    def copy(self, source: int, target: int) -> None:
        """Copy one page onto another."""
        parts = self.values.reshape(self._parts, self.pages, -1)
        parts[:, target] = parts[:, source]


class NativeModel:
    """A Transformer whose forward pass is compiled.

    A token's logits are the same to the last bit whatever else is in the call (kernels.h). With int8 and int4 the
    inputs of each product are rounded to 8 bits as well, block by block.

    Args:
        model: the Transformer; its small tables are used in place, so it has to stay as it is.
        weights: how the matrices are kept; "stored" for those of a GGUF file as they are there.
        threads: that work on one call.
        cache: how keys and values are kept; int8 has a scale for each position and head.
        plain: leave out instructions of this machine's processor alone.
        shares: one of a model with some of the same layers, kept the same way: their packed matrices are used.

    Raises:
        ValueError: the model has parts that this pass does not know (`why_not` tells beforehand).
    """

    page = PAGE

    def __init__(
        self,
        model: Transformer,
        weights: Weights = "float32",
        threads: int | None = None,
        *,
        cache: CacheType = "float32",
        plain: bool = False,
        shares: NativeModel | None = None,
    ) -> None:
        reason = why_not(model)
        if reason:
            raise ValueError(f"the compiled pass cannot run this model: {reason}")
        config = model.config
        self.vocabulary, self.context, self.weights = model.vocabulary, model.context, weights
        self.slides = config.position == "rotary"
        self._library = library(plain)
        self._keep: list[Any] = [model, shares]
        self._packed: dict[tuple[int, ...], _Matrix] = {}
        same = shares is not None and (shares.weights, shares._library) == (weights, self._library)
        self._shared = shares._packed if shares is not None and same else {}
        # What a file's matrices become that the kernels cannot read as they are.
        self._kind: Kind = "int8" if model.size >= MANY_PARAMETERS else "float32"
        self.kinds: dict[Kind, int] = {}
        self._rounded: set[str] = set()
        layers = (_Layer * config.layers)(*(self._layer(model, place) for place in range(config.layers)))
        tables = self._tables(model)
        groups, size = shape.kv_heads(config), shape.head_size(config)
        self.page_parts = 2 * config.layers
        self.cache_type = cache
        # int8: a byte a value, and a float for each position.
        self.page_bytes = self.page_parts * groups * PAGE * (size + 4 if cache == "int8" else 4 * size)
        told = _Config(
            config.vocabulary, config.layers, config.width, config.heads, groups, size, shape.hidden_size(config),
            int(config.gated), NORMS[config.norm], ACTIVATIONS[config.activation],
            shape.rotary_size(config) if config.position == "rotary" else 0, int(config.qk_norm),
            int(config.embedding_norm), int(config.residual_lambdas), config.bigram_buckets, int(config.smear),
            int(config.post_norm), int(cache == "int8"), shape.norm_epsilon(config),
            config.attention_scale or size**-0.5, config.attention_softcap,
            config.width**0.5 if config.embedding_scale else 1.0, config.logit_softcap,
        )  # fmt: skip
        self._library.textmill_model.restype = ctypes.c_void_p
        self._library.textmill_model.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int]
        self._library.textmill_free.argtypes = [ctypes.c_void_p]
        self._library.textmill_forward.argtypes = [
            ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, *[ctypes.c_void_p] * 5, ctypes.c_int,
            ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int,
        ]  # fmt: skip
        self.threads = threads or hardware().cores
        self._handle: int | None = self._library.textmill_model(
            ctypes.byref(told), ctypes.byref(tables), layers, self.threads
        )

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.textmill_free(self._handle)
            self._handle = None

    @property
    def about(self) -> str:
        """What the matrices are made of, for people."""
        if self.weights != "stored":
            return f"{self.weights} weights"
        kinds = sorted(self.kinds, key=lambda kind: -self.kinds[kind])
        rounded = f"; {' and '.join(sorted(self._rounded))} as {self._kind}" if self._rounded else ""
        return f"weights as the file has them ({' and '.join(kinds)}{rounded})"

    @property
    def bytes(self) -> int:
        """Memory of the packed matrices."""
        return sum(int(one.nbytes) for one in self._keep if isinstance(one, np.ndarray))

    def new_cache(self, pages: int) -> Cache:
        """An empty cache of so many pages."""
        return Cache(self, pages)

    def forward(
        self,
        cache: Cache,
        tokens: Sequence[int],
        rows: Sequence[int],
        positions: Sequence[int],
        previous: Sequence[int],
        tables: np.ndarray,
        wanted: Sequence[int],
        *,
        log_probs: bool = False,
    ) -> np.ndarray:
        """Read tokens of several sequences and predict what follows some of them.

        Args:
            cache: where their keys and values are put.
            tokens: [N] ids; tokens of one row in their order.
            rows: [N] which sequence each belongs to.
            positions: [N] place of each in its sequence.
            previous: [N] the token before each in its sequence; -1 for none.
            tables: int32 [R, P], the page of the cache that holds each 32 positions of each row.
            wanted: [W] places among the N whose logits are made.
            log_probs: make them log-probabilities, in nats.

        Returns:
            float32 [W, V]: logits, or log-probabilities, after those tokens.
        """
        numbers = [np.ascontiguousarray(one, np.int32) for one in (tokens, rows, positions, previous, wanted)]
        tables = np.ascontiguousarray(tables, np.int32)
        assert 0 <= numbers[0].min(initial=0) <= numbers[0].max(initial=0) < self.vocabulary, "unknown tokens"
        assert tables.max(initial=0) < cache.pages, "a page beyond the cache"
        logits = np.empty((len(numbers[4]), self.vocabulary), np.float32)
        read = (one.ctypes.data for one in numbers[:4])
        self._library.textmill_forward(
            self._handle, cache.values.ctypes.data, cache.pages, len(numbers[0]), *read, tables.ctypes.data,
            tables.shape[1], len(logits), numbers[4].ctypes.data, logits.ctypes.data, log_probs,
        )  # fmt: skip
        return logits

    # ---- weights ---------------------------------------------------------------------------------------------------

    def _floats(self, values: torch.Tensor | None) -> int | None:
        """The address of a float32 copy (or of the very tensor, if it is one in one piece)."""
        if values is None:
            return None
        kept = values.detach().float().contiguous()
        self._keep.append(kept)
        return int(kept.data_ptr())

    def _matrix(self, parts: list[Any]) -> _Matrix:
        stored = [stored_of(part) for part in parts]
        # What is at one address, while those who look at it live, is one tensor.
        places = [id(one) if one else part.weight.data_ptr() for one, part in zip(stored, parts, strict=True)]
        biases = [0 if part.bias is None else part.bias.data_ptr() for part in parts]
        key = (*places, *biases)
        if key not in self._shared:
            bias = None if parts[0].bias is None else self._floats(torch.cat([part.bias for part in parts]))
            self._packed[key] = self._kept_or_packed(stored, lambda: [part.weight for part in parts], bias)
        else:
            self._packed[key] = self._shared[key]
        return self._packed[key]

    def _kept_or_packed(
        self, stored: list[Stored | None], weights: Callable[[], list[torch.Tensor]], bias: int | None
    ) -> _Matrix:
        """A matrix of parts one below the other: as a file has them, or else packed anew."""
        kind: Kind = self._kind if self.weights == "stored" else self.weights
        if self.weights == "stored" and all(stored) and len({one.type for one in stored if one}) == 1:
            found = pack_stored(stored[0].type, np.concatenate([one.data for one in stored if one]))  # type: ignore[union-attr]
            if found is not None:
                rows, columns = sum(one.shape[0] for one in stored if one), stored[0].shape[1]  # type: ignore[union-attr]
                return self._placed(found[0], found[1], rows, columns, bias)
        self._rounded.update(one.type for one in stored if one and self.weights == "stored")
        values = torch.cat([part.detach().float() for part in weights()]).numpy()
        return self._placed(kind, pack(values, kind), len(values), values.shape[1], bias)

    def _placed(self, kind: Kind, packed: np.ndarray, rows: int, columns: int, bias: int | None) -> _Matrix:
        """The matrix in memory that stays where it is, on a boundary of 64 bytes."""
        aligned = np.empty(packed.nbytes + 64, np.uint8)
        start = -aligned.ctypes.data % 64
        aligned[start : start + packed.nbytes] = packed.reshape(-1)
        self._keep.append(aligned)
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        return _Matrix(KINDS[kind], rows, columns, packed.shape[1], aligned.ctypes.data + start, bias)

    def _norm(self, norm: Any) -> tuple[int | None, int | None]:
        if norm is None:
            return None, None
        weight = 1 + norm.weight if norm.kind == "rms-offset" else norm.weight
        return self._floats(weight), self._floats(getattr(norm, "bias", None))

    def _layer(self, model: Transformer, place: int) -> _Layer:
        config, block = model.config, model.blocks[place]
        attention, feed_forward = block.attention, block.feed_forward
        ups = [feed_forward.gate, feed_forward.up] if config.gated else [feed_forward.up]
        norms: list[int | None] = []
        for name in ("norm_1", "norm_2", "post_norm_1", "post_norm_2"):
            norms += self._norm(getattr(block, name, None))
        has_table = attention.has_value_embedding
        table = model.value_tables[str(place)].weight if has_table else None
        gate = 2 * torch.sigmoid(attention.value_gate) if has_table else None
        return _Layer(
            self._matrix(attention.inputs), self._matrix([attention.out]), self._matrix(ups),
            self._matrix([feed_forward.down]), *norms,
            self._norm(getattr(attention, "query_norm", None))[0], self._norm(getattr(attention, "key_norm", None))[0],
            self._floats(getattr(block, "mix", None)), self._floats(gate), self._floats(table), attention.reach,
            int(block.local),
        )  # fmt: skip

    def _head(self, model: Transformer) -> _Matrix:
        stored = stored_of(model.embedding if model.config.tied_head else model.head)
        key = (id(stored) if stored else model.head_weight.data_ptr(),)
        found = self._shared.get(key) or self._kept_or_packed([stored], lambda: [model.head_weight], None)
        self._packed[key] = found
        return found

    def _tables(self, model: Transformer) -> _Tables:
        config = model.config
        tied = config.tied_head
        frequencies: list[int | None] = [None, None]
        if config.position == "rotary":
            frequencies[0] = self._floats(rotary_frequencies(config, False, model.device))
            if config.window and config.rotary_base_local:
                frequencies[1] = self._floats(rotary_frequencies(config, True, model.device))
        own = stored_of(model.embedding)
        coded = own is not None and self.weights == "stored" and not tied
        return _Tables(
            self._head(model),
            self._kept_or_packed([own], lambda: [model.embedding.weight], None) if coded else _Matrix(),
            # A tied table is read from the packed head, so that it is in memory once.
            self._floats(None if coded or (tied and self.weights != "float32") else model.embedding.weight),
            self._floats(model.bigram.weight if config.bigram_buckets else None),
            self._floats(model.position.weight if config.position == "learned" else None),
            self._floats(torch.tanh(model.smear_gate) if config.smear else None),
            *self._norm(getattr(model, "final_norm", None)), *frequencies,
        )  # fmt: skip

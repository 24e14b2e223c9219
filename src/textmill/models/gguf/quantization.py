"""GGML's quantized numbers: blocks of small integers with scales, and back to float32. Touches no file.

The layouts are those of the structs in ggml's ggml-common.h. A block is read with a structured dtype; values come out
in the order of the tensor's row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from textmill.base.errors import Failure

Blocks = np.ndarray[Any, np.dtype[Any]]

NAMES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0",
}  # fmt: skip
"""Every type of a tensor by its number."""
NUMBERS = {name: number for number, name in NAMES.items()}

CHUNK_VALUES = 1 << 22
"""Values made at a time: intermediate arrays stay small."""

IQ4_VALUES = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.float32
)  # fmt: skip
"""What the 16 codes of IQ4_NL and IQ4_XS stand for, before the scale."""


class Kind(NamedTuple):
    """One type of numbers.

    Attributes:
        values: in one block.
        block: dtype of one block.
        decode: blocks [n] to float32 [n, values].
    """

    values: int
    block: np.dtype[Any]
    decode: Callable[[Blocks], np.ndarray]


def _column(part: np.ndarray) -> np.ndarray:
    """A scale of each block, float32 [n, 1]."""
    return part.astype(np.float32)[:, None]


def _nibbles(q: np.ndarray) -> np.ndarray:
    """[n, m] bytes to [n, 2 m] values below 16: all low halves, then all high ones."""
    return np.concatenate((q & 15, q >> 4), axis=1)


def _fifth_bit(high: np.ndarray) -> np.ndarray:
    """The bits of a uint32, lowest first, as 16 or 0: uint8 [n, 32]."""
    return ((high[:, None] >> np.arange(32, dtype=np.uint32)) & 1).astype(np.uint8) << 4


def _q4_0(b: Blocks) -> np.ndarray:
    return _column(b["d"]) * (_nibbles(b["q"]).astype(np.float32) - 8)


def _q4_1(b: Blocks) -> np.ndarray:
    return _column(b["d"]) * _nibbles(b["q"]).astype(np.float32) + _column(b["m"])


def _q5_0(b: Blocks) -> np.ndarray:
    return _column(b["d"]) * ((_nibbles(b["q"]) | _fifth_bit(b["h"])).astype(np.float32) - 16)


def _q5_1(b: Blocks) -> np.ndarray:
    return _column(b["d"]) * (_nibbles(b["q"]) | _fifth_bit(b["h"])).astype(np.float32) + _column(b["m"])


def _q8_0(b: Blocks) -> np.ndarray:
    return _column(b["d"]) * b["q"].astype(np.float32)


def _crumbs(q: np.ndarray) -> np.ndarray:
    """[n, 64] bytes to [n, 256] values below 4: of each 32 bytes all lowest pairs of bits, then all next ones, …"""
    parts = q.reshape(len(q), 2, 1, 32) >> np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    return (parts & 3).reshape(len(q), 256)


def _q2_k(b: Blocks) -> np.ndarray:
    scale = _column(b["d"]) * (b["s"] & 15).astype(np.float32)
    least = _column(b["m"]) * (b["s"] >> 4).astype(np.float32)
    q = _crumbs(b["q"]).reshape(len(b), 16, 16).astype(np.float32)
    return (scale[..., None] * q - least[..., None]).reshape(len(b), 256)


def _q3_k(b: Blocks) -> np.ndarray:
    s = b["s"]  # sixteen numbers of 6 bits: the low four in 8 bytes, the high two in 4
    low = np.concatenate((s[:, :8] & 15, s[:, :8] >> 4), axis=1)
    high = np.concatenate([(s[:, 8:] >> shift) & 3 for shift in (0, 2, 4, 6)], axis=1)
    scale = _column(b["d"]) * ((low | high << 4).astype(np.float32) - 32)
    bits = (b["h"][:, None, :] >> np.arange(8, dtype=np.uint8)[:, None]) & 1  # set: nothing is taken off
    q = _crumbs(b["q"]).astype(np.float32) - 4 * (1 - bits.reshape(len(b), 256).astype(np.float32))
    return (scale[..., None] * q.reshape(len(b), 16, 16)).reshape(len(b), 256)


def six_bit_pairs(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eight scales and eight minima of 6 bits in 12 bytes, uint8 [n, 8] each."""
    scale = np.concatenate((s[:, :4] & 63, (s[:, 8:] & 15) | (s[:, :4] >> 6) << 4), axis=1)
    least = np.concatenate((s[:, 4:8] & 63, (s[:, 8:] >> 4) | (s[:, 4:8] >> 6) << 4), axis=1)
    return scale, least


def _with_minima(b: Blocks, q: np.ndarray) -> np.ndarray:
    """Eight groups of 32 values, each with its scale and its minimum."""
    scales, minima = six_bit_pairs(b["s"])
    scale = (_column(b["d"]) * scales.astype(np.float32))[..., None]
    least = (_column(b["m"]) * minima.astype(np.float32))[..., None]
    return (scale * q.reshape(len(b), 8, 32).astype(np.float32) - least).reshape(len(b), 256)


def _pairs_of_groups(q: np.ndarray) -> np.ndarray:
    """[n, 128] bytes to [n, 8, 32] values below 16: of each 32 bytes the low halves, then the high ones."""
    parts = q.reshape(len(q), 4, 32)
    return np.stack((parts & 15, parts >> 4), axis=2).reshape(len(q), 8, 32)


def _q4_k(b: Blocks) -> np.ndarray:
    return _with_minima(b, _pairs_of_groups(b["q"]))


def _q5_k(b: Blocks) -> np.ndarray:
    bits = ((b["h"][:, None, :] >> np.arange(8, dtype=np.uint8)[:, None]) & 1) << 4
    return _with_minima(b, _pairs_of_groups(b["q"]) | bits)


def _q6_k(b: Blocks) -> np.ndarray:
    low = b["q"].reshape(len(b), 2, 2, 32)  # half, quarter, value
    low = np.concatenate((low & 15, low >> 4), axis=2)
    high = (b["h"].reshape(len(b), 2, 1, 32) >> np.arange(0, 8, 2, dtype=np.uint8)[:, None]) & 3
    q = (low | high << 4).reshape(len(b), 16, 16).astype(np.float32) - 32
    scale = _column(b["d"]) * b["s"].astype(np.float32)
    return (scale[..., None] * q).reshape(len(b), 256)


def _iq4_nl(b: Blocks) -> np.ndarray:
    return _column(b["d"]) * IQ4_VALUES[_nibbles(b["q"])]


def _iq4_xs(b: Blocks) -> np.ndarray:
    low = np.stack((b["l"] & 15, b["l"] >> 4), axis=2).reshape(len(b), 8)
    high = ((b["h"][:, None] >> np.arange(0, 16, 2, dtype=np.uint16)) & 3).astype(np.uint8)
    scale = _column(b["d"]) * ((low | high << 4).astype(np.float32) - 32)
    parts = b["q"].reshape(len(b), 8, 16)
    q = IQ4_VALUES[np.concatenate((parts & 15, parts >> 4), axis=2)]
    return (scale[..., None] * q).reshape(len(b), 256)


def _bf16(b: Blocks) -> np.ndarray:
    return (b.astype(np.uint32) << 16).view(np.float32)[:, None]


def _plain(b: Blocks) -> np.ndarray:
    return b.astype(np.float32)[:, None]


def _block(*fields: tuple[Any, ...]) -> np.dtype[Any]:
    return np.dtype([tuple(field) for field in fields])


D, M = ("d", "<f2"), ("m", "<f2")
KINDS: dict[str, Kind] = {
    "F32": Kind(1, np.dtype("<f4"), _plain),
    "F16": Kind(1, np.dtype("<f2"), _plain),
    "F64": Kind(1, np.dtype("<f8"), _plain),
    "BF16": Kind(1, np.dtype("<u2"), _bf16),
    "Q4_0": Kind(32, _block(D, ("q", "u1", 16)), _q4_0),
    "Q4_1": Kind(32, _block(D, M, ("q", "u1", 16)), _q4_1),
    "Q5_0": Kind(32, _block(D, ("h", "<u4"), ("q", "u1", 16)), _q5_0),
    "Q5_1": Kind(32, _block(D, M, ("h", "<u4"), ("q", "u1", 16)), _q5_1),
    "Q8_0": Kind(32, _block(D, ("q", "i1", 32)), _q8_0),
    "Q2_K": Kind(256, _block(("s", "u1", 16), ("q", "u1", 64), D, M), _q2_k),
    "Q3_K": Kind(256, _block(("h", "u1", 32), ("q", "u1", 64), ("s", "u1", 12), D), _q3_k),
    "Q4_K": Kind(256, _block(D, M, ("s", "u1", 12), ("q", "u1", 128)), _q4_k),
    "Q5_K": Kind(256, _block(D, M, ("s", "u1", 12), ("h", "u1", 32), ("q", "u1", 128)), _q5_k),
    "Q6_K": Kind(256, _block(("q", "u1", 128), ("h", "u1", 64), ("s", "i1", 16), D), _q6_k),
    "IQ4_NL": Kind(32, _block(D, ("q", "u1", 16)), _iq4_nl),
    "IQ4_XS": Kind(256, _block(D, ("h", "<u2"), ("l", "u1", 4), ("q", "u1", 128)), _iq4_xs),
}
"""The types that can be read."""


def type_name(number: int) -> str:
    """The name of a type, or its number where it has none that is known."""
    return NAMES.get(number, f"number {number}")


def kind_of(name: str, where: str) -> Kind:
    """The type of this name.

    Raises:
        Failure: it cannot be read; says which can.
    """
    if name not in KINDS:
        raise Failure(
            f"{where} is quantized as {name}, which cannot be read.",
            f"Types that can: {', '.join(KINDS)}.",
            "Take a file of the same model in one of those, such as Q8_0 or Q4_K_M.",
        )
    return KINDS[name]


def dequantize(data: np.ndarray, name: str, where: str = "The tensor") -> np.ndarray:
    """Float32 values [n] of whole blocks given as bytes.

    Args:
        data: uint8, a multiple of the block's size.
        name: the type.
        where: what to call the tensor in an error.
    """
    kind = kind_of(name, where)
    blocks = np.frombuffer(data, dtype=kind.block)
    out = np.empty(len(blocks) * kind.values, dtype=np.float32)
    step = max(1, CHUNK_VALUES // kind.values)
    for start in range(0, len(blocks), step):
        part = kind.decode(blocks[start : start + step])
        out[start * kind.values : start * kind.values + part.size] = part.reshape(-1)
    return out


def quantize_q8_0(values: np.ndarray) -> np.ndarray:
    """Float32 [..., a multiple of 32] as Q8_0: the largest of 32 values becomes 127; bytes [...].

    Rounds half away from zero, as ggml's reference does.
    """
    blocks = values.astype(np.float32, copy=False).reshape(-1, 32)
    out = np.empty(len(blocks), dtype=KINDS["Q8_0"].block)
    step = CHUNK_VALUES // 32
    for start in range(0, len(blocks), step):
        part = blocks[start : start + step]
        scale = np.abs(part).max(axis=1) / np.float32(127)
        with np.errstate(divide="ignore"):
            inverse = np.where(scale > 0, np.float32(1) / scale, np.float32(0)).astype(np.float32)
        scaled = part * inverse[:, None]
        out["d"][start : start + step] = scale
        out["q"][start : start + step] = np.trunc(scaled + np.copysign(np.float32(0.5), scaled))
    return out.view(np.uint8)

"""Matrices in the layout of kernels.h: tiles of 16 rows, blocks of 32 inputs. Touches nothing.

int8 keeps each block's largest value exactly (127 steps to either side), int4 its least and largest (15 steps), as
GGUF's Q8_0 and Q4_1 do; scales are half floats.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from textmill.models.gguf.quantization import IQ4_VALUES, six_bit_pairs
from textmill.models.gguf.quantization import KINDS as FILE_KINDS

Kind = Literal["float32", "int8", "int4"]
Weights = Literal["float32", "int8", "int4", "stored"]
CacheType = Literal["float32", "int8"]
KINDS: dict[Kind, int] = {"float32": 0, "int8": 1, "int4": 2}
LANES, BLOCK = 16, 32


def padded(values: np.ndarray) -> np.ndarray:
    """float32 [tiles, 16, blocks, 32], zeros where the matrix ends."""
    rows, columns = values.shape
    whole = np.zeros((-(-rows // LANES) * LANES, -(-columns // BLOCK) * BLOCK), np.float32)
    whole[:rows, :columns] = values
    return whole.reshape(-1, LANES, whole.shape[1] // BLOCK, BLOCK)


def pack(values: np.ndarray, weights: Kind) -> np.ndarray:
    """A matrix [rows, columns] in floats, packed: uint8 [tiles, blocks, bytes of a block]."""
    blocks = padded(np.asarray(values, np.float32))
    if weights == "float32":
        return np.ascontiguousarray(blocks.transpose(0, 2, 3, 1)).view(np.uint8).reshape(*blocks.shape[::2][:2], -1)
    if weights == "int8":
        scale = (np.abs(blocks).max(-1) / 127).astype(np.float16)
        codes = np.rint(blocks / np.where(scale == 0, 1, scale).astype(np.float32)[..., None])
        return pack_int8(scale, np.clip(codes, -127, 127).astype(np.int8))
    low, high = blocks.min(-1), blocks.max(-1)
    scale, minimum = ((high - low) / 15).astype(np.float16), low.astype(np.float16)
    steps = (blocks - minimum.astype(np.float32)[..., None]) / np.where(scale == 0, 1, scale).astype(np.float32)[
        ..., None
    ]
    return pack_int4(scale, minimum, np.clip(np.rint(steps), 0, 15).astype(np.uint8))


def pack_stored(type: str, data: np.ndarray) -> tuple[Kind, np.ndarray] | None:
    """A matrix of a GGUF file, its codes and scales as they are there; None if the layouts here cannot hold them.

    Q4_0, Q4_1, Q5_0, Q8_0 and IQ4_NL have the same values to the last bit. Q4_K's scales, products of two numbers, are
    rounded to half floats.

    Args:
        type: of its numbers, as GGUF names it.
        data: uint8 [rows, bytes of a row].
    """
    if type not in ("Q4_0", "Q4_1", "Q5_0", "Q8_0", "IQ4_NL", "Q4_K"):
        return None
    rows = len(data)
    blocks = np.ascontiguousarray(data).view(FILE_KINDS[type].block).reshape(rows, -1)
    if type == "Q4_K":
        flat = blocks.reshape(-1)
        scales, minima = six_bit_pairs(flat["s"])
        scale = (flat["d"].astype(np.float32)[:, None] * scales).astype(np.float16).reshape(rows, -1)
        minimum = -(flat["m"].astype(np.float32)[:, None] * minima).astype(np.float16).reshape(rows, -1)
        parts = flat["q"].reshape(
            len(flat), 4, 32
        )  # of each 32 bytes the low halves are a group, the high ones the next
        codes = np.stack((parts & 15, parts >> 4), axis=2).reshape(rows, -1, BLOCK)
        return "int4", pack_int4(_tiles(scale), _tiles(minimum), _tiles(codes))
    scale = blocks["d"]
    if type == "Q8_0":
        return "int8", pack_int8(_tiles(scale), _tiles(blocks["q"]))
    codes = np.concatenate((blocks["q"] & 15, blocks["q"] >> 4), -1)
    if type == "Q5_0":
        high = (blocks["h"][..., None] >> np.arange(32, dtype=np.uint32)) & 1
        return "int8", pack_int8(_tiles(scale), _tiles((codes | high.astype(np.uint8) << 4).astype(np.int8) - 16))
    if type == "IQ4_NL":
        return "int8", pack_int8(_tiles(scale), _tiles(IQ4_VALUES.astype(np.int8)[codes]))
    minimum = blocks["m"] if type == "Q4_1" else np.float16(-8) * scale
    return "int4", pack_int4(_tiles(scale), _tiles(minimum), _tiles(codes))


def _tiles(values: np.ndarray) -> np.ndarray:
    """[rows, …] as [tiles, 16, …], zeros where the rows end."""
    rows = len(values)
    if rows % LANES:
        values = np.concatenate((values, np.zeros((LANES - rows % LANES, *values.shape[1:]), values.dtype)))
    return np.ascontiguousarray(values).reshape(-1, LANES, *values.shape[1:])


def pack_int8(scale: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Codes int8 [tiles, 16, blocks, 32] and scales float16 [tiles, 16, blocks] in the layout of INT8."""
    tiles, _, blocks, _ = codes.shape
    groups = codes.reshape(tiles, LANES, blocks, 8, 4).transpose(0, 2, 3, 1, 4)
    unsigned = (groups.astype(np.int16) + 128).astype(np.uint8).reshape(tiles, blocks, -1)
    return np.concatenate((_halves(scale), unsigned), -1)


def pack_int4(scale: np.ndarray, minimum: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Codes 0 to 15 [tiles, 16, blocks, 32], scales and minima float16 [tiles, 16, blocks] in the layout of INT4."""
    tiles, _, blocks, _ = codes.shape
    pairs = codes[..., :16] | codes[..., 16:] << 4
    groups = pairs.reshape(tiles, LANES, blocks, 4, 4).transpose(0, 2, 3, 1, 4).reshape(tiles, blocks, -1)
    return np.concatenate((_halves(scale), _halves(minimum), groups), -1)


def _halves(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values.transpose(0, 2, 1)).view(np.uint8).reshape(values.shape[0], values.shape[2], -1)

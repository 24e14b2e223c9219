"""Matrices in the layout of kernels.h: tiles of 16 rows, blocks of 32 inputs. Touches nothing.

int8 keeps each block's largest value exactly (127 steps to either side), int4 its least and largest (15 steps), as
GGUF's Q8_0 and Q4_1 do; scales are half floats.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Weights = Literal["float32", "int8", "int4"]
KINDS: dict[str, int] = {"float32": 0, "int8": 1, "int4": 2}
LANES, BLOCK = 16, 32


def padded(values: np.ndarray) -> np.ndarray:
    """float32 [tiles, 16, blocks, 32], zeros where the matrix ends."""
    rows, columns = values.shape
    whole = np.zeros((-(-rows // LANES) * LANES, -(-columns // BLOCK) * BLOCK), np.float32)
    whole[:rows, :columns] = values
    return whole.reshape(-1, LANES, whole.shape[1] // BLOCK, BLOCK)


def pack(values: np.ndarray, weights: Weights) -> np.ndarray:
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

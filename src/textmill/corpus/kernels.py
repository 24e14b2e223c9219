"""What every compiled kernel of this room shares: the decorator, UTF-8 decoding, hashing. Touches nothing but
numba's cache of compiled code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np

Function = TypeVar("Function", bound=Callable[..., Any])

kernel = numba.njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
"""Compile a function once a machine; it runs without the GIL. Arguments are NumPy arrays and numbers only: typed
lists and dictionaries take seconds to compile."""

inline = numba.njit(cache=True, nogil=True, error_model="numpy", boundscheck=False, inline="always")
"""The same for small functions that kernels call in their inner loops."""

FNV_BASIS = np.uint64(0xCBF29CE484222325)
_MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
_MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
_S33 = np.uint64(33)


@inline
def width_of(lead: int) -> int:
    """Bytes of the UTF-8 character that begins with `lead` (valid UTF-8 only)."""
    return 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4


@inline
def code_at(data: np.ndarray, at: int, width: int) -> Any:
    """The code point of the `width` bytes at `at` of valid UTF-8, uint8 [n]."""
    if width == 1:
        code = np.int64(data[at])
    elif width == 2:
        code = ((np.int64(data[at]) & 0x1F) << 6) | (np.int64(data[at + 1]) & 0x3F)
    elif width == 3:
        code = (
            ((np.int64(data[at]) & 0x0F) << 12)
            | ((np.int64(data[at + 1]) & 0x3F) << 6)
            | (np.int64(data[at + 2]) & 0x3F)
        )
    else:
        code = (
            ((np.int64(data[at]) & 0x07) << 18)
            | ((np.int64(data[at + 1]) & 0x3F) << 12)
            | ((np.int64(data[at + 2]) & 0x3F) << 6)
            | (np.int64(data[at + 3]) & 0x3F)
        )
    return code


@inline
def mix(value: np.uint64) -> np.uint64:
    """MurmurHash3's 64-bit finalizer: every bit of the result depends on every bit of `value`."""
    value ^= value >> _S33
    value *= _MIX_1
    value ^= value >> _S33
    value *= _MIX_2
    value ^= value >> _S33
    return value

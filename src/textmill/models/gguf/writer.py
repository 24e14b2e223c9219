"""Writing a GGUF file (version 3): settings, then tensors one by one, one in memory at a time. Writes one file."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from textmill.models.gguf.quantization import KINDS, NUMBERS, quantize_q8_0
from textmill.models.gguf.reader import ARRAY, MAGIC, STRING

ALIGNMENT = 32
UINT32, INT32, FLOAT32, BOOL = 4, 5, 6, 7


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> bytes:
    """Type and value: bool, int (uint32), float (float32), str, or a list of one of them (ints int32, nothing str)."""
    if isinstance(value, bool):
        return struct.pack("<I?", BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", UINT32, value)
    if isinstance(value, float):
        return struct.pack("<If", FLOAT32, value)
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _string(value)
    if not value or isinstance(value[0], str):
        return struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(_string, value))
    kind, dtype = (FLOAT32, "<f4") if isinstance(value[0], float) else (INT32, "<i4")
    return struct.pack("<IIQ", ARRAY, kind, len(value)) + np.array(value, dtype=dtype).tobytes()


def encode(values: np.ndarray, kind: str) -> bytes:
    """The bytes of float32 values as F32, F16 or Q8_0."""
    if kind == "Q8_0":
        return quantize_q8_0(values).tobytes()
    return values.astype("<f2" if kind == "F16" else "<f4").tobytes()


def write_gguf(
    path: Path,
    settings: Mapping[str, Any],
    tensors: Mapping[str, tuple[tuple[int, ...], str]],
    fetch: Callable[[str], np.ndarray],
) -> None:
    """Write the file, whole or not at all.

    Args:
        path: where to.
        settings: the key-value pairs, in order.
        tensors: shape (as in numpy) and type (F32, F16, Q8_0) by name, in order.
        fetch: gives a tensor's float32 values.
    """
    head = [MAGIC, struct.pack("<IQQ", 3, len(tensors), len(settings))]
    head += [_string(name) + _value(value) for name, value in settings.items()]
    offset = 0
    for name, (shape, kind) in tensors.items():
        dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        head.append(_string(name) + dimensions + struct.pack("<IQ", NUMBERS[kind], offset))
        count = int(np.prod(shape, dtype=np.int64))
        size = count // KINDS[kind].values * KINDS[kind].block.itemsize
        offset += -(-size // ALIGNMENT) * ALIGNMENT
    partial = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with partial.open("wb") as stream:
            stream.write(b"".join(head))
            _pad(stream)
            for name, (_, kind) in tensors.items():
                stream.write(encode(fetch(name), kind))
                _pad(stream)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _pad(stream: BinaryIO) -> None:
    stream.write(b"\0" * (-stream.tell() % ALIGNMENT))

"""Reading a GGUF file: its settings and tensors, whatever is in it. Reads one file, mapped into memory.

The format is docs/gguf.md of github.com/ggml-org/ggml: magic, version, counts, key-value pairs, one description a
tensor, then the data, aligned. Every length in the file is checked against the file's own size before it is used.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textmill.base.errors import Failure, UsageError
from textmill.models.gguf.quantization import KINDS, dequantize, kind_of, type_name

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SCALARS = {0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8"}
STRING, ARRAY = 8, 9
MOST_DIMENSIONS = 4
MOST_DEPTH = 4
"""Arrays of arrays of … : no real file nests them at all."""


@dataclass(frozen=True)
class GgufTensor:
    """One tensor's place in the file.

    Attributes:
        name: as in the file.
        shape: in the order of numpy and torch, the last dimension contiguous (the file has it the other way round).
        type: name of its numbers' type.
        start, size: bytes in the file.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    start: int
    size: int


class GgufFile:
    """A GGUF file.

    Args:
        path: the file.

    Attributes:
        values: its settings, such as `values["general.architecture"]`; arrays are lists or numpy arrays.
        tensors: by name.

    Raises:
        UsageError: there is no such file.
        Failure: it is no GGUF file, damaged, or cut off.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            # "c": nothing is ever written, but torch takes no memory that could not be.
            self.data: np.ndarray = np.memmap(self.path, dtype=np.uint8, mode="c")
        except FileNotFoundError as error:
            raise UsageError(f"{path} does not exist.", fix="Give a .gguf file.") from error
        except (ValueError, IsADirectoryError) as error:  # an empty file cannot be mapped
            raise Failure(f"{path} is not a GGUF file.", "It is empty, or a folder.") from error
        self._at = 0
        try:
            self._read_header()
        except (struct.error, UnicodeDecodeError, ValueError, OverflowError, MemoryError) as error:
            raise self._damaged(f"its header makes no sense ({error})") from error

    def _damaged(self, why: str) -> Failure:
        return Failure(
            f"{self.path} is damaged or cut off.",
            f"At byte {self._at:,} of {len(self.data):,}: {why}.",
            "Fetch the file again.",
        )

    def _take(self, count: int) -> np.ndarray:
        """The next bytes."""
        if count > len(self.data) - self._at:
            raise self._damaged(f"{count:,} more bytes should follow")
        self._at += count
        return self.data[self._at - count : self._at]

    def _unpack(self, form: str) -> Any:
        return struct.unpack(f"<{form}", bytes(self._take(struct.calcsize(f"<{form}"))))[0]

    def _string(self) -> str:
        return bytes(self._take(self._unpack("Q"))).decode("utf-8")

    def _value(self, kind: int, depth: int = 0) -> Any:
        if kind == STRING:
            return self._string()
        if kind == ARRAY:
            inner, count = self._unpack("I"), self._unpack("Q")
            if inner in SCALARS:
                return np.frombuffer(self._take(count * np.dtype(SCALARS[inner]).itemsize), dtype=SCALARS[inner])
            if inner not in (STRING, ARRAY) or depth >= MOST_DEPTH:
                raise self._damaged(f"an array has elements of the unknown type {inner}")
            if count > len(self.data) - self._at:  # each takes a byte at least
                raise self._damaged(f"an array should have {count:,} elements")
            return [self._value(inner, depth + 1) for _ in range(count)]
        if kind not in SCALARS:
            raise self._damaged(f"a setting is of the unknown type {kind}")
        return np.frombuffer(self._take(np.dtype(SCALARS[kind]).itemsize), dtype=SCALARS[kind])[0].item()

    def _read_header(self) -> None:
        if bytes(self.data[:4]) != MAGIC:
            raise Failure(
                f"{self.path} is not a GGUF file.",
                f"It begins with {bytes(self.data[:4])!r}, not {MAGIC!r}.",
                "Give a .gguf file, or a folder with config.json and safetensors files.",
            )
        self._at = 4
        version = self._unpack("I")
        if version not in VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            raise Failure(
                f"{self.path} is a GGUF file that cannot be read.",
                "It is written for big-endian machines." if swapped in VERSIONS else f"It is of version {version}.",
                f"Versions that can be read: {', '.join(map(str, VERSIONS))}, little-endian.",
            )
        tensors, pairs = self._unpack("Q"), self._unpack("Q")
        self.values: dict[str, Any] = {}
        for _ in range(pairs):
            name = self._string()
            self.values[name] = self._value(self._unpack("I"))
        described = [self._describe() for _ in range(tensors)]
        alignment = self.values.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise self._damaged(f"its alignment is {alignment!r}")
        begin = -(-self._at // alignment) * alignment
        self.tensors: dict[str, GgufTensor] = {}
        for name, shape, kind, offset in described:
            size = self._size(name, shape, kind)
            if begin + offset + size > len(self.data):
                raise self._damaged(f"the tensor {name} should end at byte {begin + offset + size:,}")
            self.tensors[name] = GgufTensor(name, shape, kind, begin + offset, size)

    def _describe(self) -> tuple[str, tuple[int, ...], str, int]:
        name = self._string()
        dimensions = self._unpack("I")
        if dimensions > MOST_DIMENSIONS:
            raise self._damaged(f"the tensor {name} should have {dimensions} dimensions")
        shape = tuple(reversed([self._unpack("Q") for _ in range(dimensions)]))
        return name, shape, type_name(self._unpack("I")), self._unpack("Q")

    def _size(self, name: str, shape: tuple[int, ...], kind: str) -> int:
        """Bytes of a tensor; 0 for a type that cannot be read, which is told when it is asked for."""
        if kind not in KINDS:
            return 0
        values = 1
        for length in shape:
            values *= length
        if shape and shape[-1] % KINDS[kind].values:
            raise self._damaged(f"a row of {name} has {shape[-1]} values, no whole blocks of {KINDS[kind].values}")
        return values // KINDS[kind].values * KINDS[kind].block.itemsize

    def tensor(self, name: str) -> np.ndarray:
        """A tensor's values, float32.

        Raises:
            Failure: its type cannot be read.
        """
        tensor = self.tensors[name]
        where = f"The tensor {name} in {self.path}"
        kind_of(tensor.type, where)
        data = np.ascontiguousarray(self.data[tensor.start : tensor.start + tensor.size])
        return dequantize(data, tensor.type, where).reshape(tensor.shape)

    def check_types(self) -> None:
        """Make sure that every tensor can be read, before any is."""
        for tensor in self.tensors.values():
            kind_of(tensor.type, f"The tensor {tensor.name} in {self.path}")

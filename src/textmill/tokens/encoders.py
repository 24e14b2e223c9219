"""Text to token ids: the `tokenizers` library, and faster ways that give the same ids. Touches nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import tokenizers

from textmill.corpus.texts import Texts
from textmill.tokens.splitting import CHARACTER_PATTERN
from textmill.tokens.vocabulary_bytes import byte_alphabet, steps

_CALL_BYTES = 2_000_000
"""Text given to the `tokenizers` library at a time; it holds about 30 times as much memory until the call is over."""

_PROBE = (
    "Mr. Speaker, it’s 1,234,567.89 o'clock — DON'T you'Ve  naïve\tÆsop HTMLParser camelCase snake_case\r\n\r\n"
    "   学而时习之，不亦说乎？\u3000「有朋自远方来」 नमस्ते दुनिया สวัสดี مرحبا שלום Привет\n \n\n  x = {'a': [1, 22]}; "
    "// 4444 333 a/b\n🙂🏽👨‍👩‍👧 e\u0301 \u00a0\u2028\x00\x1f\u200b ﷽ 😀<|end|><s></s>[UNK] '''s  \n end   "
)
"""Text on which a faster encoder must agree with the library before it is trusted."""


class Encoder(Protocol):
    """Encodes many texts at once."""

    name: str

    def encode(self, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all texts, uint32 [tokens], and where those of each begin, int64 [n + 1]."""
        ...


class LibraryEncoder:
    """The `tokenizers` library, on all cores; the reference for the ids."""

    name = "tokenizers"

    def __init__(self, library: tokenizers.Tokenizer) -> None:
        self.library = library

    def encode(self, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
        """As in `Encoder`."""
        parts: list[np.ndarray] = []
        lengths: list[int] = []
        first = 0
        while first < len(texts):
            reach = texts.offsets[first] + _CALL_BYTES
            last = max(first + 1, int(np.searchsorted(texts.offsets, reach, side="right")) - 1)
            strings = [texts.string(row) for row in range(first, last)]
            for encoding in self.library.encode_batch_fast(strings, add_special_tokens=False):
                parts.append(np.array(encoding.ids, dtype=np.uint32))
                lengths.append(len(parts[-1]))
            first = last
        return _joined(parts), _offsets(lengths)


class GigatokenEncoder:
    """The `gigatoken` library: BPE whose pattern it knows, hundreds of times as fast.

    Args:
        definition: the parsed tokenizer.json.

    Raises:
        RuntimeError, ValueError: it does not know this tokenizer.
    """

    name = "gigatoken"

    def __init__(self, definition: Mapping[str, Any]) -> None:
        import gigatoken

        # It would find special tokens in text; they stay in the vocabulary, so no other id moves.
        text_tokens = [token for token in definition["added_tokens"] if not token["special"]]
        self._tokenizer = gigatoken.Tokenizer.from_json(
            json.dumps({**definition, "added_tokens": text_tokens}, ensure_ascii=False)
        )

    def encode(self, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
        """As in `Encoder`."""
        import awkward

        if not len(texts):
            return np.zeros(0, np.uint32), np.zeros(1, np.int64)
        characters = awkward.contents.NumpyArray(texts.data, parameters={"__array__": "char"})
        strings = awkward.contents.ListOffsetArray(
            awkward.index.Index64(texts.offsets), characters, parameters={"__array__": "string"}
        )
        found = self._tokenizer.encode_batch(awkward.Array(strings)).layout
        offsets = np.asarray(found.offsets.data, dtype=np.int64)
        return np.asarray(found.content.data, dtype=np.uint32)[offsets[0] : offsets[-1]], offsets - offsets[0]


class CharacterEncoder:
    """One token a character, or its bytes: a table look-up.

    Args:
        definition: the parsed tokenizer.json.

    Raises:
        ValueError: it is not a character tokenizer.
    """

    name = "characters"

    def __init__(self, definition: Mapping[str, Any]) -> None:
        splits = [step for step in steps(definition["pre_tokenizer"]) if step["type"] == "Split"]
        model = definition["model"]
        whole = model["type"] == "BPE" and model.get("ignore_merges") and not model["merges"]
        if not whole or definition["normalizer"] or [s["pattern"] for s in splits] != [{"Regex": CHARACTER_PATTERN}]:
            raise ValueError("not a character tokenizer")
        alphabet = byte_alphabet()
        self._bytes = np.zeros(256, dtype=np.uint32)
        self._characters = np.full(0x110000, -1, dtype=np.int64)
        special = {token["id"] for token in definition["added_tokens"]}
        for token, i in model["vocab"].items():
            if i in special:
                continue
            piece = bytes(alphabet[letter] for letter in token)
            if len(piece) == 1:
                self._bytes[piece[0]] = i
            if len(piece) > 1 or piece[0] < 0x80:
                self._characters[ord(piece.decode())] = i

    def encode(self, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
        """As in `Encoder`."""
        data = np.ascontiguousarray(texts.data)
        codes = np.frombuffer(data.tobytes().decode().encode("utf-32-le"), dtype=np.uint32)
        leads = (data & 0xC0) != 0x80
        ids = np.repeat(self._characters[codes], np.diff(np.append(np.flatnonzero(leads), len(data))))
        unknown = ids < 0
        ids[unknown] = self._bytes[data[unknown]]
        kept = leads | unknown
        before = np.zeros(len(data) + 1, dtype=np.int64)
        np.cumsum(kept, out=before[1:])
        return ids[kept].astype(np.uint32), before[texts.offsets]


def fastest_encoder(library: tokenizers.Tokenizer) -> Encoder:
    """The fastest encoder whose ids equal the library's, on the probe text too."""
    definition = json.loads(library.to_str())
    reference = LibraryEncoder(library)
    probe = Texts.from_strings([_PROBE, "", _PROBE[7:]])
    wanted = reference.encode(probe)
    for kind in (CharacterEncoder, GigatokenEncoder):
        try:
            encoder: Encoder = kind(definition)
            found = encoder.encode(probe)
        except (ImportError, KeyError, RuntimeError, TypeError, ValueError):
            continue
        if all(np.array_equal(a, b) for a, b in zip(wanted, found, strict=True)):
            return encoder
    return reference


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint32)


def _offsets(lengths: list[int]) -> np.ndarray:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets

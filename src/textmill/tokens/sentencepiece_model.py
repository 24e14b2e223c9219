"""SentencePiece .model files as tokenizer.json: the protocol buffer read by hand, said in `tokenizers`' words.

Touches no file. Needs no package: the format is sentencepiece_model.proto of github.com/google/sentencepiece.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from textmill.base.errors import Failure

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""ModelProto.SentencePiece.Type"""
UNIGRAM, BPE, WORD, CHARACTER = range(1, 5)
"""TrainerSpec.ModelType"""
SPACE = "▁"
UNREACHABLE = -1e6
"""Score of a piece that must never be chosen."""


class Piece(NamedTuple):
    """One token of the vocabulary."""

    text: str
    score: float
    type: int


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of every field of a protocol buffer message."""
    at, value = 0, None  # type: tuple[int, Any]
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            value, at = data[at : at + size], at + size
        elif wire == 2:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("it ends in the middle of a field")
            value, at = data[at : at + size], at + size
        else:
            raise ValueError(f"wire type {wire} is not known")
        yield key >> 3, value


def sentencepiece_definition(data: bytes) -> str:
    """The tokenizer.json that gives the ids of a SentencePiece model.

    Raises:
        Failure: it is not such a model, or of a kind that tokenizer.json cannot express.
    """
    pieces: list[Piece] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    try:
        for number, value in _fields(data):
            if number == 1:
                piece = dict(_fields(value))
                (score,) = struct.unpack("<f", piece.get(2, b"\0\0\0\0"))
                pieces.append(Piece(piece.get(1, b"").decode(), score, piece.get(3, NORMAL)))
            elif number == 2:
                trainer = dict(_fields(value))
            elif number == 3:
                normalizer = dict(_fields(value))
    except (ValueError, IndexError, AttributeError, TypeError, struct.error) as error:
        raise Failure("This is not a SentencePiece model.", str(error)) from error
    if not pieces:
        raise Failure("This is not a SentencePiece model.", "It holds no pieces.")
    kind = trainer.get(3, UNIGRAM)
    if kind not in (UNIGRAM, BPE) or not normalizer.get(5, 1) or trainer.get(24, 0):
        raise Failure(
            "This SentencePiece model cannot be used.",
            "Only Unigram and BPE models that write a space as ▁ before a word can.",
        )
    added = [
        {
            "id": i,
            "content": piece.text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": piece.type in (CONTROL, UNKNOWN),
        }
        for i, piece in enumerate(pieces)
        if piece.type in (CONTROL, USER_DEFINED, UNKNOWN)
    ]
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": {"type": "Sequence", "normalizers": _normalizers(normalizer)},
            "pre_tokenizer": None,
            "post_processor": None,
            "decoder": _decoder(normalizer),
            "model": _unigram(pieces, trainer) if kind == UNIGRAM else _bpe(pieces, trainer),
        },
        ensure_ascii=False,
    )


def _normalizers(spec: dict[int, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if spec.get(2):
        charsmap = base64.b64encode(spec[2]).decode()
        found.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    if spec.get(4, 1):
        found.append({"type": "Replace", "pattern": {"Regex": r"\A +| +\z"}, "content": ""})  # spaces alone
        found.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    if spec.get(3, 1):
        found.append({"type": "Prepend", "prepend": SPACE})
    found.append({"type": "Replace", "pattern": {"String": " "}, "content": SPACE})
    return found


def _decoder(spec: dict[int, Any]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if spec.get(3, 1):
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}


def _unigram(pieces: list[Piece], trainer: dict[int, Any]) -> dict[str, Any]:
    unknown = next((i for i, piece in enumerate(pieces) if piece.type == UNKNOWN), None)
    vocabulary = [[p.text, p.score if p.type in (NORMAL, USER_DEFINED) else UNREACHABLE] for p in pieces]
    return {"type": "Unigram", "unk_id": unknown, "vocab": vocabulary, "byte_fallback": bool(trainer.get(35, 0))}


def _bpe(pieces: list[Piece], trainer: dict[int, Any]) -> dict[str, Any]:
    """A SentencePiece BPE joins the pair whose result scores best: every way to cut a piece is a merge."""
    ids = {piece.text: i for i, piece in enumerate(pieces)}
    joinable = {piece.text for piece in pieces if piece.type in (NORMAL, USER_DEFINED)}
    merges: list[tuple[float, int, str, str]] = []
    for piece in pieces:
        if piece.type != NORMAL:
            continue
        for place in range(1, len(piece.text)):
            left, right = piece.text[:place], piece.text[place:]
            if left in joinable and right in joinable:
                merges.append((-piece.score, ids[piece.text], left, right))
    merges.sort(key=lambda merge: merge[:2])
    unknown = next((piece.text for piece in pieces if piece.type == UNKNOWN), None)
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": bool(trainer.get(35, 0)),
        "ignore_merges": False,
        "vocab": ids,
        "merges": [[left, right] for _, _, left, right in merges],
    }

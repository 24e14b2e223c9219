"""The bytes that each token of a tokenizer.json stands for, whatever alphabet it is written in. Touches nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def byte_alphabet() -> dict[str, int]:
    """The byte that each character of GPT-2's printable byte alphabet stands for."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if chr(byte) not in table)
    table.update({chr(256 + i): byte for i, byte in enumerate(others)})
    return table


def steps(part: Any) -> Iterator[Mapping[str, Any]]:
    """The steps of a normalizer, pre-tokenizer or decoder of a tokenizer.json, sequences opened."""
    if part is None:
        return
    inner = next((part[key] for key in ("normalizers", "pretokenizers", "decoders") if key in part), None)
    if inner is None:
        yield part
        return
    for step in inner:
        yield from steps(step)


def unknown_token(definition: Mapping[str, Any]) -> str | None:
    """The token that stands for what the vocabulary lacks; None where there is no such token."""
    model = definition["model"]
    if model["type"] == "Unigram":
        place = model.get("unk_id")
        return None if place is None else str(model["vocab"][place][0])
    return model.get("unk_token")


def token_bytes(definition: Mapping[str, Any], vocabulary: Mapping[str, int], special: set[int]) -> dict[int, bytes]:
    """The bytes of each token that is not special. A token for the unknown stands for none: that text is lost.

    Args:
        definition: the parsed tokenizer.json.
        vocabulary: all tokens with their ids, added ones included.
        special: ids that stand for no text.
    """
    kinds = {step["type"] for part in ("decoder", "pre_tokenizer") for step in steps(definition.get(part))}
    model = definition["model"]
    prefix = (model.get("continuing_subword_prefix") or "") if model["type"] == "WordPiece" else ""
    suffix = model.get("end_of_word_suffix") or ""
    unknown = unknown_token(definition)
    added = {token["content"] for token in definition.get("added_tokens", ())}
    alphabet = byte_alphabet()
    byte_level = "ByteLevel" in kinds
    spaced = model["type"] == "WordPiece" and not byte_level
    marks = {"▁" if "Metaspace" in kinds else ""}
    marks |= {
        str(next(iter(step["pattern"].values())))
        for step in steps(definition.get("decoder"))
        if step["type"] == "Replace" and step["content"] == " "
    }
    found: dict[int, bytes] = {}
    for token, i in vocabulary.items():
        if i in special:
            continue
        if token in added:
            found[i] = token.encode()
        elif token == unknown:
            found[i] = b""
        elif byte_level:
            text = token.removeprefix(prefix)
            known = all(character in alphabet for character in text)
            found[i] = bytes(alphabet[character] for character in text) if known else text.encode()
        elif match := _BYTE_TOKEN.fullmatch(token):
            found[i] = bytes([int(match[1], 16)])
        else:
            text = token
            if spaced:
                text = token.removeprefix(prefix) if prefix and token.startswith(prefix) else f" {token}"
            if suffix and text.endswith(suffix):
                text = f"{text.removesuffix(suffix)} "
            for mark in marks - {""}:
                text = text.replace(mark, " ")
            found[i] = text.encode()
    return found

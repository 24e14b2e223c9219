"""The tokenizer inside a GGUF file, both ways: its token lists and a tokenizer.json. Touches no file.

llama.cpp knows by name how text is cut before byte-pair merges are applied (`tokenizer.ggml.pre`); those names whose
rule a tokenizer.json can express exactly are in PIECES.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

from textmill.base.errors import Failure
from textmill.tokens.sentencepiece_model import BPE, sentencepiece_definition
from textmill.tokens.special import SPECIAL_TOKENS
from textmill.tokens.splitting import PATTERNS
from textmill.tokens.vocabulary_bytes import steps

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""tokenizer.ggml.token_type"""

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def _byte_level(regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": regex}


def _split(pattern: str) -> list[dict[str, Any]]:
    cut = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return [cut, _byte_level(False)]


_DIGITS = [{"type": "Digits", "individual_digits": True}, _byte_level(True)]
PIECES: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [_byte_level(True)],
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "refact": _DIGITS,
    "codeshell": _DIGITS,
    "llama-bpe": _split(_LLAMA3),
    "dbrx": _split(_LLAMA3),
    "qwen2": _split(_QWEN2),
    "gpt-4o": _split(PATTERNS["o200k"]),
}
"""The pre-tokenizer of each name."""
ALIASES = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "llama4": "gpt-4o", "deepseek-r1-qwen": "qwen2"}
WHOLE_WORDS = {"llama-bpe"}
"""Where a piece that is a token is that token, whatever the merges would make of it."""
COMPOSED = {"qwen2"}
"""Where text is brought to Unicode's form NFC first."""


def definition_of(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The tokenizer.json of a GGUF file's settings.

    Args:
        values: the settings.
        source: what to call the file in an error.

    Raises:
        Failure: it has none, or of a kind that cannot be expressed.
    """
    kind, tokens = values.get("tokenizer.ggml.model"), values.get("tokenizer.ggml.tokens")
    if kind is None or tokens is None:
        raise Failure(f"{source} holds no tokenizer.", "It lacks tokenizer.ggml.model or tokenizer.ggml.tokens.")
    types = [int(one) for one in values.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens))]
    if len(types) != len(tokens):
        raise Failure(f"{source} is damaged.", f"It has {len(tokens)} tokens and types of {len(types)}.")
    if kind == "gpt2":
        return _byte_pairs(values, list(tokens), types, source)
    if kind == "llama":
        return _sentencepiece(values, list(tokens), types, source)
    raise Failure(f'{source} has a tokenizer of kind "{kind}", which cannot be imported.', "Supported: gpt2, llama.")


def _byte_pairs(values: Mapping[str, Any], tokens: list[str], types: list[int], source: str) -> dict[str, Any]:
    given = values.get("tokenizer.ggml.pre", "")
    name = ALIASES.get(given, given)
    if name not in PIECES:
        raise Failure(
            f'{source} cuts text by the rule "{given}", which is not known.'
            if given
            else f"{source} does not say how text is cut into words.",
            f"Known rules: {', '.join(PIECES)}.",
            "Import the model's folder of safetensors files instead: its tokenizer.json says it.",
        )
    merges = [merge.split(" ") for merge in values.get("tokenizer.ggml.merges", [])]
    if any(len(merge) != 2 for merge in merges):
        raise Failure(f"{source} is damaged.", "A merge of its tokenizer is not made of two tokens.")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added(tokens, types),
        "normalizer": {"type": "NFC"} if name in COMPOSED else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": PIECES[name]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": name in WHOLE_WORDS,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": merges,
        },
    }


def _added(tokens: list[str], types: list[int]) -> list[dict[str, Any]]:
    return [
        {
            "id": i,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind in (CONTROL, UNKNOWN, UNUSED),
        }
        for i, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (CONTROL, UNKNOWN, USER_DEFINED, UNUSED)
    ]


def _sentencepiece(values: Mapping[str, Any], tokens: list[str], types: list[int], source: str) -> dict[str, Any]:
    """By way of a SentencePiece model, which is what the lists were taken from."""
    scores = values.get("tokenizer.ggml.scores")
    if scores is None or len(scores) != len(tokens):
        raise Failure(f"{source} is damaged.", "Its tokenizer has no score for each token.")
    data = b""
    for token, score, kind in zip(tokens, scores, types, strict=True):
        text = token.encode()
        piece = b"\x0a" + _varint(len(text)) + text + b"\x15" + struct.pack("<f", score) + b"\x18" + _varint(kind)
        data += b"\x0a" + _varint(len(piece)) + piece
    trainer = b"\x18" + _varint(BPE) + _varint(35 << 3) + b"\x01"  # model_type, byte_fallback
    prefix = bool(values.get("tokenizer.ggml.add_space_prefix", True))
    normalizer = b"\x18" + _varint(int(prefix)) + b"\x20\x00\x28\x01"  # add_dummy_prefix, spaces kept, written as ▁
    data += b"\x12" + _varint(len(trainer)) + trainer + b"\x1a" + _varint(len(normalizer)) + normalizer
    found: dict[str, Any] = json.loads(sentencepiece_definition(data))
    return found


def _varint(value: int) -> bytes:
    """A protocol buffer's variable-length integer."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


# ---- writing ---------------------------------------------------------------------------------------------------------


def pieces_name(definition: Mapping[str, Any]) -> str | None:
    """llama.cpp's name for how this tokenizer cuts text; None when it has none."""
    found = [_essence(step) for step in steps(definition["pre_tokenizer"])]
    normal = [step["type"] for step in steps(definition["normalizer"])]
    model = definition["model"]
    for name, wanted in PIECES.items():
        same = [_essence(step) for step in wanted] == found and normal == (["NFC"] if name in COMPOSED else [])
        if same and (_bytes_alone(model) or bool(model.get("ignore_merges")) == (name in WHOLE_WORDS)):
            return name
    return None


def _bytes_alone(model: Mapping[str, Any]) -> bool:
    """Whether nothing is ever merged, so that it is the same whether a piece that is a token is left whole."""
    return not model["merges"] and all(len(token) == 1 for token in set(model["vocab"]) - set(SPECIAL_TOKENS))


def _essence(step: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a step of a pre-tokenizer does, without what only concerns offsets."""
    if step["type"] == "Split":
        pattern = step["pattern"]
        return ("Split", pattern.get("Regex"), step["behavior"], step.get("invert", False))
    if step["type"] == "ByteLevel":
        return ("ByteLevel", step["add_prefix_space"], step.get("use_regex", True))
    return tuple(sorted((key, str(value)) for key, value in step.items()))


def settings_of(
    definition: Mapping[str, Any],
    size: int,
    *,
    begin: int,
    ends: list[int],
    turn_end: int | None,
    padding: int | None,
    adds_begin: bool,
    template: str | None,
) -> dict[str, Any]:
    """The settings of a GGUF file for this tokenizer.

    Args:
        definition: the parsed tokenizer.json.
        size: the model's vocabulary; ids that the tokenizer lacks become unused tokens.
        begin: the token before a document; what a template calls bos_token.
        ends: tokens after which nothing comes; a template calls the first one eos_token.
        turn_end: the one of them that ends a turn.
        padding: what fills up rows of a batch.
        adds_begin: whether a text is read after `begin`.
        template: of chats.

    Raises:
        Failure: llama.cpp cannot cut text as this tokenizer does.
    """
    model = definition["model"]
    name = pieces_name(definition) if model["type"] == "BPE" else None
    if name is None:
        raise Failure(
            "This model's tokenizer cannot be written as GGUF.",
            f"llama.cpp has no rule that cuts text as it does; Textmill writes byte-level BPE by {', '.join(PIECES)}.",
            "Export it as a folder for transformers instead: --format huggingface",
        )
    tokens, types = [f"[PAD{i}]" for i in range(size)], [UNUSED] * size
    for token, i in model["vocab"].items():
        tokens[i], types[i] = token, NORMAL
    for added in definition["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    found: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": name,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": begin,
        "tokenizer.ggml.eos_token_id": ends[0],
        "tokenizer.ggml.add_bos_token": adds_begin,
        "tokenizer.ggml.add_space_prefix": False,
    }
    rest = ends[1:]
    if turn_end in rest:
        rest.remove(turn_end)
        found["tokenizer.ggml.eot_token_id"] = turn_end
    if rest:  # "end of message": one more after which llama.cpp stops
        found["tokenizer.ggml.eom_token_id"] = rest[0]
    if padding is not None:
        found["tokenizer.ggml.padding_token_id"] = padding
    if template:
        found["tokenizer.chat_template"] = template
    return found

"""Tokenizers made elsewhere, taken over: opened, given a document end, padded. Reads the files that it is given."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

from textmill.base.errors import Failure, UsageError
from textmill.base.files import hash_file
from textmill.tokens.sentencepiece_model import sentencepiece_definition
from textmill.tokens.special import MULTIPLE, NAMED
from textmill.tokens.splitting import PATTERNS
from textmill.tokens.tokenizer import Tokenizer
from textmill.tokens.vocabulary_bytes import byte_alphabet

PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
"""Names of the two files of a GPT-2 style tokenizer."""

KNOWN_FILES = {
    "gpt2": "gpt2",
    "r50k_base": "gpt2",
    "p50k_base": "gpt2",
    "p50k_edit": "gpt2",
    "multilingual": "gpt2",
    "cl100k_base": "cl100k",
    "o200k_base": "o200k",
    "o200k_harmony": "o200k",
    "qwen": "cl100k",
}
"""Patterns of published rank files, by file name."""


def open_tokenizer(path: str, pattern: str | None = None) -> Tokenizer:
    """Open a tokenizer made elsewhere.

    It keeps its ids. It is given the special tokens that documents and conversations need, where it lacks them, and
    unused ones up to a multiple of 64; what it would put around a text of its own accord (`[CLS]`, `<s>`) is taken
    off, for documents are closed by our own end.

    Args:
        path: a tokenizer.json, a folder, a SentencePiece .model, a .tiktoken file, or a vocab.json beside merges.txt.
        pattern: a name of PATTERNS, for files that do not carry their own; left out, the file's name decides.

    Raises:
        UsageError: there is nothing to open there, or it is of no kind that is known.
        Failure: it is damaged.
    """
    file, other = _find(path)
    try:
        if file.suffix == ".model":
            _refuse_pattern(pattern, file)
            library = tokenizers.Tokenizer.from_str(sentencepiece_definition(file.read_bytes()))
        elif file.suffix == ".tiktoken":
            library = _from_ranks(file, PATTERNS[pattern or _known_pattern(file)])
        elif other is not None:
            library = _from_pair(file, other, PATTERNS[pattern or "gpt2"])
        else:
            _refuse_pattern(pattern, file)
            library = tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8"))
        return Tokenizer(_complete(library))
    except (UsageError, Failure):
        raise
    except Exception as error:  # the library raises bare Exception for a damaged file
        raise Failure(
            f"{file} is not a tokenizer that can be opened.",
            str(error),
            "Give a tokenizer.json, a SentencePiece .model or a .tiktoken file.",
        ) from error


def describe_source(path: str) -> dict[str, str]:
    """The files that `open_tokenizer` would read, with their content hashes; for the stage's fingerprint."""
    return {file.name: hash_file(file) for file in _find(path) if file is not None}


def _find(path: str) -> tuple[Path, Path | None]:
    """The file to open, and the merges beside it where they are a file of their own."""
    place = Path(path).expanduser()
    if place.is_dir():
        if (place / "tokenizer.json").exists():
            return place / "tokenizer.json", None
        for vocabulary, merges in PAIRS:
            if (place / vocabulary).exists() and (place / merges).exists():
                return place / vocabulary, place / merges
        found = sorted([*place.glob("*.model"), *place.glob("*.tiktoken")])
        if len(found) == 1:
            return found[0], None
        raise UsageError(
            f"{place} holds no tokenizer." if not found else f"{place} holds several tokenizers.",
            "It has no tokenizer.json." if not found else f"They are {', '.join(file.name for file in found[:4])}.",
            "Give the file itself: a tokenizer.json, a SentencePiece .model or a .tiktoken file.",
        )
    if not place.exists():
        raise UsageError(
            f"{place} does not exist.",
            fix="Give a tokenizer.json, a folder that holds one, a SentencePiece .model or a .tiktoken file.",
        )
    for vocabulary, merges in PAIRS:
        if place.name == vocabulary:
            if not (place.parent / merges).exists():
                raise UsageError(f"{place} cannot be used alone.", f"Its merges are missing: {place.parent / merges}.")
            return place, place.parent / merges
    return place, None


def _refuse_pattern(pattern: str | None, file: Path) -> None:
    if pattern is not None:
        raise UsageError("pattern would have no effect.", f"{file} says itself how text is cut.", "Leave it out.")


def _known_pattern(file: Path) -> str:
    if file.stem not in KNOWN_FILES:
        raise UsageError(
            f"{file} does not say how text is cut into words.",
            "A rank file has no room for that, and its name is not one that is known.",
            f"Add --pattern with one of {', '.join(PATTERNS)}; the wrong one makes wrong tokens.",
        )
    return KNOWN_FILES[file.stem]


def _from_ranks(file: Path, pattern: str) -> tokenizers.Tokenizer:
    """BPE from a tiktoken rank file: the merge that made each token is found again by merging its bytes."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            if token != b"=":  # a token of no bytes, in Whisper's file; its id stays unused
                ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise Failure(f"{file} is damaged.", f"Line {number} is not a token and its rank.") from error
    if not {bytes([byte]) for byte in range(256)} <= ranks.keys():
        raise Failure(f"{file} is damaged.", "It lacks some of the 256 bytes.")
    ordered = sorted(ranks, key=ranks.__getitem__)
    pairs = [_parents(token, ranks) for token in ordered if len(token) > 1]
    letters = {byte: letter for letter, byte in byte_alphabet().items()}

    def spell(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    vocabulary = {spell(token): rank for token, rank in ranks.items()}
    merges = [(spell(pair[0]), spell(pair[1])) for pair in pairs if pair is not None]
    return _byte_level(vocabulary, merges, pattern, ignore_merges=True)


def _parents(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes] | None:
    """The two tokens that merge into `token`, by merges of lower rank alone; None when no two are left."""
    parts = [token[i : i + 1] for i in range(len(token))]
    limit = ranks[token]
    while len(parts) > 2:
        found = [(ranks.get(a + b, limit), at) for at, (a, b) in enumerate(pairwise(parts))]
        rank, at = min(found)
        if rank >= limit:
            return None
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]


def _from_pair(vocabulary: Path, merges: Path, pattern: str) -> tokenizers.Tokenizer:
    lines = merges.read_text(encoding="utf-8").splitlines()
    pairs = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    tokens = json.loads(vocabulary.read_text(encoding="utf-8"))
    return _byte_level(tokens, pairs, pattern, ignore_merges=False)


def _byte_level(
    vocabulary: dict[str, int], merges: Iterable[Any], pattern: str, ignore_merges: bool
) -> tokenizers.Tokenizer:
    """Byte-level BPE; ids that no token has become unused special tokens."""
    used = set(vocabulary.values())
    holes = {f"<|unused_{i}|>": i for i in range(max(used) + 1) if i not in used}
    library = tokenizers.Tokenizer(models.BPE({**vocabulary, **holes}, list(merges), ignore_merges=ignore_merges))
    library.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    library.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = byte_alphabet()
    foreign = [token for token in vocabulary if not all(letter in alphabet for letter in token)]
    library.add_special_tokens([*holes, *[token for token in vocabulary if _looks_special(token)], *foreign])
    return library


def _looks_special(token: str) -> bool:
    """Whether a token of a bare vocabulary is a mark such as <|endoftext|>."""
    return len(token) > 4 and token.startswith("<|") and token.endswith("|>")


def _complete(library: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The same tokenizer with our special tokens, a vocabulary of a multiple of 64, and nothing put around a text."""
    definition = json.loads(library.to_str())
    definition.update(post_processor=None, truncation=None, padding=None)
    completed = tokenizers.Tokenizer.from_str(json.dumps(definition, ensure_ascii=False))
    completed.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in NAMED])
    size = max(completed.get_vocab(with_added_tokens=True).values()) + 1
    known, number = completed.get_vocab(with_added_tokens=True), 0
    while size % MULTIPLE:
        if f"<|unused_{number}|>" not in known:
            completed.add_special_tokens([f"<|unused_{number}|>"])
            size += 1
        number += 1
    return completed

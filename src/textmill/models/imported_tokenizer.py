"""The tokenizer of an imported model: what begins and ends its documents and turns. Writes into the model folder.

Every document is read after one token (DESIGN.md). Which one an imported model was trained with is told by its own
tokenizer: the token that it puts before a text of its own accord (`<s>`, `<bos>`, `<|begin_of_text|>`); where it puts
none, what stood between the documents of its training (`<|endoftext|>`); where there is no such token, its bos or eos.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from textmill.base.errors import Failure
from textmill.base.files import write_atomic, write_json
from textmill.tokens.chat_template import names_of, turn_end
from textmill.tokens.tokenizer import Tokenizer

SEPARATORS = ("<|end|>", "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")
"""What ends a document in the training text of published models (and in ours)."""


@dataclass(frozen=True)
class TokenizerSource:
    """A tokenizer as it came.

    Attributes:
        definition: the text of its tokenizer.json.
        settings: the entries of its tokenizer_config.json.
        ends: texts of the tokens after which the model's own settings say that nothing comes.
        template: of chats, Jinja.
        files: further files to keep as they are, by name.
    """

    definition: str
    settings: Mapping[str, Any]
    ends: Sequence[str]
    template: str | None
    files: Mapping[str, str]


def describe(source: TokenizerSource, vocabulary: int) -> dict[str, Any]:
    """What textmill.json says of the tokenizer (`Tokenizer`'s `imported`).

    Args:
        source: the tokenizer.
        vocabulary: the model's.

    Raises:
        Failure: it cannot be opened, does not fit the model, or has no token that could begin a document.
    """
    try:
        library = tokenizers.Tokenizer.from_str(source.definition)
    except Exception as error:  # the library raises bare Exception for a damaged file
        raise Failure("The model's tokenizer cannot be opened.", str(error), "Fetch tokenizer.json again.") from error
    size = max(library.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    if size > vocabulary:
        raise Failure(
            "The model and the tokenizer do not belong together.",
            f"The tokenizer has {size} tokens, the model knows {vocabulary}.",
            "Take both from the same place.",
        )
    special = [token.content for token in library.get_added_tokens_decoder().values() if token.special]
    names = names_of(source.settings)
    plain, dressed = library.encode("a", add_special_tokens=False).ids, library.encode("a").ids
    put_before = (
        library.id_to_token(dressed[0]) if dressed[: len(plain)] != plain and len(dressed) > len(plain) else None
    )
    if put_before is None and source.settings.get("add_bos_token"):
        put_before = names["bos_token"]
    separators = [name for name in SEPARATORS if name in special]
    candidates = [put_before, *separators, names["bos_token"], *source.ends]
    begin = next((name for name in candidates if name and name in special), None)
    ending = [name for name in (*separators, *source.ends) if name in special]
    if begin is None or not ending:
        raise Failure(
            "The model's tokenizer has no token that begins and ends documents.",
            "It names neither a bos nor an eos token among its special tokens.",
            "Name them in tokenizer_config.json.",
        )
    closes = turn_end(source.template, names, special) if source.template else None
    answers = closes is not None and closes in source.ends  # a base model may carry its sibling's template
    ends = list(dict.fromkeys([ending[0], *[name for name in source.ends if name in special]]))
    return {
        "document_begin": begin,
        "document_end": ending[0],
        "ends": ends,
        "turn_ends": [closes] if answers else [],
        "adds_begin": put_before is not None,
        "chat_template": source.template,
        "names": names,
    }


def write_tokenizer(source: TokenizerSource, record: Mapping[str, Any], folder: Path) -> Tokenizer:
    """Write the tokenizer's files as they came, and textmill.json beside them; open it as a check."""
    write_atomic(folder / "tokenizer.json", source.definition)
    write_json(folder / "tokenizer_config.json", dict(source.settings))
    for name, text in source.files.items():
        write_atomic(folder / name, text)
    write_json(folder / "textmill.json", {"chat": bool(record["turn_ends"]), "tokenizer": dict(record)})
    return Tokenizer.load(folder)


def ids_of(tokenizer: Tokenizer) -> dict[str, Any]:
    """The entries of config.json that name the tokens, for other programs."""
    ends = tokenizer.ends
    return {"bos_token_id": tokenizer.document_begin, "eos_token_id": ends[0] if len(ends) == 1 else ends}


def library_text(definition: Mapping[str, Any]) -> str:
    """A definition as the text of a tokenizer.json."""
    return json.dumps(definition, ensure_ascii=False, indent=2) + "\n"

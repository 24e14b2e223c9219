"""The tokenizer: train, load, encode, decode, stream. Wraps the `tokenizers` library; reads and writes tokenizer.json.

Every one of the 256 bytes is a token of our own kinds, nothing is normalized, and text never becomes a special token:
any string comes back exactly as it went in, even one that spells out `<|end|>`. (A tokenizer.json opened by
`transformers` does match special tokens inside text, as every tokenizer does there; `encode` never does.)
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from textmill.base.errors import Failure, UsageError
from textmill.base.files import write_atomic, write_json
from textmill.base.progress import Progress
from textmill.corpus.texts import Texts
from textmill.tokens.chat_template import encode_chat
from textmill.tokens.encoders import CharacterEncoder, Encoder, LibraryEncoder, fastest_encoder
from textmill.tokens.kinds import KINDS, train_library
from textmill.tokens.special import CHAT_TEMPLATE, END, MULTIPLE, PAD, ROLES, SPECIAL_TOKENS, TURN_END, round_vocabulary
from textmill.tokens.splitting import CHARACTER_PATTERN, FIRST_PATTERN, SPLIT_PATTERN, cut
from textmill.tokens.vocabulary_bytes import steps, token_bytes, unknown_token

__all__ = [
    "END",
    "KINDS",
    "MULTIPLE",
    "PAD",
    "SPECIAL_TOKENS",
    "TURN_END",
    "StreamDecoder",
    "Tokenizer",
    "describe_token",
    "round_vocabulary",
    "train_tokenizer",
]

_SMALL_CALL = 20_000
"""Bytes below which getting the fast encoder ready would take longer than the library's own."""


class Tokenizer:
    """A tokenizer of any kind, our own or one made elsewhere.

    Args:
        library: the `tokenizers.Tokenizer` behind it.
        imported: for the tokenizer of an imported model, the "tokenizer" part of its textmill.json: the texts of the
            special tokens that begin and end documents and turns there, and its chat template.

    Attributes:
        vocabulary: number of token ids, V, a multiple of 64 (an imported model's may be any number).
        special: id of each special token, by name.
        document_begin: id of the token that is read before a document: the document end, except in imported models
            that have another token for it.
        document_end: id of `<|end|>`, or of what an imported model has in its place.
        ends: ids after which nothing more of a text comes.
        turn_ends: ids that end an answer in a conversation; empty where the model cannot answer.
        unknown: id of the token for what the vocabulary lacks; None where nothing can be lacking.
        lossless: whether any text comes back exactly. Our own kinds all do that.
        byte_lengths: int64 [V], UTF-8 bytes that each token stands for (0 for special tokens and the unknown).
    """

    def __init__(self, library: tokenizers.Tokenizer, imported: Mapping[str, Any] | None = None) -> None:
        library.encode_special_tokens = True  # text that spells a special token stays text
        library.no_padding()
        library.no_truncation()
        self.library = library
        added = library.get_added_tokens_decoder()
        self.special: dict[str, int] = {token.content: i for i, token in sorted(added.items()) if token.special}
        self.imported = imported
        names = imported or {"document_begin": END, "document_end": END, "ends": [END], "turn_ends": [TURN_END]}
        lacking = [name for name in (names["document_begin"], names["document_end"]) if name not in self.special]
        if lacking:
            raise Failure(
                f"This tokenizer has no {lacking[0]} token.",
                "It is not the one that was imported." if imported else "It was not made by Textmill.",
                "Import the model again." if imported else "Take it over with: textmill tokenize RUN --tokenizer PATH",
            )
        self.document_begin, self.document_end = (
            self.special[names["document_begin"]],
            self.special[names["document_end"]],
        )
        self.ends = [self.special[name] for name in names["ends"] if name in self.special]
        self.turn_ends = [self.special[name] for name in names["turn_ends"] if name in self.special]
        self._definition = json.loads(library.to_str())
        tokens = library.get_vocab(with_added_tokens=True)
        self.vocabulary: int = max(tokens.values()) + 1
        self._pieces: list[bytes] = [b""] * self.vocabulary
        for i, piece in token_bytes(self._definition, tokens, set(self.special.values())).items():
            self._pieces[i] = piece
        self.byte_lengths: np.ndarray = np.array([len(piece) for piece in self._pieces], dtype=np.int64)
        splits = [step["pattern"] for step in steps(self._definition["pre_tokenizer"]) if step["type"] == "Split"]
        self._own = bool(splits) and splits[0].get("Regex") in (SPLIT_PATTERN, FIRST_PATTERN, CHARACTER_PATTERN)
        self.lossless = self._is_lossless()
        unknown = unknown_token(self._definition)
        self.unknown: int | None = None if unknown is None or self.lossless else tokens.get(unknown)

    @property
    def kind(self) -> str:
        """What its tokens are: one of KINDS."""
        model = self._definition["model"]
        if model["type"] == "BPE" and model.get("ignore_merges") and not model["merges"]:
            if isinstance(self.encoder, CharacterEncoder):
                return "character"
            return "word" if int(self.byte_lengths.max()) > 1 else "byte"
        return {"BPE": "bpe", "WordLevel": "word"}.get(model["type"], str(model["type"]).lower())

    def _is_lossless(self) -> bool:
        """Byte-level, nothing normalized, a token for every byte: then nothing can be lost."""
        levels = [step for step in steps(self._definition["pre_tokenizer"]) if step["type"] == "ByteLevel"]
        if self._definition["normalizer"] or not levels or any(level["add_prefix_space"] for level in levels):
            return False
        model = self._definition["model"]
        if (model["type"] == "WordPiece" and not self._own) or model["type"] == "WordLevel":
            return False
        return {bytes([byte]) for byte in range(256)} <= set(self._pieces)

    @classmethod
    def load(cls, path: Path | str) -> Tokenizer:
        """Read `tokenizer.json`, given the file or the folder that holds it (and `textmill.json`, if imported)."""
        path = Path(path)
        file = path / "tokenizer.json" if path.is_dir() else path
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"{file} cannot be read.",
                str(getattr(error, "strerror", None) or "It is not UTF-8 text.") + ".",
                "Give a folder that holds a tokenizer.json, such as runs/mine/tokens.",
            ) from error
        try:
            settings = file.parent / "textmill.json"
            imported = json.loads(settings.read_text(encoding="utf-8")).get("tokenizer") if settings.exists() else None
            return cls(tokenizers.Tokenizer.from_str(text), imported)
        except Failure:
            raise
        except Exception as error:  # the library raises bare Exception for a damaged file
            raise Failure(
                f"{file} is damaged.", str(error), "Delete its folder and type the same command again."
            ) from error

    def save(self, folder: Path | str) -> None:
        """Write tokenizer.json and tokenizer_config.json, which `transformers.AutoTokenizer` opens."""
        folder = Path(folder)
        write_atomic(folder / "tokenizer.json", self.to_json())
        if self.imported:
            named = {i: name for name, i in self.special.items()}
            tokens = {"bos_token": named[self.document_begin], "eos_token": named[self.document_end]}
            template = self.imported.get("chat_template")
            more = {"chat_template": template} if template else {}
            kind = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
            write_json(folder / "tokenizer_config.json", kind | tokens | more)
            write_json(folder / "textmill.json", {"chat": bool(self.turn_ends), "tokenizer": dict(self.imported)})
            return
        write_json(
            folder / "tokenizer_config.json",
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": END,
                "eos_token": END,
                "pad_token": PAD,
                "clean_up_tokenization_spaces": False,
                "add_prefix_space": False,
                "chat_template": CHAT_TEMPLATE,
            },
        )

    def to_json(self) -> str:
        """The contents of tokenizer.json."""
        return str(self.library.to_str(pretty=True)) + "\n"

    @cached_property
    def encoder(self) -> Encoder:
        """The fastest encoder that gives the library's ids."""
        return fastest_encoder(self.library)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; special tokens never among them."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, on all cores; special tokens never among them."""
        return [ids.tolist() for ids in self.encode_arrays(texts)]

    def encode_arrays(self, texts: Sequence[str]) -> list[np.ndarray]:
        """As `encode_batch`, each text's ids as uint32, which takes a tenth of the memory."""
        ids, offsets = self.encode_texts(Texts.from_bytes([_utf8(text) for text in texts]))
        return [ids[start:stop] for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]

    def encode_texts(self, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
        """Ids of many texts in one buffer, on all cores; special tokens never among them.

        Returns:
            ids uint32 [tokens] of all texts, and int64 [n + 1], where those of each begin.
        """
        places: Any = slice(None)
        chunks = texts
        if self._own:  # another pattern may look across any place where a text could be cut
            chunks, places = cut(texts)
        small = "encoder" not in self.__dict__ and len(texts.data) < _SMALL_CALL
        ids, offsets = (LibraryEncoder(self.library) if small else self.encoder).encode(chunks)
        return ids, offsets[places]

    def chat(self, messages: Iterable[Mapping[str, str]], reply: bool = True) -> list[int]:
        """Token ids of a conversation, as `chat_template` gives them, but text cannot forge a special token.

        Args:
            messages: `{"role": "system" | "user" | "assistant", "content": str}`, in order.
            reply: end with the token after which the assistant speaks.
        """
        ids = [self.document_end]
        turns = list(messages)
        for message in turns:
            if message["role"] not in ROLES:
                raise UsageError(f'Unknown role "{message["role"]}".', fix=f"Roles: {', '.join(ROLES)}.")
        if self.imported and self.imported.get("chat_template"):
            template, names = self.imported["chat_template"], self.imported["names"]
            return encode_chat(template, turns, names, self.special, self.encode_special, self.encode, reply)
        for message in turns:
            ids += [self.special[f"<|{message['role']}|>"], *self.encode(message["content"])]
            ids.append(self.special[TURN_END])
        if reply:
            ids.append(self.special["<|assistant|>"])
        return ids

    def encode_special(self, text: str) -> list[int]:
        """Token ids of `text` in which special tokens are found where they are spelt out: for templates, not for text
        from outside."""
        self.library.encode_special_tokens = False
        try:
            return list(self.library.encode(text, add_special_tokens=False).ids)
        finally:
            self.library.encode_special_tokens = True

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes that `ids` stand for; special tokens stand for none."""
        pieces = self._pieces
        return b"".join([pieces[i] for i in ids])

    def decode(self, ids: Iterable[int]) -> str:
        """The text that `ids` stand for; special tokens are dropped, invalid UTF-8 becomes U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def stream(self) -> StreamDecoder:
        """A decoder to feed one id at a time."""
        return StreamDecoder(self)


class StreamDecoder:
    """Decodes ids one by one and gives text only at whole characters, for live output.

    Args:
        tokenizer: whose ids they are.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._pieces = tokenizer._pieces
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        """The characters that `token` completes; an empty string in the middle of one."""
        return self._decoder.decode(self._pieces[token])

    def finish(self) -> str:
        """What is left at the end: U+FFFD for a character that never became whole, else nothing."""
        return self._decoder.decode(b"", final=True)


def train_tokenizer(
    texts: Iterable[str], vocabulary: int, progress: Progress | None = None, kind: str = "bpe"
) -> Tokenizer:
    """Train a tokenizer on `texts`.

    Args:
        texts: the training text, read once, in pieces of any size.
        vocabulary: token ids asked for, special tokens and bytes included; rounded up to a multiple of 64.
            Text too small for that many gives a smaller vocabulary, filled up to a multiple of 64 with unused
            special tokens.
        progress: where to report.
        kind: one of `KINDS`.
    """
    size = round_vocabulary(vocabulary)
    with (progress or Progress("quiet")).task("Training the tokenizer", unit="B") as task:

        def read() -> Iterator[str]:
            for text in texts:
                chunks, _ = cut(Texts.from_bytes([_utf8(text)]))
                for row in range(len(chunks)):
                    yield chunks.string(row)
                task.advance(len(chunks.data))

        tokenizer = Tokenizer(train_library(kind, read(), size))
        task.update(task.done, f"vocabulary {tokenizer.vocabulary:,}")
    return tokenizer


def _utf8(text: str) -> bytes:
    """The bytes of `text`; lone surrogates, which no UTF-8 can hold, become U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def describe_token(tokenizer: Tokenizer, token: int) -> str:
    """One token for people: its text, or its bytes in hex where they are not whole characters."""
    names: dict[int, Any] = {i: name for name, i in tokenizer.special.items()}
    if token in names:
        return str(names[token])
    piece = tokenizer.decode_bytes([token])
    try:
        return json.dumps(piece.decode(), ensure_ascii=False)[1:-1]
    except UnicodeDecodeError:
        return "".join(f"\\x{byte:02x}" for byte in piece)

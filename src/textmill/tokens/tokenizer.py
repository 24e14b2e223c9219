"""Byte-level BPE: train it, encode, decode, stream. Wraps the `tokenizers` library; writes tokenizer.json.

Every one of the 256 bytes is a token, nothing is normalized, and text never becomes a special token: any
string comes back exactly as it went in, even one that spells out `<|end|>`. (A tokenizer.json opened by
`transformers` does match special tokens inside text, as every tokenizer does there; `encode` never does.)
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from textmill.base.errors import Failure, UsageError
from textmill.base.files import write_atomic, write_json
from textmill.base.progress import Progress

END = "<|end|>"
"""Ends every document; also what every document begins after."""
PAD = "<|pad|>"
TURN_END = "<|turn_end|>"
ROLES = ("system", "user", "assistant")
_NAMED = (END, PAD, *(f"<|{role}|>" for role in ROLES), TURN_END)
SPECIAL_TOKENS: tuple[str, ...] = (*_NAMED, *(f"<|reserved_{i}|>" for i in range(16 - len(_NAMED))))
"""The special tokens, at ids 0 to 15."""

MULTIPLE = 64
"""Vocabularies are multiples of this, which matrix multiplication is fastest at."""
SMALLEST_VOCABULARY = -(-(len(SPECIAL_TOKENS) + 256) // MULTIPLE) * MULTIPLE
LARGEST_VOCABULARY = 65_536

SPLIT_PATTERN = "|".join(
    (
        r"['’](?i:s|t|re|ve|m|ll|d)(?![\p{L}\p{M}])",  # English contractions
        r" ?[\p{L}\p{M}]{1,64}",  # a word with its space; the bounds keep one 500 MB "word" from existing
        r"\p{N}{1,2}",  # digits in pairs: a small vocabulary cannot afford all triples
        r" ?[^\s\p{L}\p{M}\p{N}]{1,64}[\r\n]{0,8}",
        r"\s{0,64}[\r\n]{1,64}",
        r"\s{1,64}(?!\S)",
        r"\s{1,64}",
    )
)
"""Merges never cross these pieces. After GPT-4's pattern, for small vocabularies."""

LONGEST_TOKEN = 64
"""Bytes in the longest token, so that rules and boilerplate do not become giant tokens."""

CHUNK_CHARACTERS = 65_536
"""Longer texts are encoded in chunks of this size: bounded memory, and one document keeps all cores busy."""

_CALL_CHARACTERS = 2_000_000
"""Text given to the library at a time; it holds about 30 times as much memory until the call is over."""

_BOUNDARY = re.compile(r"(?<=\w)(?= \w)|(?<=\n)(?=\w)|(?<=[\u4e00-\u9fff])(?=[。，、！？；：])")
"""Places where SPLIT_PATTERN cuts whatever stands around them, so that chunking there changes no token."""

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|turn_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def _byte_of_character() -> dict[str, int]:
    """The byte that each character of GPT-2's printable byte alphabet stands for."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if chr(byte) not in table)
    table.update({chr(256 + i): byte for i, byte in enumerate(others)})
    return table


def round_vocabulary(size: int) -> int:
    """`size` rounded up to a multiple of 64, checked against what is possible."""
    rounded = -(-size // MULTIPLE) * MULTIPLE
    if not SMALLEST_VOCABULARY <= rounded <= LARGEST_VOCABULARY:
        raise UsageError(
            f"A vocabulary of {size:,} is not possible.",
            f"It holds {len(SPECIAL_TOKENS)} special tokens, 256 bytes and the merges, at most "
            f"{LARGEST_VOCABULARY:,} in all.",
            f"Choose from {SMALLEST_VOCABULARY:,} to {LARGEST_VOCABULARY:,}; 2048 to 65536 is usual.",
        )
    return rounded


def _chunks(text: str) -> Iterator[str]:
    """`text` in pieces of about CHUNK_CHARACTERS, cut where the tokens stay the same."""
    start = 0
    while len(text) - start > CHUNK_CHARACTERS + CHUNK_CHARACTERS // 4:
        middle = start + CHUNK_CHARACTERS
        # A boundary looks one character back, so the search begins in the middle of the text, not of a slice.
        found = _BOUNDARY.search(text, middle, middle + CHUNK_CHARACTERS // 4)
        stop = found.start() if found else middle
        yield text[start:stop]
        start = stop
    yield text[start:]


def _well_formed(text: str) -> str:
    """`text` with lone surrogates, which no UTF-8 can hold, replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class Tokenizer:
    """A trained byte-level BPE tokenizer.

    Args:
        library: the `tokenizers.Tokenizer` behind it.

    Attributes:
        vocabulary: number of token ids, V, a multiple of 64.
        special: id of each special token, by name.
        document_end: id of `<|end|>`.
        byte_lengths: int64 [V], UTF-8 bytes that each token stands for (0 for special tokens).
    """

    def __init__(self, library: tokenizers.Tokenizer) -> None:
        library.encode_special_tokens = True  # text that spells a special token stays text
        library.no_padding()
        library.no_truncation()
        self.library = library
        self.vocabulary: int = library.get_vocab_size(with_added_tokens=True)
        added = library.get_added_tokens_decoder()
        self.special: dict[str, int] = {token.content: i for i, token in sorted(added.items()) if token.special}
        if END not in self.special:
            raise Failure(
                f"This tokenizer has no {END} token.",
                "It was not made by Textmill.",
                "Make one with: textmill tokenize RUN",
            )
        self.document_end = self.special[END]
        alphabet = _byte_of_character()
        self._pieces: list[bytes] = [b""] * self.vocabulary
        specials = set(self.special.values())
        for token, i in library.get_vocab(with_added_tokens=True).items():
            if i not in specials:
                self._pieces[i] = bytes(alphabet[character] for character in token)
        self.byte_lengths: np.ndarray = np.array([len(piece) for piece in self._pieces], dtype=np.int64)

    @classmethod
    def load(cls, path: Path | str) -> Tokenizer:
        """Read `tokenizer.json`, given the file or the folder that holds it."""
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
            return cls(tokenizers.Tokenizer.from_str(text))
        except Failure:
            raise
        except (KeyError, ValueError) as error:
            raise Failure(f"{file} is not a byte-level tokenizer.", str(error)) from error
        except Exception as error:  # the library raises bare Exception for a damaged file
            raise Failure(
                f"{file} is damaged.", str(error), "Delete its folder and type the same command again."
            ) from error

    def save(self, folder: Path | str) -> None:
        """Write tokenizer.json and tokenizer_config.json, which `transformers.AutoTokenizer` opens."""
        folder = Path(folder)
        write_atomic(folder / "tokenizer.json", self.to_json())
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

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; special tokens never among them."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, on all cores; special tokens never among them."""
        return [ids.tolist() for ids in self.encode_arrays(texts)]

    def encode_arrays(self, texts: Sequence[str]) -> list[np.ndarray]:
        """As `encode_batch`, each text's ids as uint32, which takes a tenth of the memory."""
        owners: list[int] = []
        chunks: list[str] = []
        held = 0
        parts: list[list[np.ndarray]] = [[] for _ in texts]

        def encode_held() -> None:
            for owner, ids in zip(owners, self._encode_chunks(chunks), strict=True):
                parts[owner].append(ids)

        for number, text in enumerate(texts):
            for chunk in _chunks(text):
                owners.append(number)
                chunks.append(chunk)
                held += len(chunk)
                if held >= _CALL_CHARACTERS:
                    encode_held()
                    owners, chunks, held = [], [], 0
        encode_held()
        return [part[0] if len(part) == 1 else np.concatenate(part) for part in parts]

    def _encode_chunks(self, chunks: list[str]) -> list[np.ndarray]:
        try:
            found = self.library.encode_batch_fast(chunks, add_special_tokens=False)
        except (TypeError, UnicodeEncodeError):
            well_formed = [_well_formed(chunk) for chunk in chunks]
            found = self.library.encode_batch_fast(well_formed, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.uint32) for encoding in found]

    def chat(self, messages: Iterable[Mapping[str, str]], reply: bool = True) -> list[int]:
        """Token ids of a conversation, as `chat_template` gives them, but text cannot forge a special token.

        Args:
            messages: `{"role": "system" | "user" | "assistant", "content": str}`, in order.
            reply: end with the token after which the assistant speaks.
        """
        ids = [self.document_end]
        for message in messages:
            if message["role"] not in ROLES:
                raise UsageError(f'Unknown role "{message["role"]}".', fix=f"Roles: {', '.join(ROLES)}.")
            ids += [self.special[f"<|{message['role']}|>"], *self.encode(message["content"])]
            ids.append(self.special[TURN_END])
        if reply:
            ids.append(self.special["<|assistant|>"])
        return ids

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


def train_tokenizer(texts: Iterable[str], vocabulary: int, progress: Progress | None = None) -> Tokenizer:
    """Train byte-level BPE (Sennrich et al. 2016, arXiv:1508.07909) on `texts`.

    Args:
        texts: the training text, read once, in pieces of any size.
        vocabulary: token ids asked for, special tokens and bytes included; rounded up to a multiple of 64.
            Text too small for that many merges gives a smaller vocabulary, filled up to a multiple of 64 with
            unused special tokens.
        progress: where to report.
    """
    size = round_vocabulary(vocabulary)
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    library.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        show_progress=False,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=LONGEST_TOKEN,
    )
    with (progress or Progress("quiet")).task("Training the tokenizer", unit="B") as task:

        def read() -> Iterator[str]:
            for text in texts:
                for chunk in _chunks(text):
                    piece = _well_formed(chunk)
                    task.advance(len(piece.encode()))
                    yield piece

        library.train_from_iterator(read(), trainer=trainer)
        missing = -library.get_vocab_size(with_added_tokens=True) % MULTIPLE
        library.add_special_tokens([f"<|unused_{i}|>" for i in range(missing)])
        task.update(task.done, f"vocabulary {library.get_vocab_size(with_added_tokens=True):,}")
    return Tokenizer(library)


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

"""ARPA files: the text format in which n-gram models travel. Writes them, and reads them strictly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from textmill.base.errors import Failure
from textmill.corpus.kernels import kernel
from textmill.models.ngram.config import MAX_ORDER
from textmill.models.ngram.counting import MOST_GRAMS
from textmill.models.ngram.estimation import Grams, Order
from textmill.models.ngram.files import PACKED, line_blocks, open_bytes, write_whole
from textmill.models.ngram.index import Index
from textmill.models.ngram.numbers import WIDEST, read_number, write_number
from textmill.models.ngram.words import SPECIAL, UNKNOWN, Words, blank_table, find_word

LINES = 1 << 16
"""Lines written at a time."""
BLOCK = 1 << 24
"""Bytes read at a time."""
ARPA_BLANKS = b"\t\n\r "
LEAST_LINE = 4
"""Bytes of an n-gram's line at the least: a digit, a tab, a letter, the end."""
MOST_PACKED = 2000
"""How many times as long a packed file may be unpacked, roughly."""
_NEWLINE, _TAB, _SPACE = 10, 9, 32

# What can be wrong with a line.
FINE, NO_NUMBER, NO_WORDS, TOO_LONG, NO_WORD, POSITIVE, NO_BACKOFF = range(7)


@kernel
def _write_lines(
    words: np.ndarray,
    log10: np.ndarray,
    backoff: np.ndarray,
    weighted: bool,
    arena: np.ndarray,
    offsets: np.ndarray,
    first: int,
    out: np.ndarray,
) -> tuple[int, int]:
    """Write n-grams from `first` on, a line each, as long as they fit. Gives the next one and the bytes written."""
    at = 0
    row = first
    while row < len(words):
        room = 2 * WIDEST + 3
        for k in range(words.shape[1]):
            word = words[row, k]
            room += offsets[word + 1] - offsets[word] + 1
        if at + room > len(out):
            break
        at = write_number(log10[row], out, at)
        for k in range(words.shape[1]):
            out[at] = _SPACE if k else _TAB
            at += 1
            word = words[row, k]
            for place in range(offsets[word], offsets[word + 1]):
                out[at] = arena[place]
                at += 1
        if weighted:
            out[at] = _TAB
            at = write_number(backoff[row], out, at + 1)
        out[at] = _NEWLINE
        at += 1
        row += 1
    return row, at


def arpa_blocks(words: Words, grams: Grams) -> Iterator[bytes | memoryview]:
    """The file, piece by piece; each piece is to be used before the next is asked for."""
    counts = "".join(f"ngram {k}={len(order)}\n" for k, order in enumerate(grams.orders, start=1))
    yield f"\\data\\\n{counts}\n".encode()
    out = np.empty(1 << 22, dtype=np.uint8)
    for k, order in enumerate(grams.orders, start=1):
        yield f"\\{k}-grams:\n".encode()
        weighted = k < grams.order
        for first in range(0, len(order), LINES):
            stop = min(first + LINES, len(order))
            rows = grams.words(k, first, stop)
            row = 0
            while row < len(rows):
                row, used = _write_lines(
                    rows, order.log10[first:stop], order.backoff[first:stop], weighted, words.arena, words.offsets,
                    row, out,
                )  # fmt: skip
                yield out[:used].data
                if used == 0:
                    out = np.empty(2 * len(out), dtype=np.uint8)
        yield b"\n"
    yield b"\\end\\\n"


def write_arpa(words: Words, grams: Grams, path: Path) -> None:
    """Write a model as an ARPA file, or gzipped where the name ends with .gz; whole or not at all.

    Numbers are the shortest that read back as the same single-precision value, as KenLM writes them.
    """
    write_whole(path, arpa_blocks(words, grams))


@kernel
def _read_lines(
    data: np.ndarray,
    at: int,
    room: int,
    blanks: np.ndarray,
    order: int,
    highest: bool,
    arena: np.ndarray,
    offsets: np.ndarray,
    slots: np.ndarray,
    words: np.ndarray,
    spans: np.ndarray,
    log10: np.ndarray,
    backoff: np.ndarray,
) -> tuple[int, int, int]:
    """Read up to `room` lines of whole n-grams. Gives FINE or what is wrong, the lines read, and where it stopped.

    Words are looked up, into words int32 [n, order]; those of order 1 are only pointed out, in spans int64 [n, 2].
    """
    row = 0
    fields = np.empty(2 * (order + 2), dtype=np.int64)
    while at < len(data) and row < room:
        count = 0
        place = at
        while place < len(data) and data[place] != _NEWLINE:
            if blanks[data[place]]:
                place += 1
                continue
            stop = place
            while stop < len(data) and not blanks[data[stop]]:
                stop += 1
            if count == order + 2:
                return TOO_LONG, row, at
            fields[2 * count], fields[2 * count + 1] = place, stop
            count += 1
            place = stop
        if count < order + 1:
            return NO_WORDS, row, at
        value, good = read_number(data, fields[0], fields[1])
        if not good:
            return NO_NUMBER, row, at
        if value > 0:
            return POSITIVE, row, at
        log10[row] = value
        backoff[row] = 0
        if count == order + 2:
            value, good = read_number(data, fields[2 * count - 2], fields[2 * count - 1])
            if not good or (highest and value != 0) or not abs(value) < np.inf:
                return NO_BACKOFF, row, at
            backoff[row] = value
        if order == 1:
            spans[row, 0], spans[row, 1] = fields[2], fields[3]
        else:
            for k in range(order):
                number, _, _ = find_word(data, fields[2 * k + 2], fields[2 * k + 3], arena, offsets, slots)
                if number < 0:
                    return NO_WORD, row, at
                words[row, k] = number
        row += 1
        at = place + 1
    return FINE, row, at


class _Reader:
    """Lines of an ARPA file, with their numbers."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self.name, self.line = name, 0
        self._blocks = line_blocks(stream, BLOCK)
        self.data = np.zeros(0, dtype=np.uint8)
        self.at = 0

    def more(self) -> bool:
        """Whether there is anything left to read."""
        while self.at >= len(self.data):
            block = next(self._blocks, None)
            if block is None:
                return False
            self.data, self.at = np.frombuffer(block, dtype=np.uint8), 0
        return True

    def text(self) -> str | None:
        """The next line without its end; None after the last."""
        if not self.more():
            return None
        end = self.at + int(np.argmax(self.data[self.at :] == _NEWLINE))
        if self.data[end] != _NEWLINE:
            end = len(self.data)
        line = self.data[self.at : end].tobytes().decode("utf-8", "replace")
        self.at = end + 1
        self.line += 1
        return line.rstrip("\r")

    def content(self) -> str | None:
        """The next line that is not blank."""
        line = self.text()
        while line is not None and not line.strip():
            line = self.text()
        return line

    def wrong(self, why: str) -> Failure:
        """The error of the line read last."""
        return Failure(
            f"{self.name} is no whole ARPA file: line {self.line:,}.",
            why,
            "Get the file again, or write it anew; the format is lmplz's and SRILM's.",
        )


def _most_lines(path: Path | str) -> int:
    """Lines that the file can have at most, even unpacked: what its head says must not fill the memory."""
    if str(path) == "-":
        return MOST_GRAMS
    with Path(path).open("rb") as stream:
        ratio = MOST_PACKED if stream.read(6).startswith(PACKED) else 1
    return min(MOST_GRAMS, Path(path).stat().st_size // LEAST_LINE * ratio)


def _header(reader: _Reader, most: int) -> list[int]:
    line = reader.content()
    while line is not None and line.startswith("#"):
        line = reader.content()
    if line is None or line.rstrip() != "\\data\\":
        shown = "the end" if line is None else f'"{line[:60]}"'
        raise reader.wrong(f"It should begin with \\data\\; there is {shown}.")
    counts: list[int] = []
    while (line := reader.text()) is not None and line.strip():
        match = re.fullmatch(r"ngram\s+(\d+)\s*=\s*(\d+)\s*", line)
        if match is None or int(match[1]) != len(counts) + 1:
            raise reader.wrong(f'There should be "ngram {len(counts) + 1}=" and a number; there is "{line[:60]}".')
        counts.append(int(match[2]))
        if counts[-1] > most:
            raise reader.wrong(f"So many {len(counts)}-grams do not fit into the file.")
    if not counts:
        raise reader.wrong("It says of no order how many n-grams there are.")
    if len(counts) > MAX_ORDER:
        raise Failure(f"{reader.name} is of order {len(counts)}.", f"Textmill reads n-grams of order 1 to {MAX_ORDER}.")
    return counts


def _expect(reader: _Reader, wanted: str) -> None:
    line = reader.content()
    if line is None or line.rstrip() != wanted:
        shown = "the file ends" if line is None else f'there is "{line[:60]}"'
        raise reader.wrong(
            f"There should be {wanted}; {shown}. Perhaps the counts at its head are not those of the file."
        )


_WHY = {
    NO_NUMBER: "It should begin with a number, the base-10 logarithm of a probability",
    NO_WORDS: "It has too few fields",
    TOO_LONG: "It has too many fields",
    NO_WORD: "A word of it is not among the 1-grams",
    POSITIVE: "Its log probability is above 0",
    NO_BACKOFF: "Its back-off weight is no finite number, or stands in the highest order, which has none",
}


def _read_section(
    reader: _Reader, k: int, count: int, highest: bool, words: Words | None, found: list[bytes]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pieces of one order: words int32 [n, k] (order 1 appends to `found`), log10 and backoff float32 [n]."""
    blanks = blank_table(ARPA_BLANKS)
    nothing = Words.of([]) if words is None else words
    left = count
    while left:
        if not reader.more():
            reader.line += 1
            raise reader.wrong(f"The file ends in the middle of the {k}-grams: {left:,} of {count:,} are missing.")
        room = min(left, LINES)
        rows = np.empty((room, k), dtype=np.int32)
        spans = np.empty((room if k == 1 else 0, 2), dtype=np.int64)
        log10, backoff = np.empty(room, dtype=np.float32), np.empty(room, dtype=np.float32)
        status, made, at = _read_lines(
            reader.data, reader.at, room, blanks, k, highest, nothing.arena, nothing.offsets, nothing.slots, rows,
            spans, log10, backoff,
        )  # fmt: skip
        reader.line += made
        if k == 1:
            data = reader.data
            found.extend(data[begin:end].tobytes() for begin, end in spans[:made].tolist())
        reader.at = at
        if status != FINE:
            line = reader.text() or ""
            if not line.strip() or line.startswith("\\"):
                raise reader.wrong(
                    f"There are fewer {k}-grams than its head says: {count - left + made:,} of {count:,}."
                )
            raise reader.wrong(f'{_WHY[status]}: "{line[:80]}".')
        left -= made
        yield rows[:made], log10[:made], backoff[:made]


def read_arpa(path: Path | str) -> tuple[Words, Grams, bool]:
    """Read an ARPA file, packed or not.

    `<unk>` becomes id 0, the other words are numbered as they come; a file without it gets one with the probability
    1e-100, as in KenLM.

    Returns:
        the vocabulary, the n-grams in their order, and whether every n-gram's suffix is an n-gram too (a file of
        SRILM's may lack some).

    Raises:
        Failure: the file is corrupt; says the line.
    """
    with open_bytes(path) as stream:
        reader = _Reader(stream, str(path))
        counts = _header(reader, _most_lines(path))
        _expect(reader, "\\1-grams:")
        found: list[bytes] = []
        first_line = reader.line
        parts = list(_read_section(reader, 1, counts[0], len(counts) == 1, None, found))
        log10 = np.concatenate([part[1] for part in parts] or [np.zeros(0, np.float32)])
        backoff = np.concatenate([part[2] for part in parts] or [np.zeros(0, np.float32)])
        words, order = _vocabulary(reader, found, first_line)
        grown = np.array([-1, *range(len(found))]) if order is None else np.array(order)
        known = grown >= 0
        unigrams = Order(
            np.zeros(0, dtype=np.int32),
            np.arange(len(grown), dtype=np.int32),
            np.where(known, log10[grown], np.float32(-100)).astype(np.float32),
            np.where(known, backoff[grown], np.float32(0)).astype(np.float32),
        )
        orders, closed = [unigrams], True
        indexes: list[Index] = []
        for k in range(2, len(counts) + 1):
            _expect(reader, f"\\{k}-grams:")
            index = Index(counts[k - 1])
            contexts = np.empty(counts[k - 1], dtype=np.int32)
            section = Order(contexts, np.empty_like(contexts), *np.empty((2, counts[k - 1]), dtype=np.float32))
            done = 0
            for rows, log10, backoff in _read_section(reader, k, counts[k - 1], k == len(counts), words, []):
                here, begin = slice(done, done + len(rows)), reader.line - len(rows)
                place = _chain(indexes, rows[:, :-1])
                if (place < 0).any():
                    reader.line = begin + int(np.argmax(place < 0)) + 1
                    raise reader.wrong(f"Its first {k - 1} words are no {k - 1}-gram of the file.")
                closed = closed and bool((_chain(indexes, rows[:, 1:]) >= 0).all())
                twice = index.add(place, np.ascontiguousarray(rows[:, -1]), done)
                if twice >= 0:
                    reader.line = begin + twice + 1
                    raise reader.wrong(f"This {k}-gram was there before.")
                section.context[here], section.last[here] = place, rows[:, -1]
                section.log10[here], section.backoff[here] = log10, backoff
                done += len(rows)
            indexes.append(index)
            orders.append(section)
        _expect(reader, "\\end\\")
        if reader.content() is not None:
            raise reader.wrong("There is something after \\end\\.")
    return words, Grams(orders, []), closed


def _chain(indexes: list[Index], words: np.ndarray) -> np.ndarray:
    """Places of n-grams int32 [n, k] in their order; -1 for none."""
    place = np.ascontiguousarray(words[:, 0])
    for k in range(1, words.shape[1]):
        place = indexes[k - 1].find(place, words[:, k])
    return place


def _vocabulary(reader: _Reader, found: list[bytes], first_line: int) -> tuple[Words, list[int] | None]:
    """The words with `<unk>` first, and for each the line of the file; None where the file has no `<unk>`."""
    unknown = [at for at, word in enumerate(found) if word in (SPECIAL[UNKNOWN], b"<UNK>")]
    if len(set(found)) < len(found):
        seen: set[bytes] = set()
        for at, word in enumerate(found):
            if word in seen:
                reader.line = first_line + at + 1
                raise reader.wrong(f"The word {word.decode('utf-8', 'replace')} was there before.")
            seen.add(word)
    if not unknown:
        return Words.of([SPECIAL[UNKNOWN], *found]), None
    order = [unknown[0], *(at for at in range(len(found)) if at != unknown[0])]
    return Words.of([SPECIAL[UNKNOWN], *(found[at] for at in order[1:])]), order

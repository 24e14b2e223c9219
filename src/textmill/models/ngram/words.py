"""Words to ids: a vocabulary that grows while text is read, compiled. No files.

Id 0 is `<unk>`, 1 `<s>`, 2 `</s>`; then words in the order in which they first occur, as in KenLM's ARPA files.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from textmill.base.errors import Failure
from textmill.corpus.kernels import FNV_BASIS, inline, kernel, mix

UNKNOWN, BEGIN, END = 0, 1, 2
"""Ids of `<unk>`, `<s>` and `</s>`."""
SPECIAL = (b"<unk>", b"<s>", b"</s>")

COUNTING_BLANKS = b"\0\t\n\r "
"""What separates words where n-grams are counted: as in lmplz, no other blank does, whatever Unicode calls it."""
QUERY_BLANKS = b"\t\n\v\f\r "
"""What separates words of a text that is scored, as in KenLM's query."""

_PRIME = np.uint64(0x100000001B3)
_HIGH = np.uint64(0xFFFFFFFF00000000)
_LOW = np.uint64(0xFFFFFFFF)
_NEWLINE = 10

_AT_ONCE = 512

# What the encoder stopped at.
DONE, ROOM, SPECIAL_WORD = 0, 1, 2


@inline
def hash_bytes(data: np.ndarray, at: int, stop: int) -> np.uint64:
    """64-bit hash of the bytes at `at` to `stop`."""
    value = FNV_BASIS
    for place in range(at, stop):
        value = (value ^ np.uint64(data[place])) * _PRIME
    return mix(value)


@inline
def find_word(
    data: np.ndarray, at: int, stop: int, arena: np.ndarray, offsets: np.ndarray, slots: np.ndarray
) -> tuple[Any, np.uint64, np.uint64]:
    """Id of a word (-1: unknown), the slot where it is or would be, and its hash.

    A slot holds the upper half of the hash and, in the lower half, id + 1; 0 is free.
    """
    hashed = hash_bytes(data, at, stop)
    mask = np.uint64(len(slots) - 1)
    slot = hashed & mask
    found = np.int64(-1)
    while slots[slot] != 0:
        entry = slots[slot]
        if entry & _HIGH == hashed & _HIGH:
            number = np.int64(entry & _LOW) - 1
            begin = offsets[number]
            if offsets[number + 1] - begin == stop - at:
                same = True
                for place in range(stop - at):
                    if arena[begin + place] != data[at + place]:
                        same = False
                        break
                if same:
                    found = number
                    break
        slot = (slot + np.uint64(1)) & mask
    return found, slot, hashed


@kernel
def _rehash(arena: np.ndarray, offsets: np.ndarray, count: int, slots: np.ndarray) -> None:
    """Enter the first `count` words into empty `slots`."""
    mask = np.uint64(len(slots) - 1)
    for number in range(count):
        hashed = hash_bytes(arena, offsets[number], offsets[number + 1])
        slot = hashed & mask
        while slots[slot] != 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = (hashed & _HIGH) | np.uint64(number + 1)


@kernel
def _encode(
    data: np.ndarray,
    blanks: np.ndarray,
    arena: np.ndarray,
    offsets: np.ndarray,
    slots: np.ndarray,
    skip: bool,
    state: np.ndarray,
    out: np.ndarray,
) -> int:
    """Words of `data` as ids, each line begun by BEGIN and, at its newline, closed by END.

    New words are learnt. `state` int64 [4]: place in data, ids written, words known, whether a line is open. Stops
    with ROOM when a word finds no room in the vocabulary, with SPECIAL_WORD at a special one where those are refused.
    """
    at, written, known, is_open = state[0], state[1], state[2], state[3]
    length = len(data)
    status = DONE
    while at < length:
        if is_open == 0:
            out[written] = BEGIN
            written += 1
            is_open = 1
        if data[at] == _NEWLINE:
            out[written] = END
            written += 1
            is_open = 0
            at += 1
            continue
        if blanks[data[at]]:
            at += 1
            continue
        stop = at + 1
        while stop < length and not blanks[data[stop]]:
            stop += 1
        number, slot, hashed = find_word(data, at, stop, arena, offsets, slots)
        if number < 0:
            if known + 1 >= len(offsets) or offsets[known] + stop - at > len(arena) or 2 * known >= len(slots):
                status = ROOM
                break
            free = offsets[known]
            for place in range(stop - at):
                arena[free + place] = data[at + place]
            offsets[known + 1] = free + stop - at
            slots[slot] = (hashed & _HIGH) | np.uint64(known + 1)
            number = known
            known += 1
        elif number <= END:
            if not skip:
                status = SPECIAL_WORD
                break
            at = stop
            continue
        out[written] = number
        written += 1
        at = stop
    state[0], state[1], state[2], state[3] = at, written, known, is_open
    return status


@kernel
def _encode_known(
    data: np.ndarray,
    blanks: np.ndarray,
    arena: np.ndarray,
    offsets: np.ndarray,
    slots: np.ndarray,
    begin: int,
    end: int,
    out: np.ndarray,
    starts: np.ndarray,
) -> tuple[int, int]:
    """As `_encode` with a vocabulary that does not grow: unknown words are UNKNOWN. Gives the ids and lines written.

    Words are found, looked up and verified in three steps of a few hundred, so that look-ups need not wait for one
    another.
    """
    bounds, hashes = np.empty((_AT_ONCE, 3), dtype=np.int64), np.empty(_AT_ONCE, dtype=np.uint64)
    mask = np.uint64(len(slots) - 1)
    at, written, lines, is_open, length = 0, 0, 0, False, len(data)
    while at < length:
        count = 0
        while at < length and count < _AT_ONCE:
            if not is_open:
                starts[lines] = written
                lines += 1
                out[written] = begin
                written += 1
                is_open = True
            byte = data[at]
            if blanks[byte]:
                if byte == _NEWLINE:
                    out[written] = end
                    written += 1
                    is_open = False
                at += 1
                continue
            bounds[count, 0] = at
            value = FNV_BASIS
            while not blanks[byte]:
                value = (value ^ np.uint64(byte)) * _PRIME
                at += 1
                if at == length:
                    break
                byte = data[at]
            bounds[count, 1], bounds[count, 2] = at, written
            hashes[count] = mix(value)
            written += 1
            count += 1
        for row in range(count):
            hashed = hashes[row]
            slot = hashed & mask
            entry = slots[slot]
            while entry != 0 and entry & _HIGH != hashed & _HIGH:
                slot = (slot + np.uint64(1)) & mask
                entry = slots[slot]
            out[bounds[row, 2]] = UNKNOWN if entry == 0 else np.int64(entry & _LOW) - 1
        for row in range(count):
            number = np.int64(out[bounds[row, 2]])
            word, stop = bounds[row, 0], bounds[row, 1]
            place = offsets[number]
            same = offsets[number + 1] - place == stop - word
            while same and word < stop:
                same = arena[place] == data[word]
                place += 1
                word += 1
            if not same and number != UNKNOWN:  # half of the hash was equal: look on
                number, _, _ = find_word(data, bounds[row, 0], stop, arena, offsets, slots)
                out[bounds[row, 2]] = max(number, UNKNOWN)
    return written, lines


def blank_table(blanks: bytes) -> np.ndarray:
    """For every byte whether it separates words, bool [256]; a newline always does."""
    table = np.zeros(256, dtype=np.bool_)
    table[list(blanks)] = True
    table[_NEWLINE] = True
    return table


class Words:
    """A vocabulary of byte strings.

    Args:
        arena: uint8, the words one after the other.
        offsets: int64 [words + 1], where each begins.
        slots: uint64 [2**k], hash table; None makes it.
    """

    def __init__(self, arena: np.ndarray, offsets: np.ndarray, slots: np.ndarray | None = None) -> None:
        self.arena, self.offsets, self.count = arena, offsets, len(offsets) - 1
        if slots is None:
            slots = np.zeros(1 << max(4, int(4 * self.count).bit_length() - 1), dtype=np.uint64)
            _rehash(arena, offsets, self.count, slots)
        self.slots = slots

    @classmethod
    def of(cls, words: Iterable[bytes]) -> Words:
        """The vocabulary of these words, numbered as they come."""
        parts = list(words)
        offsets = np.zeros(len(parts) + 1, dtype=np.int64)
        np.cumsum([len(part) for part in parts], out=offsets[1:])
        return cls(np.frombuffer(bytearray(b"".join(parts)), dtype=np.uint8), offsets)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> bytes:
        return self.arena[self.offsets[number] : self.offsets[number + 1]].tobytes()

    def text(self, number: int) -> str:
        """The word for people; bytes that are no UTF-8 are shown as �."""
        return self[number].decode("utf-8", "replace")

    def find(self, word: bytes) -> int:
        """Its id; -1 when it is not in the vocabulary."""
        data = np.frombuffer(bytearray(word), dtype=np.uint8)
        return int(_find_one(data, self.arena, self.offsets, self.slots))

    def only(self, kept: np.ndarray) -> Words:
        """The vocabulary of the words for which `kept`, bool [words], is true, numbered anew."""
        if kept.all():
            return Words(self.arena[: self.offsets[self.count]], self.offsets[: self.count + 1], self.slots)
        return Words.of(self[number] for number in np.flatnonzero(kept).tolist())

    def encode(
        self, data: np.ndarray, blanks: np.ndarray, begin: int = BEGIN, end: int = END
    ) -> tuple[np.ndarray, np.ndarray]:
        """Whole lines of text, uint8, as ids int32: `begin`, words, `end` for each line; unknown words are UNKNOWN.

        Also gives where each line begins, int64 [lines].
        """
        lines = int(np.count_nonzero(data == _NEWLINE)) + 1
        out, starts = np.empty(len(data) + lines + 1, dtype=np.int32), np.empty(lines, dtype=np.int64)
        written, made = _encode_known(
            data, blanks, self.arena, self.offsets, self.slots, begin, end, out, starts
        )  # fmt: skip
        return out[:written], starts[:made]


@kernel
def _find_one(data: np.ndarray, arena: np.ndarray, offsets: np.ndarray, slots: np.ndarray) -> int:
    number, _, _ = find_word(data, 0, len(data), arena, offsets, slots)
    return number


class GrowingWords(Words):
    """A vocabulary that learns the words of what it encodes.

    Args:
        skip_special: take `<s>`, `</s>` and `<unk>` in the text for blanks instead of refusing them.
    """

    def __init__(self, skip_special: bool = False) -> None:
        arena, offsets = np.zeros(1 << 16, dtype=np.uint8), np.zeros(1 << 12, dtype=np.int64)
        joined = b"".join(SPECIAL)
        arena[: len(joined)] = np.frombuffer(joined, dtype=np.uint8)
        offsets[1 : len(SPECIAL) + 1] = np.cumsum([len(word) for word in SPECIAL])
        self.arena, self.offsets, self.count = arena, offsets, len(SPECIAL)
        self.slots = np.zeros(1 << 13, dtype=np.uint64)
        _rehash(arena, offsets, self.count, self.slots)
        self.skip_special = skip_special
        self._blanks = blank_table(COUNTING_BLANKS)
        self._lines = 0

    def learn(self, data: np.ndarray) -> np.ndarray:
        """Whole lines of text, uint8, as ids int32: BEGIN, words, END for each; a last line without newline gets
        no END.

        Raises:
            Failure: a special word is in the text.
        """
        lines = int(np.count_nonzero(data == _NEWLINE))
        # A word takes two bytes with its blank, an empty line one, and gives two ids.
        out = np.empty(len(data) + lines + 2, dtype=np.int32)
        state = np.array([0, 0, self.count, 0], dtype=np.int64)
        while True:
            status = _encode(
                data, self._blanks, self.arena, self.offsets, self.slots, self.skip_special, state, out
            )  # fmt: skip
            self.count = int(state[2])
            if status == DONE:
                break
            if status == SPECIAL_WORD:
                line = self._lines + 1 + int(np.count_nonzero(data[: state[0]] == _NEWLINE))
                word = data[state[0] : state[0] + 5].tobytes().split()[0].decode("ascii", "replace")
                name = next(special.decode() for special in SPECIAL if word.encode().startswith(special))
                raise Failure(
                    f"The special word {name} is in the text, on line {line:,}.",
                    "<s>, </s> and <unk> stand for the begin and the end of a line and for unknown words.",
                    "Take it out of the text, or have the three treated as blanks with --skip-symbols.",
                )
            self._make_room(len(data) - int(state[0]))
        self._lines += lines
        return out[: state[1]]

    def _make_room(self, longest: int) -> None:
        used = int(self.offsets[self.count])
        if self.count + 1 >= len(self.offsets):
            self.offsets = np.concatenate([self.offsets, np.zeros(len(self.offsets), dtype=np.int64)])
        elif 2 * self.count >= len(self.slots):
            self.slots = np.zeros(4 * len(self.slots), dtype=np.uint64)
            _rehash(self.arena, self.offsets, self.count, self.slots)
        else:
            room = max(len(self.arena), min(longest, 1 << 20), used - len(self.arena) + longest // 64)
            self.arena = np.concatenate([self.arena, np.zeros(room, dtype=np.uint8)])

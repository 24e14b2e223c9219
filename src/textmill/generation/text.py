"""Tokens to shown text, piece by piece: whole characters, never a part of a stop text. Touches nothing."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """Collects the bytes of tokens and says which text may be shown already.

    A character is held back until all of its UTF-8 bytes are there. Text that may turn out to be the
    beginning of a stop text is held back until it is clear that it is not. Bytes that can be no UTF-8 become
    U+FFFD.

    Args:
        stop: texts that end the generation; they may span tokens.
        include: whether the stop text that came is shown.

    Attributes:
        text: all that was shown so far.
        stopped: whether a stop text has come.
    """

    def __init__(self, stop: Sequence[str] = (), include: bool = False) -> None:
        self.stop, self.include = tuple(stop), include
        self.text = ""
        self.stopped = False
        self._held = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, piece: bytes, stoppable: bool = True) -> str:
        """Take one token's bytes; return the text that may be shown now (maybe "").

        Until `stoppable`, a stop text is text like any other.
        """
        assert not self.stopped, "nothing comes after a stop text"
        self._held += self._decoder.decode(piece)
        if not stoppable:
            return self._show(len(self._held))
        found = [(place, stop) for stop in self.stop if (place := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            place, stop = min(found, key=lambda one: (one[0], -len(one[1])))
            return self._show(place + (len(stop) if self.include else 0))
        return self._show(len(self._held) - self._doubtful())

    def close(self) -> str:
        """No token comes any more: return what was held back in vain. An unfinished character is dropped."""
        if self.stopped:
            return ""
        return self._show(len(self._held))

    def _show(self, length: int) -> str:
        new, self._held = self._held[:length], self._held[length:]
        self.text += new
        return new

    def _doubtful(self) -> int:
        """Length of the longest end of the held text that a stop text begins with."""
        return max(
            (
                size
                for stop in self.stop
                for size in range(1, min(len(stop) - 1, len(self._held)) + 1)
                if self._held.endswith(stop[:size])
            ),
            default=0,
        )

"""What a text is cut into before its n-grams are counted: words, characters, Chinese words, a run's tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from textmill.base.errors import UsageError

SPACE = "▁"
"""Stands for a blank where characters are the units, as in SentencePiece."""


@dataclass(frozen=True)
class Units:
    """A way to cut lines of text, as bytes, into units between blanks.

    Attributes:
        name: as typed.
        cut: from whole lines to whole lines, as many.
    """

    name: str
    cut: Callable[[bytes | bytearray], bytes | bytearray]


def _characters(data: bytes | bytearray) -> bytes:
    text = data.decode("utf-8", "surrogateescape").replace("\r", "").replace("\t", " ").replace(" ", SPACE)
    lines = (" ".join(line) for line in text.split("\n"))
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def _chinese(data: bytes | bytearray) -> bytes:
    import rjieba

    text = data.decode("utf-8", "replace")
    lines = (" ".join(word for word in rjieba.cut(line) if not word.isspace()) for line in text.split("\n"))
    return "\n".join(lines).encode()


def _tokens_of(run: Path) -> Callable[[bytes | bytearray], bytes]:
    from textmill.tokens.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(run / "tokens" if (run / "tokens").is_dir() else run)

    def cut(data: bytes | bytearray) -> bytes:
        lines = data.decode("utf-8", "replace").split("\n")
        return "\n".join(" ".join(map(str, ids)) for ids in tokenizer.encode_batch(lines)).encode()

    return cut


WORDS = Units("words", lambda data: data)
"""What stands between blanks."""


def unit_named(name: str) -> Units:
    """The units of this name: words, characters, rjieba, or the folder of a run, whose tokens' numbers are the units.

    Raises:
        UsageError: there are none of this name, or what they need is missing.
    """
    if name == "words":
        return WORDS
    if name == "characters":
        return Units(name, _characters)
    if name == "rjieba":
        try:
            import rjieba  # noqa: F401
        except ImportError as error:
            raise UsageError(
                "Chinese words need rjieba.", fix='Install it with: pip install "textmill[chinese]"'
            ) from error
        return Units(name, _chinese)
    if Path(name).is_dir():
        return Units(name, _tokens_of(Path(name)))
    raise UsageError(
        f'There is no vocabulary "{name}".',
        fix="Choose words, characters, rjieba, or the folder of a run for its tokens.",
    )

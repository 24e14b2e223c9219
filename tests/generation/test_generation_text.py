"""Shown text: whole characters, never a part of a stop text, however the bytes are cut into tokens."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from textmill.generation.text import TextStream


def cut(data: bytes, seed: int) -> list[bytes]:
    """`data` in pieces of one to five bytes."""
    dice = random.Random(seed)
    pieces = []
    while data:
        size = dice.randint(1, 5)
        pieces.append(data[:size])
        data = data[size:]
    return pieces


def feed(pieces: list[bytes], stop: tuple[str, ...] = ()) -> tuple[list[str], TextStream]:
    """What is shown after each piece, and at the end."""
    stream = TextStream(stop)
    shown = []
    for piece in pieces:
        shown.append(stream.add(piece))
        if stream.stopped:
            break
    shown.append(stream.close())
    return shown, stream


@given(st.text(), st.integers(0, 1000))
def test_any_text_comes_out_whole(text: str, seed: int) -> None:
    shown, stream = feed(cut(text.encode(), seed))
    assert "".join(shown) == stream.text == text


@given(st.text(alphabet="学a而😀é"), st.integers(0, 1000))
def test_each_piece_holds_whole_characters(text: str, seed: int) -> None:
    shown, _ = feed(cut(text.encode(), seed))
    assert all("\ufffd" not in piece for piece in shown)


@given(st.binary(), st.integers(0, 1000))
def test_invalid_bytes_decode_as_they_do_all_at_once(data: bytes, seed: int) -> None:
    _, stream = feed(cut(data, seed))
    whole = data.decode("utf-8", "replace")
    # An unfinished character at the very end is dropped instead of shown as U+FFFD.
    assert stream.text == whole or (whole.startswith(stream.text) and set(whole[len(stream.text) :]) == {"\ufffd"})


@given(
    st.text(alphabet="ab学", max_size=40),
    st.lists(st.text(alphabet="ab学", min_size=1, max_size=6), min_size=1, max_size=3),
    st.integers(0, 1000),
)
def test_a_stop_text_is_never_shown(text: str, stops: list[str], seed: int) -> None:
    shown, stream = feed(cut(text.encode(), seed), tuple(stops))
    assert "".join(shown) == stream.text
    assert all(stop not in stream.text for stop in stops)
    assert text.startswith(stream.text)
    assert stream.stopped == any(stop in text for stop in stops)
    if not stream.stopped:
        assert stream.text == text


@given(
    st.text(alphabet="ab学", max_size=20),
    st.text(alphabet="ab学", min_size=1, max_size=6),
    st.integers(0, 1000),
)
def test_what_is_shown_is_never_taken_back(text: str, stop: str, seed: int) -> None:
    """At no moment has more been shown than what stands before the stop text."""
    before = (text + stop).split(stop)[0]
    shown, _ = feed(cut((text + stop).encode(), seed), (stop,))
    assert "".join(shown) == before


def test_text_held_back_in_vain_is_shown_as_soon_as_that_is_clear() -> None:
    stream = TextStream(("STOP",))
    assert [stream.add(piece) for piece in (b"go ST", b"O", b"RE")] == ["go ", "", "STORE"]


def test_an_unfinished_last_character_is_dropped() -> None:
    stream = TextStream()
    assert [stream.add("好".encode()), stream.add("学".encode()[:2]), stream.close()] == ["好", "", ""]

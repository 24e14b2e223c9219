"""Personal data in texts: where it stands and of what kind. Touches nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from textmill.corpus.privacy import prefilter
from textmill.corpus.privacy.checks import IBAN_LENGTHS, is_iban, is_public_ip
from textmill.corpus.privacy.config import KINDS, PrivacyConfig
from textmill.corpus.privacy.domains import CODE_HOSTS, NOT_PERSONAL, TOP_LEVEL
from textmill.corpus.privacy.numbers import numbers
from textmill.corpus.privacy.secrets import LONGEST_TOKEN, assigned, key_at, private_key_at
from textmill.corpus.texts import Texts


class Finding(NamedTuple):
    """One piece of personal data.

    Attributes:
        kind: one of `KINDS`.
        begin: its first place; end: the place after its last (characters in `find`, bytes in `findings`).
        text: as it stands there.
    """

    kind: str
    begin: int
    end: int
    text: str


_EMAIL = re.compile(
    rb"[A-Za-z0-9_](?:[A-Za-z0-9._%+'-]{0,62}[A-Za-z0-9_+-])?@((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+"
    rb"(?:[A-Za-z]{2,24}|xn--[a-z0-9-]{2,59}))(?![A-Za-z0-9_-])"
)
_NOT_LOCAL = (b"user", b"username", b"name", b"someone", b"your.name", b"you", b"youremail", b"your")
_URL_PASSWORD = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s/@:]{0,64}:$")
_URL_USER = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]{1,20}://$")
_MAC = re.compile(rb"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}")
_DOCUMENTED_MAC = (b"00005e00", b"000102030", b"001122334455", b"aabbccddeeff")
_WIDE_DIGITS = {0xFF01 + place: 0x21 + place for place in range(94)} | {0x3000: 0x20}
_MARGIN = 64


def findings(texts: Texts, config: PrivacyConfig | None = None) -> Iterator[tuple[int, list[Finding]]]:
    """Every row that holds personal data, in order, with what it holds in order of place, overlaps resolved.

    What is found in a text depends on that text and the settings alone. Places are bytes of the row's UTF-8.
    """
    config = config or PrivacyConfig()
    kinds = frozenset(config.kinds)
    marks = prefilter.mark(texts).tolist()
    at = 0
    while at < len(marks):
        row = marks[at][0]
        found: list[tuple[str, int, int]] = []
        base, end = int(texts.offsets[row]), int(texts.offsets[row + 1])
        while at < len(marks) and marks[at][0] == row:
            _, shape, first, last = marks[at]
            found += [
                (kind, begin - base, stop - base)
                for kind, begin, stop in _read(texts, shape, first, last, base, end, kinds, config)
                if kind in kinds
            ]
            at += 1
        if found:
            raw = texts.data[base:end]
            yield (
                row,
                [
                    Finding(kind, begin, stop, raw[begin:stop].tobytes().decode())
                    for kind, begin, stop in _without_overlaps(found)
                ],
            )


def find(text: str, config: PrivacyConfig | None = None) -> list[Finding]:
    """Personal data in one text, in order; places are characters.

    >>> find("Write to ann@aston.ac.uk.")
    [Finding(kind='email', begin=9, end=24, text='ann@aston.ac.uk')]
    """
    raw = text.encode()
    for _, found in findings(Texts.from_bytes([raw]), config):
        if len(raw) == len(text):
            return found
        result, place, read = [], 0, 0
        for one in found:
            place += len(raw[read : one.begin].decode())
            result.append(Finding(one.kind, place, place + len(one.text), one.text))
            place, read = place + len(one.text), one.end
        return result
    return []


def _without_overlaps(found: Sequence[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Of overlapping findings the kind named first in `KINDS`, then the longest, then the first."""
    ordered = sorted(set(found), key=lambda one: (one[1], one[2]))
    kept: list[tuple[str, int, int]] = []
    rank = {kind: place for place, kind in enumerate(KINDS)}
    for one in ordered:
        clash = [other for other in kept[-8:] if other[2] > one[1]]
        if not clash:
            kept.append(one)
        elif all((rank[one[0]], one[1] - one[2]) < (rank[other[0]], other[1] - other[2]) for other in clash):
            kept = (
                [other for other in kept if other not in clash]
                if len(kept) < 9
                else [
                    *kept[:-8],
                    *(other for other in kept[-8:] if other not in clash),
                ]
            )
            kept.append(one)
    return kept


def _read(
    texts: Texts, shape: int, first: int, last: int, base: int, end: int, kinds: frozenset[str], config: PrivacyConfig
) -> Iterator[tuple[str, int, int]]:
    """What stands at one marked place: kind, begin, end in bytes of `texts.data`."""
    data = texts.data
    if shape == prefilter.NUMBER:
        span = data[first:last].tobytes()
        before = data[max(base, first - _MARGIN) : first].tobytes()
        after = data[last : min(end, last + _MARGIN)].tobytes()
        for kind, begin, stop in numbers(span, before, after, kinds, config.phone_regions):
            yield kind, first + begin, first + stop
    elif shape == prefilter.EMAIL:
        yield from _mail(data[max(base, first - 96) : min(end, last + 1)].tobytes(), max(base, first - 96), first)
    elif shape == prefilter.TOKEN:
        length = key_at(data[first : min(end, first + LONGEST_TOKEN)].tobytes())
        if length:
            yield "secret", first, first + length
    elif shape == prefilter.ASSIGNMENT:
        value = assigned(data[max(base, last - 80) : last].tobytes(), data[last : min(end, last + 208)].tobytes())
        if value is not None:
            yield "secret", last + value[0], last + value[1]
    elif shape == prefilter.PEM:
        length = private_key_at(data[first : min(end, first + 20_000)].tobytes())
        if length:
            yield "secret", first, first + length
    elif shape == prefilter.COLONS:
        if first == base or data[first - 1] != 45:  # 11-Aug-2005::15:31:23
            yield from _colons(data[first:last].tobytes(), first)
    elif shape == prefilter.IBAN:
        yield from _iban(data[first:last].tobytes(), first)
    elif shape == prefilter.WIDE:
        yield from _wide(data[first:last].tobytes(), first, kinds, config)


def _mail(window: bytes, at: int, first: int) -> Iterator[tuple[str, int, int]]:
    """The address in a window that begins at byte `at`; its local part begins at or after byte `first`."""
    match = _EMAIL.search(window, first - at)
    if match is None:
        return
    before = window[: match.start()]
    local = match[0].split(b"@")[0]
    if _URL_PASSWORD.search(before):
        if re.search(rb"\d", local) and len(local) >= 6:
            yield "secret", at + match.start(), at + match.start() + len(local)
        return
    domain, end = match[1].lower().decode(), match.end()
    while domain.rsplit(".", 1)[1] not in TOP_LEVEL and not domain.rsplit(".", 1)[1].startswith("xn--"):
        domain, tail = domain.rsplit(".", 1)
        end -= len(tail) + 1
        if "." not in domain or not window[end + 1 : end + 2].isupper():  # the next sentence, its space forgotten
            return
    if (
        _URL_USER.search(before)
        or b".." in local
        or local.lower() in _NOT_LOCAL
        or (local.isdigit() and len(local) < 3)
    ):
        return
    if any(domain == known or domain.endswith("." + known) for known in NOT_PERSONAL):
        return
    if local == b"git" and (window[end : end + 1] == b":" or domain in CODE_HOSTS):  # git@host:path
        return
    yield "email", at + match.start(), at + end


def _colons(text: bytes, first: int) -> Iterator[tuple[str, int, int]]:
    """An IPv6 address or the address of a network card."""
    if _MAC.fullmatch(text):
        digits = text.lower().replace(b":", b"")
        # An odd first octet is a multicast address, which no card has.
        if len(set(digits)) > 2 and not int(digits[:2], 16) & 1 and not digits.startswith(_DOCUMENTED_MAC):
            yield "mac", first, first + len(text)
        return
    while text.endswith(b":") and not text.endswith(b"::"):
        text = text[:-1]
    if not text.endswith(b"::") and is_public_ip(text.decode()):  # 2002:: names a network, not a host
        yield "ip", first, first + len(text)


def _iban(text: bytes, first: int) -> Iterator[tuple[str, int, int]]:
    """An IBAN, written in one or in groups of four; words that follow it are not taken for its end."""
    length = IBAN_LENGTHS.get(text[:2].decode())
    if length is None:
        return
    taken = stop = 0
    while stop < len(text) and taken < length:
        taken += text[stop] != 32
        stop += 1
    whole = text[:stop].rstrip(b" ")
    spaces = whole.count(b" ")
    if spaces and any(len(group) != 4 for group in whole.split(b" ")[:-1]):
        return
    if (
        taken == length
        and not text[len(whole) : len(whole) + 1].isalnum()
        and is_iban(whole.replace(b" ", b"").decode())
    ):
        yield "iban", first, first + len(whole)


def _wide(window: bytes, first: int, kinds: frozenset[str], config: PrivacyConfig) -> Iterator[tuple[str, int, int]]:
    """Full-width characters are read as the ASCII ones that they look like."""
    wide = window.decode(errors="replace")
    narrow = wide.translate(_WIDE_DIGITS)
    places = [0]
    for letter in wide:
        places.append(places[-1] + len(letter.encode()))
    for _, found in findings(Texts.from_bytes([narrow.encode()]), config):
        text = narrow.encode()
        for one in found:
            begin = len(text[: one.begin].decode())
            stop = begin + len(one.text)
            yield one.kind, first + places[begin], first + places[stop]

"""Web and mail addresses, which the word splitter keeps whole. Touches nothing."""

from __future__ import annotations

import numpy as np

from textmill.corpus.judging.classes import LOWER, NAME
from textmill.corpus.kernels import inline, kernel

_DOT, _PLUS, _MINUS, _COLON, _SLASH, _AT = 46, 43, 45, 58, 47, 64


@inline
def is_digit(code: int) -> bool:
    """Whether a code point is one of 0 to 9."""
    return code >= 48 and code <= 57


@kernel
def _octet(codes: np.ndarray, low: int, high: int, place: int) -> int:
    """Value of the decimal number codes[low:high] as byte `place` of an address, -1 when it cannot be one."""
    value = 0
    for at in range(low, high):
        value = value * 10 + codes[at] - 48
    count = high - low
    if count < 1 or count > 3 or (count == 3 and codes[low] == 48):
        return -1
    if place in (0, 3) and codes[low] == 48:
        return -1
    top = 223 if place == 0 else 254 if place == 3 else 255
    return value if value <= top else -1


@kernel
def _tail(codes: np.ndarray, at: int, high: int) -> bool:
    """Whether codes[at:high] is what may follow a host: a port, a path, or nothing."""
    if at < high and codes[at] == _COLON:
        start = at + 1
        at = start
        while at < high and is_digit(codes[at]):
            at += 1
        if at - start < 2 or at - start > 5:
            return False
    return at == high or codes[at] in (47, 63, 35)


@inline
def _host_character(code: int) -> bool:
    return (
        (code >= 97 and code <= 122)
        or (code >= 65 and code <= 90)
        or (code >= 48 and code <= 57)
        or (code >= 0xA1 and code <= 0xFFFF)
    )


@kernel
def _host(codes: np.ndarray, flags: np.ndarray, low: int, high: int) -> bool:
    """Whether codes[low:high] is a public numeric address or a domain name, with an optional port and path."""
    at, place, first, second = low, 0, -1, -1
    while place < 4:
        start = at
        while at < high and is_digit(codes[at]):
            at += 1
        value = _octet(codes, start, at, place)
        if value < 0 or (place < 3 and (at == high or codes[at] != _DOT)):
            break
        if place == 0:
            first = value
        elif place == 1:
            second = value
        place += 1
        if place < 4:
            at += 1
    if place == 4 and _tail(codes, at, high):
        private = first in (10, 127) or (first == 169 and second == 254) or (first == 192 and second == 168)
        if not private and not (first == 172 and second >= 16 and second <= 31):
            return True
    at, labels = low, 0
    while True:
        start = at
        while at < high and (_host_character(codes[at]) or codes[at] == _MINUS or codes[at] == 95):
            at += 1
        if at in (high, start) or codes[at] != _DOT or at - start > 64:
            break
        if not _host_character(codes[start]) or not _host_character(codes[at - 1]):
            break
        labels += 1
        at += 1
    if labels == 0:
        return False
    at = start
    while at < high and flags[at] & LOWER:
        at += 1
    return at - start >= 2 and at - start <= 63 and _tail(codes, at, high)


@kernel
def is_address(codes: np.ndarray, flags: np.ndarray, low: int, high: int) -> bool:
    """Whether codes[low:high] is a web or mail address: scheme, user, host, port, path; all but the host optional."""
    dot = False
    for at in range(low, high):
        dot |= codes[at] == _DOT
    if not dot:
        return False
    if _host(codes, flags, low, high):
        return True
    at = low
    while at < high and (flags[at] & NAME or codes[at] in (_PLUS, _MINUS, _DOT)):
        at += 1
    scheme = at - low >= 2 and at + 2 < high and codes[at] == _COLON and codes[at + 1] == codes[at + 2] == _SLASH
    if scheme and _host(codes, flags, at + 3, high):
        return True
    found = False
    for user in range(low + 1, high - 1):
        found = found or (codes[user] == _AT and _host(codes, flags, user + 1, high))
    return found

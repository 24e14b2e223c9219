"""Single-precision numbers as the shortest decimal text that reads back as the same, and back. Touches nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from textmill.corpus.kernels import inline

_TENS = np.array([10.0**power for power in range(23)])
WIDEST = 24
"""Bytes that a written number takes at most."""
ZERO_LOG10 = np.float32(-99.0)
"""How a probability or weight of zero is written, as SRILM does: the ARPA format has no infinity."""

_MINUS, _PLUS, _POINT, _NOUGHT, _NINE, _E, _CAPITAL_E = 45, 43, 46, 48, 57, 101, 69


@inline
def scaled(value: float, power: int) -> float:
    """`value` times ten to `power`, exact tens as far as they go."""
    while power > 22:
        value *= _TENS[22]
        power -= 22
    while power < -22:
        value /= _TENS[22]
        power += 22
    return value * _TENS[power] if power >= 0 else value / _TENS[-power]


@inline
def write_number(value: float, out: np.ndarray, at: int) -> int:
    """Write a float32 at out[at:]; gives the place after it. From 1e-6 on without exponent, as KenLM writes."""
    single = np.float32(value)
    if single == 0:
        out[at] = _NOUGHT
        return at + 1
    if not single > np.float32(-3.5e38):
        single = ZERO_LOG10
    if single < 0:
        out[at] = _MINUS
        at += 1
    size = abs(np.float64(single))
    exponent: Any = np.int64(np.floor(np.log10(size)))
    digits: Any = np.int64(0)
    count = 6
    while count <= 9:
        digits = np.int64(np.rint(scaled(size, count - 1 - exponent)))
        if digits >= np.int64(_TENS[count]):
            exponent += 1
            digits = np.int64(np.rint(scaled(size, count - 1 - exponent)))
        if np.float32(scaled(np.float64(digits), exponent - count + 1)) == abs(single):
            break
        count += 1
    if count > 9:
        count = 9
    while digits % 10 == 0 and count > 1:
        digits //= 10
        count -= 1
    point = exponent + 1  # digits before the decimal point
    if exponent < -6 or exponent >= 21:
        point = 1
    start = at
    if point <= 0:
        out[at] = _NOUGHT
        out[at + 1] = _POINT
        at += 2
        for _ in range(-point):
            out[at] = _NOUGHT
            at += 1
        start = at
        point = -1
    width = count + (1 if 0 < point < count else 0)
    place = start + width - 1
    for number in range(count - 1, -1, -1):
        out[place] = _NOUGHT + digits % 10
        digits //= 10
        place -= 1
        if number == point:
            out[place] = _POINT
            place -= 1
    at = start + width
    for _ in range(count, point):
        out[at] = _NOUGHT
        at += 1
    if exponent < -6 or exponent >= 21:
        out[at] = _E
        at += 1
        if exponent < 0:
            out[at] = _MINUS
            at += 1
            exponent = -exponent
        if exponent >= 10:
            out[at] = _NOUGHT + exponent // 10
            at += 1
        out[at] = _NOUGHT + exponent % 10
        at += 1
    return at


@inline
def read_number(data: np.ndarray, at: int, stop: int) -> tuple[float, bool]:
    """The number in data[at:stop], and whether it is one."""
    negative = False
    if at < stop and (data[at] == _MINUS or data[at] == _PLUS):
        negative = data[at] == _MINUS
        at += 1
    if stop - at == 3 and (data[at] | 32) == 105 and (data[at + 1] | 32) == 110 and (data[at + 2] | 32) == 102:
        return (-np.inf if negative else np.inf), True
    digits: Any = np.int64(0)
    power: Any = 0
    seen, any_digit = False, False
    while at < stop:
        byte = data[at]
        if _NOUGHT <= byte <= _NINE:
            any_digit = True
            if digits < 100_000_000_000_000:
                digits = digits * 10 + (np.int64(byte) - _NOUGHT)
                if seen:
                    power -= 1
            elif not seen:
                power += 1
        elif byte == _POINT and not seen:
            seen = True
        else:
            break
        at += 1
    good = any_digit
    if good and at < stop:
        good = data[at] == _E or data[at] == _CAPITAL_E
        at += 1
        down = False
        if at < stop and (data[at] == _MINUS or data[at] == _PLUS):
            down = data[at] == _MINUS
            at += 1
        good = good and at < stop
        exponent: Any = 0
        while at < stop:
            if not _NOUGHT <= data[at] <= _NINE:
                good = False
                break
            exponent = min(exponent * 10 + (np.int64(data[at]) - _NOUGHT), 1000)
            at += 1
        power += -exponent if down else exponent
    value = 0.0
    if digits > 0 and power > -400:
        value = scaled(np.float64(digits), min(power, 400))
    return (-value if negative else value), good

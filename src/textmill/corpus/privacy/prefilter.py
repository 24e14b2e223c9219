"""One pass over the bytes marks the few places where personal data can be at all; only these are read with care.
Touches nothing."""

from __future__ import annotations

import numpy as np

from textmill.corpus.kernels import kernel
from textmill.corpus.texts import Texts

EMAIL, NUMBER, TOKEN, COLONS, IBAN, ASSIGNMENT, PEM, WIDE = range(1, 9)
"""What a place looks like: local@domain; digits with separators; a long word that begins like a key; hexadecimal
digits and colons; letters and digits like an IBAN; `password =`; a private key block; full-width digits or ＠."""

_DIGIT, _AT, _EQUALS, _COLON, _DASH, _WIDE, _CAPITAL_I = range(1, 8)
_WORD = 1
_LOCAL = 2
_HEX = 4

MAX_LOCAL, MAX_DOMAIN = 64, 255
"""Bytes of a mail address's two sides (RFC 5321)."""

MAX_WIDE = 256
"""Bytes in front of a full-width digit or ＠ that are read with it."""


def _tables() -> tuple[np.ndarray, np.ndarray]:
    """What begins at a byte, uint8 [256]; which sets it belongs to (word, local part, hexadecimal), uint8 [256]."""
    triggers = np.zeros(256, dtype=np.uint8)
    triggers[list(b"0123456789")] = _DIGIT
    for bytes_, kind in ((b"@", _AT), (b"=", _EQUALS), (b":", _COLON), (b"-", _DASH), (b"\xef", _WIDE)):
        triggers[list(bytes_)] = kind
    triggers[ord("I")] = _CAPITAL_I
    sets = np.zeros(256, dtype=np.uint8)
    letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    sets[list(letters + b"_")] |= _WORD
    sets[list(letters + b"._%+'-")] |= _LOCAL
    sets[list(b"0123456789abcdefABCDEF")] |= _HEX
    return triggers, sets


_TRIGGERS, _SETS = _tables()


@kernel
def _key_like(data: np.ndarray, at: int) -> bool:
    """Whether a word that begins here begins like a known key (two letters tell; the rest is read later)."""
    a, b = data[at], data[at + 1]
    if a == 65:  # A
        return b == 75 or b == 83 or b == 73  # AKIA, ASIA, AIza
    if a == 103:  # g
        return b == 104 or b == 108 or b == 105  # ghp_, glpat-, github_pat_
    if a == 115 or a == 114 or a == 112:  # s r p
        return b == 107 or b == 121  # sk_live, rk_live, pk_live, sk-, pypi-
    if a == 120:
        return b == 111  # xoxb-
    if a == 101:
        return b == 121  # eyJ
    if a == 104:
        return b == 102  # hf_
    if a == 110:
        return b == 112  # npm_
    if a == 83:
        return b == 71  # SG.
    return False


@kernel
def _secret_name(data: np.ndarray, begin: int, at: int) -> bool:
    """Whether the word that ends before `at` (spaces and a quote skipped) ends like password, secret, token, key."""
    skipped = 0
    while at > begin and skipped < 3 and (data[at - 1] == 32 or data[at - 1] == 34 or data[at - 1] == 39):
        at -= 1
        skipped += 1
    if at - begin < 3:
        return False
    a, b, c = data[at - 3] | 32, data[at - 2] | 32, data[at - 1] | 32
    if c == 100:  # d: password, passwd, pwd
        return (a == 111 and b == 114) or (b == 119 and (a == 115 or a == 112))
    if c == 116:
        return a == 114 and b == 101  # secret
    if c == 110:
        return a == 107 and b == 101  # token
    return c == 121 and a == 107 and b == 101  # key


@kernel
def _mark(data: np.ndarray, offsets: np.ndarray, triggers: np.ndarray, sets: np.ndarray, marks: np.ndarray) -> int:
    """Fill marks int64 [capacity, 4] with (row, kind, begin, end); gives how many there are, which may be more."""
    count, capacity = 0, len(marks)
    for row in range(len(offsets) - 1):
        begin, end = offsets[row], offsets[row + 1]
        at = begin
        wide_until = word_until = begin
        while at < end:
            trigger = triggers[data[at]]
            if trigger == 0:
                at += 1
                continue
            kind, first, last = 0, at, at + 1
            after = at + 1
            if trigger == _DIGIT:
                left, right = at, at
                if at >= word_until:
                    while left > begin and at - left < 256 and (sets[data[left - 1]] & _WORD or data[left - 1] == 45):
                        left -= 1
                    while right < end and (sets[data[right]] & _WORD or data[right] == 45):
                        right += 1
                    while left < at and (data[left] == 45 or data[left] == 95):
                        left += 1
                    word_until = right
                if right - left >= 16 and _key_like(data, left):
                    kind, first, last, after = TOKEN, left, right, right
                elif at > begin and sets[data[at - 1]] & _WORD:
                    after = at + 1
                    while after < end and sets[data[after]] & _WORD:
                        after += 1
                    left = at - 2
                    if (
                        left >= begin
                        and 65 <= data[left] <= 90
                        and 65 <= data[left + 1] <= 90
                        and (left == begin or not sets[data[left - 1]] & _WORD)
                    ):
                        letters, last, scan = 0, left, left
                        while scan < end and letters < 34:
                            value = data[scan]
                            if (48 <= value <= 57) or (65 <= value <= 90):
                                letters += 1
                                last = scan + 1
                            elif value != 32 or data[scan - 1] == 32:
                                break
                            scan += 1
                        if letters >= 15:
                            kind, first = IBAN, left
                else:
                    digits, groups, dots, seps, long_seps = 0, 0, 0, 0, 0
                    sizes_1, sizes_2, sizes_3 = 0, 0, 0
                    last = scan = at
                    size = 0
                    while scan < end:
                        value = data[scan]
                        if 48 <= value <= 57:
                            digits += 1
                            size += 1
                            last = scan + 1
                            seps = 0
                        elif value == 32 or value == 45 or value == 46 or value == 40 or value == 41 or value == 47:
                            if size:
                                groups += 1
                                if groups == 1:
                                    sizes_1 = size
                                elif groups == 2:
                                    sizes_2 = size
                                elif groups == 3:
                                    sizes_3 = size
                                size = 0
                            seps += 1
                            if seps > 2 or (value == 32 and data[scan - 1] == 32):
                                break
                            if value == 46:
                                dots += 1
                            elif value != 46:
                                long_seps += 1
                        else:
                            break
                        scan += 1
                    if size:
                        groups += 1
                        if groups == 1:
                            sizes_1 = size
                        elif groups == 2:
                            sizes_2 = size
                        elif groups == 3:
                            sizes_3 = size
                    after = last
                    follows = data[last] if last < end else 10
                    joined = follows < 128 and (sets[follows] & _WORD) != 0
                    if joined and digits == 17 and groups == 1 and (follows | 32) == 120:
                        last += 1
                        joined = last < end and (sets[data[last]] & _WORD) != 0
                        after = last
                    plus = at > begin and data[at - 1] == 43
                    if not joined and follows != 64 and follows != 37:
                        if groups == 1:
                            good = (9 <= digits <= 19) or (plus and digits >= 8)
                        elif digits < 7 or (groups == 2 and dots == 1 and long_seps == 0):
                            good = dots >= 3 and groups >= 4
                        elif sizes_1 == 4 and sizes_2 <= 2 and sizes_3 <= 2 and digits <= 14 and not plus:
                            good = False  # 2024-01-15 12
                        elif sizes_1 <= 2 and sizes_2 <= 2 and sizes_3 == 4 and digits <= 14 and not plus:
                            good = False  # 15/01/2024
                        else:
                            good = True
                        if good:
                            kind = NUMBER
                            first = at
                            if first > begin and data[first - 1] == 40:
                                first -= 1
                            if first > begin and data[first - 1] == 43:
                                first -= 1
                                if first > begin and data[first - 1] == 40:
                                    first -= 1
            elif trigger == _AT:
                left, right, dots = at, at + 1, 0
                while left > begin and at - left < MAX_LOCAL and sets[data[left - 1]] & _LOCAL:
                    left -= 1
                while (
                    right < end
                    and right - at < MAX_DOMAIN
                    and ((sets[data[right]] & _WORD) or data[right] == 45 or data[right] == 46)
                ):
                    if data[right] == 46 and data[right - 1] != 64:
                        dots += 1
                    right += 1
                if left < at and dots:
                    kind, first, last, after = EMAIL, left, right, at + 1
            elif trigger in (_COLON, _EQUALS):
                if _secret_name(data, begin, at):
                    kind, first, last = ASSIGNMENT, at, at + 1
                elif trigger == _COLON and at + 1 < end and (data[at + 1] == 58 or sets[data[at + 1]] & _HEX):
                    left, right, colons, double = at, at, 0, False
                    while left > begin and at - left < 5 and sets[data[left - 1]] & _HEX:
                        left -= 1
                    while right < end and right - at < 48:
                        value = data[right]
                        if value == 58:
                            colons += 1
                            double = double or (right + 1 < end and data[right + 1] == 58)
                        elif not (sets[value] & _HEX or value == 46):
                            break
                        right += 1
                    joined = (left > begin and (sets[data[left - 1]] & _WORD or data[left - 1] == 58)) or (
                        right < end and sets[data[right]] & _WORD
                    )
                    while right > left and data[right - 1] == 46:
                        right -= 1
                    if not joined and colons >= 2 and (double or colons == 5 or colons >= 6) and right - left >= 6:
                        kind, first, last = COLONS, left, right
                    after = max(right, at + 1)
            elif trigger == _DASH:
                if at + 16 < end and data[at + 1] == 45 and data[at + 4] == 45 and data[at + 5] == 66:  # -----BEGIN
                    kind, last, after = PEM, at + 11, at + 11
            elif trigger == _CAPITAL_I:
                if (
                    at - begin >= 2
                    and at + 17 <= end
                    and data[at + 1] == 65
                    and data[at - 2] == 65
                    and (data[at - 1] == 75 or data[at - 1] == 83)
                ):
                    kind, first, last = TOKEN, at - 2, at + 18
            elif at >= wide_until and at + 2 < end and data[at + 1] == 188:  # U+FF01 to U+FF3F
                value = data[at + 2]
                if value == 160 or 144 <= value <= 153:
                    # The whole run of ASCII and full-width characters is read again as ASCII.
                    left, right, digits, ats = at, at, 0, 0
                    while left > wide_until and at - left < MAX_WIDE:
                        if 32 <= data[left - 1] < 127:
                            left -= 1
                        elif left >= wide_until + 3 and data[left - 3] == 239 and 188 <= data[left - 2] <= 189:
                            left -= 3
                        else:
                            break
                    while right < end:
                        lead = data[right]
                        if 32 <= lead < 127:
                            right += 1
                        elif lead == 239 and right + 2 < end and 188 <= data[right + 1] <= 189:
                            if data[right + 1] == 188:
                                ats += data[right + 2] == 160
                                digits += 144 <= data[right + 2] <= 153
                            right += 3
                        else:
                            break
                    if digits >= 4 or ats:
                        kind, first, last = WIDE, left, right
                    wide_until = right
            if kind:
                if count < capacity:
                    marks[count, 0] = row
                    marks[count, 1] = kind
                    marks[count, 2] = first
                    marks[count, 3] = last
                count += 1
            at = after
    return count


def mark(texts: Texts) -> np.ndarray:
    """Places worth reading, int64 [m, 4]: row, what it looks like, first and last byte in `texts.data`."""
    capacity = 1024 + len(texts.data) // 1000
    while True:
        marks = np.empty((capacity, 4), dtype=np.int64)
        count = _mark(texts.data, texts.offsets, _TRIGGERS, _SETS, marks)
        if count <= capacity:
            return marks[:count]
        capacity = count

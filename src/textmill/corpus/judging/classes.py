"""What each character is to the word splitter and to the quality rules: one flag table over code points.

The classes follow what spaCy's English tokenizer and datatrove's filters take for letters, quotes, symbols and ends of
sentences, stated here by Unicode block and category. Touches nothing.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import numpy as np

from textmill.corpus.judging.exceptions import units
from textmill.corpus.tables import stored

SPACE = 1 << 0
"""Separates words (`str.isspace`)."""
ALPHA = 1 << 1
"""A letter to the splitter: Latin, Greek, Cyrillic, and every character of the scripts without case."""
LOWER = 1 << 2
"""Of ALPHA, small letters and characters without case."""
UPPER = 1 << 3
"""Of ALPHA, capital letters and characters without case."""
QUOTE = 1 << 4
"""Quotation marks and the brackets that East Asian text uses as such."""
PREFIX = 1 << 5
"""Split off the front of a word, one at a time."""
SUFFIX = 1 << 6
"""Split off the end of a word, one at a time."""
BEFORE_DOT = 1 << 7
"""After it, a final full stop is a word of its own."""
ICON = 1 << 8
"""Symbols and emoji, split off anywhere."""
LETTER = 1 << 9
"""`str.isalpha`, what Gopher calls an alphabetic character."""
SYMBOL = 1 << 10
"""A word of these alone is no word to Gopher's counts."""
NAME = 1 << 11
"""`\\w` of a regular expression."""
DECIMAL = 1 << 12
"""`\\d` of a regular expression: a decimal digit of any script."""
TERMINAL = 1 << 13
"""Ends a line properly for FineWeb."""
SENTENCE = 1 << 14
"""Ends a sentence when it is a word of its own."""
PUNCTUATION = 1 << 15
"""Unicode category P."""
LINE_BREAK = 1 << 16
"""Ends a line for `str.splitlines`."""
CJK = 1 << 17
"""Han, kana, hangul, bopomofo, with their punctuation: scripts in which a character may count as a word."""
DIGIT = 1 << 18
"""0 to 9."""
DOT = 1 << 19
"""The full stop."""
FRONT = 1 << 20
"""May begin something that is split off the front."""
BACK = 1 << 21
"""May end something that is split off the end."""
JOINT = 1 << 22
"""May cut a word inside, or be part of an address."""

SIZE = 0x32400
"""Code points beyond the table (private use, tags) have no flag."""

_ENDS = "!\"#&'()*,:;<>?[]_`{}¡«´·»¿،؛؟٪۔।‘’‚“”„…\u2329\u232a⟦⟧、。〈〉《》「」『』【】〔〕！（），：；？～"
_QUOTES = "\"',`«´»‘’‚“”„\u2329\u232a⟦⟧〈〉《》「」『』【】〔〕（）"
_MONEY = "$£¥฿﷼" + "".join(map(chr, range(0x20A0, 0x20C0)))
_UNCASED = (
    "591-5F4 620-64A 66E-6D5 6E5-6FF 750-77F 8A0-8BD 900-9FF B80-CFF D80-DFF 1100-137F 2E80-2FDF 2FF0-30FF 31C0-31EF "
    "3200-4DBF 4E00-9FFF AC00-D7AF F900-FAFF FB1D-FBB1 FBD3-FD3D FD50-FDC7 FDF0-FDFB FE30-FE4F FE70-FEFC 1EE00-1EEBB "
    "1F200-1F2FF 20000-2A6DF 2A700-2EBEF 2F800-2FA1F"
)
_LATIN = "41-24F 250-2AF 1D00-1D25 1D6B-1D9A 1E00-1EFF 2C60-2C7F A722-A7B9 A7FA AB30-AB64 FF21-FF5A"
_GREEK_CYRILLIC = (
    "386 388-38A 38C 38E-38F 391-3A9 3AC-3AF 3B1-3C9 3CC-3CE 400-401 403-40A 40C-40D 410-451 453-45A 45C-45D 490-491 "
    "496-497 4A2-4A3 4AE-4AF 4BA-4BB 4D8-4D9 4E8-4E9"
)
_NEWER_SYMBOLS = (
    "166D 2B97 2BC9 2BFF 2E50-2E51 32FF FD40-FD4F FDCF FDFE-FDFF 1019C 11FD5-11FF1 1CC00-1CFFF 1D1E9-1D1FF 1E14F 1ED2E "
    "1F10D-1F10F 1F16C-1F16F 1F1AD 1F6D5-1F6DF 1F6FA-1F6FF 1F774-1F77F 1F7D9-1F7FF 1F8B0-1F8FF 1F90C-1F90F 1F93F "
    "1F971-1F972 1F977-1F979 1F97B 1F9A3-1F9AF 1F9BA-1F9BF 1F9C3-1F9CF 1FA00-1FA53 1FA6E-1FBFF"
)
"""Symbols that entered Unicode after version 11, which spaCy's splitter does not know."""
_TERMINALS = (
    "21 2E 3F 589 61D-61F 6D4 700-702 7F9 837 839 83D-83E 964-965 104A-104B 1362 1367-1368 166E 1735-1736 17D4-17D6 "
    "17D9-17DA 1803 1809 1944-1945 1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1B7D-1B7E 1C3B-1C3C 1C7E-1C7F 203C-203D 2047-2049 "
    "2E2E 2E3C 2E53-2E54 3002 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F A9C8-A9C9 AA5D-AA5F AAF0-AAF1 ABEB "
    "FE52 FE56-FE57 FF01 FF0E FF1F FF61 10A56-10A57 10F55-10F59 10F86-10F89 11047-11048 110BE-110C1 11141-11143 "
    "111C5-111C6 111CD 111DE-111DF 11238-11239 1123B-1123C 112A9 1144B-1144C 115C2-115C3 115C9-115D7 11641-11642 "
    "1173C-1173E 11944 11946 11A42-11A43 11A9B-11A9C 11C41-11C42 11EF7-11EF8 11F43-11F44 16A6E-16A6F 16AF5 16B37-16B38 "
    "16B44 16E98 1BC9F 1DA88"
)
"""Unicode's Sentence_Terminal characters and their like."""
_NO_SENTENCE = (
    "61D-61E 837 839 83D-83E 17D4-17D6 17D9-17DA 1B7D-1B7E 2E53-2E54 10F55-10F59 10F86-10F89 11944 11946 11EF7-11EF8 "
    "11F43-11F44 16E98"
)
"""Of these, those that FineWeb knows and the sentence splitter does not."""
_SYMBOLS = (
    "0-8 B-1F 21-2F 3A-40 5B-60 7B-9F AB B4 BB 2013-2014 2019 201C-201E 2026 2236 2501 25BA 3001-3002 3008-300D "
    "3010-3011 FF01 FF05 FF08-FF09 FF0C FF0E FF11 FF1A-FF1B FF1F FF5E"
)
_CJK = "1100-11FF 2E80-2FDF 3001-3003 3005-3011 3014-301F 3021-3029 3040-312F 3130-318F 31A0-31FF 3400-4DBF "
_CJK += "4E00-9FFF AC00-D7AF F900-FAFF FF01-FF0F FF1A-FF20 FF3B-FF40 FF5B-FF9F 20000-323AF"


def _codes(ranges: str) -> np.ndarray:
    """The code points of ranges in hexadecimal."""
    parts = [part.split("-") for part in ranges.split()]
    return np.concatenate([np.arange(int(part[0], 16), int(part[-1], 16) + 1) for part in parts])


def _of(characters: str) -> np.ndarray:
    return np.array([ord(character) for character in characters])


@stored("judging/exceptions.py")
def classes() -> np.ndarray:
    """Flags of each code point, uint32 [SIZE]."""
    table = np.zeros(SIZE, dtype=np.uint32)
    for code in range(SIZE):
        if 0xD800 <= code < 0xE000:
            continue
        character = chr(code)
        category = unicodedata.category(character)
        if category[0] == "L":
            table[code] |= LETTER
        if category == "So":
            table[code] |= ICON
        if category == "Nd":
            table[code] |= DECIMAL
        if category[0] == "P":
            table[code] |= PUNCTUATION
        if character.isalnum() or character == "_":
            table[code] |= NAME
        if character.isspace():
            table[code] |= SPACE
    table[_codes(_NEWER_SYMBOLS)] &= np.uint32(~ICON & 0xFFFFFFFF)
    uncased, latin = _codes(_UNCASED), np.concatenate([_codes(_LATIN), _codes(_GREEK_CYRILLIC)])
    table[uncased] |= ALPHA | LOWER | UPPER
    for code in latin.tolist():
        category = unicodedata.category(chr(code))
        if (category in ("Ll", "Lu", "Lt") and code != ord("µ")) or code in (0x1BB, 0x294):
            case = LOWER if category == "Ll" or code == 0x294 else UPPER if category == "Lu" else 0
            table[code] |= ALPHA | case
    table[_of(_QUOTES)] |= QUOTE
    ends, dashes = _of(_ENDS), _of("—–")
    table[ends] |= PREFIX | SUFFIX | BEFORE_DOT
    table[dashes] |= PREFIX | SUFFIX
    table[_of("%=§" + _MONEY)] |= PREFIX
    table[(table & ICON) > 0] |= PREFIX | SUFFIX
    table[(table & LOWER) > 0] |= BEFORE_DOT
    table[_of("0123456789%²-+|")] |= BEFORE_DOT
    terminals = _codes(_TERMINALS)
    table[terminals] |= TERMINAL | SENTENCE | SYMBOL
    table[_codes(_NO_SENTENCE)] &= np.uint32(~SENTENCE & 0xFFFFFFFF)
    table[_codes(_SYMBOLS)] |= SYMBOL
    table[_of("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")] |= LINE_BREAK
    table[_codes(_CJK)] |= CJK
    table[_of("0123456789")] |= DIGIT
    table[_of(".")] |= DOT
    table[(table & PREFIX) > 0] |= FRONT
    table[_of(".+UCA")] |= FRONT
    table[(table & SUFFIX) > 0] |= BACK
    table[_of("+.sS" + _MONEY + "".join({unit[-1] for unit in units()}))] |= BACK
    table[(table & ICON) > 0] |= JOINT
    table[_of(".…+-*^,–—~:<>=/")] |= JOINT
    return table


@lru_cache(maxsize=1)
def money() -> str:
    """Currency signs, each a word of its own after a digit."""
    return _MONEY

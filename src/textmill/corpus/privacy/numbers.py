"""Cards, identity numbers, phone numbers and addresses among digits with separators. Touches nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from textmill.base.errors import UsageError
from textmill.corpus.privacy.checks import (
    is_bank_card,
    is_card,
    is_mobile,
    is_public_ip,
    is_resident_id,
    is_ssn,
)

_IP = re.compile(rb"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d]|\.\d)")
_PIECE = re.compile(rb"[^ ]+")
_GROUPS = re.compile(rb"\d+")
_CARD_SHAPES = (
    re.compile(rb"\d{13,19}"),
    re.compile(rb"\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{1,3})?"),
    re.compile(rb"\d{4}([ -])\d{6}\1\d{4,5}"),
    re.compile(rb"\d{6}([ -])\d{13}"),
)
_SSN = re.compile(rb"\d{3}([- ])\d{2}\1\d{4}|\d{9}")
_MOBILE = re.compile(rb"(?:\+?\(?\+?(?:00)?86\)?[ -]?)?(1[3-9]\d)([ -]?)\d{4}\2\d{4}")
_DATE_LIKE = re.compile(rb"(?:1[5-9]|20)\d\d[-/. ](?:1[5-9]|20)\d\d|(?:1[5-9]|20)\d{6}")

CONTEXT = 40
"""Bytes before a number in which a word may say what it is."""

_PHONE_WORD = re.compile(
    rb"(?i)\b(?:tel|phones?|telephones?|mobile|cell|fax|call|dial|hotline|whatsapp|wechat|sms|contact|ph|helpline|"
    rb"voicemail|text me|reach (?:me|us|him|her|them))\b|number is[: ]{0,2}$|"
    + "|".join(
        ("电话", "電話", "手机", "手機", "传真", "傳真", "热线", "联系", "致电", "拨打", "微信", "短信", "号码")
    ).encode()
)
_CARD_WORD = re.compile(
    rb"(?i)\b(?:card|visa|mastercard|amex|credit|debit|payment|account|acct|pan)\b|"
    + "|".join(("银行", "卡号", "账号", "账户", "帐号", "信用卡", "储蓄", "汇款", "开户")).encode()
)
_SSN_WORD = re.compile(rb"(?i)\bssn\b|social[ -]security")
_IP_WORD = re.compile(
    rb"(?i)\b(?:ip|ipv4|inet|addr|address(?:es)?|hosts?|dns|gateway|ping|peer|remote|nameserver)\b|"
    + "|".join(("地址", "服务器", "主机", "登录")).encode()
)
_VERSION_WORD = re.compile(
    rb"(?i)(?:\bv|\bver|\bsince|versions?|releases?|section|chapter|figure|table|clause|oid|rfc|upgrade\w*|firmware|build|revision|"
    rb"\xc2\xa7|[a-z0-9]\xc2\xb7|" + "|".join(("版本", "版", "章", "节", "表", "图")).encode() + rb")[\s:=.#\"'(]{0,3}$"
)
_UNIT = re.compile(
    rb"(?i)[ ]?(?:bytes?|bits?|[kmgt]i?b|octets|blocks|sectors|ns|us|ms|msec|seconds?|sec|ticks|hz|dollars|usd|%)\b"
)
_CJK_BEFORE = re.compile(rb"[\xe3-\xe9\xef][\x80-\xbf]{2}")


def numbers(
    span: bytes, before: bytes, after: bytes, kinds: frozenset[str], regions: tuple[str, ...]
) -> Iterator[tuple[str, int, int]]:
    """Personal numbers in a span of digits and separators.

    Args:
        span: from its first digit (or + or an opening bracket) to its last.
        before: up to 64 bytes in front of it; after: up to 64 bytes behind.
        kinds: which to look for.
        regions: countries of national phone formats.

    Yields:
        kind, begin, end, in bytes of the span.
    """
    seen_ip = False
    if span.count(b".") >= 3:
        for match in _IP.finditer(span):
            seen_ip = True
            begin, end = match.span()
            around = span[:begin][-CONTEXT:] if begin > 1 else before, span[end:] or after
            if "ip" in kinds and _is_address(match[0], *around):
                yield "ip", begin, end
        if seen_ip:
            return
    kind = _kind_of(span, before, after, kinds, regions)
    if kind is not None:
        yield kind, *_trim(span)
        return
    if b" " not in span:
        return
    for match in _PIECE.finditer(span):
        begin, end = match.span()
        if end - begin >= 9:
            piece = match[0]
            # A neighbour in the same row of digits speaks for a table: only numbers with a check digit are believed.
            kind = _kind_of(piece, before[-CONTEXT:] + span[:begin], span[end:] + after, kinds, ())
            if kind in ("card", "bank_card", "resident_id", "ssn"):
                yield kind, begin, end


def _trim(span: bytes) -> tuple[int, int]:
    """Without an opening bracket that is never closed."""
    if span[:1] == b"(" and b")" not in span:
        return 1, len(span)
    return 0, len(span)


def _kind_of(span: bytes, before: bytes, after: bytes, kinds: frozenset[str], regions: tuple[str, ...]) -> str | None:
    """What one number is, or None; the rarest accident first."""
    digits = b"".join(_GROUPS.findall(span)).decode()
    count = len(digits)
    previous, following = before[-1:], after[:1]
    plus = b"+" in span[:2]
    if span.count(b"(") != span.count(b")") and span[:1] != b"(":
        return None  # 3.7.9 (2011-11-01
    if previous.isalnum() or (previous and previous in b"_#$\\"):
        return None
    if following and following in b"_%@":
        return None
    in_path = previous in (b"/", b"=", b".", b"-", b":", b",") and not plus
    if "resident_id" in kinds and len(span) == 18 and span[:17].isdigit() and is_resident_id(span.decode()):
        return "resident_id"
    if 13 <= count <= 19 and not plus and any(shape.fullmatch(span) for shape in _CARD_SHAPES):
        grouped = len(span) > count
        said = _CARD_WORD.search(before[-CONTEXT:]) is not None
        # One in ten numbers has a right check digit by accident: fewer digits, or a place in a path or in a table of
        # numbers, need a word that says card.
        if said or grouped or (count >= 15 and not (in_path and previous != b":" and previous != b"=")):
            if "bank_card" in kinds and is_bank_card(digits):
                return "bank_card"
            if "card" in kinds and is_card(digits) and (said or grouped or count in (15, 16)):
                return "card"
    if "ssn" in kinds and count == 9 and _SSN.fullmatch(span) and previous not in (b"-", b"/") and following != b"-":
        said = _SSN_WORD.search(before[-CONTEXT:]) is not None
        if (said or span[3:4] == b"-") and is_ssn(digits):
            return "ssn"
    if "mobile" in kinds and 11 <= count <= 15:
        match = _MOBILE.fullmatch(span)
        if match is not None and is_mobile(digits[-11:]) and _mobile_stands(span, before, after, bool(match[2])):
            return "mobile"
    if "phone" in kinds and 7 <= count <= 15 and (plus or (regions and previous not in (b"-", b"."))):
        said = _PHONE_WORD.search(before[-CONTEXT:]) is not None
        likely = (plus or said or _looks_dialled(span)) and _DATE_LIKE.match(span) is None and (said or not in_path)
        if likely and _is_phone(span.decode(), plus, said, regions):
            return "phone"
    return None


def _mobile_stands(span: bytes, before: bytes, after: bytes, grouped: bool) -> bool:
    """Whether the surroundings of eleven digits speak for a phone rather than a size, an offset or a price."""
    if b"+" in span[:2] or _PHONE_WORD.search(before[-CONTEXT:]):
        return True
    if before[-1:] in (b"-", b".", b"/", b"$", b"_") or _UNIT.match(after) or after[:2].strip(b".-/")[:1].isdigit():
        return False
    if _CJK_BEFORE.search(before[-CONTEXT:]) or _CJK_BEFORE.match(after):
        return True
    line = before[before.rfind(b"\n") + 1 :] + after.split(b"\n")[0]
    return grouped or not re.search(rb"[A-Za-z0-9]", line)


def _looks_dialled(span: bytes) -> bool:
    """National formats that are written with more than spaces: (212) 555-0100, 212-555-0100, 0571-88888888."""
    groups = _GROUPS.findall(span)
    if span[:1] == b"(" and b")" in span:
        return len(groups) >= 3 or span[1:2] == b"0"
    if b"(" in span or b")" in span or b"/" in span or len(groups) < 2:
        return False
    separators = set(re.sub(rb"\d", b"", span))
    if separators == {45} or separators == {46}:
        return len(groups) >= 3 or (len(groups) == 2 and span[:1] == b"0" and separators == {45})
    return False


def _is_phone(text: str, plus: bool, said: bool, regions: tuple[str, ...]) -> bool:
    if plus:
        return _valid_phone(text, "", True)
    return any(_valid_phone(text, region, said) for region in regions)


@lru_cache(maxsize=4096)
def _valid_phone(text: str, region: str, said: bool) -> bool:
    """Whether the numbering plan of a country (or of the one that + names) has this number; without a word that says
    phone, its digits must stand in the groups that the country writes."""
    try:
        import phonenumbers
    except ModuleNotFoundError as error:
        raise UsageError(
            "Looking for phone numbers needs the package phonenumberslite.",
            "It holds every country's numbering plan.",
            'Type: pip install phonenumberslite, or leave "phone" out of the kinds.',
        ) from error
    try:
        number = phonenumbers.parse(text, region or None)
    except phonenumbers.NumberParseException:
        return False
    if region:
        if not phonenumbers.is_valid_number_for_region(number, region):
            return False
    elif not phonenumbers.is_valid_number(number):
        return False
    digits = re.sub(r"\D", "", text)
    if len(set(digits)) < 3 or digits in "01234567890123456789":
        return False
    if said or not region:
        return True
    national = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL)
    expected = re.findall(r"\d+", national)
    groups = re.findall(r"\d+", text)
    if region == "US" and groups[0] == "1":
        groups = groups[1:]
    # China writes 0571-88888888 as often as 0571 8888 8888.
    return groups == expected or (len(groups) == 2 and groups[0] == expected[0] and groups[1] == "".join(expected[1:]))


def _is_address(text: bytes, before: bytes, after: bytes) -> bool:
    """Public, and not a version, a section or an object identifier."""
    parts = text.split(b".")
    if any(len(part) > 1 and part[:1] == b"0" for part in parts) or not is_public_ip(text.decode()):
        return False
    if before[-1:] in (b"-", b"_", b"~", b"+", b"\xa7") or (before[-1:].isalpha() and before[-1:].isascii()):
        return False
    if re.match(rb"[-_~+][A-Za-z0-9]|[A-Za-z_]|\.[a-z]", after):
        return False
    said = _IP_WORD.search(before[-CONTEXT:]) is not None
    if _VERSION_WORD.search(before[-CONTEXT:]) is not None:
        return False
    if all(int(part) < 100 for part in parts):  # 1.2.3.4 is nearly always a version or a section
        if re.match(rb"\.?(?: |\xc2\xa0)[A-Z\xe3-\xe9]", after):
            return False  # 5.8.5.5. Its heading
        return said or re.match(rb":\d{2,5}\b|/(?:[89]|[12]\d|3[0-2])\b", after) is not None or before.endswith(b"://")
    return True

"""Check digits, valid ranges, plausible dates: what tells an identity number from any number. Touches nothing."""

from __future__ import annotations

import datetime
import ipaddress
import math
from collections import Counter

PROVINCES = frozenset(
    (*range(11, 16), *range(21, 24), *range(31, 38), *range(41, 47), *range(50, 55), *range(61, 66), 71, 81, 82, 83)
)
"""First two digits of a resident identity number (GB/T 2260, and 83 for residents from Taiwan)."""

LAST_BIRTH_YEAR = 2049
"""A constant rather than this year: what is found may not depend on the day on which it is looked for."""

_IBAN_COUNTRIES = (
    "AD:24 AE:23 AL:28 AT:20 AZ:28 BA:20 BE:16 BG:22 BH:22 BI:27 BR:29 BY:28 CH:21 CR:22 CY:28 CZ:24 DE:22 "
    "DJ:27 DK:18 DO:28 EE:20 EG:29 ES:24 FI:18 FK:18 FO:18 FR:27 GB:22 GE:22 GI:23 GL:18 GR:27 GT:28 HN:28 "
    "HR:21 HU:28 IE:22 IL:23 IQ:23 IS:26 IT:27 JO:30 KW:30 KZ:20 LB:28 LC:32 LI:21 LT:20 LU:20 LV:21 LY:25 "
    "MC:27 MD:24 ME:22 MK:19 MN:20 MR:27 MT:31 MU:30 NI:28 NL:18 NO:15 OM:23 PK:24 PL:28 PS:29 PT:25 QA:29 "
    "RO:24 RS:22 RU:33 SA:24 SC:31 SD:18 SE:24 SI:19 SK:24 SM:27 SO:23 ST:25 SV:28 TL:23 TN:24 TR:26 UA:29 "
    "VA:22 VG:24 XK:20 YE:30"
)
IBAN_LENGTHS = {pair[:2]: int(pair[3:]) for pair in _IBAN_COUNTRIES.split()}
"""Characters of an IBAN by country (SWIFT's registry)."""

_RESIDENT_WEIGHTS = tuple(2 ** (17 - place) % 11 for place in range(17))
_ADVERTISED_SSN = {"078051120", "219099999", "457555462"}
_MOBILE_PREFIXES = frozenset(range(130, 200)) - {140, 142, 143, 154, 160, 161, 163, 164, 168, 169, 179, 194}


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit)
        if place % 2:
            value = value * 2 - 9 if value > 4 else value * 2
        total += value
    return total % 10 == 0


def is_card(digits: str) -> bool:
    """A payment card of an international scheme: issuer prefix, its lengths, check digit."""
    count, two, three, four = len(digits), int(digits[:2]), int(digits[:3]), int(digits[:4])
    known = (
        (digits[0] == "4" and count in (13, 16, 19))
        or (count == 16 and (51 <= two <= 55 or 2221 <= four <= 2720))
        or (count == 15 and two in (34, 37))
        or (count in (16, 19) and (four == 6011 or 644 <= three <= 649 or two == 65 or 3528 <= four <= 3589))
        or (count == 14 and (300 <= three <= 305 or two in (36, 38, 39)))
    )
    return known and len(set(digits)) > 1 and luhn(digits)


def is_bank_card(digits: str) -> bool:
    """A UnionPay card: 16 to 19 digits from 62, check digit."""
    return digits.startswith("62") and 16 <= len(digits) <= 19 and len(set(digits)) > 1 and luhn(digits)


def is_iban(text: str) -> bool:
    """Country, its length, and remainder 1 modulo 97 (ISO 13616); `text` has no spaces."""
    if IBAN_LENGTHS.get(text[:2]) != len(text) or not text[2:4].isdigit() or len(set(text[4:])) < 2:
        return False
    return int("".join(str(int(letter, 36)) for letter in text[4:] + text[:4])) % 97 == 1


def is_ssn(digits: str) -> bool:
    """Nine digits that the US Social Security Administration may issue; not one printed in advertisements."""
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    if area in ("000", "666") or area >= "900" or group == "00" or serial == "0000":
        return False
    return digits not in _ADVERTISED_SSN and len(set(digits)) > 2 and digits not in ("123456789", "987654321")


def is_resident_id(text: str) -> bool:
    """A resident identity number of China (GB 11643): region, birth date, ISO 7064 MOD 11-2 check character."""
    if len(text) != 18 or not text[:17].isdigit() or int(text[:2]) not in PROVINCES:
        return False
    try:
        born = datetime.date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return False
    if not 1900 <= born.year <= LAST_BIRTH_YEAR:
        return False
    rest = sum(int(digit) * weight for digit, weight in zip(text, _RESIDENT_WEIGHTS, strict=False)) % 11
    return "10X98765432"[rest] == text[17].upper()


def is_mobile(digits: str) -> bool:
    """A mobile number of China: eleven digits, a prefix that is assigned, not a round figure."""
    return len(digits) == 11 and int(digits[:3]) in _MOBILE_PREFIXES and not digits.endswith("000000")


def is_public_ip(text: str) -> bool:
    """An address that a person or a server on the internet may have: not private, reserved, or for documentation."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif not 0x2000 <= int(address) >> 112 <= 0x3FFF:  # unicast addresses given out so far (RFC 4291)
            return False
    return address.is_global and not address.is_multicast


def entropy(text: str) -> float:
    """Bits per character of the text's own letter frequencies."""
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())

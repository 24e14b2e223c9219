"""Compressed files and archives: members are read as files are; bombs and traversals are refused and counted."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from drafting import Read, read_all

PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
MEMBERS = {
    "b/one.txt": b"The first text.",
    "b/two.jsonl": b'{"text": "The second text."}\n',
    "b/.hidden.txt": b"hidden",
    "b/picture.png": b"\x89PNG\x00",
    "b/three.txt.gz": gzip.compress(b"The third text."),
}
TEXTS = {"The first text.", "The second text.", "The third text."}


def make_zip(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def make_tar(members: dict[str, bytes], link: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        if link:
            info = tarfile.TarInfo("link.txt")
            info.type, info.linkname = tarfile.SYMTYPE, link
            archive.addfile(info)
    return out.getvalue()


@pytest.fixture
def read(tmp_path: Path):
    def reader(name: str, data: bytes) -> Read:
        (tmp_path / name).write_bytes(data)
        return read_all(tmp_path / name, place=tmp_path)

    return reader


@pytest.mark.parametrize("packed", PACK)
def test_compressed_streams_of_several_parts_are_read_to_their_end(read, packed: str) -> None:
    pack = PACK[packed]
    lines = [json.dumps({"text": f"line {number} " + "x" * 50}).encode() + b"\n" for number in range(4000)]
    found = read(f"a.jsonl{packed}", pack(b"".join(lines[:2000])) + pack(b"".join(lines[2000:])))
    assert len(found.texts) == 4000
    assert found.problems == []
    assert found.card["formats"] == {f".jsonl{packed}": 1}


@pytest.mark.parametrize("packed", PACK)
def test_a_stream_that_ends_early_keeps_what_came_out(read, packed: str) -> None:
    import random

    words = random.Random(1).choices("abcdefghijklmnopqrstuvwxyz \n", k=1_000_000)
    data = PACK[packed]("".join(words).encode())
    found = read(f"a.txt{packed}", data[: len(data) // 2])
    assert found.tally.problem_count == 1
    assert "cannot be read" in found.problems[0]


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.zip", make_zip(MEMBERS)), ("a.tar", make_tar(MEMBERS)), ("a.tgz", gzip.compress(make_tar(MEMBERS)))]
    + [(f"a.tar{suffix}", pack(make_tar(MEMBERS))) for suffix, pack in PACK.items()],
)
def test_members_are_read_as_files(read, name: str, data: bytes) -> None:
    found = read(name, data)
    assert set(found.texts) == TEXTS
    assert found.problems == []
    assert {source.partition("!/")[2] for source in found.sources} == {"b/one.txt", "b/two.jsonl:1", "b/three.txt.gz"}
    assert found.card["skipped"] == {"hidden": 1, "other type (.png)": 1}
    assert found.card["bytes"] == len(data)


def test_archives_within_archives_go_two_levels_deep(read) -> None:
    inner = make_zip({"deepest.txt": b"Deepest."})
    middle = make_tar({"middle.txt": b"Middle.", "inner.zip": inner})
    found = read("a.zip", make_zip({"outer.txt": b"Outer.", "middle.tar.gz": gzip.compress(middle)}))
    assert set(found.texts) == {"Outer.", "Middle."}
    assert found.sources[found.texts.index("Middle.")].endswith("a.zip!/middle.tar.gz!/middle.txt")
    assert "beyond 2 levels" in found.problems[0]


@pytest.mark.parametrize("name", ["../up.txt", "/etc/passwd.txt", "a/../../b.txt", "C:\\x.txt", "..\\up.txt"])
def test_names_that_lead_out_are_refused(read, name: str) -> None:
    members = {name: b"Outside.", "in.txt": b"Inside."}
    for archive, data in (("a.zip", make_zip(members)), ("b.tar", make_tar(members, link="/etc/passwd"))):
        found = read(archive, data)
        assert found.texts == ["Inside."]
        assert "leads out" in found.problems[0]


@pytest.mark.parametrize("packed", [".gz", ".xz", ".zst", ".bz2"])
def test_a_compressed_bomb_is_refused(read, packed: str) -> None:
    if packed == ".gz":
        packer = zlib.compressobj(9, wbits=31)
        data = b"".join(packer.compress(bytes(1 << 20).replace(b"\0", b"a")) for _ in range(300)) + packer.flush()
    else:
        data = PACK[packed](b"a" * (300 << 20))
    found = read(f"a.jsonl{packed}", data)
    assert found.texts == []
    assert any("200 times its size" in problem for problem in found.problems)


def test_a_zip_bomb_is_refused_without_being_unpacked(tmp_path: Path, read) -> None:
    data = make_zip({f"{number}.txt": bytes(30 << 20) for number in range(10)})
    found = read("a.zip", data)
    assert found.texts == []
    assert "refused" in found.problems[0]


def test_encrypted_and_broken_members_are_counted(read) -> None:
    data = bytearray(make_zip({"secret.txt": b"Secret words.", "open.txt": b"Open words."}))
    central = data.index(b"PK\x01\x02")
    data[central + 8 : central + 10] = struct.pack("<H", 1)
    found = read("a.zip", bytes(data))
    assert found.texts == ["Open words."]
    assert found.problems == ["encrypted"]
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w") as archive:
        archive.writestr("bad.txt", "Damaged words here.")
        archive.writestr("good.txt", "Good words.")
    broken = read("b.zip", stored.getvalue().replace(b"Damaged", b"Demaged", 1))
    assert "Good words." in broken.texts
    assert broken.tally.problem_count == 1
    for name in ("c.zip", "d.tar", "e.tar.gz"):
        assert read(name, b"not an archive at all " * 50).tally.problem_count >= 1


def test_an_archive_of_code_is_read_as_code(read) -> None:
    found = read("a.tar.gz", gzip.compress(make_tar({"m.py": b"x = 1\n", "n.c": b"int y;\n", "o.pyc": bytes(90)})))
    assert dict(zip(found.texts, found.kinds, strict=True)) == {"x = 1\n": "python", "int y;\n": "c"}
    assert found.card["skipped"] == {"binary": 1}

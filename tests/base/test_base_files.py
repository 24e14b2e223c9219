"""Files are whole or absent, and content hashes depend on content alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textmill.base.files import hash_file, hash_json, read_json, write_atomic, write_json


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_json(path, {"width": 256})
    with pytest.raises(ValueError):
        write_json(path, {"width": float("nan")})
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from textmill.base.files import write_atomic\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_atomic(Path(sys.argv[1]), b'x' * 5000)"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
    assert ended.returncode == 1
    assert "File too large" in ended.stderr
    assert read_json(path) == {"width": 256}
    assert [entry.name for entry in tmp_path.iterdir()] == ["plan.json"]


def test_written_files_can_be_read_by_others(tmp_path: Path) -> None:
    write_atomic(tmp_path / "deep" / "er" / "a.txt", "你好\n")
    path = tmp_path / "deep/er/a.txt"
    assert path.read_bytes() == "你好\n".encode()
    assert path.stat().st_mode & 0o777 == 0o644


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
        ),
    )
)
def test_json_round_trip(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, value)
    assert read_json(path) == value
    assert json.loads(path.read_bytes()) == value


def test_hashes_follow_content_not_key_order(tmp_path: Path) -> None:
    assert hash_json({"a": 1, "b": [2]}) == hash_json({"b": [2], "a": 1})
    assert hash_json({"a": 1}) != hash_json({"a": "1"})
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"same")
    two.write_bytes(b"same")
    assert hash_file(one) == hash_file(two)
    two.write_bytes(b"Same")
    assert hash_file(one) != hash_file(two)
    assert len(hash_file(one)) == 32

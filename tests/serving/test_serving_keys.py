"""Keys: made once, hashed at rest, limited, revoked; and a server that others reach asks for one."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_process import Server

from textmill.base.errors import UsageError
from textmill.serving.keys import KeyStore


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of the tests' own, reached by a socket in its folder: an URL with {} for a database."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        warnings.warn("No PostgreSQL here: KEYS WERE TESTED IN SQLITE ALONE.", stacklevel=1)
        pytest.skip("no PostgreSQL (apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # a socket's path is short
    owner: dict[str, Any] = {}
    if os.geteuid() == 0:  # it refuses to run as root
        owner = {"user": "postgres", "group": "postgres", "cwd": "/"}
        shutil.chown(folder, "postgres", "postgres")
    data, programs_folder = folder / "data", programs[-1].parent
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
    subprocess.run([programs_folder / "initdb", "-D", data, "-A", "trust", "-U", "tester"], **quiet, **owner)
    start = [programs_folder / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", f"-k {folder} -h ''", "start"]
    subprocess.run(start, **quiet, **owner)
    try:
        yield f"postgresql+psycopg://tester@/{{}}?host={folder}"
    finally:
        subprocess.run([programs_folder / "pg_ctl", "-D", data, "-m", "immediate", "stop"], **quiet, **owner)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> KeyStore:
    """An empty store, in each kind of database."""
    if request.param == "sqlite":
        return KeyStore(str(tmp_path / "keys.sqlite"))
    import sqlalchemy as sql

    url = request.getfixturevalue("postgresql")
    name = f"keys_{time.time_ns()}"
    engine = sql.create_engine(url.format("postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sql.text(f"create database {name}"))
    engine.dispose()
    return KeyStore(url.format(name))


def textmill(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "textmill", *map(str, words)], capture_output=True, text=True, check=False
    )


def test_a_key_is_found_again_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    store = KeyStore(str(tmp_path / "keys.sqlite"))
    key = store.create("alice", requests_per_minute=3, tokens_per_day=100)
    found = store.find(key)
    assert found is not None
    assert (found.name, found.requests_per_minute, found.tokens_per_day, found.admin) == ("alice", 3, 100, False)
    file = tmp_path / "keys.sqlite"
    assert key[3:].encode() not in file.read_bytes()
    assert file.stat().st_mode & 0o077 == 0
    assert store.find(key + "x") is None
    assert store.find("") is None


def test_names_are_unique_also_after_revoking(store: KeyStore) -> None:
    key = store.create("alice")
    store.revoke("alice")
    assert store.find(key) is None
    assert store.empty()
    for attempt in (lambda: store.create("alice"), lambda: store.revoke("alice"), lambda: store.revoke("nobody"),
                    lambda: store.create("a b"), lambda: store.create("x", tokens_per_day=0)):  # fmt: skip
        with pytest.raises(UsageError):
            attempt()


@given(name=st.text(max_size=80))
@settings(max_examples=60, deadline=None)
def test_names_cannot_do_harm(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    store = KeyStore(str(tmp_path_factory.mktemp("keys") / "keys.sqlite"))
    try:
        store.create(name)
    except UsageError:
        return
    assert [key.name for key in store.all()] == [name]


def test_rates_and_usage(store: KeyStore) -> None:
    key = store.find(store.create("alice", requests_per_minute=3, tokens_per_day=100))
    assert key is not None
    assert [store.take(key) > 0 for _ in range(5)] == [False, False, False, True, True]
    assert store.tokens_left(key) == 100
    threads = [threading.Thread(target=store.record, args=(key, 3, 2)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.tokens_left(key) == 60
    (row,) = store.usage()
    assert (row["requests"], row["prompt_tokens"], row["completion_tokens"]) == (8, 24, 16)


def test_keys_in_either_database(store: KeyStore) -> None:
    assert store.empty()
    key = store.create("alice", requests_per_minute=3, tokens_per_day=100, admin=True)
    found = store.find(key)
    assert found is not None
    assert (found.name, found.requests_per_minute, found.tokens_per_day, found.admin) == ("alice", 3, 100, True)
    assert [one.name for one in store.all()] == ["alice"]
    assert not store.empty()


def test_a_server_with_its_keys_in_postgresql(
    store: KeyStore, start: Callable[..., Server], runs: dict[str, Path], request: pytest.FixtureRequest
) -> None:
    if store._engine.dialect.name != "postgresql":
        pytest.skip("SQLite has every other test")
    key = store.create("alice", tokens_per_day=1000)
    server = start(runs["counts"], "--keys", store._engine.url.render_as_string(hide_password=False))
    assert ask(server, None).status_code == 401
    assert ask(server, key).status_code == 200
    server.stop()
    (row,) = store.usage()
    assert row["completion_tokens"] == 5


def test_a_store_that_is_no_database_is_refused(tmp_path: Path) -> None:
    from textmill.base.errors import TextmillError

    (tmp_path / "text").write_text("this is no database, and long enough to be looked at " * 20)
    for place in (str(tmp_path / "text"), "nonsense://x", "postgresql+psycopg://127.0.0.1:1/none"):
        with pytest.raises(TextmillError) as caught:
            KeyStore(place)
        assert caught.value.why


def test_the_commands(tmp_path: Path) -> None:
    place = tmp_path / "keys.sqlite"
    made = textmill("keys", "create", "alice", "--requests-per-minute", 9, "--keys", place)
    assert made.returncode == 0, made.stderr
    key = made.stdout.splitlines()[0]
    assert key.startswith("tm-")
    assert "not shown again" in made.stdout
    listed = textmill("keys", "list", "--keys", place).stdout
    assert "9 requests a minute" in listed
    assert key not in listed
    assert json.loads(textmill("keys", "list", "--keys", place, "--json").stdout)[0]["name"] == "alice"
    assert textmill("keys", "create", "alice", "--keys", place).returncode == 2
    assert textmill("keys", "revoke", "alice", "--keys", place).returncode == 0
    assert "revoked" in textmill("keys", "list", "--keys", place).stdout
    assert "Nothing has been used" in textmill("keys", "usage", "--keys", place).stdout


@pytest.fixture(scope="module")
def guarded(start: Callable[..., Server], runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server with keys: (server, store, {name: key})."""
    folder = tmp_path_factory.mktemp("guarded")
    store = KeyStore(str(folder / "keys.sqlite"))
    keys = {
        "plain": store.create("plain"),
        "slow": store.create("slow", requests_per_minute=2),
        "poor": store.create("poor", tokens_per_day=40),
        "admin": store.create("admin", admin=True),
        "gone": store.create("gone"),
    }
    server = start(runs["counts"], "--keys", folder / "keys.sqlite")
    return server, store, keys


def ask(server: Server, key: str | None, route: str = "/v1/completions", **body: Any) -> httpx.Response:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    body = body or {"model": "counts", "prompt": "The people", "max_tokens": 5}
    return httpx.post(server.url + route, json=body, headers=headers, timeout=30)


def test_no_key_a_wrong_one_a_revoked_one(guarded: Any) -> None:
    server, store, keys = guarded
    assert ask(server, None).status_code == 401
    assert ask(server, "tm-wrong").status_code == 401
    assert ask(server, keys["plain"]).status_code == 200
    assert ask(server, keys["gone"]).status_code == 200
    store.revoke("gone")
    deadline = time.monotonic() + 10
    while ask(server, keys["gone"]).status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.3)
    assert ask(server, keys["gone"]).status_code == 401
    for path in ("/v1/models", "/metrics", "/tokenizer_info"):
        assert httpx.get(server.url + path).status_code == 401
    assert httpx.get(server.url + "/health").status_code == 200


def test_limits_of_a_key(guarded: Any) -> None:
    server, _, keys = guarded
    assert [ask(server, keys["slow"]).status_code for _ in range(3)] == [200, 200, 429]
    refused = ask(server, keys["slow"])
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.json()["error"]["code"] == "requests_per_minute"
    codes = [ask(server, keys["poor"]).status_code for _ in range(8)]
    assert codes[0] == 200
    assert codes[-1] == 429
    assert ask(server, keys["poor"]).json()["error"]["code"] == "tokens_per_day"


def test_only_administrators_load_and_unload(guarded: Any, runs: dict[str, Path]) -> None:
    server, _, keys = guarded
    place = {"path": str(runs["small"]), "name": "second"}
    assert ask(server, keys["plain"], "/v1/load_model", **place).status_code == 403
    assert ask(server, keys["admin"], "/v1/load_model", **place).status_code == 200
    assert ask(server, keys["admin"], "/v1/load_model", **place).status_code == 400  # the name is taken
    assert ask(server, keys["plain"], model="second", prompt="a").status_code == 200
    assert ask(server, keys["admin"], "/v1/unload_model", name="second").status_code == 200
    assert ask(server, keys["plain"], model="second", prompt="a").status_code == 404
    wrong = ask(server, keys["admin"], "/v1/load_model", path="/etc", name="x")
    assert wrong.status_code == 400
    assert "no model" in wrong.json()["error"]["message"]


def test_one_keys_prompts_are_not_found_by_another(guarded: Any) -> None:
    server, _, keys = guarded
    prompt = "The people of the United States and their representatives in Congress assembled. " * 12

    def hits(key: str) -> float:
        ask(server, key, model="counts", prompt=prompt, max_tokens=1)
        text = httpx.get(server.url + "/metrics", headers={"authorization": f"Bearer {key}"}).text
        line = next(line for line in text.splitlines() if line.startswith("vllm:prefix_cache_hits_total"))
        return float(line.split()[-1])

    first = hits(keys["plain"])
    assert hits(keys["admin"]) == first  # another key: nothing found
    assert hits(keys["admin"]) > first  # its own: found


def test_an_open_address_needs_a_key(runs: dict[str, Path], tmp_path: Path) -> None:
    ended = textmill("serve", runs["counts"], "--host", "0.0.0.0", "--port", 0, "--keys", tmp_path / "none.sqlite")
    assert ended.returncode == 2
    assert "textmill keys create" in ended.stderr


def test_usage_is_kept_over_restarts(guarded: Any) -> None:
    _, store, _ = guarded
    used = {row["name"]: row for row in store.usage()}
    assert used["plain"]["requests"] >= 1
    path = store._engine.url.database
    with sqlite3.connect(path) as connection:
        assert connection.execute("select count(*) from textmill_usage").fetchone()[0] >= 2

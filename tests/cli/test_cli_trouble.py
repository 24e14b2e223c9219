"""Every bad ending says what, why and what to type next; exit code 2 usage, 1 failure, 130 stopped."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from running import Textmill

from textmill.base.errors import Failure, Interrupted, UsageError
from textmill.cli.trouble import explain

TEXT = "The mill turns the river's water into flour, and the flour into bread for the town. "


def assert_readable(ended: subprocess.CompletedProcess[str], code: int) -> None:
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    lines = ended.stderr.splitlines()
    assert sum(line.startswith("Error: ") for line in lines) == 1
    assert any(line.startswith("  Next: ") for line in lines)


def texts(folder: Path, documents: int = 40) -> Path:
    folder.mkdir()
    for number in range(documents):
        (folder / f"{number}.txt").write_text(f"Chapter {number}. " + TEXT * 20 + f"So ends chapter {number}.")
    return folder


def test_unknown_option_names_the_nearest(textmill: Textmill) -> None:
    ended = textmill("doctor", "--jsn")
    assert_readable(ended, 2)
    assert "Unknown option: --jsn. Did you mean --json?" in ended.stderr
    assert "textmill doctor --help" in ended.stderr


def test_unknown_command_names_the_nearest_and_all(textmill: Textmill) -> None:
    ended = textmill("biuld", "my_texts/")
    assert_readable(ended, 2)
    assert 'Unknown command "biuld". Did you mean "build"?' in ended.stderr
    assert "doctor" in ended.stderr


def test_unknown_option_before_the_command(textmill: Textmill) -> None:
    ended = textmill("--rcipe", "x", "doctor")
    assert_readable(ended, 2)
    assert 'Did you mean "--recipe"?' in ended.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["build", "my_texts/", "--budgt", "3m"],
        ["build", "my_texts/", "--budgt=3m"],
        ["corpus", "my_texts/", "--min-charcters", "3"],
        ["generate", "runs/mine", "Once", "--temprature", "1"],
        ["generate", "runs/mine", "--temprature=1"],
        ["train", "runs/mine", "--stps", "3"],
    ],
    ids=lambda words: " ".join(words),
)
def test_a_mistyped_option_is_never_taken_for_a_word(textmill: Textmill, words: list[str]) -> None:
    ended = textmill(*words)
    assert_readable(ended, 2)
    assert "Unknown option" in ended.stderr
    assert "Did you mean" in ended.stderr


def test_after_two_hyphens_a_word_stands_as_it_is(textmill: Textmill) -> None:
    ended = textmill("evaluate", "runs/nowhere", "--", "--texts")
    assert_readable(ended, 2)
    assert "Unknown option" not in ended.stderr
    assert "runs/nowhere" in ended.stderr


def test_missing_argument_and_wrong_type(textmill: Textmill) -> None:
    assert_readable(textmill("generate"), 2)
    ended = textmill("generate", "runs/mine", "--temperature", "warm")
    assert_readable(ended, 2)
    assert "warm" in ended.stderr


def test_json_errors_are_for_scripts_and_people_alike(textmill: Textmill) -> None:
    ended = textmill("doctor", "--jsn", "--json")
    assert_readable(ended, 2)
    assert json.loads(ended.stdout)["error"]["what"] == "Unknown option: --jsn. Did you mean --json?"
    ended = textmill("generate", "nowhere", "Once", "--json")
    assert ended.returncode in (1, 2)
    error = json.loads(ended.stdout)["error"]
    assert set(error) == {"what", "why", "fix"}
    assert "nowhere" in error["what"]
    assert error["fix"]


@pytest.mark.parametrize(
    "words",
    [["chat"], ["generate"], ["evaluate"], ["report"], ["tokenize"], ["plan"], ["train"]],
    ids=lambda words: words[0],
)
def test_a_run_that_is_not_there(textmill: Textmill, words: list[str]) -> None:
    ended = textmill(*words, "runs/nowhere")
    assert_readable(ended, 2)
    assert "runs/nowhere" in ended.stderr


@pytest.mark.parametrize("command", ["build", "corpus"])
def test_an_out_folder_of_something_else_is_left_alone(textmill: Textmill, tmp_path: Path, command: str) -> None:
    source = texts(tmp_path / "texts")
    taken = tmp_path / "thesis"
    taken.mkdir()
    (taken / "thesis.doc").write_text("ten years of work")
    ended = textmill(command, str(source), "--out", str(taken))
    assert_readable(ended, 2)
    assert "belongs to something else" in ended.stderr
    assert [entry.name for entry in taken.iterdir()] == ["thesis.doc"]


@pytest.mark.parametrize("command", ["build", "corpus"])
def test_texts_that_are_not_there(textmill: Textmill, tmp_path: Path, command: str) -> None:
    ended = textmill(command, "no_such_texts/", "--out", str(tmp_path / "run"))
    assert_readable(ended, 2)
    assert "no_such_texts" in ended.stderr
    assert not (tmp_path / "run/corpus").exists()


@pytest.mark.parametrize("budget", ["5s", "ten minutes", "-3m"])
def test_a_budget_that_cannot_be_kept(textmill: Textmill, tmp_path: Path, budget: str) -> None:
    source = texts(tmp_path / "texts")
    ended = textmill("build", str(source), "--out", str(tmp_path / "run"), f"--budget={budget}")
    assert_readable(ended, 2)


def test_standard_output_without_room_is_an_error(textmill: Textmill) -> None:
    with Path("/dev/full").open("w") as full:
        ended = textmill("doctor", stdout=full)
    assert_readable(ended, 1)
    assert "disk is full" in ended.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_ends_readably_and_leaves_nothing_half_written(textmill: Textmill, tmp_path: Path) -> None:
    source = texts(tmp_path / "texts", documents=400)
    for number, document in enumerate(source.iterdir()):
        document.write_text(document.read_text() + os.urandom(8000).hex() + f" {number}")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("this machine does not let root mount a small disk")
    try:
        ended = textmill("corpus", str(source), "--out", str(disk / "run"), "--json")
        assert_readable(ended, 1)
        assert "The disk is full." in ended.stderr
        assert "df -h" in ended.stderr
        assert json.loads(ended.stdout)["error"]["what"] == "The disk is full."
        assert not (disk / "run/corpus").exists()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_reader_that_leaves_early_is_no_error() -> None:
    """`textmill --help | head -1` ends in silence."""
    script = f"{sys.executable} -m textmill doctor --json | true; echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert ended.stderr == ""
    assert ended.stdout.strip() == str(128 + signal.SIGPIPE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_stopping_is_said_and_has_its_own_code(number: signal.Signals) -> None:
    script = (
        "import sys, time\n"
        "from textmill.cli import app, doctor\n"
        "def wait():\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "doctor.check_machine = wait\n"
        "sys.exit(app.run(['doctor']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.startswith("Stopped")
    assert "Traceback" not in errors
    assert "Next: " in errors


def test_a_fault_of_ours_goes_to_a_file_and_not_to_the_screen(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from textmill.cli import app, doctor\n"
        "doctor.check_machine = lambda: 1 / 0\n"
        "sys.exit(app.run(['doctor']))"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert_readable(ended, 1)
    assert "ZeroDivisionError" in ended.stderr
    (log,) = tmp_path.glob("textmill-error-*.log")
    assert str(log) in ended.stderr
    assert "Traceback" in log.read_text()
    assert "command: textmill doctor" in log.read_text()

    environment["TEXTMILL_DEBUG"] = "1"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert "Traceback" in ended.stderr
    assert ended.returncode == 1


@pytest.mark.parametrize(
    ("error", "kind", "word"),
    [
        (OSError(28, "No space left on device", "/nowhere/a"), Failure, "disk is full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), Failure, "disk is full"),
        (MemoryError(), Failure, "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), Failure, "not enough memory"),
        (PermissionError(13, "Permission denied", "/root/secret"), Failure, "/root/secret cannot be opened"),
        (ModuleNotFoundError("No module named 'ftfy'", name="ftfy"), Failure, '"ftfy" is missing'),
        (ValueError("surprise"), Failure, "Internal error"),
        (KeyboardInterrupt(), Interrupted, "Stopped"),
        (UsageError("no", fix="yes"), UsageError, "no"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_exceptions_become_what_why_and_fix(error: BaseException, kind: type, word: str) -> None:
    shown = explain(error, ["build", "x", "--out", "runs/x"])
    assert type(shown) is kind
    assert word in shown.what
    assert shown.fix


def test_a_disk_is_full_even_when_a_library_hides_it() -> None:
    hidden = RuntimeError("writing failed")
    hidden.__cause__ = OSError(28, "No space left on device")
    assert explain(hidden, []).what == "The disk is full."
    for words in (["--out", "/tmp"], ["--out=/tmp"], ["--out"], ["--", "--out", "x"]):
        assert explain(hidden, words).what == "The disk is full."


def test_a_file_that_may_grow_no_more_is_no_traceback(textmill: Textmill, tmp_path: Path) -> None:
    """A limit on file size ends like any other failure of the system."""
    source = texts(tmp_path / "texts")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    ended = textmill("corpus", str(source), "--out", str(tmp_path / "run"), preexec_fn=limit)
    assert_readable(ended, 1)
    assert "File too large" in ended.stderr
    assert "Internal error" not in ended.stderr
    assert not (tmp_path / "run/corpus").exists()


def test_the_process_ends_though_a_pool_of_threads_is_idle() -> None:
    """Compilation leaves such a pool behind; the code is kept, and exit handlers run."""
    script = """
import atexit
from concurrent.futures import ThreadPoolExecutor
from textmill.cli import _leave
pool = ThreadPoolExecutor(2)
pool.submit(int).result()
atexit.register(print, "handled")
_leave(3)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 3, ended.stderr
    assert ended.stdout == "handled\n"

"""`textmill generate` and `textmill chat` as a person or a script runs them: by pipes, on a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from textmill.base.errors import UsageError
from textmill.base.files import read_json, write_json
from textmill.generation.loading import is_chat, model_folder, open_model

TEXTMILL = [sys.executable, "-m", "textmill"]


def textmill(*words: object, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run one command with standard input from a pipe."""
    return subprocess.run(
        [*TEXTMILL, *map(str, words)], input=given, capture_output=True, text=True, check=False, timeout=120
    )


def test_generate_writes_samples_apart_and_figures_aside(run: Path) -> None:
    done = textmill("generate", run, "The Congress", "-n", 3, "--seed", 1, "--max-tokens", 5)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("The Congress") == 3
    assert [f"sample {i} of 3" in done.stdout for i in (1, 2, 3)] == [True] * 3
    assert "tokens/s" in done.stderr
    assert "seed 1" in done.stderr


def test_generate_json_is_one_object_and_streamed_text_is_the_same(run: Path) -> None:
    settings = ("--seed", 1, "--max-tokens", 8)
    record = json.loads(textmill("generate", run, "白日", "--json", *settings).stdout)
    streamed = textmill("generate", run, "-", "--stream", *settings, given="白日\n")
    assert record["seed"] == 1
    assert streamed.stdout == f"白日{record['samples'][0]['text']}\n"
    assert len(record["samples"][0]["ids"]) == len(record["samples"][0]["logprobs"])


def test_generate_without_a_prompt_begins_a_document(run: Path) -> None:
    done = textmill("generate", run, "--json", "--max-tokens", 3)
    assert json.loads(done.stdout)["samples"][0]["prompt_tokens"] == 1


def test_generate_says_when_the_prompt_is_too_long(run: Path) -> None:
    done = textmill("generate", run, "The Congress of the United States " * 20, "--max-tokens", 1)
    assert "left out, 32 were read" in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--temprature", "3"], 'Did you mean "--temperature"?'),
        (["--seeed=3"], 'Did you mean "--seed"?'),
        (["Once", "upon", "a", "time"], '"Once upon a time"'),
        (["The", "--temperature", "0", "--top-k", "5"], "no effect"),
        (["The", "--stream", "-n", "2"], "cannot be streamed"),
        (["The", "--stream", "--json"], "no effect"),
        (["The", "--top-p", "7"], "between 0 and 1"),
        (["The", "--beam-groups", "2"], "Add --beams"),
        (["The", "--must-contain", "peace"], "Add --beams"),
        (["The", "--source", "peace"], "Add --beams"),
        (["The", "--beams", "4", "--diversity-penalty", "1"], "Add --beam-groups"),
        (["The", "--beams", "4", "--beam-groups", "3"], "cannot be divided"),
        (["The", "--beams", "4", "--beam-groups", "0"], "too few"),
        (["The", "--beams", "4", "--must-contain", ""], "is empty"),
        (["The", "--beams", "4", "--top-k", "5"], "--top-k would have no effect"),
        (["The", "--beams", "4", "--weights", "int8"], "--weights would have no effect"),
        (["The", "--beams", "4", "--penalty-alpha", "0.6"], "exclude each other"),
        (["The", "--penalty-alpha", "0.6"], "--top-k 4"),
        (["The", "--penalty-alpha", "2", "--top-k", "4"], "at most 1"),
        (["The", "--penalty-alfa", "2"], 'Did you mean "--penalty-alpha"?'),
    ],
)
def test_generate_misused_is_explained(run: Path, words: list[str], told: str) -> None:
    done = textmill("generate", run, *words)
    assert done.returncode == 2
    assert told in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_beams_in_groups_under_a_constraint_and_with_phrases(run: Path, tmp_path: Path) -> None:
    groups = ("--beam-groups", 2, "--diversity-penalty", 2, "-n", 2)
    record = json.loads(textmill("generate", run, "We", "--beams", 4, *groups, "--max-tokens", 6, "--json").stdout)
    assert (record["groups"], record["diversity_penalty"]) == (2, 2.0)
    assert record["samples"][0]["ids"] != record["samples"][1]["ids"]
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object", "properties": {"n": {"enum": [1, 22]}}, "required": ["n"],'
                      ' "additionalProperties": false}', encoding="utf-8")  # fmt: skip
    done = textmill("generate", run, "--beams", 3, "--json-schema", schema)
    assert json.loads(done.stdout)["n"] in (1, 22)
    phrases = ("--must-contain", "peace", "--must-contain", "明月")
    done = textmill("generate", run, "We", "--beams", 3, *phrases, "--max-tokens", 12)
    assert "peace" in done.stdout
    assert "明月" in done.stdout


def test_beams_that_find_nothing_fail(run: Path) -> None:
    done = textmill("generate", run, "We", "--beams", 3, "--regex", "[0-9]{50}", "--max-tokens", 5)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "--max-tokens 20" in done.stderr


def test_contrastive_search_is_the_same_each_time_streamed_or_not(run: Path) -> None:
    settings = ("--penalty-alpha", 0.6, "--top-k", 4, "--max-tokens", 8)
    record = json.loads(textmill("generate", run, "白日", "--json", *settings).stdout)
    streamed = textmill("generate", run, "-", "--stream", *settings, given="白日\n")
    assert streamed.stdout == f"白日{record['samples'][0]['text']}\n"
    assert record["penalty_alpha"] == 0.6
    assert "seed" not in record
    assert "contrastive search" in streamed.stderr
    assert "seed" not in streamed.stderr


def test_no_model_is_explained(tmp_path: Path) -> None:
    done = textmill("generate", tmp_path / "absent", "The")
    assert done.returncode == 2
    assert "textmill build" in done.stderr


def test_chat_by_a_pipe(run: Path) -> None:
    done = textmill("chat", run, "--seed", 1, "--max-tokens", 5, given="The Congress\n/temperature 0.5\nand\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("This is a base model")
    assert "(temperature 0.5)" in done.stdout
    assert "\n> " not in done.stdout


def test_a_model_folder_is_as_good_as_a_run(run: Path, tmp_path: Path) -> None:
    assert model_folder(run) == run / "model"
    shutil.copytree(run / "model", tmp_path / "alone")
    assert model_folder(tmp_path / "alone") == tmp_path / "alone"
    opened = open_model(tmp_path / "alone", "cpu")
    assert opened.tokenizer.vocabulary == opened.model.vocabulary
    assert not opened.chat
    with pytest.raises(UsageError, match="no model"):
        model_folder(tmp_path)


def test_a_model_that_answers_says_so_in_its_folder(run: Path, tmp_path: Path) -> None:
    for name in ("config.json", "textmill.json"):
        folder = tmp_path / name.replace(".", "-")
        shutil.copytree(run / "model", folder)
        facts = read_json(folder / name) if (folder / name).exists() else {}
        write_json(folder / name, {**facts, "chat": True})
        assert is_chat(folder)


class Terminal:
    """`textmill chat` on a pseudo-terminal."""

    def __init__(self, *words: object) -> None:
        self.process, self.screen = pty.fork()
        if self.process == 0:
            try:
                os.execv(sys.executable, [*TEXTMILL, "chat", *map(str, words)])
            finally:
                os._exit(127)
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self.screen, text.encode())

    def wait_for(self, text: str, seconds: float = 60) -> str:
        """Read until `text` is on the screen; return what came up to there, since the last call."""
        limit = time.monotonic() + seconds
        while text not in self.shown:
            left = limit - time.monotonic()
            assert left > 0, f"{text!r} never came; the screen shows {self.shown!r}"
            if select.select([self.screen], [], [], left)[0]:
                try:
                    self.shown += os.read(self.screen, 4096).decode("utf-8", "replace")
                except OSError:  # the other side has closed
                    assert text in self.shown, f"ended without {text!r}: {self.shown!r}"
        before, found, self.shown = self.shown.partition(text)
        return before + found

    def wait_for_anything(self, seconds: float = 60) -> None:
        """Wait until something more is on the screen."""
        if not self.shown:
            assert select.select([self.screen], [], [], seconds)[0], "nothing came"

    def exit_code(self, seconds: float = 30) -> int:
        """Wait for the program to end."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            if select.select([self.screen], [], [], 0.05)[0]:
                with contextlib.suppress(OSError):
                    os.read(self.screen, 4096)
            done, status = os.waitpid(self.process, os.WNOHANG)
            if done:
                self.process = 0
                return os.waitstatus_to_exitcode(status)
        raise AssertionError("the program did not end")

    def close(self) -> None:
        if self.process:
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)
        os.close(self.screen)


def test_chat_on_a_terminal_ctrl_c_stops_the_answer_ctrl_d_leaves(run: Path) -> None:
    terminal = Terminal(run, "--temperature", 0, "--max-tokens", 1_000_000)
    try:
        greeting = terminal.wait_for("> ")
        assert greeting.lstrip().startswith("This is a base model")
        terminal.type("The Congress\n")
        terminal.wait_for("\n")  # the typed line
        terminal.wait_for_anything()
        terminal.type("\x03")
        terminal.wait_for("(stopped)")
        terminal.wait_for("> ")
        terminal.type("/temperature\n")
        terminal.wait_for("(temperature 0)")
        terminal.wait_for("> ")
        time.sleep(1)  # Python loses a Ctrl-C in the instant between showing its prompt and waiting for a key
        terminal.type("\x03")  # while waiting it only says how to leave
        terminal.wait_for("Ctrl-D leaves")
        terminal.wait_for("> ")
        terminal.type("\x04")
        assert terminal.exit_code() == 0
    finally:
        terminal.close()


def test_sigterm_ends_a_chat_that_is_writing(run: Path) -> None:
    terminal = Terminal(run, "--temperature", 0, "--max-tokens", 1_000_000)
    try:
        terminal.wait_for("> ")
        terminal.type("The Congress\n")
        terminal.wait_for("\n")
        terminal.wait_for_anything()
        os.kill(terminal.process, signal.SIGTERM)
        assert terminal.exit_code() == 128 + signal.SIGTERM
    finally:
        terminal.close()

"""Help is there at once, imports nothing heavy, and names every command and option."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from cyclopts import App
from running import Textmill

from textmill.cli.app import COMMANDS, build_app

HEAVY = ("torch", "pyarrow", "numpy", "tokenizers", "transformers", "plotly", "jinja2", "ftfy", "resiliparse")
NAMES = [name for name, _, _ in COMMANDS]


def test_help_comes_within_three_tenths_of_a_second() -> None:
    """The best of five; of thirty where other work has the cores."""
    seconds: list[float] = []
    while len(seconds) < 5 or (min(seconds) >= 0.3 and len(seconds) < 30):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "textmill", "--help"], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.3, seconds


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["no-such-command"], ["doctor", "--help"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    script = (
        "import sys\n"
        "from textmill.cli.app import run\n"
        f"run({words!r})\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stderr.splitlines()[-1] == "[]"


def test_help_shows_every_command_in_the_order_of_use_and_three_examples(textmill: Textmill) -> None:
    shown = textmill("--help").stdout
    places = [shown.index(f"│ {name} ") for name in NAMES]
    assert places == sorted(places)
    assert "textmill build my_texts/ --out runs/mine --budget 10m" in shown
    assert "textmill chat runs/mine" in shown
    assert "textmill generate runs/mine" in shown


def test_no_words_at_all_show_the_help(textmill: Textmill) -> None:
    ended = textmill()
    assert ended.returncode == 0
    assert ended.stdout == textmill("--help").stdout


@pytest.mark.parametrize("name", NAMES)
def test_every_command_explains_itself_without_torch(name: str) -> None:
    script = (
        "import sys\n"
        "from textmill.cli.app import run\n"
        f"code = run([{name!r}, '--help'])\n"
        "print(code, 'torch' in sys.modules, file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stderr.splitlines()[-1] == "0 False"
    assert f"textmill {name}" in ended.stdout
    assert "--recipe" in ended.stdout


def parts(name: str) -> list[App]:
    """The command and, where it is only a name for several, those that it holds."""
    app = build_app([name])[name]
    if app.default_command is not None:
        return [app]
    return [app[part] for part in app if not part.startswith("-")]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("chat", "serve")])
def test_every_command_that_ends_can_speak_json_and_be_quiet(name: str) -> None:
    """Chat is a conversation and a server has no result: they have nothing to print for a script at their end.

    Keys are made and listed at once: there is no progress to silence.
    """
    for app in parts(name):
        names = {option for argument in app.assemble_argument_collection() for option in argument.names}
        assert "--json" in names
        assert "--quiet" in names or name == "keys"


@pytest.mark.parametrize("name", NAMES)
def test_every_option_says_what_it_does(name: str) -> None:
    silent = [
        argument.name
        for app in parts(name)
        for argument in app.assemble_argument_collection(parse_docstring=True)
        if not argument.children and argument.show and not (argument.parameter.help or "").strip()
    ]
    assert silent == []


def test_version(textmill: Textmill) -> None:
    from textmill import __version__

    assert textmill("--version").stdout.strip() == __version__

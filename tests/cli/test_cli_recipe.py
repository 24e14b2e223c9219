"""A recipe gives defaults, the command line overrides them, an unknown key names the nearest known one."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest
from cyclopts import App, Parameter
from running import Textmill

from textmill.base.errors import UsageError
from textmill.cli.recipe import Recipe, leaves


@dataclass(frozen=True)
class Settings:
    min_characters: int = 100
    languages: list[str] = field(default_factory=list)
    keep: bool = True


@dataclass(frozen=True)
class Other:
    layers: int = 4


def outcome(recipe: str, words: list[str], tmp_path: Path) -> Any:
    """What a command is called with, given a recipe and words."""
    path = tmp_path / "r.toml"
    path.write_text(recipe, encoding="utf-8")
    reader = Recipe()
    reader.load(path)
    app = App(config=reader, result_action="return_value", exit_on_error=False, print_error=False)

    @app.command
    def corpus(
        paths: list[str],
        /,
        *,
        out: str = "runs/x",
        config: Annotated[Settings, Parameter(name="*")] = Settings(),
    ) -> Any:
        return paths, out, dataclasses.asdict(config)

    @app.command
    def build(
        *,
        budget: str = "5m",
        corpus: Settings = Settings(),
        training: Other = Other(),
    ) -> Any:
        return budget, dataclasses.asdict(corpus), dataclasses.asdict(training)

    return app(words)


def test_keys_become_defaults_and_the_command_line_wins(tmp_path: Path) -> None:
    recipe = 'out = "runs/y"\nmin_characters = 7\nlanguages = ["en", "zh"]\nkeep = false\n'
    assert outcome(recipe, ["corpus", "a"], tmp_path) == (
        ["a"],
        "runs/y",
        {"min_characters": 7, "languages": ["en", "zh"], "keep": False},
    )
    _, out, settings = outcome(recipe, ["corpus", "a", "--min-characters", "9", "--keep"], tmp_path)
    assert (out, settings["min_characters"], settings["keep"]) == ("runs/y", 9, True)


def test_a_stage_reads_its_own_table_and_leaves_the_others(tmp_path: Path) -> None:
    recipe = "[corpus]\nmin_characters = 3\n[training]\nlayers = 9\n"
    assert outcome(recipe, ["corpus", "a"], tmp_path)[2]["min_characters"] == 3
    budget, corpus, training = outcome(recipe, ["build"], tmp_path)
    assert (budget, corpus["min_characters"], training["layers"]) == ("5m", 3, 9)
    assert outcome(recipe, ["build", "--training.layers", "2"], tmp_path)[2]["layers"] == 2


@pytest.mark.parametrize(
    ("recipe", "words", "nearest"),
    [
        ("min_charcters = 3", ["corpus", "a"], "min_characters"),
        ("[corpus]\nmin_charcters = 3", ["build"], "corpus.min_characters"),
        ("[trainig]\nlayers = 3", ["build"], "training.layers"),
        ('budgt = "3m"', ["build"], "budget"),
    ],
)
def test_an_unknown_key_names_the_nearest_and_the_file(
    tmp_path: Path, recipe: str, words: list[str], nearest: str
) -> None:
    with pytest.raises(UsageError) as caught:
        outcome(recipe, words, tmp_path)
    assert f'Did you mean "{nearest}"?' in caught.value.what
    assert "r.toml" in caught.value.what


def test_leaves_are_paths_of_values() -> None:
    assert list(leaves({"a": 1, "b": {"c": [2], "d": {"e": 3}}})) == [("a",), ("b", "c"), ("b", "d", "e")]


@pytest.mark.parametrize(
    ("content", "word"),
    [(None, "cannot be read"), (b"a = = b", "is not TOML"), (b"\xff\xfe\x00", "cannot be read")],
    ids=["missing", "not TOML", "not UTF-8"],
)
def test_a_recipe_that_cannot_be_read(textmill: Textmill, tmp_path: Path, content: bytes | None, word: str) -> None:
    path = tmp_path / "r.toml"
    if content is not None:
        path.write_bytes(content)
    ended = textmill("doctor", "--recipe", str(path))
    assert ended.returncode == 2
    assert word in ended.stderr
    assert "Next: " in ended.stderr
    assert "Traceback" not in ended.stderr


def test_recipe_at_the_real_command(textmill: Textmill, tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("json = true\n")
    ended = textmill("doctor", "--recipe", str(path))
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["ok"]
    path.write_text("temprature = 0.5\n")
    ended = textmill("generate", "runs/mine", "Once", f"--recipe={path}")
    assert ended.returncode == 2
    assert 'Did you mean "temperature"?' in ended.stderr
    assert str(path) in ended.stderr


@pytest.mark.parametrize("words", [["--recipe"], ["doctor", "--recipe"], ["doctor", "--recipe", "--json"]])
def test_a_recipe_needs_a_file(textmill: Textmill, words: list[str]) -> None:
    ended = textmill(*words)
    assert ended.returncode == 2
    assert "--recipe needs a file" in ended.stderr


def test_a_value_of_the_wrong_kind_names_the_file(textmill: Textmill, tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text('temperature = "warm"\n')
    ended = textmill("generate", "runs/mine", "Once", "--recipe", str(path))
    assert ended.returncode == 2
    assert "warm" in ended.stderr
    assert str(path) in ended.stderr

"""Recipes: a TOML file whose keys become the defaults of a command's options. Reads that one file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cyclopts import App, ArgumentCollection
from cyclopts.config import Dict

from textmill.base.errors import UsageError, nearest

# The table of a recipe that holds a command's settings. `build` reads all of them, as they stand.
TABLES = {
    "corpus": "corpus",
    "tokenize": "tokenizer",
    "plan": "plan",
    "train": "training",
    "evaluate": "evaluation",
    "generate": "generation",
    "chat": "generation",
    "report": "report",
}


def leaves(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every value in nested tables: `{"a": {"b": 1}}` gives `("a", "b")`."""
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)


def setting_names(arguments: ArgumentCollection) -> dict[str, str]:
    """The settings that a recipe may give to a command, dotted as in TOML, each with its option's name."""
    names: dict[str, str] = {}
    for argument in arguments:
        option = next((name for name in argument.names if name.startswith("--")), None)
        if option is not None and argument.parse and argument.field_info.is_keyword and not argument.children:
            names[option.removeprefix("--").replace("-", "_")] = option
    return names


class Recipe:
    """A source of defaults for the command that is run; the command line overrides it.

    One recipe serves a whole build and each stage alone: a stage reads its own table and the keys outside any
    table, and leaves the tables of the other stages be. An unknown key is an error naming the nearest
    known one.
    """

    def __init__(self) -> None:
        self.path: Path | None = None
        self.values: dict[str, Any] = {}

    def load(self, path: Path) -> None:
        """Read the file; a missing or malformed one is a `UsageError`."""
        try:
            self.values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "It is not UTF-8 text"
            raise UsageError(
                f"The recipe {path} cannot be read.", f"{reason}.", "Give --recipe an existing TOML file."
            ) from error
        except tomllib.TOMLDecodeError as error:
            raise UsageError(
                f"The recipe {path} is not TOML.",
                f"{error}.",
                'Write one "key = value" a line, texts in quotes, such as budget = "10m".',
            ) from error
        self.path = path

    def for_command(self, command: str) -> dict[str, Any]:
        """The part of the recipe that concerns `command`, its own table unfolded."""
        if command == "build":
            return dict(self.values)
        own = TABLES.get(command, command)
        stages = set(TABLES.values())
        flat = {key: value for key, value in self.values.items() if not (key in stages and isinstance(value, Mapping))}
        table = self.values.get(own, {})
        return {**flat, **table} if isinstance(table, Mapping) else flat

    def __call__(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        """What cyclopts calls before it converts the arguments of a command."""
        if self.path is None or not commands:
            return
        values = self.for_command(commands[-1])
        known = setting_names(arguments)
        for path in leaves(values):
            name = ".".join(path).replace("-", "_")
            if name not in known:
                raise UsageError(
                    f'Unknown setting "{name}" in {self.path}.{nearest(name, known)}',
                    f"Settings of `{' '.join(commands)}`: {', '.join(known)}.",
                    f"Correct the name, or type: textmill {' '.join(commands)} --help",
                )
        Dict({commands[-1]: values}, source=str(self.path))(app, commands[-1:], arguments)

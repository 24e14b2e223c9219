"""The command line: its commands, each imported when it is typed, and the exit code of every ending."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

from cyclopts import App, ArgumentCollection, CycloptsError, Group, Parameter

from textmill import __version__
from textmill.base.errors import TextmillError, UsageError, nearest
from textmill.cli.options import EVERY
from textmill.cli.recipe import Recipe

HELP = """Turn a folder of raw text into a language model of your own: read and clean the texts, learn a \
tokenizer, choose the model that the time affords, train it, measure it against honest baselines, write a \
report. Then talk to it.

    textmill build my_texts/ --out runs/mine --budget 10m

    textmill chat runs/mine

    textmill generate runs/mine "Once upon a time" --temperature 0.8 -n 3
"""

EPILOGUE = """textmill COMMAND --help explains a command. \
No texts at hand? textmill build sample:sotu --out runs/sotu --budget 5m
"""

OPTION = re.compile(r"--?[A-Za-z][\w.-]*(=.*)?", re.DOTALL)

USE = Group("From text to a model, and on", sort_key=0)
STAGES = Group("The stages, one by one", sort_key=1)
MACHINE = Group("This machine", sort_key=2)

# In the order of use. `textmill --help` shows the sentence; a command's own help is its function's docstring.
COMMANDS: tuple[tuple[str, Group, str], ...] = (
    ("build", USE, "Text to model in one go, within a budget of time."),
    ("compare", USE, "Every family of model on the same texts: which one they deserve."),
    ("chat", USE, "Talk to a model."),
    ("generate", USE, "Continue a prompt."),
    ("serve", USE, "Serve models over HTTP, as OpenAI's clients expect it."),
    ("keys", USE, "Who may use a server: make, list and revoke keys."),
    ("embed", USE, "Texts to vectors, with an encoder."),
    ("latent", USE, "Sentences to latent vectors and back: reconstruct, sample, interpolate."),
    ("evaluate", USE, "Bits per byte on any text, beside baselines and compressors."),
    ("report", USE, "Write the run's page and say where it is."),
    ("import", USE, "Take over a model made elsewhere: safetensors or GGUF."),
    ("export", USE, "Write a model for transformers or llama.cpp."),
    ("corpus", STAGES, "Files to clean documents."),
    ("tokenize", STAGES, "Documents to token shards."),
    ("plan", STAGES, "Probe the machine and choose what to train."),
    ("train", STAGES, "Token shards to weights."),
    ("ngram", STAGES, "N-gram models of words, made as lmplz makes them, and queried."),
    ("tag", STAGES, "Parts of speech: learn taggers from tagged text, tag, measure."),
    ("vectors", STAGES, "Word vectors, to look at and to begin embeddings with."),
    ("states", STAGES, "What the hidden states of an HMM run stand for."),
    ("doctor", MACHINE, "What this machine has, what is missing, and how to get it."),
)

WITH_COMMANDS = frozenset({"corpus", "keys", "ngram", "tag"})
"""Commands that have commands of their own."""
WHERE = {"import": "import_model:import_model", "export": "export_model:export_model"}
"""Modules and functions of commands whose names Python keeps for itself."""


def build_app(tokens: Sequence[str] = ()) -> App:
    """The command line as a cyclopts app; only the command that `tokens` names will be imported."""
    reader = Recipe()
    typed = {name for name, _, _ in COMMANDS} & set(tokens)
    app = App(
        name="textmill",
        help=HELP,
        help_epilogue=None if typed else EPILOGUE,
        help_format="plaintext",  # rendering markdown would add a third to the time of `textmill --help`
        version=__version__,
        config=(refuse_mistyped(tokens), reader),
        result_action="return_value",
        suppress_keyboard_interrupt=False,
        print_error=False,
        exit_on_error=False,
    )
    app.meta.suppress_keyboard_interrupt = False
    app["--help"].group = app["--version"].group = MACHINE
    for position, (name, group, summary) in enumerate(COMMANDS):
        if name in WITH_COMMANDS and name in typed:  # an app keeps its own help and its own commands
            app.command(f"textmill.cli.{name}:app", name=name)
            continue
        app.command(
            f"textmill.cli.{WHERE.get(name, f'{name}:{name}')}",
            name=name,
            # Registered help replaces the docstring, so the command that was typed is registered without one.
            help=None if name in typed else summary,
            help_format="markdown",
            group=group,
            sort_key=position,
        )

    @app.meta.default
    def with_recipe(
        *words: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        recipe: Annotated[Path | None, Parameter(name="--recipe", group=EVERY)] = None,
    ) -> Any:
        """Run one command.

        Parameters
        ----------
        recipe
            TOML file of settings for the command; what you type on the command line overrides it.
        """
        if recipe is not None:
            reader.load(recipe)
        return app(words)  # cyclopts converts, checks and calls

    return app


def refuse_mistyped(tokens: Sequence[str]) -> Callable[[App, tuple[str, ...], ArgumentCollection], None]:
    """A check for commands whose words may begin with a hyphen ("-" is standard input): `--budgt` is no such word.

    What follows `--` on the command line is taken as it stands.
    """
    plain = set(tokens[list(tokens).index("--") + 1 :]) if "--" in tokens else set()

    def check(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        if not commands:
            return
        options = [name for argument in arguments for name in argument.names if name.startswith("-")]
        for argument in arguments:
            for token in argument.tokens:
                if token.keyword is None and token.value not in plain and OPTION.fullmatch(token.value):
                    typed = token.value.partition("=")[0]
                    raise UsageError(
                        f"Unknown option: {typed}.{nearest(typed, options)}",
                        "A text that begins so is taken as it stands after -- on the command line.",
                        f"Type: textmill {' '.join(commands)} --help",
                    )

    return check


def recipe_first(tokens: Sequence[str]) -> list[str]:
    """The command line with `--recipe FILE` moved to its front, where no command can take it for a word of its own."""
    words = list(tokens)
    end = words.index("--") if "--" in words else len(words)
    for place in range(end):
        if words[place].startswith("--recipe="):
            return [words[place], *words[:place], *words[place + 1 :]]
        if words[place] == "--recipe":
            if place + 1 >= end or words[place + 1].startswith("-"):
                raise UsageError("--recipe needs a file.", fix="Write for example: --recipe recipe.toml")
            return [f"--recipe={words[place + 1]}", *words[:place], *words[place + 2 :]]
    return words


def _terminate(number: int, frame: object) -> NoReturn:
    """SIGTERM ends a command the way Ctrl-C does: saved, explained, exit code 130."""
    raise KeyboardInterrupt


def run(tokens: Sequence[str]) -> int:
    """Run one command line and give its exit code: 0 done, 1 failed, 2 misused, 130 stopped.

    No exception leaves it; every ending that is not success says what happened, why, and what to type next.
    """
    tokens = list(tokens)
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (
        sys.stdout,
        sys.stderr,
    ):  # a terminal that lacks a letter shows "?", it does not end the work
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        outcome = build_app(tokens).meta(recipe_first(tokens))
        sys.stdout.flush()
        return outcome if isinstance(outcome, int) and not isinstance(outcome, bool) else 0
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BrokenPipeError:
        _discard(sys.stdout)
        return 128 + signal.SIGPIPE
    except BaseException as error:
        return _end(error, tokens)


def _end(error: BaseException, tokens: list[str]) -> int:
    """Say how the command ended, and give the exit code for it."""
    from textmill.cli.trouble import explain, show

    if os.environ.get("TEXTMILL_DEBUG") and not isinstance(error, (TextmillError, CycloptsError)):
        import traceback

        traceback.print_exception(error)
    shown = explain(error, tokens)
    with contextlib.suppress(OSError):  # nobody listens, or there is no room for the message either
        show(shown, as_json="--json" in tokens)
    try:
        sys.stdout.flush()
    except OSError:
        _discard(sys.stdout)
    return shown.exit_code


def _discard(stream: Any) -> None:
    """Send what a stream still holds nowhere, so that closing it at exit does not fail once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())

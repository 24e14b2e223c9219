"""Talking to a model: history, commands, streaming. A base model is used as a completer, and says so.

`Chat` holds the conversation and touches nothing; `converse` connects it to a terminal or to pipes. /save
writes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from numpy.random import SeedSequence

from textmill.base.errors import TextmillError, UsageError, nearest
from textmill.base.files import write_atomic
from textmill.generation.config import SamplingConfig
from textmill.generation.sampling import Generation, stream
from textmill.models.families import FAMILIES
from textmill.models.protocol import LanguageModel
from textmill.tokens.tokenizer import TURN_END, Tokenizer

BASE = (
    "This is a base model: it continues text, it does not answer. Write the beginning of something; "
    "what you type next goes on from there (Enter alone: write more)."
)
ANSWERS = "This model answers."
COMMANDS = {
    "/help": "these commands",
    "/reset": "forget everything said so far",
    "/temperature X": "safer below 1, wilder above; 0 takes the likeliest token each time",
    "/system TEXT": "instructions that the model reads first (models that answer only)",
    "/save FILE": "write the conversation to a new file",
    "/quit": "leave (Ctrl-D does too; Ctrl-C stops an answer)",
}
NO_SPACE_BEFORE = ".,;:!?)]}%’”…"


class Quit(Exception):
    """/quit was typed."""


class Chat:
    """A conversation with a model.

    Args:
        model, tokenizer: any family, and the tokenizer that it was trained with.
        config: how to sample; with a seed, the same inputs give the same conversation.
        answers: whether the model was fine-tuned to answer; if not, it continues the running text.

    Attributes:
        messages: the turns so far, `{"role": …, "content": …}`; roles "user" and "assistant".
        last: figures of the last reply; None before the first, and when it was stopped.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        config: SamplingConfig | None = None,
        *,
        answers: bool = False,
        write: Callable[..., Iterator[Any]] | None = None,
    ) -> None:
        self.model, self.tokenizer, self.answers = model, tokenizer, answers
        self._write = write or partial(stream, model, tokenizer)
        self.config = config or SamplingConfig()
        if self.config.n != 1:
            raise UsageError(f"A chat with {self.config.n} samples is not possible.", fix="Leave out -n.")
        idle = [name for name in ("echo", "logprobs", "prompt_logprobs") if getattr(self.config, name)]
        if idle:
            raise UsageError(f"{idle[0]} would have no effect in a chat.", fix="Use textmill generate for that.")
        if answers and not tokenizer.turn_ends:
            raise UsageError(
                "This model cannot answer.",
                f"Its settings say that it can, but its tokenizer has no {TURN_END} token.",
                "Take the tokenizer that the model was trained with.",
            )
        self._asked = self.config
        self.system = ""
        self.reset()

    def reset(self) -> None:
        """Forget everything said so far (the system message and the settings stay)."""
        self.messages: list[dict[str, str]] = []
        self.last: Generation | None = None
        self._running = ""
        self._turn = 0

    @property
    def greeting(self) -> str:
        """The first line: what this model is, and the way to the commands."""
        family = FAMILIES.get(getattr(self.model, "family", ""))
        expect = f" {family.expect}" if family is not None and family.expect else ""
        return f"{ANSWERS if self.answers else BASE}{expect} /help lists the commands."

    def reply(self, line: str) -> Iterator[str]:
        """Take one input and give the reply piece by piece.

        What was given so far becomes part of the history even when the iterator is closed, or the model
        interrupted, before the end.
        """
        before = self._running
        if not self.answers:
            line = line.rstrip()  # a token often begins with its space, hardly ever does one end with it
            line = _joint(before, line) + line
        if line or self.answers:
            self.messages.append({"role": "user", "content": line})
        prompt = self._conversation() if self.answers else self._text(before + line)
        self._turn += 1
        self.last = None
        ends = self.tokenizer.turn_ends if self.answers else []
        written = ""
        try:
            for event in self._write(prompt, self._settings(), end_tokens=ends):
                written += event.text
                if event.generation is not None:
                    self.last = event.generation
                if event.text:
                    yield event.text
        finally:
            self.messages.append({"role": "assistant", "content": written})
            # After the end of a document the model has only ever seen a new one begin.
            ended = self.last is not None and self.last.finish_reason == "end"
            self._running = "" if ended else before + line + written

    def _settings(self) -> SamplingConfig:
        """The settings of this turn: every turn draws its own numbers, the same ones for the same seed."""
        if self.config.seed is None:
            return self.config
        seed = int(SeedSequence([self.config.seed, self._turn]).generate_state(1)[0])
        return dataclasses.replace(self.config, seed=seed)

    def _text(self, text: str) -> list[int]:
        """Tokens of the running text, cut from the front to what the model can see."""
        ids = [self.tokenizer.document_begin, *self.tokenizer.encode(text)]
        return ids[-self.model.context :] if self.model.context else ids

    def _conversation(self) -> list[int]:
        """Tokens of the turns, the oldest left out until the rest fits and leaves room for the answer."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        turns = self.messages
        ids = self.tokenizer.chat([*system, *turns])
        if self.model.context is None:
            return ids
        room = self.model.context - min(self.config.max_tokens, self.model.context // 2)
        while len(ids) > room and len(turns) > 1:
            # A question leaves together with its answer.
            turns = turns[2:] if len(turns) > 2 else turns[1:]
            ids = self.tokenizer.chat([*system, *turns])
        return ids

    def command(self, line: str) -> str:
        """Carry out a line that begins with "/" and return what to tell the user.

        Raises:
            Quit: for /quit.
            UsageError: when the command is unknown or its argument makes no sense.
        """
        name, _, argument = line.strip().partition(" ")
        argument = argument.strip()
        if name == "/quit":
            raise Quit
        if name == "/help":
            width = max(map(len, COMMANDS))
            return "\n".join(f"{command:<{width}}  {meaning}" for command, meaning in COMMANDS.items())
        if name == "/reset":
            self.reset()
            return "(forgotten)"
        if name == "/temperature":
            return self._set_temperature(argument)
        if name == "/system":
            return self._set_system(argument)
        if name == "/save":
            return self._save(argument)
        known = [command.split()[0] for command in COMMANDS]
        raise UsageError(f'Unknown command "{name}".{nearest(name, known)}', fix=f"Commands: {', '.join(known)}.")

    def _set_temperature(self, argument: str) -> str:
        if not argument:
            return f"(temperature {self.config.temperature:g})"
        try:
            value = float(argument)
        except ValueError:
            raise UsageError(f'"{argument}" is not a temperature.', fix="Type a number: /temperature 0.8") from None
        if value == 0:  # nothing is drawn then, and settings of the drawing would be refused
            changed = self._asked.greedy()
        else:
            changed = dataclasses.replace(self._asked, temperature=value)
        self.config = changed
        return f"(temperature {value:g})"

    def _set_system(self, argument: str) -> str:
        if not self.answers:
            raise UsageError(
                "/system would have no effect.",
                "This is a base model: it follows no instructions, it continues text.",
                "Write the beginning of the text that you want.",
            )
        self.system = argument
        return "(system message set)" if argument else "(system message removed)"

    def _save(self, argument: str) -> str:
        if not argument:
            raise UsageError("/save needs a file name.", fix="For example: /save story.txt")
        path = Path(argument).expanduser()
        if path.exists():
            raise UsageError(
                f"{path} exists already.", "Nothing is overwritten.", "Choose another name: /save other.txt"
            )
        try:
            write_atomic(path, self.transcript())
        except OSError as error:
            raise UsageError(
                f"{path} cannot be written.", f"{error.strerror}.", "Choose a folder that you own."
            ) from error
        return f"(saved to {path})"

    def transcript(self) -> str:
        """The conversation as text: turns by role, or the running text with its documents apart."""
        if self.answers:
            return "".join(f"{turn['role']}: {turn['content']}\n\n" for turn in self.messages)
        return "".join(turn["content"] for turn in self.messages).strip("\n") + "\n"


def _joint(before: str, line: str) -> str:
    """The space between the running text and the next input, where the script has spaces."""
    if not before or not line or before[-1].isspace() or line[0].isspace():
        return ""
    if line[0] in NO_SPACE_BEFORE or _is_east_asian(before[-1]) or _is_east_asian(line[0]):
        return ""
    return " "


def _is_east_asian(character: str) -> bool:
    """Chinese characters, kana, and their full-width punctuation, which stand without spaces."""
    code = ord(character)
    return 0x2E80 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF or 0xFF00 <= code <= 0xFFEF or code >= 0x20000


def converse(chat: Chat, source: TextIO | None = None, out: TextIO | None = None, notes: TextIO | None = None) -> None:
    """Read lines until /quit or the end of the input, and write the replies as they come.

    On a terminal there is a prompt and line editing, and Ctrl-C while waiting only says how to leave; from a
    pipe, each line is one input. Ctrl-C during a reply stops the reply.

    Args:
        chat: the conversation.
        source: where lines come from (standard input).
        out: where the first line and the replies go (standard output).
        notes: where remarks and errors go (standard error).
    """
    source, out, notes = source or sys.stdin, out or sys.stdout, notes or sys.stderr
    interactive = source is sys.stdin and source.isatty() and out.isatty()
    if interactive:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 (importing it gives `input` line editing and history)
    print(chat.greeting, file=out, flush=True)
    while True:
        try:
            line = _next_line(source, interactive)
        except KeyboardInterrupt:
            if not interactive:
                raise
            print("\n(/quit or Ctrl-D leaves)", file=notes, flush=True)
            continue
        if line is None:
            if interactive:
                print(file=out)
            return
        try:
            if line.startswith("/"):
                print(chat.command(line), file=out, flush=True)
            elif line.strip() or (chat.messages and not chat.answers):
                _answer(chat, line, out, notes)
        except Quit:
            return
        except KeyboardInterrupt:  # _answer has stopped the reply
            print("\n(stopped)", file=notes, flush=True)
        except TextmillError as error:
            print(error, file=notes, flush=True)


def _next_line(source: TextIO, interactive: bool) -> str | None:
    """One line without its end; None at the end of the input."""
    if interactive:
        try:
            return input("> ")
        except EOFError:
            return None
    line = source.readline()
    return line.rstrip("\r\n") if line else None


def _answer(chat: Chat, line: str, out: TextIO, notes: TextIO) -> None:
    """Stream one reply; when interrupted, the history keeps what was written so far."""
    with contextlib.closing(chat.reply(line)) as pieces:  # type: ignore[type-var]
        for piece in pieces:
            out.write(piece)
            out.flush()
    print(file=out, flush=True)
    if not chat.answers and chat.last is not None and chat.last.finish_reason == "end":
        print("(the model ended its text; what you type next begins a new one)", file=notes, flush=True)

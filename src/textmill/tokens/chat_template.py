"""Conversations in the words of an imported model: its own chat template (Jinja), rendered in a sandbox.

Text from outside can forge no special token: where a message spells one out, its text is encoded apart from the
template's.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from textmill.base.errors import Failure, UsageError

MARK = "\ue000{}\ue001"
"""Stands for the text of a message while the template is rendered: private-use characters, which no template has."""


def render(template: str, messages: Sequence[Mapping[str, str]], names: Mapping[str, str], reply: bool) -> str:
    """The text of a conversation.

    Args:
        template: Jinja source, as in tokenizer_config.json.
        messages: `{"role": …, "content": …}`.
        names: special tokens that the template may name: bos_token, eos_token.
        reply: end with what comes before the assistant's answer.

    Raises:
        UsageError: the template refuses these messages (an unknown role, say).
        Failure: the template is broken.
    """
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise UsageError("The model's chat template does not take this conversation.", str(message))

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    try:
        text = environment.from_string(template).render(
            messages=[dict(message) for message in messages], add_generation_prompt=reply, tools=None, **names
        )
    except TemplateError as error:
        raise Failure("The model's chat template cannot be used.", str(error), "Use `textmill generate`.") from error
    return str(text)


def encode_chat(
    template: str,
    messages: Iterable[Mapping[str, str]],
    names: Mapping[str, str],
    special: Iterable[str],
    encode_special: Callable[[str], list[int]],
    encode: Callable[[str], list[int]],
    reply: bool = True,
) -> list[int]:
    """Token ids of a conversation.

    Args:
        template, names, reply: as in `render`.
        messages: the turns.
        special: texts of the special tokens.
        encode_special: encodes text in which special tokens are found.
        encode: encodes text in which they are not.
    """
    turns = list(messages)
    forged = any(token in turn["content"] for turn in turns for token in special if token)
    if not forged:
        return encode_special(render(template, turns, names, reply))
    marked = [{**turn, "content": MARK.format(place)} for place, turn in enumerate(turns)]
    rest, ids = render(template, marked, names, reply), []
    for place, turn in enumerate(turns):
        before, mark, rest = rest.partition(MARK.format(place))
        ids += encode_special(before)
        if mark:
            ids += encode(turn["content"])
    return ids + encode_special(rest)


def turn_end(template: str, names: Mapping[str, str], special: Iterable[str]) -> str | None:
    """The special token that closes an assistant's turn; None when the template writes none."""
    turns = [{"role": "user", "content": MARK.format(0)}, {"role": "assistant", "content": MARK.format(1)}]
    try:
        after = render(template, turns, names, reply=False).partition(MARK.format(1))[2]
    except (Failure, UsageError):
        return None
    found = [(after.find(token), -len(token), token) for token in special if token and token in after]
    return min(found)[2] if found else None


def names_of(values: Mapping[str, Any]) -> dict[str, str]:
    """bos_token and eos_token for a template, from a tokenizer_config.json (text, or an object with "content")."""
    found = {}
    for name in ("bos_token", "eos_token"):
        value = values.get(name)
        found[name] = str(value["content"] if isinstance(value, Mapping) else value or "")
    return found

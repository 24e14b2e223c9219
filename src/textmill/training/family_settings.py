"""A family's own settings as they are typed, `name=value`: read by the types of its configuration. Touches nothing."""

from __future__ import annotations

import types
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from textmill.base.errors import UsageError, nearest
from textmill.models.families import family_named


def with_settings(config: Any, assignments: Sequence[str], family: str) -> Any:
    """The configuration with what was typed, such as `reverse_path=aligned` or `ends=17,18`.

    Args:
        config: a family's frozen dataclass; its own checks apply.
        assignments: `name=value` each.
        family: for the messages.

    Raises:
        UsageError: no such setting, or a value that does not fit its type.
    """
    if not assignments:
        return config
    kinds = get_type_hints(type(config))
    known = {field.name for field in fields(config)} - {"vocabulary"}
    values = {}
    for assignment in assignments:
        name, sign, text = assignment.partition("=")
        name = name.strip().replace("-", "_")
        if not sign:
            raise UsageError(f'"{assignment}" sets nothing.', fix="Write name=value, such as dropout=0.1.")
        if name not in known:
            raise UsageError(
                f'The family {family} has no setting "{name}".{nearest(name, known)}',
                fix=f"It has: {', '.join(sorted(known))}.",
            )
        try:
            values[name] = _value(kinds[name], text.strip())
        except ValueError as error:
            raise UsageError(f'"{text}" does not fit {name}.', f"{error}.", "Correct the value.") from error
    return replace(config, **values)


def check_settings(family: str, assignments: Sequence[str]) -> None:
    """Refuse settings that the family does not have, before any work is done.

    Raises:
        UsageError: as `with_settings`; or the family is the Transformer, whose settings have options of their own.
    """
    if not assignments:
        return
    if family == "transformer":
        raise UsageError(
            "set has no effect on the family transformer.",
            "Its parts have options of their own.",
            "See --model.… in: textmill build --help; or choose another --family.",
        )
    with_settings(family_named(family).model_class().ladder(512, 64, 1_000_000)[0], assignments, family)


def _value(kind: Any, text: str) -> Any:
    """A typed text as a value of this type."""
    origin = get_origin(kind)
    if origin is Literal:
        choices = {str(choice): choice for choice in get_args(kind)}
        if text not in choices:
            raise ValueError(f"It is one of {', '.join(choices)}")
        return choices[text]
    if origin in (Union, types.UnionType):
        if text.lower() == "none" and type(None) in get_args(kind):
            return None
        return _value(next(one for one in get_args(kind) if one is not type(None)), text)
    if origin is tuple:
        return tuple(_value(get_args(kind)[0], part.strip()) for part in text.split(",") if part.strip())
    if kind is bool:
        if text.lower() not in ("true", "false", "yes", "no"):
            raise ValueError("It is true or false")
        return text.lower() in ("true", "yes")
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise ValueError("It is a whole number" if kind is int else "It is a number") from None
    if kind is str:
        return text
    raise ValueError("It cannot be given as a text")

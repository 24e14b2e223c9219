"""Text that has to follow a JSON schema, a regular expression, a list of choices or a grammar. Touches nothing.

The library `llguidance` says which tokens may come next. What it cannot honour in full is refused with its place: text
that merely looks as if it followed a schema would be worse than an error (fail closed).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from textmill.base.errors import Failure, UsageError, nearest
from textmill.tokens.tokenizer import Tokenizer

ANNOTATIONS = frozenset(
    """$schema $id $anchor $comment $defs definitions title description default examples deprecated readOnly writeOnly
    contentMediaType contentEncoding discriminator""".split()  # noqa: SIM905
)
"""Keywords of JSON Schema that say nothing of what is valid."""
VALIDATIONS = frozenset(
    """$ref type enum const properties required additionalProperties patternProperties minProperties maxProperties
    items prefixItems minItems maxItems minLength maxLength pattern format minimum maximum exclusiveMinimum
    exclusiveMaximum multipleOf anyOf oneOf allOf not if then else uniqueItems contains minContains maxContains
    dependentRequired dependentSchemas propertyNames unevaluatedProperties unevaluatedItems additionalItems dependencies
    $dynamicRef $dynamicAnchor $recursiveRef $vocabulary""".split()  # noqa: SIM905
)
"""Those that do; `llguidance` refuses the ones that it does not know."""
MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
LITERAL = frozenset({"enum", "const", "default", "examples", "required", "dependentRequired"})
_DATE = (
    "[12][0-9]{3}-(02-(0[1-9]|1[0-9]|2[0-8])|(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])"
    "|(0[469]|11)-(0[1-9]|[12][0-9]|30))"
)
_TIME = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-](0[0-9]|1[0-2]):[0-5][0-9])"
FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "email": "[A-Za-z0-9_-]{1,20}([.][A-Za-z0-9_-]{1,10}){0,2}@([A-Za-z0-9]{1,20}[.]){1,3}[A-Za-z]{2,8}",
}
"""Formats that the library takes too loosely (the 30th of February, second 60, endless names), as expressions that are
valid for every validator."""


@dataclass(frozen=True)
class ConstraintSpec:
    """What a text has to follow: exactly one of these."""

    json_schema: Mapping[str, Any] | bool | str | None = None
    """A JSON schema (draft 2020-12), as an object or as JSON text."""
    json_object: bool = False
    """Any JSON object."""
    regex: str | None = None
    """A regular expression that the whole text matches (without look-around and back-references)."""
    choice: Sequence[str] | None = None
    """One of these texts."""
    grammar: str | None = None
    """A grammar: Lark as `llguidance` reads it, or GBNF as llama.cpp does."""

    def __post_init__(self) -> None:
        given = [one.name for one in fields(self) if getattr(self, one.name) not in (None, False) or
                 (one.name == "json_schema" and self.json_schema is False)]  # fmt: skip
        if len(given) != 1:
            raise UsageError(
                f"{' and '.join(given) or 'Nothing'} given as a constraint.",
                "A text follows exactly one of them.",
                f"Give one of: {', '.join(one.name for one in fields(self))}.",
            )


class GrammarMatcher:
    """One text on its way through a grammar (`sampler.Matcher`)."""

    def __init__(self, matcher: Any, vocabulary: int, ends: Tensor) -> None:
        self._matcher, self._vocabulary, self._ends = matcher, vocabulary, ends

    @property
    def finished(self) -> bool:
        """Whether the text is complete and nothing may follow but its end."""
        return bool(self._matcher.is_stopped())

    def mask(self) -> Tensor:
        """Tokens that may come next, bool [V]; an end only where the text may end.

        Raises:
            Failure: the grammar became too large for the library.
        """
        if self._matcher.is_stopped():
            return self._ends
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        found = np.unpackbits(bits, bitorder="little", count=min(8 * len(bits), self._vocabulary)).astype(bool)
        mask = torch.zeros(self._vocabulary, dtype=torch.bool)
        mask[: len(found)] = torch.from_numpy(found)
        return mask

    def accept(self, token: int) -> None:
        """The token was taken.

        Raises:
            Failure: it was not allowed.
        """
        if not self._matcher.consume_token(token):
            self._check()
            raise Failure(f"Token {token} does not follow the constraint.", "It was not among those allowed.")

    def fork(self) -> GrammarMatcher:
        """A copy that goes on by itself."""
        return GrammarMatcher(self._matcher.deep_copy(), self._vocabulary, self._ends)

    def _check(self) -> None:
        if self._matcher.is_error():
            raise Failure(
                "The constraint cannot be followed any further.",
                str(self._matcher.get_error()).splitlines()[0],
                "Make the schema or grammar simpler.",
            )


def _library() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise UsageError(
            "Constraints need llguidance.", f"It is not installed here ({error}).",
            'Type: pip install "textmill[constraints]"',
        ) from None  # fmt: skip
    return llguidance


def compile_constraint(
    spec: ConstraintSpec, tokenizer: Tokenizer, vocabulary: int | None = None, ends: Collection[int] = ()
) -> GrammarMatcher:
    """What a text has to follow, ready to begin; each sample takes a `fork` of it.

    Args:
        spec: the constraint.
        tokenizer: of the model.
        vocabulary: the model's, where it is larger than the tokenizer's.
        ends: special tokens that end a text besides the tokenizer's own ends.

    Raises:
        UsageError: the constraint cannot be honoured in full (the place is named), or not by this tokenizer.
    """
    if not tokenizer.lossless:
        raise UsageError(
            "This model's tokenizer cannot spell every text.",
            "A constraint may ask for characters that it lacks.",
            "Use a model with a byte-level tokenizer, as textmill build makes them.",
        )
    library = _library()
    every = tuple(sorted({*tokenizer.ends, *ends}))
    grammar, place = _grammar(library, spec)
    tokens = _library_tokenizer(tokenizer, every)
    failed, messages = library.LLMatcher.validate_grammar_with_warnings(grammar, tokens)
    if failed or messages:
        raise _refusal(spec, messages[0] if messages else "it is not valid", place)
    matcher = library.LLMatcher(tokens, grammar, log_level=0)
    if matcher.is_error():
        raise _refusal(spec, str(matcher.get_error()), place)
    size = vocabulary or tokenizer.vocabulary
    mask = torch.zeros(size, dtype=torch.bool)
    mask[list(every)] = True
    return GrammarMatcher(matcher, size, mask)


def _grammar(library: Any, spec: ConstraintSpec) -> tuple[str, Any]:
    """The library's grammar, and the schema behind it."""
    if spec.json_object:
        return str(library.grammar_from("json_schema", json.dumps(_compact({"type": "object"})))), None
    if spec.json_schema is not None:
        schema = spec.json_schema
        if isinstance(schema, str):
            try:
                schema = json.loads(schema)
            except json.JSONDecodeError as error:
                raise UsageError(
                    "The schema is not JSON.", f"Line {error.lineno}, column {error.colno}: {error.msg}.", "Correct it."
                ) from None
        if not isinstance(schema, Mapping | bool):
            raise UsageError("The schema is no JSON schema.", f"It is a {type(schema).__name__}.", "Give an object.")
        _check_keywords(schema)
        text = json.dumps(_compact(schema) if isinstance(schema, Mapping) else schema)
        return str(library.grammar_from("json_schema", text)), schema
    if spec.regex is not None:
        return str(library.grammar_from("regex", spec.regex)), None
    if spec.choice is not None:
        if not spec.choice or not all(isinstance(text, str) and text for text in spec.choice):
            raise UsageError("The choices are empty.", "At least one text is needed.", 'Try ["yes", "no"].')
        return str(library.grammar_from("choice", json.dumps(list(spec.choice)))), None
    assert spec.grammar is not None
    try:
        return str(library.grammar_from("grammar", spec.grammar)), None
    except ValueError as error:
        raise UsageError("The grammar cannot be read.", str(error), "Write it in Lark or GBNF.") from None


def _compact(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema, with blanks only where `json.dumps` writes them: no model can fill a document with blanks."""
    layout = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    return {**_strict(schema), "x-guidance": layout}


def _strict(schema: Any, literal: bool = False) -> Any:
    """The schema with the formats of FORMATS as patterns."""
    if isinstance(schema, list) and not literal:
        return [_strict(one) for one in schema]
    if not isinstance(schema, Mapping) or literal:
        return schema
    found = {
        key: {name: _strict(one) for name, one in value.items()}
        if key in MAPS and isinstance(value, Mapping)
        else _strict(value, key in LITERAL)
        for key, value in schema.items()
    }
    kind = found.get("format")
    if isinstance(kind, str) and kind in FORMATS and "pattern" not in found:
        del found["format"]
        found["pattern"] = f"^({FORMATS[kind]})$"
    return found


def subschemas(schema: Any, pointer: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(JSON pointer, schema) of a schema and all schemas in it."""
    if not isinstance(schema, Mapping):
        return
    yield pointer, schema
    for key, value in schema.items():
        here = f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}"
        if key in LITERAL:
            continue
        if key in MAPS and isinstance(value, Mapping):
            for name, one in value.items():
                yield from subschemas(one, f"{here}/{str(name).replace('~', '~0').replace('/', '~1')}")
        elif isinstance(value, list):
            for place, one in enumerate(value):
                yield from subschemas(one, f"{here}/{place}")
        else:
            yield from subschemas(value, here)


def _check_keywords(schema: Any) -> None:
    """Refuse keywords that JSON Schema does not have: a mistyped one would be silently without effect."""
    for pointer, one in subschemas(schema):
        for key in one:
            if key not in ANNOTATIONS and key not in VALIDATIONS:
                raise UsageError(
                    f'The schema has an unknown keyword "{key}".{nearest(str(key), VALIDATIONS | ANNOTATIONS)}',
                    f'It stands at "{pointer}/{key}", and would have no effect.',
                    "Correct it or leave it out.",
                )


def _refusal(spec: ConstraintSpec, message: str, schema: Any) -> UsageError:
    """The library's objection, with the place."""
    kind = "schema" if spec.json_schema is not None else "regular expression" if spec.regex is not None else "grammar"
    where = ""
    if schema is not None:
        words = set(re.findall(r'"([^"]+)"', message)) | set(re.findall(r"^\w+|(?<=: )\w+", message))
        keys = [
            f"{pointer}/{key}"
            for pointer, one in subschemas(schema)
            for key, value in one.items()
            if key in words or (isinstance(value, str) and value.lstrip("#") and value.lstrip("#") in message)
        ]
        where = f' It stands at "{keys[0]}".' if keys else ""
    elif spec.regex is not None and (caret := re.search(r"^( +)\^", message, re.MULTILINE)):
        where = f" It stands at offset {len(caret[1]) - 4}."
        message = message[message.rfind("error: ") + 7 :].partition("\n")[0]
    elif found := re.match(r"at (\d+)\((\d+)\): ", message):
        where = f" It stands in line {found[1]}, column {found[2]}."
        message = message[found.end() :].partition("\n")[0]
    return UsageError(
        f"The {kind} cannot be honoured in full.", f"{message.rstrip('.')}.{where}", "Write it without that."
    )


@lru_cache(maxsize=8)
def _library_tokenizer(tokenizer: Tokenizer, ends: tuple[int, ...]) -> Any:
    """The tokens as bytes, in the library's form."""
    library = _library()

    class Tokens:
        eos_token_id, bos_token_id = ends[0], None
        tokens = [tokenizer.decode_bytes([token]) for token in range(tokenizer.vocabulary)]  # noqa: RUF012
        special_token_ids = list(tokenizer.special.values())  # noqa: RUF012

        def __call__(self, text: str | bytes) -> list[int]:
            return tokenizer.encode(text.decode() if isinstance(text, bytes) else text)

    return library.LLTokenizer(library.TokenizerWrapper(Tokens()), eos_token=list(ends))

"""Constrained text: a model of random weights writes nothing but what the constraint allows; what cannot be honoured
is refused with its place."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from textmill.base.errors import Failure, UsageError
from textmill.generation.config import SamplingConfig
from textmill.generation.constraints import ConstraintSpec, compile_constraint, subschemas
from textmill.generation.sampling import generate
from textmill.tokens.tokenizer import Tokenizer, train_tokenizer

jsonschema_rs = pytest.importorskip("jsonschema_rs")
SCHEMAS: dict[str, Any] = json.loads((Path(__file__).parent / "schemas" / "schemas.json").read_text())


class Noise:
    """A model whose probabilities are random at every step; ends are likely, so that it does end."""

    context = None

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self.vocabulary, self.end = tokenizer.vocabulary, tokenizer.document_end
        self.random = torch.Generator().manual_seed(seed)
        pieces = [tokenizer.decode_bytes([token]) for token in range(tokenizer.vocabulary)]
        self.closing = [i for i, piece in enumerate(pieces) if piece[:1] in (b'"', b"}", b"]")]

    def start(self, batch: int) -> None:
        return None

    def read(self, tokens: torch.Tensor, state: None) -> tuple[torch.Tensor, None]:
        scores = torch.randn(*tokens.shape, self.vocabulary, generator=self.random) * 3
        scores[..., self.end] += 6
        scores[..., self.closing] += 4
        return scores.log_softmax(-1), None


def write(tokenizer: Tokenizer, spec: ConstraintSpec, seed: int, max_tokens: int = 4000) -> tuple[str, str]:
    constraint = compile_constraint(spec, tokenizer)
    config = SamplingConfig(temperature=1.0, min_p=0.0, seed=seed, max_tokens=max_tokens)
    sample = generate(Noise(tokenizer, seed), tokenizer, [""], config, constraint=constraint)[0]
    return sample.text, sample.finish_reason


@pytest.mark.parametrize("name", SCHEMAS)
def test_random_weights_write_valid_json(tokenizer: Tokenizer, name: str) -> None:
    validator = jsonschema_rs.validator_for(SCHEMAS[name], validate_formats=True)
    for seed in range(3):
        text, reason = write(tokenizer, ConstraintSpec(json_schema=SCHEMAS[name]), seed)
        assert reason == "end", text[:200]
        validator.validate(json.loads(text))


def test_there_are_many_schemas() -> None:
    assert len(SCHEMAS) >= 60


@pytest.mark.parametrize(
    "pattern", [r"[0-9]{4}-[0-9]{2}", r"(yes|no)( maybe)?", r"[一-龥]{2,5}。", r"a+b*c?", r"\w{1,8}@\w{1,8}\.(com|cn)"]
)
def test_a_regular_expression_is_matched_whole(tokenizer: Tokenizer, pattern: str) -> None:
    for seed in range(5):
        text, _ = write(tokenizer, ConstraintSpec(regex=pattern), seed)
        assert re.fullmatch(pattern, text), text


def test_a_choice_is_one_of_them_and_each_can_be_made(tokenizer: Tokenizer) -> None:
    choices = ["positive", "negative", "neutral", "积极"]
    made = {write(tokenizer, ConstraintSpec(choice=choices), seed)[0] for seed in range(60)}
    assert made == set(choices)


def test_grammars_in_lark_and_gbnf(tokenizer: Tokenizer) -> None:
    lark = 'start: expression\nexpression: term ("+" term)*\nterm: /[0-9]{1,3}/ | "(" expression ")"'
    gbnf = 'root ::= "move " ("left" | "right") " " [0-9]'
    for seed in range(5):
        text, reason = write(tokenizer, ConstraintSpec(grammar=lark), seed, 300)
        if reason == "end":
            assert re.fullmatch(r"[0-9+()]+", text)
            assert text.count("(") == text.count(")")
        assert re.fullmatch(r"move (left|right) [0-9]", write(tokenizer, ConstraintSpec(grammar=gbnf), seed)[0])


def test_any_json_object(tokenizer: Tokenizer) -> None:
    for seed in range(5):
        text, reason = write(tokenizer, ConstraintSpec(json_object=True), seed)
        assert reason == "end"
        assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "object", "properties": {"a": {"not": {"type": "string"}}}}, "/properties/a/not"),
        ({"type": "array", "uniqueItems": True}, "/uniqueItems"),
        ({"type": "object", "properties": {"when": {"type": "string", "format": "banana"}}}, "/properties/when/format"),
        ({"$ref": "#/$defs/missing"}, "/$ref"),
        ({"$ref": "http://127.0.0.1:1/schema"}, "/$ref"),
        ({"type": "object", "properties": {"a": {"type": "string", "minlength": 3}}}, "minLength"),
        ({"type": "string", "minLength": 5, "maxLength": 2}, "minLength"),
        ({"oneOf": [{"type": "string"}, {"type": "string", "minLength": 2}]}, "/oneOf"),
        ({"type": "object", "if": {}, "then": {}}, "/if"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"type": "banana"}, "/type"),
        ("{bad json", "column"),
        (False, "false"),
    ],
)
def test_a_schema_that_cannot_be_honoured_is_refused_with_its_place(
    tokenizer: Tokenizer, schema: Any, place: str
) -> None:
    with pytest.raises(UsageError) as caught:
        compile_constraint(ConstraintSpec(json_schema=schema), tokenizer)
    assert place in f"{caught.value.what} {caught.value.why}"
    assert caught.value.fix


@pytest.mark.parametrize(
    ("spec", "place"),
    [
        ({"regex": "ab(c"}, "offset 2"),
        ({"regex": "(?<=a)b"}, "look-around"),
        ({"grammar": 'start: "a" x'}, "line 1, column"),
        ({"grammar": 'root ::= "a" | foo'}, "foo"),
        ({"choice": []}, "At least one"),
    ],
)
def test_other_constraints_are_refused_with_their_place(tokenizer: Tokenizer, spec: dict[str, Any], place: str) -> None:
    with pytest.raises(UsageError) as caught:
        compile_constraint(ConstraintSpec(**spec), tokenizer)
    assert place in f"{caught.value.what} {caught.value.why}"


def test_two_constraints_or_none_are_refused() -> None:
    for spec in ({}, {"regex": "a", "choice": ["a"]}, {"json_schema": {}, "json_object": True}):
        with pytest.raises(UsageError, match="exactly one"):
            ConstraintSpec(**spec)


def test_a_tokenizer_that_cannot_spell_everything_is_refused(documents: list[str]) -> None:
    tokenizer = train_tokenizer(documents, 768)
    tokenizer.lossless = False
    with pytest.raises(UsageError, match="cannot spell"):
        compile_constraint(ConstraintSpec(regex="a"), tokenizer)


def test_a_fork_goes_its_own_way_and_a_wrong_token_fails(tokenizer: Tokenizer) -> None:
    first = compile_constraint(ConstraintSpec(regex="ab|cd"), tokenizer)
    a, b, c, d = (tokenizer.encode(letter)[0] for letter in "abcd")
    second = first.fork()
    first.accept(a)
    assert first.mask()[b]
    assert not first.mask()[d]
    assert second.mask()[[a, c]].all()
    second.accept(c)
    second.accept(d)
    assert second.mask().nonzero()[:, 0].tolist() == sorted(tokenizer.ends)
    with pytest.raises(Failure):
        first.accept(c)


def test_pointers_escape_slashes() -> None:
    found = [pointer for pointer, _ in subschemas({"properties": {"a/b~c": {"type": "string"}}})]
    assert "/properties/a~1b~0c" in found


def test_a_text_cut_short_says_so(tokenizer: Tokenizer) -> None:
    _, reason = write(tokenizer, ConstraintSpec(json_schema={"type": "string", "minLength": 500}), 0, max_tokens=20)
    assert reason == "length"

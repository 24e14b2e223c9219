"""Beams under a constraint and with phrases that must appear: nothing else is ever written, and on a small scale the
very best is found."""

import json
import random
import re

import pytest
import torch

from textmill.base.errors import UsageError
from textmill.generation.beam import beam_search
from textmill.generation.constraints import ConstraintSpec, compile_constraint
from textmill.generation.phrases import Phrases

jsonschema_rs = pytest.importorskip("jsonschema_rs")
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Z][a-z]{1,6}$"},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "kind": {"enum": ["poet", "诗人", None]},
    },
    "required": ["name", "age", "kind"],
    "additionalProperties": False,
}


def scored(model, tokenizer, prompt, letters, longest) -> dict[tuple[int, ...], float]:
    """Every text of up to `longest` of these letters in every cut into tokens, with the log-probability of it and its
    end, one by one."""
    pieces = {token: tokenizer.decode([token]) for token in range(tokenizer.vocabulary)}
    pieces = {token: text for token, text in pieces.items() if text and set(text) <= set(letters)}
    start = [tokenizer.document_end, *tokenizer.encode(prompt)]
    found: dict[tuple[int, ...], float] = {}
    waiting = [((), 0.0, 0)]
    while waiting:
        text, log_prob, length = waiting.pop()
        follows = model.read(torch.tensor([[*start, *text]]), model.start(1))[0][0, -1].tolist()
        if text:
            found[text] = log_prob + follows[tokenizer.document_end]
        for token, piece in pieces.items():
            if length + len(piece) <= longest:
                waiting.append(((*text, token), log_prob + follows[token], length + len(piece)))
    return found


@pytest.fixture(scope="module")
def every_text(gpt2, tokenizer):
    """Of the letters e, r, s, up to three of them."""
    return scored(gpt2[0], tokenizer, "The", "ers", 3)


def searched(model, tokenizer, beams, **more):
    constraint = compile_constraint(ConstraintSpec(regex="[ers]{1,3}"), tokenizer, model.vocabulary)
    return beam_search(
        model, tokenizer, ["The"], beams, length_penalty=0.0, max_tokens=6, best=beams, constraint=constraint, **more
    )[0]


def test_beams_for_all_of_them_find_every_text_in_the_right_order(gpt2, tokenizer, every_text):
    found = searched(gpt2[0], tokenizer, 128)
    assert 40 < len(every_text) < 128
    assert [text.finish_reason for text in found] == ["end"] * len(every_text)
    expected = sorted(every_text.items(), key=lambda one: -one[1])
    assert [text.score for text in found] == pytest.approx([score for _, score in expected], abs=1e-3)
    assert {text.ids for text in found} == set(every_text)


@pytest.mark.parametrize("phrases", [("se",), ("r", "e"), ("rs", "se"), ("ser", "er")])
def test_beams_for_all_of_them_find_every_text_with_the_phrases(gpt2, tokenizer, every_text, phrases):
    holding = {ids: score for ids, score in every_text.items() if all(one in tokenizer.decode(ids) for one in phrases)}
    found = searched(gpt2[0], tokenizer, 128, must_contain=phrases)
    assert holding
    assert {text.ids for text in found} == set(holding)
    assert [text.score for text in found] == pytest.approx(sorted(holding.values(), reverse=True), abs=1e-3)


@pytest.mark.parametrize("family", ["transformer", "ngram"])
@pytest.mark.parametrize("beams", [1, 4, 7])
def test_every_beam_follows_its_own_way_through_a_schema(family, request, tokenizer, beams):
    model = request.getfixturevalue(family)
    constraint = compile_constraint(ConstraintSpec(json_schema=PERSON), tokenizer, model.vocabulary)
    validator = jsonschema_rs.validator_for(PERSON)
    prompts = ["The state of", "天下", "We have"]
    for texts in beam_search(model, tokenizer, prompts, beams, best=beams, constraint=constraint):
        assert len(texts) == beams
        assert len({text.ids for text in texts}) == beams
        for text in texts:
            assert text.finish_reason == "end"
            validator.validate(json.loads(text.text))


def test_expressions_choices_and_grammars_are_followed_in_groups_too(transformer, tokenizer):
    lark = 'start: "move " ("left" | "right") " " /[0-9]{1,2}/'
    for spec, pattern in (
        (ConstraintSpec(regex=r"[0-9]{4}-[0-9]{2}"), r"[0-9]{4}-[0-9]{2}"),
        (ConstraintSpec(regex=r"[一-龥]{2,5}。"), r"[一-龥]{2,5}。"),
        (ConstraintSpec(choice=["positive", "negative", "中立"]), "positive|negative|中立"),
        (ConstraintSpec(grammar=lark), "move (left|right) [0-9]{1,2}"),
    ):
        constraint = compile_constraint(spec, tokenizer, transformer.vocabulary)
        for more in ({}, {"groups": 2, "diversity_penalty": 3.0}):
            texts = beam_search(transformer, tokenizer, ["We"], 6, best=6, constraint=constraint, **more)[0]
            assert texts
            for text in texts:
                assert re.fullmatch(pattern, text.text), text
                assert text.finish_reason == "end"


def test_a_constraint_is_left_as_it_was(transformer, tokenizer):
    constraint = compile_constraint(ConstraintSpec(choice=["yes", "no"]), tokenizer, transformer.vocabulary)
    first, second = (beam_search(transformer, tokenizer, ["We"], 3, best=3, constraint=constraint) for _ in range(2))
    assert [text.ids for text in first[0]] == [text.ids for text in second[0]]


def test_a_text_cut_off_before_its_end_is_left_out(ngram, tokenizer):
    def found(pattern):
        constraint = compile_constraint(ConstraintSpec(regex=pattern), tokenizer, ngram.vocabulary)
        return beam_search(ngram, tokenizer, ["We"], 3, max_tokens=4, best=3, constraint=constraint)[0]

    assert found("[0-9]{40}") == []
    cut = found("[a-z ]+")
    assert [text.finish_reason for text in cut] == ["length"] * 3  # might have ended there
    assert all(re.fullmatch("[a-z ]+", text.text) for text in cut)


@pytest.mark.parametrize("family", ["transformer", "ngram"])
@pytest.mark.parametrize("beams", [1, 2, 4, 12])
def test_phrases_appear_whatever_the_beams(family, request, tokenizer, beams):
    model = request.getfixturevalue(family)
    for phrases in (("Constitution",), ("明月", " the people", "peace"), ("ana", "banana", "nab"), ("United", "Unit")):
        found = beam_search(
            model, tokenizer, ["We have", "春眠"], beams, max_tokens=40, best=beams, must_contain=phrases
        )
        for texts in found:
            assert texts
            for text in texts:
                assert all(phrase in text.text for phrase in phrases), text.text


def test_more_beams_place_a_phrase_better_and_texts_without_it_are_likelier(ngram, tokenizer):
    def best(beams, phrases):
        found = beam_search(ngram, tokenizer, ["The Congress"], beams, max_tokens=16, must_contain=phrases)
        return found[0][0]

    forced = best(1, ("peace",))
    placed = best(16, ("peace",))
    free = best(16, ())
    assert free.score > placed.score > forced.score
    assert "peace" not in free.text


def test_phrases_and_a_schema_together(transformer, tokenizer):
    constraint = compile_constraint(ConstraintSpec(json_schema=PERSON), tokenizer, transformer.vocabulary)
    texts = beam_search(
        transformer, tokenizer, ["We"], 8, best=8, constraint=constraint, must_contain=['"kind": "诗人"', "Ada"]
    )[0]
    assert texts
    for text in texts:
        assert "Ada" in json.loads(text.text)["name"]
        assert json.loads(text.text)["kind"] == "诗人"
    constraint = compile_constraint(ConstraintSpec(choice=["yes", "no"]), tokenizer, transformer.vocabulary)
    assert beam_search(transformer, tokenizer, ["We"], constraint=constraint, must_contain=["maybe"]) == [[]]


def test_a_text_with_all_phrases_can_end_beside_likelier_ones_without_them(ngram, tokenizer):
    constraint = compile_constraint(ConstraintSpec(regex="[a-z ]{3,30}"), tokenizer, ngram.vocabulary)
    texts = beam_search(
        ngram, tokenizer, ["The Congress"], 6, max_tokens=20, constraint=constraint, must_contain=["was", "peace"]
    )[0]
    assert [text.finish_reason for text in texts] == ["end"]
    assert "was" in texts[0].text
    assert "peace" in texts[0].text


@pytest.mark.parametrize("beams", [3, 6])
def test_as_many_texts_with_a_phrase_are_found_as_are_asked_for(gpt2, tokenizer, beams):
    prompts = ["The state of", "We have to", "天下"]
    for phrase in ("peace", "明月"):
        found = beam_search(gpt2[0], tokenizer, prompts, beams, max_tokens=10, best=beams, must_contain=[phrase])
        assert [len({text.ids for text in texts}) for texts in found] == [beams] * 3


def test_phrases_in_groups(transformer, tokenizer):
    texts = beam_search(
        transformer, tokenizer, ["We"], 4, groups=2, diversity_penalty=1.0, max_tokens=12, best=4,
        must_contain=["peace"],
    )[0]  # fmt: skip
    assert texts
    assert all("peace" in text.text for text in texts)


def test_a_phrase_is_followed_through_every_cut_into_tokens(tokenizer):
    """Against the definition: the longest end of the text that the phrase begins with, all of it once it was there."""
    phrases = ("banana", "anab", " the", "明月")
    automaton = Phrases(tokenizer, tokenizer.vocabulary + 64, phrases)
    numbers = random.Random(0)
    likely = tokenizer.encode("banabananab the then明月明") + tokenizer.encode("b a n a t h e")
    met = 0
    for _ in range(300):
        progress, text = automaton.start, b""
        for _ in range(12):
            token = numbers.choice(likely)
            progress, text = automaton.after(progress, token), text + tokenizer.decode_bytes([token])
            for at, phrase in zip(progress, phrases, strict=True):
                whole = phrase.encode()
                ends = [size for size in range(len(whole)) if text.endswith(whole[:size])]
                assert at == (len(whole) if whole in text else max(ends))
            assert (automaton.bank(progress) == automaton.last) == all(one.encode() in text for one in phrases)
        met += any(one.encode() in text for one in phrases)
    assert met > 30


def test_a_token_that_is_said_to_bring_a_phrase_nearer_does(tokenizer):
    for phrase in ("Constitution", "明月", "x"):
        automaton = Phrases(tokenizer, tokenizer.vocabulary, [phrase])
        progress, steps = automaton.start, 0
        while automaton.bank(progress) < automaton.last:
            (nearer,) = automaton.nearer(progress)
            before = automaton.bank(progress)
            assert all(automaton.bank(automaton.after(progress, int(token))) > before for token in nearer.nonzero())
            progress = automaton.after(progress, int(nearer.nonzero()[0]))
            steps += 1
        assert steps == automaton.fewest <= len(tokenizer.encode(phrase))
        assert automaton.nearer(progress) == []


@pytest.mark.parametrize(
    ("phrases", "told"),
    [
        (["a", ""], "is empty"),
        (["The Constitution of the United States"], "No text of 3 tokens holds"),
        ("peace", "one text"),
    ],
)
def test_impossible_phrases_are_refused(phrases, told, transformer, tokenizer):
    with pytest.raises(UsageError, match=told):
        beam_search(transformer, tokenizer, ["We"], max_tokens=3, must_contain=phrases)

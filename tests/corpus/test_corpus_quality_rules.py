"""Gopher's, C4's and FineWeb's rules decide as datatrove's own code does, for its reasons."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_texts import SPOILS, VERDICTS, rule_texts

from textmill.base.errors import UsageError
from textmill.corpus.judging import c4, fineweb, gopher
from textmill.corpus.judging.dialects import measure, rules_of
from textmill.corpus.judging.rules import decide
from textmill.corpus.texts import Texts

FILTERS = ("repetition", "quality", "c4", "c4_any_ending", "fineweb", "cascade")
RULES = {
    "repetition": gopher.REPETITION_RULES,
    "quality": gopher.QUALITY_RULES,
    "c4": c4.RULES,
    "c4_any_ending": c4.ANY_ENDING_RULES,
    "fineweb": fineweb.RULES,
    "cascade": rules_of(["datatrove-fineweb"], {}),
}


def hash_of(text: bytes) -> str:
    return hashlib.sha1(text).hexdigest()


@lru_cache(maxsize=1)
def known() -> tuple[Texts, list[list], list[str]]:
    """Texts of which datatrove's verdict was recorded, the verdicts, and the reasons that they number."""
    recorded = json.loads(VERDICTS.read_text())
    texts = [text for text in rule_texts() if hash_of(text.encode())[:12] in recorded["verdicts"]]
    verdicts = [recorded["verdicts"][hash_of(text.encode())[:12]] for text in texts]
    return Texts.from_strings(texts), verdicts, recorded["reasons"]


def reasons(texts: Texts, name: str) -> list[str]:
    lines = {"c4": "c4", "c4_any_ending": "c4-any-ending", "cascade": "c4-any-ending"}.get(name, "")
    rules = RULES[name]
    _, columns = measure(texts, rules, lines)
    decided = decide(rules, columns, np.full(len(texts), "en"))
    return ["" if rule < 0 else rules[rule].name.replace("fineweb_empty", "empty") for rule in decided.rule]


def test_enough_recorded_texts_are_here() -> None:
    texts, verdicts, names = known()
    assert len(texts) > 800
    seen = {names[number] for verdict in verdicts for number in verdict[:6]}
    assert {"top_2_gram", "duplicated_5_n_grams", "gopher_short_doc", "curly_bracket", "list_ratio", ""} <= seen
    assert len(seen) > 20


@pytest.mark.parametrize("name", FILTERS)
def test_decides_as_datatrove(name: str) -> None:
    texts, verdicts, names = known()
    expected = [names[verdict[FILTERS.index(name)]] for verdict in verdicts]
    wrong = [
        (texts.string(row)[:80], mine, theirs)
        for row, (mine, theirs) in enumerate(zip(reasons(texts, name), expected, strict=True))
        if mine != theirs and theirs != "ZeroDivisionError"
    ]
    assert not wrong, wrong[:5]


@pytest.mark.parametrize("rules", ["c4", "c4-any-ending"])
def test_leaves_the_lines_that_datatrove_leaves(rules: str) -> None:
    texts, verdicts, _ = known()
    left, _ = c4.clean_lines(texts, rules)
    place = 6 + (rules != "c4")
    wrong = [
        texts.string(row)[:80]
        for row, verdict in enumerate(verdicts)
        if verdict[place] and hash_of(left[row])[:8] != verdict[place]
    ]
    assert not wrong, wrong[:5]


texts_of_lines = st.lists(
    st.one_of(
        st.sampled_from(SPOILS),
        st.text(st.sampled_from("ab .…•-#\n\r\t{[1]é中\u2028"), max_size=40),
        st.just("a b c.\n"),
    ),
    max_size=12,
).map("".join)


def plain_repetition(text: str, words: list[str]) -> dict[str, float]:
    """Gopher's repetition by its definition, in a few lines of Python."""
    found: dict[str, float] = {}
    for order in range(2, 11):
        spans = [tuple(words[at : at + order]) for at in range(len(words) - order + 1)]
        if order < 5:
            most = max(spans, key=lambda span: (spans.count(span), -spans.index(span)), default=())
            found[f"gopher_top_{order}_gram"] = len(" ".join(most)) * spans.count(most) / len(text)
            continue
        seen: set[str] = set()
        at = repeated = 0
        while at < len(spans):
            joined = "".join(spans[at])
            repeated += len(joined) if joined in seen else 0
            at += order if joined in seen else 1
            seen.add(joined)
        found[f"gopher_duplicated_{order}_n_grams"] = repeated / len(text)
    return found


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from("ab1 \n.,"), min_size=1, max_size=120))
def test_repetition_follows_its_definition(text: str) -> None:
    from textmill.corpus.judging.words import split_words

    texts = Texts.from_strings([text])
    columns = gopher.measure(texts)
    for name, value in plain_repetition(text, split_words(texts)[0]).items():
        assert columns[name][0] == value, name


def test_words_that_differ_in_one_bit_are_not_repeated() -> None:
    texts = Texts.from_strings(["one two three four a one two three four b one two three four c"])
    assert gopher.measure(texts)["gopher_duplicated_5_n_grams"][0] == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(texts_of_lines, min_size=1, max_size=5))
def test_a_text_is_measured_alike_in_any_batch(parts: list[str]) -> None:
    together = Texts.from_strings(parts)
    for module in (gopher, c4, fineweb):
        columns = module.measure(together)
        for row, text in enumerate(parts):
            for name, values in module.measure(Texts.from_strings([text])).items():
                np.testing.assert_equal(columns[name][row], values[0], err_msg=name)


@settings(max_examples=100, deadline=None)
@given(texts_of_lines)
def test_cleaned_lines_are_clean(text: str) -> None:
    texts = Texts.from_strings([text])
    for rules in c4.LINE_RULES:
        once, _ = c4.clean_lines(texts, rules)
        for line in once.string(0).splitlines():
            assert len(line.split()) >= 3 or "[" in text  # a citation mark counts as a word before it goes
            assert "javascript" not in line.lower()
            assert rules != "c4" or line.rstrip().endswith((".", "?", "!", '"', "'"))


def test_columns_are_those_promised() -> None:
    texts = Texts.from_strings(["", "One two three."])
    for module in (gopher, c4, fineweb):
        columns = module.measure(texts)
        assert list(columns) == list(module.COLUMNS)
        assert {rule.column for rule in module.RULES} <= set(columns)
        assert all(values.dtype == np.float64 and len(values) == 2 for values in columns.values())


def test_no_texts_at_all() -> None:
    texts = Texts.from_strings([])
    assert all(len(values) == 0 for module in (gopher, c4, fineweb) for values in module.measure(texts).values())
    assert len(c4.clean_lines(texts)[0]) == 0


def test_unknown_line_rules_name_the_nearest() -> None:
    with pytest.raises(UsageError, match="c4-any-ending"):
        c4.clean_lines(Texts.from_strings(["a"]), "c4-any-endings")

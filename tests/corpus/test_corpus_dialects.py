"""Dialects by name, rule files, and what a mistake in one is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest

from textmill.base.errors import UsageError
from textmill.corpus.judging.dialects import NAMES, dialect_named, explain, load_rules, measures_for, rules_of


def rule_file(folder: Path, text: str) -> Path:
    path = folder / "rules.toml"
    path.write_text(text)
    return path


def test_dialects_join_in_order_and_thresholds_replace() -> None:
    rules = rules_of(["datatrove-gopher", "datatrove-fineweb"], {"gopher_short_doc": 30})
    names = [rule.name for rule in rules]
    assert len(names) == len(set(names))
    assert names[:2] == ["empty", "dup_para_frac"]
    assert names[-1] == "list_ratio"
    assert next(rule.threshold for rule in rules if rule.name == "gopher_short_doc") == 30
    assert dialect_named("datatrove-gopher").rules[14].threshold == 50


def test_plain_has_no_rules_of_its_own() -> None:
    assert rules_of(["plain"], {}) == ()
    assert measures_for(()) == ()


def test_measures_follow_from_rules() -> None:
    assert measures_for(rules_of(["datatrove-fineweb"], {})) == ("gopher", "c4", "fineweb")
    assert measures_for(rules_of(["datatrove-c4-paragraphs"], {})) == ("c4",)


def test_a_rule_file_gives_dialects_and_thresholds(tmp_path: Path) -> None:
    path = rule_file(tmp_path, 'dialects = ["datatrove-fineweb"]\n[thresholds]\ngopher_short_doc = 30\n')
    assert load_rules(path) == (("datatrove-fineweb",), {"gopher_short_doc": 30.0})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('dialects = ["datatrove-finweb"]', 'Did you mean "datatrove-fineweb"'),
        ('dialect = ["plain"]', 'Did you mean "dialects"'),
        ('dialects = "plain"', "is not a list of names"),
        ("thresholds = 3", "is not a table"),
        ("[thresholds]\ngopher_short_doc = true", "Found bool True"),
        ('[thresholds]\ngopher_short_doc = "30"', 'Found str "30"'),
        ("[thresholds]\ngopher_short_doc = nan", "Found float nan"),
        ("dialects = [", "is not TOML"),
    ],
)
def test_a_mistake_in_a_rule_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError) as raised:
        load_rules(rule_file(tmp_path, text))
    assert says in str(raised.value)
    assert raised.value.fix


def test_a_missing_rule_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml"):
        load_rules(tmp_path / "none.toml")


def test_an_unknown_rule_names_the_nearest() -> None:
    with pytest.raises(UsageError, match='Did you mean "gopher_short_doc"'):
        rules_of(["datatrove-gopher"], {"gopher_shortdoc": 1})
    with pytest.raises(UsageError, match="not a number"):
        rules_of(["datatrove-gopher"], {"gopher_short_doc": True})


def test_explain_shows_every_rule_for_one_text() -> None:
    found = {line.rule: line for line in explain("The cat sat.\nThe cat sat.", thresholds={"gopher_short_doc": 3})}
    assert found["gopher_short_doc"].value == 6
    assert found["gopher_short_doc"].keeps
    assert found["dup_line_frac"].value == 0.5
    assert not found["dup_line_frac"].keeps
    assert found["too_few_sentences"].value == 2
    assert found["too_few_sentences"].threshold == 5
    assert next(line.rule for line in explain("", ["datatrove-gopher"]) if not line.keeps) == "empty"


@pytest.mark.parametrize("name", NAMES)
def test_every_dialect_explains_any_text(name: str) -> None:
    for text in ("", "今天天气很好，我们去公园散步吧。" * 30, "def f(x):\n    return x\n"):
        assert [line.rule for line in explain(text, [name])] == [rule.name for rule in dialect_named(name).rules]


def test_columns_measured_elsewhere_are_taken() -> None:
    rule = next(rule for rule in dialect_named("map-cc").rules if rule.column == "language_confidence")
    for value in (0.1, 0.99):
        line = next(one for one in explain("好", ["map-cc"], known={rule.column: value}) if one.rule == rule.name)
        assert (line.value, line.keeps) == (value, value > rule.threshold)

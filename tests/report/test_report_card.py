"""The data card on the page: a run with a corpus alone, cards of any age, hostile text, shares that add up."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from cards import whole_card
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import Page, opened, page_of

from textmill.base.files import read_json, write_json
from textmill.base.run import Run
from textmill.cli.report import report
from textmill.report.build import build_report, render, show_part
from textmill.report.card import card_view
from textmill.report.card_figures import effect, lengths, power_of_two
from textmill.report.data import collect
from textmill.report.verdict import caveats, verdict

MARKUP = "<script>window.broken=1"


@pytest.fixture
def card(milled: Run) -> dict[str, Any]:
    return dict(read_json(milled / "corpus" / "card.json"))


def test_a_corpus_alone_is_a_data_card_without_empty_sections(milled: Run) -> None:
    page = page_of(milled)
    assert page.faults == []
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    sections = [attrs.get("id") for tag, attrs in page.tags if tag == "section"]
    assert sections == ["corpus", "rejected", "again"]
    assert [href for href in page.attributes("href") if href.startswith("#")] == ["#corpus", "#rejected", "#again"]
    assert "not there yet" not in page.text
    for heading in ("By source", "By format", "By language", "Mixture", "Repeats", "Personal data", "Licences"):
        assert heading in page.text


def test_the_verdict_says_what_was_done_and_what_to_type(milled: Run) -> None:
    said = collect(milled)["verdict"]
    assert said["sentence"].startswith("The corpus is ready: 236 documents, 11.9 MB of clean text; 34 of 270 documents")
    assert said["sentence"].endswith(f"type: textmill tokenize {milled.path}")
    caveats = " ".join(said["caveats"])
    assert '"zh" is 7% instead of 30%, even with each document read 4 times' in caveats
    assert "87 finds in 41 documents" in caveats
    assert "2 problems were met while reading" in caveats


def test_with_tokens_the_next_step_is_training(milled: Run) -> None:
    (milled / "tokens").mkdir()
    splits = {"train": {"tokens": 2_890_413, "bytes": 10_702_300}}
    write_json(milled / "tokens" / "index.json", {"vocabulary": 4096, "splits": splits})
    page = page_of(milled)
    assert "The corpus is tokenized" in page.text
    assert f"type: textmill train {milled.path}" in page.text
    assert "tokens to train on" in page.text


def test_what_the_verdict_says_of_personal_data_follows_the_setting(milled: Run) -> None:
    for mode, sentence in (("measure", "the text still holds it"), ("replace", "was replaced by a placeholder")):
        write_json(milled / "corpus" / "stage.json", {"configuration": {"pii": mode}})
        page = page_of(milled)
        assert sentence in page.text
        assert ("The text holds personal data" in page.text) is (mode == "measure")


def test_every_number_of_the_card_is_on_the_page(milled: Run, card: dict[str, Any]) -> None:
    page = page_of(milled)
    shown = {float(value) for tag, attrs in page.tags if tag == "data" for value in [attrs["value"] or "nan"]}
    expected = {*card["kept"].values(), *card["lengths"].values(), *card["length_histogram"]["documents"]} - {0}
    for group in ("splits", "languages", "dropped", "removed", "pii"):
        for found in card[group].values():
            expected |= {number for number in found.values() if isinstance(number, int) and number}
    for part in card["mixture"].values():
        expected |= {part["wanted"], part["reached"], part["bytes"]}
    for name, rule in card["rules"].items():
        if name in card["dropped"]:
            expected |= {point["documents"] for point in rule["would_drop"]}
    for source in card["sources"]:
        expected |= {source["documents"], source["bytes"], source["read"]["documents"]}
    expected |= {card["near_duplicates"][name] for name in ("candidates", "verified", "confirmed")}
    assert expected <= shown
    for text in ("public domain", "windows-1252", "not JSON", "gopher_words", "Too few words to be prose."):
        assert text in page.text
    assert "without a sure translation" not in page.text, "what was skipped 0 times is left out"


def test_hostile_text_is_shown_and_does_nothing(milled: Run) -> None:
    source = build_report(milled).read_text(encoding="utf-8")
    page = Page(source)
    assert page.faults == []
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    assert [attrs.get("type") for tag, attrs in page.tags if tag == "script"].count(None) == 1
    assert MARKUP not in source
    assert page.text.count(MARKUP) == 4, "a source, an example, a problem and its kind carry it"
    assert "\x00" not in source
    example = next(text for text in re.findall(r"<blockquote[^>]*>(.*?)</blockquote>", source, re.S) if "right" in text)
    assert len(unescape(example)) <= 401, "a long example is cut"


def test_markup_may_stand_anywhere_in_a_card(milled: Run, card: dict[str, Any]) -> None:
    evil = '"><img src=x onerror=alert(1)></script><script>window.broken=1</script>\ud800'
    card["read"]["formats"] = {evil: 3}
    card["read"]["by_format"] = {evil: {"files": 3, "documents": 3, "bytes": 9}}
    card["read"]["encodings"] = {evil: 3}
    card["read"]["skipped"] = {evil: 3}
    card["languages"][evil] = {"documents": 1, "bytes": 99}
    card["licences"] = {evil: evil}
    card["mixture"][evil] = card["mixture"].pop("zh")
    card["measured"] = [evil]
    card["removed"] = {evil: {"documents": 1, "bytes": 1}}
    card["pii"][evil] = {"documents": 1, "found": 1}
    card["split_rule"] = evil
    for name in ("symbol_ratio", "gopher_long_doc"):
        card["rules"][name] |= {"column": evil, "explanation": evil}
        card["rules"][evil] = card["rules"][name]
    card["dropped"][evil] = {**card["dropped"]["symbol_ratio"], "explanation": evil}
    (milled / "corpus" / "card.json").write_text(json.dumps(card))
    page = page_of(milled)
    assert page.faults == []
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert [attrs.get("type") for tag, attrs in page.tags if tag == "script"].count(None) == 1
    assert page.text.count("<img src=x onerror=alert(1)>") >= 14


def test_an_old_card_has_what_it_holds_and_nothing_invented(empty: Run, add: Any) -> None:
    add["corpus"](empty)
    page = page_of(empty)
    assert page.faults == []
    for text in ("By source", ".jsonl", "Chinese", "too short", "public domain", "15 more sources"):
        assert text in page.text
    for text in ("Mixture", "Personal data", "If the threshold moved", "What was measured", "pairs that looked alike"):
        assert text not in page.text


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**18),
    st.floats(),
    st.just(10**400),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.one_of(st.none(), st.integers(), st.text(max_size=3)), max_size=3),
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in _places(item, (*path, key)))]


@st.composite
def damaged_cards(draw: st.DrawFn) -> dict[str, Any]:
    """A whole card in which up to three values, anywhere, were replaced by something else or are missing."""
    card = whole_card()
    for place in draw(st.lists(st.sampled_from([p for p in _places(card) if p]), min_size=1, max_size=3)):
        inner: Any = card
        try:
            for key in place[:-1]:
                inner = inner[key]
            if draw(st.booleans()):
                inner[place[-1]] = draw(JUNK)
            else:
                del inner[place[-1]]
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    return card


def _data(card: dict[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = {"name": "x", "path": "x", "run": {}, "stages": {}, "corpus": card, "commands": {}}
    data |= {"tokens": None, "plan": None, "training": None, "evaluation": [], "unreadable": []}
    return {**data, "verdict": {"sentence": verdict(data), "caveats": caveats(data)}}


@settings(max_examples=200)
@given(card=damaged_cards())
def test_no_damage_to_a_card_stops_the_verdict_or_the_view(card: dict[str, Any]) -> None:
    assert _data(card)["verdict"]["sentence"]
    card_view(card)


@settings(max_examples=10)
@given(card=damaged_cards())
def test_no_damage_to_a_card_breaks_the_page(card: dict[str, Any]) -> None:
    assert Page(render(_data(card))).faults == []


def test_shares_are_of_documents_read_also_where_those_kept_were_cut(card: dict[str, Any]) -> None:
    view = card_view(card)
    assert view["totals"]["judged"] == 236 + 34
    assert [row["unit"] for row in view["flow"]] == ["documents", "bytes"]
    for row in view["flow"]:
        assert sum(part["share"] for part in row["parts"]) == pytest.approx(1)
    card["cut"] = {"documents": 12, "characters": 4000, "rule": "Cut."}
    cut = card_view(card)
    assert cut["totals"]["judged"] == 214 + 54
    assert [row["unit"] for row in cut["flow"]] == ["bytes"]


def test_the_command_that_moves_a_threshold_keeps_the_rules_and_loosens() -> None:
    card = {
        "dropped": {"short": {"documents": 5}, "duplicate": {"documents": 9}},
        "rules": {
            "short": {
                "column": "words",
                "bound": "min",
                "threshold": 50,
                "would_drop": [{"threshold": t, "documents": t} for t in (40, 50, 60)],
            }
        },
    }
    settings = {"rules": ["datatrove-gopher"], "thresholds": {"symbols": 0.4}}
    assert card_view(card, settings, "my run")["rethreshold"] == (
        "textmill corpus --rethreshold --rules datatrove-gopher --thresholds.symbols 0.4 --thresholds.short 40 "
        "--out 'my run'"
    )
    assert card_view({})["rethreshold"] == ""


def test_an_effect_marks_the_present_threshold_and_drops_level_ends() -> None:
    tried = [(0.1, 90), (0.2, 40), (0.3, 10), (0.6, 0), (1.2, 0), (2.4, 0)]
    would_drop = [{"threshold": t, "documents": n} for t, n in tried]
    found = effect({"column": "c", "bound": "max", "threshold": 0.2, "would_drop": would_drop}, 100)
    assert found is not None
    assert [point["threshold"] for point in found["points"] if point["now"]] == [0.2]
    assert found["looser"]["threshold"] == 0.3
    assert found["stricter"]["threshold"] == 0.1
    assert (found["low"], found["high"]) == ("0.1", "0.6")
    assert found["line"].startswith("0,0 ")
    assert found["line"].endswith("100,100")
    alone = effect({"threshold": 0, "would_drop": [{"threshold": 0.0, "documents": 14}]}, 100)
    assert alone is not None
    assert alone["line"] == ""
    assert effect({"threshold": 0.2}, 100) is None


def test_the_histogram_has_the_card_s_bins_and_the_median_inside_its_own() -> None:
    found = lengths({"edges": [0, 16, 32, 64], "documents": [0, 3, 1, 0]}, 24)
    assert found is not None
    assert [(b["low"], b["high"], b["share"]) for b in found["bins"]] == [(16, 32, 0.75), (32, 64, 0.25)]
    assert 25 < found["middle_at"] < 50
    opened_end = lengths({"edges": [0, 16], "documents": [0, 2]}, 20)
    assert opened_end is not None
    assert opened_end["bins"][0]["high"] is None
    assert lengths({"edges": [0, 16], "documents": [0, 0]}) is None
    assert [power_of_two(edge) for edge in (512, 4096, 2 << 20)] == ["512", "4 k", "2 M"]


def test_a_share_is_never_rounded_to_nothing_or_to_all() -> None:
    shown = [show_part(share) for share in (0, 0.0002, 0.034, 0.5, 0.993, 0.9999, 1)]
    assert shown == ["0%", "<0.1%", "3.4%", "50%", "99.3%", ">99.9%", "100%"]


def test_the_command_tells_a_corpus_from_a_model(milled: Run, capsys: pytest.CaptureFixture[str]) -> None:
    report(milled.path)
    out = capsys.readouterr().out
    assert "The corpus is ready" in out
    assert out.splitlines()[-1] == str(milled / "report.html")


def test_a_real_browser_draws_the_card_and_reports_no_error(milled: Run, tmp_path: Path) -> None:
    found = opened(build_report(milled), tmp_path / "profile")
    assert "<title>speeches · Textmill report</title>" in found, "a script of the corpus changed the title"
    assert len(re.findall(r'<div class="plot-container plotly"', found)) == 1
    assert len(re.findall(r'class="effect"', found)) == 3

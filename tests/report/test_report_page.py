"""The page: alone, inert whatever the corpus holds, true to the files, fit for a partial run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pages import Page, opened, page_of

from textmill.base.errors import UsageError
from textmill.base.files import read_json, write_json
from textmill.base.run import Run
from textmill.cli.report import report
from textmill.report.build import build_report, guess_language, show_fact
from textmill.report.data import collect, thin
from textmill.report.figures import duration_ticks, spread, ticks

FETCHING = {"src", "href", "srcset", "poster", "action", "formaction", "data", "background", "ping"}


def test_the_page_is_well_formed_and_names_each_id_once(whole: Run) -> None:
    page = page_of(whole)
    assert page.faults == []
    assert page.open == []
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    assert {href[1:] for href in page.attributes("href") if href.startswith("#")} <= set(ids)


def test_the_page_asks_nothing_of_any_network(whole: Run) -> None:
    page = page_of(whole)
    for tag, attrs in page.tags:
        for name in FETCHING & set(attrs):
            assert str(attrs[name]).startswith(("#", "data:,")), (tag, attrs)
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert not re.search(r"script-src[^;]*(unsafe-inline|https?:|\*)", policy)
    source = (whole / "report.html").read_text()
    assert "@import" not in source
    assert "url(" not in source


def test_markup_in_the_corpus_is_shown_as_text(whole: Run) -> None:
    source = build_report(whole).read_text(encoding="utf-8")
    page = Page(source)
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    kinds = [attrs.get("type") for tag, attrs in page.tags if tag == "script"]
    assert kinds.count(None) == 1, "the page's own script is the only one that runs"
    assert "<script>window.broken" not in source
    # A sample, a source, a rejected example, a reading problem and an event carry it; each is readable.
    assert page.text.count("<script>window.broken=1") == 5


def test_markup_in_a_label_reaches_no_figure(whole: Run) -> None:
    measurement = read_json(whole / "evaluation" / "test.json")
    measurement["rows"][1]["label"] = "</script><script>window.broken=1</script>"
    write_json(whole / "evaluation" / "test.json", measurement)
    page = page_of(whole)
    assert page.faults == []
    assert [attrs.get("type") for tag, attrs in page.tags if tag == "script"].count(None) == 1


def test_the_numbers_on_the_page_are_those_of_the_files(whole: Run) -> None:
    page = page_of(whole)
    shown = {float(value) for tag, attrs in page.tags if tag == "data" for value in [attrs["value"] or "nan"]}
    expected: set[float] = set()
    for path in sorted((whole / "evaluation").glob("*.json")):
        for row in read_json(path)["rows"]:
            expected |= {row[k] for k in ("bits_per_byte", "low", "high", "token_perplexity", "seconds") if k in row}
    plan, card = read_json(whole / "plan.json"), read_json(whole / "corpus" / "card.json")
    for side in ("predicted", "actual"):
        expected |= {*plan[side]["seconds"].values(), plan[side]["total_seconds"], plan[side]["memory_bytes"]}
    expected |= {plan["budget_seconds"], *card["kept"].values(), *card["lengths"].values()}
    expected |= {n for split in card["splits"].values() for n in split.values()}
    expected |= {n for rule in card["dropped"].values() for n in (rule["documents"], rule["bytes"])}
    for line in (whole / "model" / "training.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["kind"] == "validation":
            expected.add(record["bits_per_byte"])
    assert expected <= shown
    for text in ("1.421", "5 min 37 s", "11.9 MB", "best checkpoint", "ngram:5|discounts:modified"):
        assert text in page.text


def test_chinese_text_is_marked_as_chinese(whole: Run) -> None:
    page = page_of(whole)
    assert "各地坚持稳中求进" in page.text
    texts = [attrs.get("lang") for _, attrs in page.tags if attrs.get("class") == "text"]
    assert texts.count("zh") == 4
    assert texts.count("en") >= 4
    assert guess_language("これは日本語の文章です") == "ja"
    assert guess_language("한국어 문장", "en") == "ko"
    assert guess_language("12 + 3", "en") == "en"
    assert guess_language("plain words", "zh") == ""


def test_the_same_run_gives_the_same_bytes(whole: Run) -> None:
    first = build_report(whole).read_bytes()
    assert build_report(whole).read_bytes() == first


def test_the_page_is_written_within_two_seconds(whole: Run) -> None:
    build_report(whole)
    began = time.process_time()
    build_report(whole)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("stages", "present", "commands"),
    [
        ((), (), ("textmill corpus my_texts/", "textmill plan", "textmill train", "textmill evaluate")),
        (("corpus",), ("symbol ratio", "Chinese"), ("textmill plan", "textmill train", "textmill evaluate")),
        (("corpus", "model"), ("Loss spike",), ("textmill plan", "textmill evaluate")),
        (("model",), ("Loss spike",), ("textmill corpus", "textmill evaluate")),
    ],
)
def test_absent_stages_are_one_line_each(
    empty: Run,
    add: dict[str, Callable[[Run], None]],
    stages: tuple[str, ...],
    present: tuple[str, ...],
    commands: tuple[str, ...],
) -> None:
    for stage in stages:
        add[stage](empty)
    page = page_of(empty)
    assert page.faults == []
    for text in (
        *present,
        *commands,
        "textmill build 'my texts/' --out runs/speeches --budget 6m",
        "2.13.0+cpu",
    ):
        assert text in page.text
    if "model" not in stages:
        assert "Loss spike" not in page.text


def test_training_under_way_is_shown_with_what_it_has_written(whole: Run) -> None:
    (whole / "model").rename(whole / "model.partial")
    (whole / "model.partial" / "stage.json").unlink()
    with (whole / "model.partial" / "training.jsonl").open("a") as stream:
        stream.write('{"kind": "step", "step": 12')
    data = collect(whole)
    assert data["training"]["finished"] is False
    assert any("Training is not finished" in line for line in data["verdict"]["caveats"])


def test_damaged_files_are_named_and_the_rest_is_shown(whole: Run) -> None:
    (whole / "plan.json").write_text('{"chosen": ')
    (whole / "evaluation" / "test.json").write_text("[]")
    page = page_of(whole)
    assert "Could not be read, and is left out here" in page.text
    assert "plan.json" in page.text
    assert "evaluation/test.json" in page.text
    assert "Validation split" in page.text


def test_keys_and_numbers_that_are_missing_leave_a_gap_not_a_crash(whole: Run) -> None:
    write_json(whole / "plan.json", {"warnings": []})
    write_json(whole / "corpus" / "card.json", {"kept": {}})
    write_json(whole / "evaluation" / "test.json", {"rows": [{"bits_per_byte": 1.5, "kind": "model"}]})
    with (whole / "model" / "training.jsonl").open("a") as stream:
        stream.write('{"kind": "step", "step": 1184, "seconds": 289.0, "loss": NaN}\n{"kind": "validation"}\n')
    assert page_of(whole).faults == []


def test_a_budget_overrun_is_coloured(whole: Run) -> None:
    assert 'class="over"' not in build_report(whole).read_text()
    plan = read_json(whole / "plan.json")
    plan["actual"]["total_seconds"] = 420.0
    write_json(whole / "plan.json", plan)
    source = build_report(whole).read_text()
    assert '<span class="over">+16.7% over the budget</span>' in source


def test_the_command_prints_the_path_and_the_rows(whole: Run, capsys: pytest.CaptureFixture[str]) -> None:
    report(whole.path)
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == str(whole / "report.html")
    assert "Kneser-Ney 5-gram" in out
    assert "1.421" in out
    report(whole.path, quiet=True)
    assert capsys.readouterr().out == f"{whole / 'report.html'}\n"


def test_json_is_the_data_of_the_page_alone(whole: Run, capsys: pytest.CaptureFixture[str]) -> None:
    report(whole.path, json=True)
    data: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert data["report"] == str(whole / "report.html")
    assert data["evaluation"][0]["rows"][0]["bits_per_byte"] == 1.4213
    assert data["verdict"]["sentence"].startswith("This model needs 1.42 bits")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a run"):
        report(tmp_path)


def test_importing_the_command_loads_no_heavy_package() -> None:
    heavy = "('plotly', 'torch', 'jinja2', 'pyarrow')"
    code = f"import sys, textmill.cli.report; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_thinning_keeps_the_mean_and_the_end() -> None:
    steps = [{"step": i, "seconds": float(i), "loss": float(i)} for i in range(1000)]
    points = thin(steps, 0.5, 100)
    assert len(points) == 100
    assert points[0]["loss"] == 4.5
    assert points[0]["bits_per_byte"] == 2.25
    assert points[-1]["step"] == 999


def test_axes_have_round_numbers_and_labels_that_do_not_touch() -> None:
    assert ticks(1.2, 3.1) == [1.5, 2.0, 2.5, 3.0]
    assert duration_ticks(300)[1] == ["0", "1 min", "2 min", "3 min", "4 min", "5 min"]
    assert duration_ticks(0.0) == ([0], ["0"])
    places = spread([2.30, 2.31, 1.0, 3.0], 1.0, 3.0)
    gaps = [b - a for a, b in zip(sorted(places), sorted(places)[1:], strict=False)]
    assert min(gaps) >= 0.065 - 1e-9
    assert max(places) <= 1


def test_facts_are_shown_in_their_units() -> None:
    assert show_fact(243e9, "flops_per_second") == "243 GFLOP/s"
    assert show_fact(1_410_000_000, "memory_bytes") == "1.4 GB"
    assert show_fact(10_014_720, "parameters") == "10.0 M"
    assert show_fact(4096, "vocabulary") == "4,096"
    assert show_fact(125.0, "compile_seconds") == "2 min 05 s"


@pytest.mark.parametrize("stages", ["whole", "corpus"])
def test_a_real_browser_draws_the_figures_and_reports_no_error(
    request: pytest.FixtureRequest, tmp_path: Path, add: dict[str, Callable[[Run], None]], stages: str
) -> None:
    run: Run = request.getfixturevalue("whole" if stages == "whole" else "empty")
    if stages == "corpus":
        add["corpus"](run)
    page = build_report(run)
    found = opened(page, tmp_path / "profile")
    assert "<title>speeches · Textmill report</title>" in found, "a script of the corpus changed the title"
    figures = 3 if stages == "whole" else 0
    assert len(re.findall(r'<figure[^>]*class="drawn"', found)) == figures
    assert len(re.findall(r'<div class="plot-container plotly"', found)) == figures
    if stages == "whole":
        assert found.count('<g class="point">') >= 15
        assert found.count('class="js-line"') >= 2
        assert 'class="step away"' in found, "the samples became a slider"

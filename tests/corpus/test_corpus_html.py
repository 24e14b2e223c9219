"""HTML to text: content stays, navigation goes, no page makes it stumble."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textmill.corpus.cleaning.html import TooDeep, html_text

PROSE = "The river runs under old bridges. People talk of weather and bread, and nobody hurries home. " * 4
MENU = "".join(f'<li><a href="/{word}">{word.title()} page</a></li>' for word in "home about prices imprint".split())  # noqa: SIM905


def page(body: str) -> str:
    return f"<!DOCTYPE html><html><head><title>T</title><style>p{{}}</style></head><body>{body}</body></html>"


@pytest.mark.parametrize("extractor", ["fast", "precise"])
@pytest.mark.parametrize(
    "menu",
    [
        f"<nav><ul>{MENU}</ul></nav>",
        f'<div class="navheader"><table><tr><td>{MENU}</td></tr></table></div>',
        f'<div role="navigation"><ul>{MENU}</ul></div>',
        f'<div class="page-breadcrumbs"><ul>{MENU}</ul></div>',
        f'<footer><ul>{MENU}</ul></footer>',
    ],
)  # fmt: skip
def test_menus_go_and_prose_stays(extractor: str, menu: str) -> None:
    text = html_text(page(f"{menu}<main><h1>Heading</h1><p>{PROSE}</p></main>{menu}"), extractor)
    assert PROSE.strip() in text
    assert "Heading" in text
    assert "Imprint page" not in text


def test_a_box_of_prose_stays_and_a_box_of_links_goes() -> None:
    box = f'<div class="sidebar"><p>Note. {PROSE.replace("river", "stream")}</p></div>'
    body = f'<div class="section"><p>{PROSE}</p>{box}</div>'
    assert "stream" in html_text(page(body))
    boxed = html_text(page(f'<div class="section"><p>{PROSE}</p></div><div class="sidebar"><ul>{MENU}</ul></div>'))
    assert "Imprint" not in boxed
    assert "river" in boxed


def test_precise_leaves_out_lists_of_links_and_keeps_links_in_sentences() -> None:
    body = f'<main><p>{PROSE} See <a href="x">the bridge</a> too.</p><ul>{MENU}</ul><p>{PROSE}</p></main>'
    precise = html_text(page(body), "precise")
    assert "Imprint page" not in precise
    assert "See the bridge too." in precise
    assert not set("\ue0f0\ue0f1") & set(precise)
    assert html_text(page(f"<ul>{MENU}</ul>"), "precise").strip() == ""


def test_without_main_content_everything_is_kept() -> None:
    assert "Imprint page" in html_text(page(f"<nav><ul>{MENU}</ul></nav>"), "fast")
    assert "Imprint page" in html_text(page(f"<nav>{MENU}</nav><main>{PROSE}</main>"), "none")


@pytest.mark.parametrize("extractor", ["fast", "precise", "none"])
def test_absurd_pages_give_text_or_nothing(extractor: str) -> None:
    assert html_text("", extractor).strip() == ""
    assert html_text("<" * 1000, extractor) is not None
    for deep in ("<div>" * 20_000, "</div>" * 20_000 + "<div>" * 600, "<li><dd>" * 20_000, "<b>" * 600 + "</b>" * 600):
        with pytest.raises(TooDeep):
            html_text(deep, extractor)
    flat = "<ul>" + "<li><p>One<br>two" * 1_000 + "</ul>" + "<div><b>x</b></div>" * 1_000
    assert html_text(flat, extractor).strip()
    assert "bare words" in html_text("bare words, no tags at all", extractor)
    assert html_text(page(f"<script>{PROSE}</script><!-- {PROSE} -->"), extractor).strip() == ""


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="<>/abpdivul ='\"\x00&;\ue0f0é", max_size=80), st.sampled_from(["fast", "precise", "none"]))
def test_any_source_gives_text_that_can_be_encoded(source: str, extractor: str) -> None:
    html_text(source, extractor).encode()

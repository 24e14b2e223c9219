"""The page in a real Chromium: writing, stopping, asking why, switching models, reports, texts, a server that goes."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from serving_process import Server

PICTURES = os.environ.get("TEXTMILL_PICTURES")
"""Folder for pictures of the page, to look at."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        warnings.warn("No Chromium here: THE SERVER'S PAGE WAS NOT TRIED IN A BROWSER.", stacklevel=1)
        pytest.skip("no Chromium to try the page in (apt-get install chromium)")
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        started = playwright.chromium.launch(executable_path=found, args=options)
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh visitor; anything on the console fails the test, but for what a test says it expects."""
    context = browser.new_context(locale="en-GB", viewport={"width": 1100, "height": 850})
    made = context.new_page()
    made.set_default_timeout(15_000)
    complaints: list[str] = []
    made.on("console", lambda message: complaints.append(message.text))
    made.on("pageerror", lambda error: complaints.append(str(error)))
    yield made
    context.close()
    unexpected = [one for one in complaints if not any(known in one for known in getattr(made, "expected", ()))]
    assert unexpected == []


def picture(page: Page, name: str) -> None:
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"{name}.png")


def write(page: Page, prompt: str, tokens: int = 24) -> None:
    page.get_by_text("Settings").first.click()
    page.locator("input[name=max_tokens]").first.fill(str(tokens))
    page.get_by_text("Settings").first.click()
    page.get_by_label("Beginning of the text").fill(prompt)
    page.keyboard.press("Control+Enter")


def test_it_writes_and_says_why(page: Page, server: Server) -> None:
    page.goto(server.url)
    expect(page.get_by_label("Model", exact=True)).to_have_value("counts")
    write(page, "The people of")
    expect(page.get_by_role("status").first).to_contain_text("24 tokens")
    text = page.locator(".text").inner_text()
    assert text.startswith("The people of")
    assert len(text) > 30
    tokens = page.locator(".t")
    tokens.nth(6).click()
    why = page.get_by_role("dialog")
    expect(why).to_contain_text("likely")
    alternatives = why.locator("li button")
    assert alternatives.count() >= 8
    picture(page, "why")
    # What would have followed, and taking it over.
    before = [tokens.nth(i).inner_text() for i in range(6)]
    other = why.locator("li:not(.own) button").nth(1)
    chosen = other.locator("code").inner_text()
    other.click()
    path = why.locator(".path")
    expect(path).to_contain_text("…")
    assert len(path.inner_text()) > 3
    picture(page, "followed")
    why.get_by_role("button", name="Go on from here").click()
    expect(page.get_by_role("button", name="Back to the former text")).to_be_visible()
    assert [tokens.nth(i).inner_text() for i in range(6)] == before
    assert page.locator(".t.taken").inner_text().replace(" ", "␣").replace("\n", "↵") == chosen
    page.get_by_role("button", name="Back to the former text").click()
    assert page.locator(".text").inner_text() == text


def test_it_goes_by_keyboard_alone(page: Page, server: Server) -> None:
    page.goto(server.url)
    write(page, "The people of")
    expect(page.get_by_role("status").first).to_contain_text("24 tokens")
    page.locator(".t").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert page.evaluate("document.activeElement === document.querySelectorAll('.t')[2]")


def test_stop_ends_the_writing_on_the_server_as_well(page: Page, server: Server) -> None:
    page.goto(server.url)
    # The longest text the page asks for takes many times as long as a hand, or this test, needs to reach the button.
    page.get_by_label("Model", exact=True).select_option("counts")
    page.get_by_text("Settings").first.click()
    page.locator("input[name=max_tokens]").fill("4096")
    page.locator("input[name=seed]").fill("7")
    page.get_by_label("Beginning of the text").fill("The")
    page.get_by_role("button", name="Write", exact=True).click()
    page.wait_for_selector(".t")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status").first).to_contain_text("stopped")
    wrote = page.locator(".t").count()
    assert 1 <= wrote < 4096
    for _ in range(50):
        metrics = httpx.get(f"{server.url}/metrics").text
        if 'vllm:num_requests_running{model_name="counts"} 0.0' in metrics:
            break
        page.wait_for_timeout(100)
    else:
        raise AssertionError("the server still writes")
    assert page.locator(".t").count() == wrote


def test_two_models_side_by_side_and_a_conversation(page: Page, server: Server) -> None:
    page.goto(server.url)
    page.get_by_role("button", name="Side by side").click()
    selects = page.get_by_label("Model", exact=True)
    expect(selects).to_have_count(2)
    assert selects.nth(0).input_value() != selects.nth(1).input_value()
    for field in page.locator("input[name=max_tokens]").all():
        field.evaluate("(one) => { one.value = 12; one.dispatchEvent(new Event('change')); }")
    page.get_by_label("Beginning of the text").fill("My fellow")
    page.keyboard.press("Control+Enter")
    for status in page.locator(".foot [role=status]").all():
        expect(status).to_contain_text("12 tokens")
    picture(page, "two")
    page.get_by_role("link", name="Chat").click()
    box = page.get_by_label("Your message")
    page.get_by_text("Settings").first.click()
    page.locator("input[name=max_tokens]").fill("12")
    box.fill("How is the Union?")
    box.press("Enter")
    expect(page.locator(".turn")).to_have_count(2)
    expect(page.get_by_role("status").first).to_contain_text("12 tokens")
    page.locator(".turn .t").nth(2).click()
    page.get_by_role("dialog").locator("li:not(.own) button").first.click()
    page.get_by_role("button", name="Go on from here").click()
    expect(page.get_by_role("button", name="Back to the former text")).to_be_visible()
    box.fill("And the people?")
    box.press("Enter")
    expect(page.locator(".turn")).to_have_count(4)
    picture(page, "chat")


def test_a_refusal_is_shown_in_the_servers_words(page: Page, server: Server) -> None:
    page.expected = ("400",)  # type: ignore[attr-defined]
    page.goto(server.url)
    page.get_by_label("Model", exact=True).select_option("small")
    page.get_by_label("Beginning of the text").fill("word " * 300)
    page.keyboard.press("Control+Enter")
    expect(page.locator(".foot .wrong")).to_contain_text("reads 128 at most")


def test_chinese_dark_and_on_a_phone(browser: Browser, server: Server) -> None:
    context = browser.new_context(
        locale="zh-CN", color_scheme="dark", viewport={"width": 375, "height": 740}, has_touch=True, is_mobile=True
    )
    page = context.new_page()
    page.goto(server.url)
    page.locator("textarea").fill("天下大势，")
    page.get_by_text("设置").first.click()
    page.locator("input[name=max_tokens]").fill("16")
    page.locator("input[name=temperature]").fill("0")
    page.get_by_text("设置").first.click()
    page.get_by_role("button", name="续写").click()
    expect(page.get_by_role("status").first).to_contain_text("个词元")
    page.locator(".t").nth(1).tap()
    expect(page.get_by_role("dialog")).to_contain_text("比特意外度")
    picture(page, "phone")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 23, 21)"
    assert "�" not in page.locator(".text").inner_text()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="English").click()
    expect(page.get_by_role("link", name="Write")).to_be_visible()
    context.close()


def test_the_report_and_the_texts_of_the_run(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/#report")
    report = page.frame_locator("iframe")
    expect(report.locator("h1")).to_be_visible()
    picture(page, "report")
    page.get_by_role("link", name="Corpus").click()
    documents = page.locator(".documents li")
    expect(documents.first).to_be_visible()
    page.get_by_label("Search").fill("fellow-citizens")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("mark").first).to_have_text("fellow-citizens", ignore_case=True)
    short = documents.first.locator(".body").inner_text()
    documents.first.get_by_role("button", name="Whole text").click()
    expect(documents.first.get_by_role("button", name="Less")).to_be_visible()
    assert len(documents.first.locator(".body").inner_text()) > 2 * len(short)
    picture(page, "corpus")
    page.get_by_label("Search").fill("no speech says this")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_text("No document holds that.")).to_be_visible()


def test_a_key_is_asked_for_and_an_ordinary_one_sees_no_texts(
    page: Page, start: Callable[..., Server], runs: dict[str, Path], tmp_path: Path
) -> None:
    from textmill.serving.keys import KeyStore

    page.expected = ("401", "403")  # type: ignore[attr-defined]
    key = KeyStore(str(tmp_path / "keys.sqlite")).create("visitor")
    guarded = start(runs["counts"], "--keys", tmp_path / "keys.sqlite")
    page.goto(guarded.url)
    page.get_by_label("Key").fill("tm-wrong")
    page.get_by_role("button", name="Use it").click()
    expect(page.get_by_text("This key is not valid.")).to_be_visible()
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Use it").click()
    write(page, "The people of", 8)
    expect(page.get_by_role("status").first).to_contain_text("8 tokens")
    page.get_by_role("link", name="Corpus").click()
    expect(page.get_by_text("for administrators' keys")).to_be_visible()
    guarded.stop()


def test_when_the_server_goes_the_text_stays_and_comes_back_with_it(
    page: Page, start: Callable[..., Server], runs: dict[str, Path], tmp_path: Path
) -> None:
    page.expected = ("ERR_CONNECTION", "net::", "Failed to load", "ERR_")  # type: ignore[attr-defined]
    served = start(runs["counts"], "--keys", tmp_path / "keys.sqlite")
    page.goto(served.url)
    write(page, "The people of", 8)
    expect(page.get_by_role("status").first).to_contain_text("8 tokens")
    text = page.locator(".text").inner_text()
    served.process.kill()
    served.process.wait()
    page.locator(".t").nth(2).click()
    page.get_by_role("dialog").locator("li button").nth(1).click()
    expect(page.get_by_text("The server does not answer.")).to_be_visible()
    picture(page, "gone")
    assert page.locator(".text").inner_text() == text
    again = Server([str(runs["counts"]), "--keys", str(tmp_path / "keys.sqlite")], tmp_path / "log", served.port)
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_text("The server does not answer.")).to_be_hidden()
    page.keyboard.press("Escape")
    page.get_by_label("Beginning of the text").fill("My fellow")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".text")).to_contain_text("My fellow")
    expect(page.get_by_role("status").first).to_contain_text("8 tokens")
    again.stop()

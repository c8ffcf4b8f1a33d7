"""The page in a real browser: search, rerank, filter, compare, open, add, errors, by keyboard and on a phone.

Needs Playwright and Debian's chromium (apt install chromium); skipped where one of them is missing. With
RABTRIEVER_SCREENSHOTS=FOLDER it leaves pictures there.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from index.doubles import numbered
from rabtriever.index import Index
from serving.doubles import Student
from serving.server import Running, double, started

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

SCREENSHOTS = os.environ.get("RABTRIEVER_SCREENSHOTS")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("page")
    with Index.create(folder / "index", Student()) as index:
        index.add(numbered(0, 40))
        index.add([{"id": "markup", "text": "<img src=x onerror=document.title=1>", "metadata": {"number": 1000}}])
    with started(double(folder / "index"), folder / "log") as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=120_000)
        yield browser
        browser.close()


@pytest.fixture(params=[(1100, 800), (360, 640)], ids=["desk", "phone"])
def page(request: pytest.FixtureRequest, browser: Any, server: Running) -> Iterator[Any]:
    """The page, opened; afterwards: no request went elsewhere, and nothing was complained about."""
    width, height = request.param
    context = browser.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    page.set_default_timeout(60_000)
    sync_api.expect.set_options(timeout=60_000)  # a busy machine is no fault of the page
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda one: asked.append(one.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(server.url)
    sync_api.expect(page.locator("#status")).to_contain_text("ready")
    yield page
    assert complaints == []
    assert all(url.startswith((server.url, "data:")) for url in asked)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "it scrolls sideways"
    context.close()


def _ask(page: Any, query: str) -> None:
    page.fill("#query", query)
    page.press("#query", "Enter")
    sync_api.expect(page.locator("#cost")).to_contain_text("hits in")


def _picture(page: Any, name: str) -> None:
    if SCREENSHOTS:
        width = page.viewport_size["width"]
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}-{width}.png", full_page=True)


def test_a_search_shows_hits_relevance_and_their_spread(page: Any) -> None:
    _ask(page, "number seven")
    assert page.locator(".hit").count() == 10
    shares = [float(text.rstrip(" %")) for text in page.locator(".relevance").all_inner_texts()]
    assert shares == sorted(shares, reverse=True)
    assert page.locator("#plot rect").count() == 20
    assert page.locator("#plot").is_visible()
    _picture(page, "search")


def test_the_teacher_moves_ranks_and_tells_its_cost(page: Any) -> None:
    _ask(page, "number seven")
    before = page.locator(".hit .text").all_inner_texts()
    page.check("#rerank")
    sync_api.expect(page.locator("#cost")).to_contain_text("reranked by the teacher in")
    after = page.locator(".hit .text").all_inner_texts()
    assert sorted(after) == sorted(before)
    assert after != before
    moves = page.locator(".up, .down, .same").all_inner_texts()
    assert len(moves) == 10
    assert any("▲" in move for move in moves)
    assert any("▼" in move for move in moves)
    _picture(page, "rerank")


def test_filter_compare_and_explain(page: Any) -> None:
    page.fill("#filter", "number < 3")
    _ask(page, "text number 2")
    assert page.locator(".hit").count() == 3
    page.check("#compare")
    sync_api.expect(page.locator("#results section")).to_have_count(3)
    assert page.locator("#results h2").all_inner_texts() == ["Student", "Student and BM25", "BM25 alone"]
    page.check("#explain")
    sync_api.expect(page.locator(".hit details")).to_have_count(9)
    page.locator(".hit summary").first.click()
    assert "all others" in page.locator(".hit table").first.inner_text()
    _picture(page, "explain")


def test_a_rationale_in_words_is_written_when_asked_for(page: Any, server: Running) -> None:
    """The words are made up here; tests/serving/test_rationale.py asks a model for them."""
    state = {"status": "ready", "documents": 40, "queued_texts": 0, "rationales": True}
    page.route("**/ready", lambda route: route.fulfill(json=state))
    asked = []

    def answer(route: Any) -> None:
        asked.append(route.request.post_data_json)
        words = {"id": "d1", "probability": 0.7, "rationale": "<b>Because</b> it is.", "generated_by": "smollm2"}
        route.fulfill(json=words)

    page.route("**/v1/rationale", answer)
    page.goto(server.url)
    sync_api.expect(page.locator("#status")).to_contain_text("ready")
    _ask(page, "number seven")
    assert page.locator(".rationale").count() == 0
    page.check("#explain")
    sync_api.expect(page.locator(".rationale button")).to_have_count(10)
    page.locator(".rationale button").first.click()
    said = "<b>Because</b> it is. generated by smollm2; may be wrong"
    sync_api.expect(page.locator(".rationale").first).to_have_text(said)
    assert asked[0]["query"] == "number seven"
    assert asked[0]["id"] in page.locator(".hit .facts").first.inner_text()
    assert len(asked) == 1
    _picture(page, "rationale")


def test_errors_and_empty_answers_are_told(page: Any) -> None:
    page.fill("#filter", "nummer < 3")
    page.fill("#query", "x")
    page.press("#query", "Enter")
    sync_api.expect(page.locator("#error")).to_contain_text("nummer")
    assert page.locator(".hit").count() == 0
    _picture(page, "error")
    page.fill("#filter", "number < 0")
    _ask(page, "x")
    assert page.locator("#error").is_hidden()
    sync_api.expect(page.locator("#results")).to_contain_text("No document fits.")
    assert page.locator("#plot").is_hidden()
    _picture(page, "empty")


def test_all_of_it_by_keyboard_and_texts_are_no_markup(page: Any) -> None:
    page.fill("#filter", "number = 1000")
    page.focus("#query")
    page.keyboard.type("seven")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Search"
    page.keyboard.press("Enter")
    sync_api.expect(page.locator(".hit")).to_have_count(1)
    page.locator(".hit > button").focus()
    page.keyboard.press("Enter")
    sync_api.expect(page.locator("#document-text")).to_have_text("<img src=x onerror=document.title=1>")
    assert page.locator("#document").evaluate("dialog => dialog.open")
    page.keyboard.press("Escape")
    assert page.locator("img").count() == 0
    assert page.title() == "Rabtriever"


def test_files_become_documents_with_progress(page: Any, tmp_path: Path) -> None:
    width = page.viewport_size["width"]
    lines = [{"id": f"new{width}-{n}", "text": f"new text {n}", "room": f"r{width}"} for n in range(40)]
    (tmp_path / "more.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "lines.txt").write_text(f"first {width}\n\nsecond {width}\n")
    page.set_input_files("#files", [tmp_path / "more.jsonl", tmp_path / "lines.txt"])
    sync_api.expect(page.locator("#progress")).to_have_js_property("value", 1)
    sync_api.expect(page.locator("#added")).to_contain_text("0 unchanged")
    _picture(page, "added")
    page.fill("#filter", f"room = 'r{width}'")
    page.fill("#k", "50")
    _ask(page, "new")
    assert page.locator(".hit").count() == 40
    (tmp_path / "bad.jsonl").write_text('{"id": "x", "text": "fine"}\noops\n')
    page.set_input_files("#files", [tmp_path / "bad.jsonl"])
    sync_api.expect(page.locator("#error")).to_have_text("bad.jsonl:2: this line is not JSON.")

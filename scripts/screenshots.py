"""Pictures of the server's page for the documentation: a real model, a real server, headless Chromium.

    apt install chromium
    python scripts/screenshots.py docs/images

Indexes two dozen facts with the shipped model ``general``, serves them, and takes a picture of a search, of the
teacher's rerank, of the comparison with BM25, of an answer by which nothing fits, of a mistake, of documents added, and
of a phone.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import expect, sync_playwright

FACTS = {
    "kitchen": [
        "Bacteria turn the sugar in milk into acid.",
        "Cold slows down the bacteria that spoil food.",
        "Salt draws water out of vegetables.",
        "Yeast makes gas, which lets dough rise.",
        "Steam carries heat better than dry air.",
        "Oil floats because it is lighter than water.",
        "Sugar melts and turns brown when it gets hot enough.",
        "A lid keeps the heat in the pot.",
    ],
    "garden": [
        "Plants make their food from light, water and air.",
        "Roots rot when the soil never dries.",
        "Frost breaks the cells of tender leaves.",
        "Bees carry pollen from one flower to the next.",
        "Worms loosen the soil and let air in.",
        "Seeds stay asleep until they get water and warmth.",
        "Leaves turn yellow when a plant lacks nitrogen.",
        "Slugs come out at night, when it is damp.",
    ],
    "weather": [
        "Water that freezes takes more room than before.",
        "Warm air can hold more moisture than cold air.",
        "Wind carries moisture away from wet cloth.",
        "Clouds keep the night from getting cold.",
        "Thunder is the sound of air that lightning has heated.",
        "Dark surfaces take up more sunlight than bright ones.",
        "Salt lowers the temperature at which water freezes.",
        "Fog forms where moist air cools near the ground.",
    ],
}
QUERY = "The pipe behind the house burst in January."


def facts() -> list[dict[str, str]]:
    """The documents."""
    return [
        {"id": f"{topic}-{number}", "text": text, "topic": topic}
        for topic, texts in FACTS.items()
        for number, text in enumerate(texts, start=1)
    ]


def pictures(url: str, folder: Path, extra: Path) -> None:
    """Use the page as a person would, and take pictures on the way."""
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        desk = _page(browser, url, 1000, 760)
        _ask(desk, QUERY)
        _take(desk, folder / "search.png")
        desk.check("#rerank")
        expect(desk.locator("#cost")).to_contain_text("reranked by the teacher in")
        _take(desk, folder / "rerank.png")
        desk.uncheck("#rerank")
        desk.fill("#k", "4")
        desk.check("#compare")
        expect(desk.locator("#results section")).to_have_count(3)
        _take(desk, folder / "compare.png")
        desk.uncheck("#compare")
        desk.fill("#filter", "topic = 'kitchen' and topic = 'garden'")
        _ask(desk, QUERY)
        _take(desk, folder / "empty.png")
        desk.fill("#filter", "topik = 'kitchen'")
        desk.press("#query", "Enter")
        expect(desk.locator("#error")).to_contain_text("topik")
        _take(desk, folder / "error.png")
        desk.fill("#filter", "")
        desk.set_input_files("#files", extra)
        expect(desk.locator("#status")).to_contain_text("25 documents")
        _take(desk, folder / "add.png")
        phone = _page(browser, url, 390, 760)
        phone.fill("#k", "3")
        _ask(phone, "Why did the milk turn sour?")
        _take(phone, folder / "phone.png")
        browser.close()


def _page(browser: Any, url: str, width: int, height: int) -> Any:
    page = browser.new_context(viewport={"width": width, "height": height}).new_page()
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    page.goto(url)
    expect(page.locator("#status")).to_contain_text("ready")
    return page


def _ask(page: Any, query: str) -> None:
    page.fill("#query", query)
    page.press("#query", "Enter")
    expect(page.locator("#cost")).to_contain_text("hits in")


def _take(page: Any, path: Path) -> None:
    page.screenshot(path=path, full_page=True)
    sys.stdout.write(f"{path}\n")


def main() -> None:
    """Index, serve, take pictures."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images")
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "rabtriever"]
    with tempfile.TemporaryDirectory() as work:
        corpus, extra, index = (Path(work) / name for name in ("facts.jsonl", "more.jsonl", "index"))
        corpus.write_text("".join(json.dumps(fact) + "\n" for fact in facts()))
        more = [{"id": "house-1", "text": "Warm air rises to the ceiling.", "topic": "house"}]
        extra.write_text("".join(json.dumps(fact) + "\n" for fact in more))
        subprocess.run([*command, "index", "general", str(corpus), "-o", str(index)], check=True)
        serve = [*command, "serve", str(index), "--port", "0", "--json"]
        with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            try:
                assert server.stdout is not None
                pictures(json.loads(server.stdout.readline())["url"], folder, extra)
            finally:
                server.terminate()


if __name__ == "__main__":
    main()

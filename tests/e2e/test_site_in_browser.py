"""The site of the documentation in headless Chromium: it fits phones and desktops, in light and dark."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from browser import Browser, find_browser

pytestmark = [
    pytest.mark.skipif(find_browser() is None, reason="no Chromium"),
    pytest.mark.skipif(importlib.util.find_spec("furo") is None, reason="no Sphinx; pip install '.[docs]'"),
]

ROOT = Path(__file__).parents[2]
PHONE, DESKTOP = (390, 844), (1280, 900)
LOOK = """({
  overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  broken: [...document.images].filter((image) => image.naturalWidth === 0).map((image) => image.src),
  nameless: [...document.images].filter((image) => image.alt === "" && !image.closest("a.sidebar-brand"))
    .map((image) => image.src),
})"""
COLORS = """(() => {
  const style = (selector) => getComputedStyle(document.querySelector(selector));
  return [style("body").backgroundColor, style("body").color, style("article img").backgroundColor];
})()"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pages, as `make docs` builds them but for what takes its time: TensorFlow, for the reference."""
    out = tmp_path_factory.mktemp("site")
    options = (
        "-b",
        "html",
        "-q",
        "-d",
        str(out / "doctrees"),
        "-D",
        "exclude_patterns=_build,reference/python.md",
    )
    subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(ROOT / "docs"), str(out / "html")],
        check=True,
        capture_output=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
    )
    return out / "html"


def test_every_page_fits_and_is_whole(site: Path, tmp_path: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    with Browser(tmp_path / "profile") as browser:
        for page in pages:
            browser.show(page.as_uri(), *PHONE)
            assert browser.evaluate(LOOK) == {"overflow": 0, "broken": [], "nameless": []}, page
            browser.resize(*DESKTOP)
            assert browser.evaluate(LOOK) == {"overflow": 0, "broken": [], "nameless": []}, page
        requests = {told["request"]["url"] for told in browser.told("Network.requestWillBeSent")}
        complaints = browser.complaints()
    assert complaints == []
    assert {url for url in requests if not url.startswith(("file:", "data:"))} == set()


def test_pages_are_dark_where_the_system_is(site: Path, tmp_path: Path) -> None:
    seen = {}
    with Browser(tmp_path / "profile") as browser:
        for scheme in ("light", "dark"):
            browser.show((site / "guides" / "report.html").as_uri(), *PHONE, scheme)
            colors = browser.evaluate(COLORS)
            seen[scheme] = [sum(map(int, re.findall(r"\d+", color)[:3])) for color in colors]
    (page, text, _), (dark_page, dark_text, paper) = seen["light"], seen["dark"]
    assert page > 700 > 300 > text
    assert dark_page < 150 < 500 < dark_text
    assert paper == 3 * 255, "pictures that are drawn for white keep it"

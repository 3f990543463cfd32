"""A report in headless Chromium: nothing fails, nothing is fetched, tables sort, clips play and stand."""

import colorsys
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, find_browser

from kdant_tf.report.page import Clip, Gallery, Guess, Page, Section, Table, TableCell, data_uri, write_page
from kdant_tf.report.samples import encode_moving, encode_still, side_by_side

pytestmark = pytest.mark.skipif(find_browser() is None, reason="no Chromium")

NASTY = "<b>&\"'</b><script>throw 1</script>"
LOOK = """(async () => {
  const tick = () => new Promise((done) => setTimeout(done, 10));
  const until = async (holds) => {
    for (let tries = 0; tries < 500 && !holds(); tries++) await tick();
    return holds();
  };
  await until(() => document.readyState === "complete" && document.querySelector("button.all"));
  const seen = {}, images = [...document.images], clips = [...document.querySelectorAll("figure.clip img")];
  const moves = (image) => image.currentSrc !== "" && image.currentSrc !== image.src;
  await Promise.all(images.map((image) => image.decode().catch(() => null)));
  seen.images = images.length;
  seen.broken = images.filter((image) => image.naturalWidth === 0).length;
  const table = document.querySelector("table.sortable"), heads = [...table.tHead.rows[0].cells];
  const names = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
  const sort = (column) => {
    heads[column].querySelector("button").click();
    return [heads.map((head) => head.ariaSort), names()];
  };
  seen.sorted = [sort(1), sort(1), sort(0)];
  const all = document.querySelector("button.all"), one = document.querySelector("button.toggle");
  await until(() => clips.every((image) => image.currentSrc));
  seen.first = [clips.some(moves), all.textContent];
  if (!seen.first[0]) all.click();
  seen.plays = await until(() => clips.every(moves));
  all.click();
  seen.stands = await until(() => !clips.some(moves));
  all.click();
  await until(() => clips.every(moves));
  one.click();
  seen.alone = [await until(() => !moves(clips[0])), moves(clips[1]), one.textContent, one.ariaLabel];
  seen.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  return seen;
})()"""


def make_clip(number: int) -> Clip:
    hues = [colorsys.hsv_to_rgb(part / 8, 1, 1) for part in range(8)]
    frames = side_by_side(*(np.broadcast_to(np.array(hues)[:, None, None], (8, 28, 28, 3)),) * 2)
    return Clip(
        label=NASTY,
        id=f"video {number}",
        still=data_uri("image/webp", encode_still(frames[0])),
        moving=data_uri("image/webp", encode_moving(frames, 0.3)),
        width=frames[0].width,
        height=frames[0].height,
        frames=8,
        times="0 to 1 s",
        guesses={NASTY: (Guess(name="x" * 60, probability=0.5, correct=True),)},
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    values = {"two": 0.2, "ten": 10.0, "none": None, "minus": -1.5}
    rows = [[TableCell(text=name), TableCell(text="n", key=value)] for name, value in values.items()]
    table = Table(caption=NASTY, columns=("network", NASTY), rows=rows)
    gallery = Gallery(title="Clips", text=NASTY, clips=[make_clip(number) for number in range(2)])
    path = tmp_path_factory.mktemp("browser") / "report.html"
    sections = [Section(id="results", title="x" * 60, blocks=[table, gallery])]
    write_page(Page(title=NASTY, lead=NASTY, sections=sections, version="0"), path)
    return path


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_a_page_works_in_a_browser(page: Path, tmp_path: Path, motion: str):
    with Browser(tmp_path / "profile") as browser:
        features = [{"name": "prefers-reduced-motion", "value": motion}]
        browser.ask("Emulation.setEmulatedMedia", features=features)
        browser.ask(
            "Emulation.setDeviceMetricsOverride", width=360, height=800, deviceScaleFactor=1, mobile=False
        )
        browser.ask("Page.navigate", url=page.as_uri())
        seen = browser.evaluate(LOOK)
        requests = [told["request"]["url"] for told in browser.told("Network.requestWillBeSent")]
        complaints = browser.complaints()
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [page.as_uri()]
    assert (seen["images"], seen["broken"]) == (2, 0)
    # What has no number stands last both ways.
    assert seen["sorted"] == [
        [[None, "ascending"], ["minus", "two", "ten", "none"]],
        [[None, "descending"], ["ten", "two", "minus", "none"]],
        [["ascending", None], ["minus", "none", "ten", "two"]],
    ]
    plays = motion == "no-preference"
    assert seen["first"] == [plays, "Pause all clips" if plays else "Play all clips"]
    assert (seen["plays"], seen["stands"]) == (True, True)
    assert seen["alone"] == [True, True, "Play", f"Play {NASTY}, video 0"]
    assert seen["overflow"] == 0

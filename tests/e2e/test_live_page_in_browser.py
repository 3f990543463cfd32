"""The live page in headless Chromium, on a video played at its own speed by a model that answers at once."""

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from browser import Browser, find_browser

from kdant_tf.anticipation.anticipate import Latencies, anticipate
from kdant_tf.anticipation.live_page import LivePage, PlayedSource
from kdant_tf.anticipation.sources import open_source
from kdant_tf.serving.model import AnticipationModel
from tf_records.errors import VideoError
from tf_records.schema import ClipSpec

pytestmark = pytest.mark.skipif(find_browser() is None, reason="no Chromium")

PHONE, DESKTOP = (390, 844), (1280, 900)
DARK, BRIGHT = "it gets dark", "<b>it gets bright</b>"
HELPERS = """
  const until = async (holds) => {
    for (let tries = 0; tries < 1500 && !holds(); tries++) await new Promise((done) => setTimeout(done, 20));
    return holds();
  };
  const find = (id) => document.getElementById(id), text = (id) => find(id).textContent;
  const first = (part) => document.querySelectorAll(`#bars li:first-child ${part}`);
  const bar = () => [...first("span")].map((each) => each.textContent);
  const width = () => first(".fill")[0].style.width;
  const overflow = () => document.documentElement.scrollWidth - document.documentElement.clientWidth;
"""
WATCH = f"""(async () => {{ {HELPERS}
  const names = new Set(), widths = new Set(), colors = new Set(), countdowns = new Set();
  const pen = document.createElement("canvas").getContext("2d", {{ willReadFrequently: true }});
  const look = () => {{
    if (!bar().length) return false;
    names.add(bar()[0]); widths.add(width()); countdowns.add(text("countdown"));
    pen.drawImage(find("picture"), 0, 0, 1, 1);
    colors.add(pen.getImageData(0, 0, 1, 1).data[0]);
    return names.size > 1 && widths.size > 3 && colors.size > 5;
  }};
  const moved = await until(look);
  await until(() => text("spoken") !== "");
  return {{
    moved, overflow: overflow(), names: [...names].sort(), countdowns: [...countdowns].filter(Boolean),
    spoken: text("spoken"), title: document.title, takes: text("takes"), dropped: text("dropped-note"),
  }};
}})()"""
PAUSED = f"""(async () => {{ {HELPERS}
  const before = [bar().join(), width(), text("clock")];
  await new Promise((done) => setTimeout(done, 700));
  const after = [bar().join(), width(), text("clock")];
  return [text("status"), find("pause").ariaPressed, before.join() === after.join()];
}})()"""
END = f"""(async () => {{ {HELPERS}
  const ended = await until(() => !find("again").hidden);
  find("answers").open = true;
  await until(() => find("rows").rows.length);
  const row = [...find("rows").rows[0].cells].map((cell) => cell.textContent);
  const kept = [overflow(), text("status")];
  find("again").click();
  return [ended, row, kept, await until(() => text("status") === "live"), find("again").hidden];
}})()"""
LATE = f"""(async () => {{ {HELPERS}
  await until(() => thumbs.length && thumbs[0].timeS < 1 && came.timeS > 1);
  const times = thumbs.map((each) => each.timeS);
  return [times[0] < 1, times.length > 2, times.every((each, place) => !place || each > times[place - 1])];
}})()"""
CLOSED = f"""(async () => {{ {HELPERS}
  await until(() => text("status") === "kdant has ended");
  return text("status");
}})()"""


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds that get brighter and darker again."""
    path = tmp_path_factory.mktemp("video") / "light.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for number in range(120):
            grey = round(128 - 100 * np.cos(2 * np.pi * number / 120))
            frame = av.VideoFrame.from_ndarray(np.full((120, 160, 3), grey, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def tell(clips: np.ndarray) -> np.ndarray:
    """What is bright gets dark."""
    bright = clips.mean(axis=(1, 2, 3, 4)) / 255
    return np.stack([bright, 1 - bright], axis=-1).astype(np.float32)


MODEL = AnticipationModel(
    name="light",
    classes=(DARK, BRIGHT),
    clip=ClipSpec(clip_frames=4, offset_frames=15),
    modality="rgb",
    short_side=32,
    fps=30.0,
    anticipates=True,
    infer=tell,
)


@contextmanager
def played(video: Path, model: AnticipationModel = MODEL) -> Iterator[LivePage]:
    """The page of a video that is played, and again as often as it is asked for."""

    def play(page: LivePage) -> None:
        while True:
            with closing(open_source(video)) as opened:
                source, latencies = PlayedSource(opened, page), Latencies(model.ahead_at(30.0))
                page.begin(source, model, stride_s=0.1)
                # A page that is closed early ends a video that is too short then.
                with suppress(VideoError):
                    for each in anticipate(source, model, stride_s=0.1):
                        latencies.add(each.latency_s, each.dropped)
                        page.expect(each, each.top(), latencies)
            if not page.wait_for_replay():
                return

    with LivePage(port=0) as page:
        thread = threading.Thread(target=play, args=(page,), daemon=True)
        thread.start()
        yield page


def press(browser: Browser, key: str, code: int, text: str = "") -> None:
    for kind in ("keyDown", "keyUp"):
        given = {"text": text} if text and kind == "keyDown" else {}
        browser.ask("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **given)


def test_it_moves_pauses_ends_and_plays_again(video: Path, tmp_path: Path) -> None:
    with Browser(tmp_path / "profile") as browser:
        with played(video) as page:
            browser.show(page.url, *PHONE, "dark")
            seen = browser.evaluate(WATCH)
            assert seen.pop("moved")
            assert seen.pop("overflow") == 0
            assert seen.pop("names") == sorted([DARK, BRIGHT])
            assert {"in 0.4 s", "in 0.3 s"} & set(seen.pop("countdowns"))
            assert seen.pop("spoken").startswith(("Expected: it gets dark, ", "Expected: <b>it gets bright"))
            assert seen.pop("title") == f"{video} \N{EN DASH} kdant"
            assert seen.pop("takes").endswith((" ms", " s"))
            assert seen.pop("dropped").endswith(", to keep up")
            press(browser, "Tab", 9)
            assert browser.evaluate("document.activeElement.id") == "pause"
            press(browser, " ", 32, " ")
            assert browser.evaluate(PAUSED) == ["the page is paused", "true", True]
            press(browser, " ", 32, " ")
            browser.resize(*DESKTOP)
            ended, row, kept, again, hidden = browser.evaluate(END)
            assert (ended, again, hidden, kept) == (True, True, True, [0, "at its end"])
            assert row[0] == "3.90 s"  # of the last clip
            assert row[2] in (DARK, BRIGHT)
        assert browser.evaluate(CLOSED) == "kdant has ended"
        requests = {told["request"]["url"] for told in browser.told("Network.requestWillBeSent")}
        tree = browser.ask("Accessibility.getFullAXTree")["nodes"]
        # Of the connection that is tried again when all is over.
        complaints = [each for each in browser.complaints() if "ERR_CONNECTION_REFUSED" not in str(each)]
    assert complaints == []
    assert {url for url in requests if not url.startswith((page.url, "data:", "blob:"))} == set()
    named = {(node["role"]["value"], node.get("name", {}).get("value")) for node in tree if "role" in node}
    assert {
        ("button", "Pause the page"),
        ("image", "The picture as it comes"),
        ("heading", "How fast"),
    } <= named
    assert [role for role, name in named if role in ("button", "image", "heading", "link") and not name] == []


def test_a_browser_that_comes_late_has_the_small_pictures_too(video: Path, tmp_path: Path) -> None:
    with Browser(tmp_path / "profile") as browser, played(video) as page:
        browser.show(page.url, *DESKTOP)
        assert browser.evaluate(f"(async () => {{ {HELPERS} return await until(() => came.timeS > 2); }})()")
        browser.show(page.url, *DESKTOP)
        assert browser.evaluate(LATE) == [True, True, True]
        assert browser.complaints() == []


def test_a_model_that_sees_the_action_foretells_nothing(video: Path, tmp_path: Path) -> None:
    teacher = dataclasses.replace(MODEL, anticipates=False)
    with Browser(tmp_path / "profile") as browser, played(video, teacher) as page:
        browser.show(page.url, *DESKTOP)
        seen = browser.evaluate(
            f"(async () => {{ {HELPERS} await until(() => bar().length && text('ahead') === 'none');"
            f"return [text('expected-title'), text('ahead'), text('late')]; }})()"
        )
        complaints = browser.complaints()
    assert seen == ["Seen", "none", "\N{EN DASH}"]
    assert complaints == []

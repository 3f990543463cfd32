"""What the live page is told, and that a file is played for it at its own speed."""

import dataclasses
import io
import json
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from kdant_tf.anticipation import live_page
from kdant_tf.anticipation.anticipate import MAX_PAUSE_S, Anticipation, Latencies, anticipate
from kdant_tf.anticipation.live_page import LINE_S, LivePage, PlayedSource
from kdant_tf.anticipation.sources import TimedFrame
from kdant_tf.serving.model import AnticipationModel
from tf_records.errors import VideoError
from tf_records.schema import ClipSpec

MODEL = AnticipationModel(
    name="constant",
    classes=("clap", "golf", "walk"),
    clip=ClipSpec(clip_frames=4, offset_frames=15),
    modality="rgb",
    short_side=32,
    fps=30.0,
    anticipates=True,
    infer=lambda clips: np.tile(np.float32([0.25, 0.5, 0.25]), (len(clips), 1)),
)


class Frames:
    """Grey frames at given times."""

    name, rate = "frames", 30.0

    def __init__(self, *times: float, live: bool = False, size: tuple[int, int] = (48, 32)) -> None:
        self.times, self.live, self.size = times, live, size

    def frames(self) -> Iterator[TimedFrame]:
        for number, time_s in enumerate(self.times):
            pixels = np.full((self.size[1], self.size[0], 3), number, np.uint8)
            yield TimedFrame(time_s, av.VideoFrame.from_ndarray(pixels, format="rgb24"))

    def problems(self) -> list[str]:
        return ["one"]

    def close(self) -> None:
        self.live = True


class Clock:
    """Time goes on only while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> bool:
        self.slept.append(seconds)
        self.now_s += max(0.0, seconds)
        return True


@pytest.fixture
def page() -> Iterator[LivePage]:
    with LivePage(port=0) as opened:
        yield opened


@pytest.fixture
def clock(page: LivePage, monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(live_page, "time", clock)
    monkeypatch.setattr(page.server, "sleep", clock.sleep)
    monkeypatch.setattr(page.server, "wait_for_browser", lambda: True)
    return clock


def state(page: LivePage) -> dict[str, Any]:
    return json.loads(page.server.state[1])


def answer(time_s: float, *probabilities: float) -> Anticipation:
    return Anticipation(
        time_s=time_s,
        expected_s=time_s + 0.4,
        classes=MODEL.classes,
        probabilities=np.float32(probabilities),
        latency_s=0.02,
        dropped=0,
    )


def expect(page: LivePage, *answers: Anticipation) -> None:
    for each in answers:
        page.expect(each, each.top(), Latencies(0.4, answers=1))


def test_the_state_follows_the_source(page: LivePage) -> None:
    assert state(page)["status"] == "loading"
    source = PlayedSource(Frames(0.0), page)
    page.begin(source, MODEL, stride_s=0.25)
    told = state(page)
    assert (told["status"], told["source"], told["model"]) == ("waiting", "frames", "constant")
    assert told["ahead_s"] == pytest.approx(0.4)  # 15 frames on, but for the 3 to the clip's last
    page.play()
    assert state(page)["status"] == "playing"
    page.note("It broke off.")
    expect(page, answer(0.1, 0.25, 0.5, 0.25))
    told = state(page)
    assert told["note"] == "It broke off."
    assert told["answer"] == {
        "top": [[1, "golf", 0.5], [0, "clap", 0.25], [2, "walk", 0.25]],
        "latency_s": 0.02,
        "dropped": 0,
        "time_s": 0.1,
        "expected_s": 0.5,
    }
    assert told["line"] == [[0.5, 0.75, 1, "golf"]]
    assert told["latency"]["answers"] == 1
    page.begin(PlayedSource(Frames(0.0, live=True), page), MODEL, stride_s=0.25)
    told = state(page)
    assert (told["status"], told["line"], told["answer"], told["note"]) == ("playing", [], None, "")


def test_other_heads_say_their_likeliest(page: LivePage) -> None:
    page.begin(PlayedSource(Frames(0.0), page), MODEL, stride_s=0.25)
    each = answer(0.1, 0.25, 0.5, 0.25)
    page.expect(each, each.top(), Latencies(0.4, answers=1), {"verb": [("take", 0.61234)], "noun": []})
    assert state(page)["answer"]["others"] == [["verb", "take", 0.6123], ["noun", None, 0.0]]


def test_the_time_line_joins_what_stays_and_forgets_what_is_a_minute_old(page: LivePage) -> None:
    page.begin(PlayedSource(Frames(0.0), page), MODEL, stride_s=0.25)
    likeliest = [(1, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 0.9)]
    expect(page, *(answer(0.25 * number, *each) for number, each in enumerate(likeliest)))
    line = [[0.4, 0.9, 0, "clap"], [0.9, 1.15, 1, "golf"], [1.15, 1.4, 2, "walk"]]
    assert state(page)["line"] == line
    nothing = answer(1.0, 0.3, 0.3, 0.3)
    page.expect(nothing, nothing.top(threshold=0.5), Latencies(0.4, answers=1))
    assert state(page)["line"][-1] == [1.4, 1.65, 0, None]
    expect(page, answer(LINE_S + 1.3, 1, 0, 0))
    assert [each[3] for each in state(page)["line"]] == ["walk", None, "clap"]


def test_memory_is_bounded_though_every_answer_differs(page: LivePage) -> None:
    page.begin(PlayedSource(Frames(0.0), page), MODEL, stride_s=0.01)
    for number in range(1100):
        expect(page, answer(0.01 * number, number % 2, 1 - number % 2, 0))
    assert len(state(page)["line"]) == 1000
    assert len(page.server.state[1]) < 50_000


def test_a_file_is_played_at_the_speed_of_its_stamps(page: LivePage, clock: Clock) -> None:
    times = (3.0, 3.1, 3.15, 4.0)
    shown = [clock.now_s for _ in PlayedSource(Frames(*times), page).frames()]
    assert [after - before for before, after in pairwise(shown)] == pytest.approx([0.1, 0.05, 0.85])


def test_a_file_that_came_late_catches_up_and_one_that_stood_still_does_not(
    page: LivePage, clock: Clock
) -> None:
    """Nor does a gap in it keep anybody waiting for long."""
    shown = []
    for timed in PlayedSource(Frames(0.0, 1.0, 1.1, 2.0, 2.1, 2.1 + MAX_PAUSE_S), page).frames():
        shown.append(clock.now_s - 1000)
        clock.now_s += {1.0: 0.3, 2.0: 5.0}.get(timed.time_s, 0.0)
    assert shown == pytest.approx([0, 1.0, 1.3, 2.0, 7.0, 7.0])


def test_a_camera_is_not_kept_waiting(page: LivePage, clock: Clock) -> None:
    assert len(list(PlayedSource(Frames(0.0, 5.0, 9.0, live=True), page).frames())) == 3
    assert clock.slept == []


def test_a_model_that_is_slow_loses_clips_and_not_time(page: LivePage) -> None:
    """The frames go on meanwhile, and the last clip is always answered."""
    page.server._visited.set()
    source = PlayedSource(Frames(*(number / 300 for number in range(60))), page)
    source.rate = 300.0

    def infer(clips: np.ndarray) -> np.ndarray:
        time.sleep(0.05)
        return np.tile(np.float32([0.25, 0.5, 0.25]), (len(clips), 1))

    slow = dataclasses.replace(MODEL, fps=300.0, infer=infer)
    page.begin(source, slow, stride_s=1 / 300)
    answers = list(anticipate(source, slow, stride_s=1 / 300))
    assert sum(1 + each.dropped for each in answers) == 57
    assert answers[-1].time_s == pytest.approx(59 / 300)


def test_pictures_are_upright_jpegs_of_a_bounded_size(page: LivePage) -> None:
    for size, expected in (((48, 32), (48, 32)), ((1920, 1080), (960, 540))):
        (timed,) = Frames(7.0, size=size).frames()
        picture = Image.open(io.BytesIO(page._encode(timed.frame)))
        assert (picture.format, picture.size) == ("JPEG", expected)
    page.show(timed)
    assert page.server._picture[1].time_s == 7.0


def test_a_closed_page_ends_what_is_played() -> None:
    with LivePage(port=0) as page:
        page.server._visited.set()
        frames = PlayedSource(Frames(0.0, 30.0, 60.0), page).frames()
        next(frames)
    assert list(frames) == []
    assert list(PlayedSource(Frames(0.0), page).frames()) == []
    assert state(page)["status"] == "closed"


def test_the_page_says_why_it_ended() -> None:
    with pytest.raises(VideoError), LivePage(port=0) as page:
        raise VideoError("Gave up on rtsp://camera after 60 s.")
    assert state(page)["note"] == "Gave up on rtsp://camera after 60 s."


def test_what_cannot_be_played_again_is_not_offered(page: LivePage, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = iter([True, True, False])
    monkeypatch.setattr(page.server, "wait_for_request", lambda: next(asked))
    assert page.wait_for_replay()
    assert (state(page)["status"], state(page)["again"]) == ("ended", True)
    assert not page.wait_for_replay(possible=False)
    assert state(page)["again"] is False


def test_a_played_source_is_the_source_in_all_else(page: LivePage) -> None:
    inner = Frames(0.0)
    played = PlayedSource(inner, page)
    assert (played.name, played.rate, played.live, played.waits) == ("frames", 30.0, True, True)
    assert played.problems() == ["one"]
    played.close()
    assert inner.live

"""Streams that do not wait: the newest window counts, what is dropped is counted; and damaged sources."""

import os
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import av
import numpy as np
import pytest
from brightness_video import encode_brightness
from PIL import Image
from rtsp_server import make_packets, serve_rtsp

from kdant_tf.anticipation import sources
from kdant_tf.anticipation.anticipate import Anticipation, anticipate, keep_newest
from kdant_tf.anticipation.sources import FrameSource, VideoSource, open_source
from kdant_tf.serving.model import AnticipationModel
from tf_records.errors import VideoError
from tf_records.schema import ClipSpec


def make_model(infer=lambda clips: np.ones((1, 2), np.float32) / 2) -> AnticipationModel:  # type: ignore[no-untyped-def]
    return AnticipationModel(
        name="constant",
        classes=("a", "b"),
        clip=ClipSpec(clip_frames=4, offset_frames=15),
        modality="rgb",
        short_side=32,
        fps=30.0,
        anticipates=True,
        infer=infer,
    )


def watch(source: FrameSource) -> list[Anticipation]:
    with closing(source):
        return list(anticipate(source, make_model(), stride_s=0.2))


def check_all_accounted_for(answers: list[Anticipation], windows: int) -> None:
    assert len(answers) + sum(each.dropped for each in answers) == windows
    assert answers[-1].time_s == pytest.approx((3 + 6 * (windows - 1)) / 30)


def test_the_newest_is_taken_and_the_others_are_counted() -> None:
    taken, put = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield 0
        assert taken.wait(10)
        yield from (1, 2, 3)
        put.set()

    stream = keep_newest(items())
    assert next(stream) == (0, 0)
    taken.set()
    assert put.wait(10)
    assert list(stream) == [(3, 2)]


def test_what_the_source_raises_comes_after_its_last_item() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise VideoError("unplugged")

    stream = keep_newest(items())
    assert next(stream) == (0, 0)
    with pytest.raises(VideoError, match="unplugged"):
        next(stream)


def test_rtsp() -> None:
    """A password in the URL is used, but not told."""
    with serve_rtsp(make_packets(60, 30)) as url:
        source = open_source(url.replace("//", "//user:secret@"))
        assert (source.live, source.name) == (True, url)
        answers = watch(source)
    check_all_accounted_for(answers, windows=10)


@pytest.mark.slow
def test_an_rtsp_stream_that_breaks_off_is_taken_up_again() -> None:
    """And given up when it has been away for too long."""
    said: list[str] = []
    with serve_rtsp(make_packets(60, 30), times=2) as url:
        source = open_source(url, reconnect_s=1.5, report=said.append)
        times_s: list[float] = []
        with (
            closing(source),
            pytest.raises(VideoError, match=r"Gave up on .* after 1.5 s, at last: .* refused"),
        ):
            times_s.extend(timed.time_s for timed in source.frames())
    assert len(times_s) == 120
    assert times_s == sorted(times_s)
    away_s = times_s[60] - times_s[59]
    assert 0.5 <= away_s < 1.5
    assert times_s[119] - times_s[60] == pytest.approx(59 / 30, abs=1e-3)
    again = f"{url} ended. It is tried again for 1.5 s."
    assert said == [again, f"After {away_s:.1f} s {url} is back.", again]
    assert source.problems() == [f"It broke off once, for {away_s:.1f} s in all."]


def test_nobody_answers_at_the_url() -> None:
    with pytest.raises(
        VideoError, match=r"rtsp://127.0.0.1:9/a cannot be opened as a video: Connection refused"
    ):
        open_source("rtsp://127.0.0.1:9/a")


def test_a_pipe_that_does_not_wait_while_the_model_computes(tmp_path: Path) -> None:
    """The first answer takes as long as the whole stream: all but it and the last window are dropped."""
    path = encode_brightness(tmp_path / "v.mkv", [Fraction(number, 30) for number in range(36)])
    reading, writing = os.pipe()
    os.write(writing, path.read_bytes())
    os.close(writing)
    source = VideoSource("stdin", f"pipe:{reading}", live=True)

    def infer_until_it_has_ended(clips: np.ndarray) -> np.ndarray:
        for thread in threading.enumerate():
            if thread.name == "kdant-source":
                thread.join(10)
        return np.ones((1, 2), np.float32)

    with closing(source):
        answers = list(anticipate(source, make_model(infer_until_it_has_ended), stride_s=0.2))
    os.close(reading)
    assert sum(each.dropped for each in answers) >= 4
    check_all_accounted_for(answers, windows=6)


def test_a_reader_that_stops_early_stops_the_thread() -> None:
    given = []

    def items() -> Iterator[int]:
        for number in range(1000):
            given.append(number)
            yield number
            assert wanted.wait(10)
            wanted.clear()

    wanted = threading.Event()
    stream = keep_newest(items())
    assert next(stream) == (0, 0)
    (thread,) = (each for each in threading.enumerate() if each.name == "kdant-source")
    stream.close()
    wanted.set()
    thread.join(10)
    assert not thread.is_alive()
    assert given == [0, 1]


# cv2.utils
QUIET = types.SimpleNamespace(logging=types.SimpleNamespace(setLogLevel=int, LOG_LEVEL_SILENT=0))


class FakeCapture:
    """Stands in for cv2.VideoCapture: camera 3 gives 20 pictures, then none; there is no other.

    Whether it is there at each opening is in `plugged_in`, at those after always.
    """

    plugged_in: ClassVar[list[bool]] = []

    def __init__(self, number: int) -> None:
        self._opened = number == 3 and (self.plugged_in.pop(0) if self.plugged_in else True)
        self._left = 20

    def isOpened(self) -> bool:
        return self._opened

    def get(self, name: str) -> float:
        return 30.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        self._left -= 1
        return self._left >= 0, np.zeros((48, 64, 3), np.uint8)

    def release(self) -> None:
        self._left = 0


class Clock:
    """Stands in for the module `time`: 1/30 s goes by between two looks at it, and no sleep is slept."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        self.now_s += 1 / 30
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def plugged_in(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of the fake camera, which gives a picture each 1/30 s."""
    fake = types.SimpleNamespace(VideoCapture=FakeCapture, CAP_PROP_FPS="fps", utils=QUIET)
    monkeypatch.setitem(sys.modules, "cv2", fake)
    monkeypatch.setattr(sources, "time", Clock())
    monkeypatch.setattr(FakeCapture, "plugged_in", [])
    return FakeCapture.plugged_in


def test_a_camera(plugged_in: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Anticipation] = []
    with (
        closing(open_source("3")) as source,
        pytest.raises(VideoError, match="Camera 3 gives no more pictures"),
    ):
        answers.extend(anticipate(source, make_model(), stride_s=0.2))
    with pytest.raises(VideoError, match="There is no camera 4"):
        open_source("4")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(VideoError, match=r"Cameras need OpenCV.*kdant-tf\[flow\]"):
        open_source("3")


def test_a_camera_that_is_unplugged_is_taken_up_again(plugged_in: list[bool]) -> None:
    plugged_in += [True, False, True, False, False, False]
    said: list[str] = []
    times_s: list[float] = []
    with (
        closing(open_source("3", reconnect_s=2, report=said.append)) as source,
        pytest.raises(VideoError, match=r"Gave up on camera 3 after 2 s, at last: There is no camera 3"),
    ):
        times_s.extend(timed.time_s for timed in source.frames())
    assert len(times_s) == 40
    away_s = times_s[20] - times_s[19]
    assert away_s >= 0.5
    again = "Camera 3 gives no more pictures. It is tried again for 2 s."
    assert said == [again, f"After {away_s:.1f} s camera 3 is back.", again]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise, of which frames take many bytes."""
    path, noise = tmp_path_factory.mktemp("good") / "v.mkv", np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast", "g": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(38):
            picture = noise.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_damage_in_the_middle_is_passed_over(video: Path, tmp_path: Path) -> None:
    data = bytearray(video.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    (tmp_path / "v.mkv").write_bytes(data)
    source = open_source(str(tmp_path / "v.mkv"))
    answers = watch(source)
    assert answers[-1].time_s == watch(open_source(str(video)))[-1].time_s
    (problem,) = source.problems()
    assert "damaged" in problem


def test_a_video_without_its_end_is_said_to_be_cut_short(video: Path, tmp_path: Path) -> None:
    data = video.read_bytes()
    (tmp_path / "v.mkv").write_bytes(data[: len(data) // 2])
    source = open_source(str(tmp_path / "v.mkv"))
    assert watch(source)
    assert "It is cut short: its header promises 1.27 s" in source.problems()[-1]


def test_a_picture_in_the_middle_that_is_none(tmp_path: Path) -> None:
    for number in range(20):
        Image.new("RGB", (64, 48)).save(tmp_path / f"{number:03}.png")
    (tmp_path / "007.png").write_bytes(b"no picture")
    source = open_source(str(tmp_path), rate=30)
    assert len(watch(source)) == 3
    (problem,) = source.problems()
    assert problem.startswith("1 damaged frames were passed over, the first: ")
    assert "007.png cannot be read as a picture" in problem
    for path in tmp_path.iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(VideoError, match="cannot be read as a picture"):
        watch(open_source(str(tmp_path), rate=30))


def test_pictures_of_one_pixel(tmp_path: Path) -> None:
    for number in range(4):
        Image.new("RGB", (1, 1)).save(tmp_path / f"{number}.png")
    assert len(watch(open_source(str(tmp_path), rate=30))) == 1

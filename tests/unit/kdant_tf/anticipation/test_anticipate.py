"""Frames come at the model's rate whatever the video's own, and a window holds the frames it should."""

import dataclasses
import doctest
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from brightness_video import encode_brightness, number_of
from PIL import Image
from video_frames import clock_frames

from kdant_tf.anticipation import anticipate as anticipating
from kdant_tf.anticipation.anticipate import (
    MAX_PAUSE_S,
    Anticipation,
    Resampler,
    SlidingWindow,
    anticipate,
    predict,
)
from kdant_tf.anticipation.sources import TimedFrame, Timeline, open_source
from kdant_tf.serving.model import AnticipationModel
from tf_records.errors import KdantError, RunError, VideoError
from tf_records.flow import compute_flow, describe_flow, flow_to_bytes
from tf_records.schema import ClipSpec
from tf_records.video import open_video

VARIABLE = (0, 0.01, 0.05, 0.2, 0.21, 0.22, 0.9, 1.0, 1.033)
TIMES = {
    "24": [Fraction(n, 24) for n in range(36)],
    "25": [Fraction(n, 25) for n in range(36)],
    "29.97": [Fraction(1001 * n, 30000) for n in range(36)],
    "60": [Fraction(n, 60) for n in range(36)],
    "variable": [Fraction(seconds).limit_denominator(1000) for seconds in VARIABLE],
}


class Recorder:
    """A model that keeps the numbers of the frames it was shown."""

    def __init__(self, *, clip_frames: int = 4, fps: float | None = 30.0, modality: str = "rgb") -> None:
        self.clips: list[list[int]] = []
        self.model = AnticipationModel(
            name="recorder",
            classes=("a", "b"),
            clip=ClipSpec(clip_frames=clip_frames, offset_frames=15),
            modality=modality,
            short_side=48,
            fps=fps,
            anticipates=True,
            infer=self._infer,
        )

    def _infer(self, clips: np.ndarray) -> np.ndarray:
        self.clips.append([number_of(frame[..., :3]) for frame in clips[0]])
        return np.array([[0.25, 0.75]], np.float32)

    def watch(self, path: Path, **settings: float) -> list[Anticipation]:
        with closing(open_source(str(path))) as source:
            return list(anticipate(source, self.model, **settings))


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("coded")
    return {
        name: encode_brightness(folder / f"{name}.{'mkv' if name == 'variable' else 'mp4'}", times)
        for name, times in TIMES.items()
    }


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("fps", [30.0, 12.5, 29.97])
def test_each_tick_shows_the_last_frame_before_it(coded: dict[str, Path], name: str, fps: float) -> None:
    recorder = Recorder(clip_frames=1, fps=fps)
    answers = recorder.watch(coded[name], stride_s=1 / fps)
    seen = [numbers[0] for numbers in recorder.clips]
    times = [float(time) for time in TIMES[name]]
    expected = [sum(time <= tick / fps + 6e-4 for time in times) - 1 for tick in range(len(seen))]
    assert seen == expected
    assert seen[-1] == len(times) - 1 or times[-1] > answers[-1].time_s
    np.testing.assert_allclose([each.time_s for each in answers], np.arange(len(seen)) / fps)
    assert seen == [number_of(frame) for frame in clock_frames(coded[name], 0, len(seen), fps=fps)]


def test_a_real_video_is_shown_as_records_show_it(jhmdb: Path) -> None:
    path = sorted((jhmdb / "golf").glob("*.avi"))[0]
    clips: list[np.ndarray] = []

    def infer(given: np.ndarray) -> np.ndarray:
        clips.append(given[0])
        return np.ones((1, 2), np.float32)

    recorder = Recorder(clip_frames=8, fps=24.0)
    recorder.model = dataclasses.replace(recorder.model, infer=infer, short_side=128)
    answers = recorder.watch(path, stride_s=0.5)
    assert len(answers) == len(clips) > 2
    for answer, clip in zip(answers, clips, strict=True):
        last = round(answer.time_s * 24)
        with open_video(path, short_side=128) as video:
            ticks = range(last - 7, last + 1)
            stored = list(video.shown_at([video.info.shown_s(tick, 24.0) for tick in ticks]))
        np.testing.assert_array_equal(clip, np.stack(stored))


def test_windows_end_a_stride_apart_or_a_little_later(coded: dict[str, Path]) -> None:
    recorder = Recorder(clip_frames=4)
    answers = recorder.watch(coded["29.97"], stride_s=0.25)  # 7.5 ticks
    assert [numbers[-1] for numbers in recorder.clips] == [
        3,
        11,
        18,
        25,
        32,
    ]  # Later ticks are a frame behind.
    assert all(numbers == list(range(numbers[0], numbers[0] + 4)) for numbers in recorder.clips)
    assert [round(each.time_s * 30) for each in answers] == [3, 11, 18, 26, 33]
    assert [round(each.expected_s * 30) for each in answers] == [15, 23, 30, 38, 45]
    assert answers[0].top(3, 0.5) == [("b", 0.75)]


def test_a_model_without_a_rate_takes_the_videos_own(tmp_path: Path) -> None:
    path = encode_brightness(tmp_path / "24.mp4", TIMES["24"], rate=24)
    recorder = Recorder(clip_frames=8, fps=None)
    answers = recorder.watch(path, stride_s=1)
    assert recorder.clips == [list(range(8)), list(range(24, 32))]
    assert answers[1].time_s == 31 / 24
    assert answers[1].expected_s == (24 + 15) / 24


def test_a_video_shorter_than_a_clip(coded: dict[str, Path]) -> None:
    with pytest.raises(VideoError, match="has 44 frames at 30 a second, a clip of the model 64"):
        Recorder(clip_frames=64).watch(coded["25"])


class Endless:
    """A source of so many frames, each a picture of its own."""

    name, live, rate, damaged = "endless", False, 30.0, 0

    def __init__(self, length: int) -> None:
        self._length = length

    def frames(self) -> Iterator[TimedFrame]:
        for number in range(self._length):
            picture = np.full((64, 64, 3), number % 256, np.uint8)
            yield TimedFrame(number / 30, av.VideoFrame.from_ndarray(picture, format="rgb24"))

    def close(self) -> None:
        pass


def test_memory_does_not_grow_with_the_stream() -> None:
    """Of 1,500 resized frames, 14 MB, it holds no more than of 150."""
    model = dataclasses.replace(Recorder().model, infer=lambda clips: np.ones((1, 2), np.float32))

    def peak_bytes(frames: int) -> int:
        tracemalloc.start()
        for _ in anticipate(Endless(frames), model):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_bytes(150)
    assert peak_bytes(1500) < peak_bytes(150) + 100_000


def test_a_long_pause_is_leapt_over_and_the_window_filled_anew() -> None:
    resampler = Resampler(10, 10)
    frame = next(Endless(1).frames()).frame
    times = (0, 0.1, 0.2, 1e9, 1e9 + 0.1)
    ticks = [tick for time_s in times for tick, _ in resampler.push(TimedFrame(time_s, frame))]
    ticks += [tick for tick, _ in resampler.finish()]
    pause = round(MAX_PAUSE_S * 10)
    assert len(ticks) < pause + 10
    assert max(ticks) == pytest.approx(1e10, abs=2)
    windows = SlidingWindow(clip_frames=3, stride=1, modality="rgb", short_side=8, flow=None)
    ends = [window.last for tick in ticks for window in windows.push(tick, frame, "paused")]
    assert ends[0] == 2
    assert all(last not in ends for last in ticks[-2:])


def test_an_eager_clock_does_not_wait_for_the_next_frame() -> None:
    frame = next(Endless(1).frames()).frame
    shown = []
    for eager in (False, True):
        resampler = Resampler(10, 10, eager=eager)
        shown.append([[tick for tick, _ in resampler.push(TimedFrame(n / 10, frame))] for n in range(4)])
    assert shown == [[[], [0], [1], [2]], [[0], [1], [2], [3]]]


def test_time_never_falls() -> None:
    timeline = Timeline(10)
    stamps = (5.0, 5.1, 5.05, None, 5.3, 0.0, 0.1, None, 90.0)
    placed = [round(timeline.place(stamp), 6) for stamp in stamps]
    assert placed == [0, 0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 90.4]


@pytest.mark.parametrize("modality", ["flow", "rgb,flow"])
def test_flow_leads_from_the_tick_before_as_in_records(modality: str) -> None:
    """And the first frame has that of the second."""
    rng = np.random.default_rng(0)
    scene = np.kron(rng.integers(0, 256, (16, 16)), np.ones((4, 4))).astype(np.uint8)
    grey = [np.roll(scene, 2 * shift, axis=1) for shift in range(4)]
    frames = [av.VideoFrame.from_ndarray(np.stack([g] * 3, axis=-1), format="rgb24") for g in grey]
    flow = describe_flow("farneback")
    windows = SlidingWindow(clip_frames=3, stride=1, modality=modality, short_side=64, flow=flow)
    clips = [window.clip for tick in range(4) for window in windows.push(tick, frames[tick], "scene")]
    flows = [flow_to_bytes(compute_flow(*grey[n : n + 2], flow), flow.bound) for n in range(3)]
    assert len(clips) == 2
    np.testing.assert_array_equal(clips[0][..., -2:], np.stack([flows[0], flows[0], flows[1]]))
    np.testing.assert_array_equal(clips[1][..., -2:], np.stack(flows))
    if modality == "rgb,flow":
        np.testing.assert_array_equal(clips[0][1, ..., 0], grey[1])


def test_predict_takes_a_path_a_folder_or_a_model_and_gives_typed_predictions(
    coded: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    monkeypatch.setattr(anticipating, "load_model", lambda folder: recorder.model)
    predictions = list(predict(coded["25"], tmp_path / "student"))
    assert [each.time_s for each in predictions] == [3 / 30, 11 / 30, 18 / 30, 26 / 30, 33 / 30, 41 / 30]
    first = predictions[0]
    assert (first.classes, first.top(1)) == (("a", "b"), [("b", 0.75)])
    assert first.probabilities.dtype == np.float32
    assert (first.expected_s, first.dropped) == (0.5, 0)
    assert first.latency_s > 0
    assert len(list(predict(str(coded["25"]), recorder.model, stride_s=0.5))) == 3
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(12):
        Image.new("RGB", (64, 48), (number, 0, 0)).save(frames / f"{number}.png")
    assert [each.time_s for each in predict(frames, recorder.model, source_fps=10.0)] == [
        0.1,
        11 / 30,
        0.6,
        26 / 30,
        1.1,
    ]
    assert next(predict(frames, recorder.model, fps=15.0)).time_s == 3 / 15


def test_what_predict_refuses_before_it_is_iterated_over(tmp_path: Path, coded: dict[str, Path]) -> None:
    with pytest.raises(VideoError, match="No such file"):
        predict(tmp_path / "none.mp4", tmp_path / "student")
    with pytest.raises(RunError, match="does not exist"):
        predict(coded["25"], tmp_path / "student")
    with pytest.raises(KdantError, match="--flow-algorithm"):
        predict(coded["25"], Recorder(modality="flow").model)


def test_a_stride_that_goes_nowhere(coded: dict[str, Path]) -> None:
    with pytest.raises(KdantError, match="`stride_s` should be above 0"):
        next(predict(coded["25"], Recorder().model, stride_s=0))


def test_the_example_in_the_docstring() -> None:
    assert doctest.testmod(anticipating) == (0, 2)

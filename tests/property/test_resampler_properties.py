"""Whatever the times of the frames, each tick shows the last frame at or before it."""

import av
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kdant_tf.anticipation.anticipate import Resampler, SlidingWindow
from kdant_tf.anticipation.sources import TimedFrame
from tf_records.video_file import TIME_STAMP_TOLERANCE_S

PICTURE = np.zeros((8, 8, 3), np.uint8)
GAPS = st.lists(st.floats(0, 1.5), max_size=30)
RATES = st.floats(1, 60)


@given(GAPS, RATES, RATES)
def test_ticks(gaps: list[float], rate: float, fps: float) -> None:
    times = [0.0, *np.cumsum(gaps).tolist()]
    frames = [av.VideoFrame.from_ndarray(PICTURE, format="rgb24") for _ in times]
    resampler = Resampler(rate, fps)
    shown = []
    for time_s, frame in zip(times, frames, strict=True):
        shown += list(resampler.push(TimedFrame(time_s, frame)))
    shown += list(resampler.finish())
    assert [tick for tick, _ in shown] == list(range(len(shown)))
    for tick, frame in shown:
        tick_s = tick / fps + TIME_STAMP_TOLERANCE_S
        assert frame is frames[max(n for n, time_s in enumerate(times) if time_s <= tick_s)]
    end_s = times[-1] + 1 / rate
    assert (len(shown) - 1) / fps < end_s <= len(shown) / fps + TIME_STAMP_TOLERANCE_S + 1e-9


@given(GAPS, RATES, RATES)
def test_an_eager_clock_shows_no_later_frame_and_skips_no_tick(
    gaps: list[float], rate: float, fps: float
) -> None:
    resampler, shown, before = Resampler(rate, fps, eager=True), 0, None
    for time_s in [0.0, *np.cumsum(gaps).tolist()]:
        frame = av.VideoFrame.from_ndarray(PICTURE, format="rgb24")
        for tick, given_frame in resampler.push(TimedFrame(time_s, frame)):
            assert tick == shown
            assert given_frame in (before, frame)
            shown += 1
            if given_frame is frame:
                assert time_s <= tick / fps + TIME_STAMP_TOLERANCE_S
        before = frame


@given(st.integers(1, 9), st.floats(0.1, 25), st.integers(1, 120))
def test_windows_come_once_a_stride(clip_frames: int, stride: float, ticks: int) -> None:
    windows = SlidingWindow(clip_frames=clip_frames, stride=stride, modality="rgb", short_side=8, flow=None)
    frame = av.VideoFrame.from_ndarray(PICTURE, format="rgb24")
    given_windows = [each for tick in range(ticks) for each in windows.push(tick, frame, "ticks")]
    assert all(each.last - each.first == clip_frames - 1 for each in given_windows)
    # A window is due at each whole number of strides; several due at one tick are one.
    due = {int(np.ceil(number * stride - 1e-9)) for number in range(int(ticks / stride) + 2)}
    assert [each.first for each in given_windows] == sorted(due & set(range(ticks - clip_frames + 1)))

"""For any video, action and ClipSpec: the windows fit, and the future stays out of the observed clip."""

from hypothesis import given
from hypothesis import strategies as st

from tf_records.pairing import Pair, Window, pair_for_anticipation, pair_for_prefix, pair_for_training
from tf_records.schema import ClipSpec


@st.composite
def actions(draw: st.DrawFn) -> tuple[int, Window, ClipSpec]:
    frames = draw(st.integers(1, 400))
    first = draw(st.integers(0, frames - 1))
    clip = ClipSpec(clip_frames=draw(st.integers(1, 64)), offset_frames=draw(st.integers(1, 120)))
    return frames, Window(first, draw(st.integers(first + 1, frames))), clip


def assert_fits(pair: Pair, frames: int, clip: ClipSpec) -> None:
    for window in (pair.observed, pair.future):
        assert 0 <= window.first < window.stop <= frames
    assert pair.offset_frames == pair.future.first - pair.observed.first
    assert 0 <= pair.offset_frames <= clip.offset_frames
    assert pair.shortened == (pair.offset_frames < clip.offset_frames)
    assert pair.repeated == (min(pair.observed.frames, pair.future.frames) < clip.clip_frames)
    assert pair.repeated == (frames < clip.clip_frames)


def assert_no_leak(pair: Pair, clip: ClipSpec) -> None:
    """For every start that the reader may draw for both clips."""
    if pair.shortened or pair.repeated or clip.gap_frames < 0:
        return
    shared = min(pair.observed.frames, pair.future.frames) - clip.clip_frames + 1
    assert shared >= 1
    for start in range(shared):
        observed = range(pair.observed.first + start, pair.observed.first + start + clip.clip_frames)
        assert observed[-1] < pair.observed.stop
        assert observed[-1] < pair.future.first + start
        assert pair.future.first + start - observed[-1] - 1 == clip.gap_frames


@given(actions())
def test_training_segments_fit_and_do_not_leak(case: tuple[int, Window, ClipSpec]) -> None:
    frames, action, clip = case
    pair = pair_for_training(frames, action, clip)
    assert_fits(pair, frames, clip)
    assert_no_leak(pair, clip)
    assert pair.observed.frames == pair.future.frames
    assert pair.observed.frames >= min(clip.clip_frames, frames)


@given(actions())
def test_training_futures_lie_in_the_action_where_it_is_a_clip_long(
    case: tuple[int, Window, ClipSpec],
) -> None:
    frames, action, clip = case
    future = pair_for_training(frames, action, clip).future
    assert future.stop >= action.stop
    if action.frames >= clip.clip_frames:
        assert action.first <= future.first
        assert future.stop == action.stop


@given(actions())
def test_test_segments_fit_and_do_not_leak(case: tuple[int, Window, ClipSpec]) -> None:
    frames, action, clip = case
    pair = pair_for_anticipation(frames, action, clip)
    assert_fits(pair, frames, clip)
    assert_no_leak(pair, clip)
    assert pair.observed.frames == min(clip.clip_frames, frames)


@given(actions())
def test_an_unmarked_test_record_observes_nothing_of_the_action(case: tuple[int, Window, ClipSpec]) -> None:
    frames, action, clip = case
    pair = pair_for_anticipation(frames, action, clip)
    if action.frames >= clip.clip_frames and clip.gap_frames >= 0 and not (pair.shortened or pair.repeated):
        assert pair.observed.stop <= action.first
        assert pair.future == action


@given(st.integers(1, 400), st.integers(1, 100), st.integers(1, 64))
def test_a_prefix_is_the_smallest_that_reaches_its_share(frames: int, percent: int, clip_frames: int) -> None:
    pair = pair_for_prefix(frames, percent / 100, ClipSpec(clip_frames=clip_frames))
    assert pair.future == Window(0, frames)
    assert pair.observed.first == 0
    assert (pair.observed.frames - 1) * 100 < percent * frames <= pair.observed.frames * 100
    assert pair.repeated == (pair.observed.frames < clip_frames)

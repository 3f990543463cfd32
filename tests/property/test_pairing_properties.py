"""For any video, action and Spacing: the windows fit, and the future stays out of the observed clip."""

from hypothesis import given
from hypothesis import strategies as st

from tf_records.plan import (
    FrameRange,
    Pair,
    Spacing,
    frames_for_training,
    pair_for_anticipation,
    pair_for_prefix,
    pair_for_training,
)


@st.composite
def actions(draw: st.DrawFn) -> tuple[int, FrameRange, Spacing]:
    frames = draw(st.integers(1, 400))
    first = draw(st.integers(0, frames - 1))
    spacing = Spacing(draw(st.integers(1, 64)), draw(st.integers(1, 120)), draw(st.booleans()))
    return frames, FrameRange(first, draw(st.integers(first + 1, frames))), spacing


def assert_fits(pair: Pair, frames: int, spacing: Spacing) -> None:
    for window in (pair.observed, pair.future):
        assert 0 <= window.first < window.stop <= frames
    assert pair.offset_frames == pair.future.first - pair.observed.first
    assert 0 <= pair.offset_frames <= spacing.offset_frames
    assert pair.shortened == (pair.offset_frames < spacing.offset_frames)
    assert pair.repeated == (min(pair.observed.frames, pair.future.frames) < spacing.clip_frames)
    assert pair.repeated == (frames < spacing.clip_frames)


def assert_no_leak(pair: Pair, spacing: Spacing) -> None:
    """For every start that the reader may draw for both clips."""
    gap_frames = spacing.offset_frames - spacing.clip_frames
    if pair.shortened or pair.repeated or gap_frames < 0:
        return
    shared = min(pair.observed.frames, pair.future.frames) - spacing.clip_frames + 1
    assert shared >= 1
    for start in range(shared):
        observed = range(pair.observed.first + start, pair.observed.first + start + spacing.clip_frames)
        assert observed[-1] < pair.observed.stop
        assert observed[-1] < pair.future.first + start
        assert pair.future.first + start - observed[-1] - 1 == gap_frames


@given(actions())
def test_training_segments_fit_and_do_not_leak(case: tuple[int, FrameRange, Spacing]) -> None:
    frames, action, spacing = case
    pair = pair_for_training(frames, action, spacing)
    assert_fits(pair, frames, spacing)
    assert_no_leak(pair, spacing)
    assert pair.observed.frames == pair.future.frames
    assert pair.observed.frames >= min(spacing.clip_frames, frames)


@given(st.integers(1, 400), st.integers(1, 64), st.integers(1, 120), st.booleans())
def test_the_frames_for_training_on_a_whole_video_hold_both_segments(
    frames: int, clip_frames: int, offset_frames: int, before_action: bool
) -> None:
    spacing = Spacing(clip_frames, offset_frames, before_action)
    pair = pair_for_training(frames, FrameRange(0, frames), spacing)
    wanted = frames_for_training(spacing)
    assert (wanted is None) == (not before_action)
    assert max(pair.observed.stop, pair.future.stop) <= (frames if wanted is None else wanted)


@given(actions())
def test_training_futures_lie_in_the_action_where_it_is_a_clip_long(
    case: tuple[int, FrameRange, Spacing],
) -> None:
    frames, action, spacing = case
    future = pair_for_training(frames, action, spacing).future
    if not spacing.before_action:
        assert future.stop >= action.stop
    if action.frames >= spacing.clip_frames:
        assert action.first <= future.first
        assert future.stop <= action.stop


@given(actions())
def test_no_observed_training_frame_reaches_the_future_segment_before_an_action(
    case: tuple[int, FrameRange, Spacing],
) -> None:
    frames, action, spacing = case
    pair = pair_for_training(frames, action, spacing._replace(before_action=True))
    whole = pair_for_training(frames, action, spacing._replace(before_action=False))
    assert (pair.offset_frames, pair.future.first) == (whole.offset_frames, whole.future.first)
    if pair.offset_frames >= spacing.clip_frames:
        assert pair.observed.stop <= pair.future.first
    else:
        assert pair.future.frames == min(spacing.clip_frames, frames)


@given(actions())
def test_test_segments_fit_and_do_not_leak(case: tuple[int, FrameRange, Spacing]) -> None:
    frames, action, spacing = case
    pair = pair_for_anticipation(frames, action, spacing)
    assert_fits(pair, frames, spacing)
    assert_no_leak(pair, spacing)
    assert pair.observed.frames == min(spacing.clip_frames, frames)


@given(actions())
def test_an_unmarked_test_record_observes_nothing_of_the_action(
    case: tuple[int, FrameRange, Spacing],
) -> None:
    frames, action, spacing = case
    pair = pair_for_anticipation(frames, action, spacing)
    gap_frames = spacing.offset_frames - spacing.clip_frames
    if action.frames >= spacing.clip_frames and gap_frames >= 0 and not (pair.shortened or pair.repeated):
        assert pair.observed.stop <= action.first
        assert pair.future == action


@given(actions(), st.integers(1, 200))
def test_a_longer_test_segment_holds_the_same_clip_and_nothing_of_the_action(
    case: tuple[int, FrameRange, Spacing], longest_offset: int
) -> None:
    frames, action, spacing = case
    plain = pair_for_anticipation(frames, action, spacing)
    pair = pair_for_anticipation(frames, action, spacing._replace(longest_offset=longest_offset))
    assert (pair.future, pair.offset_frames) == (plain.future, plain.offset_frames)
    assert pair.observed.first <= plain.observed.first
    assert pair.observed.stop == max(plain.observed.stop, pair.future.first)
    assert pair.observed.first == min(plain.observed.first, max(0, pair.future.first - longest_offset))
    assert pair.future.first - pair.observed.first >= pair.offset_frames


@given(st.integers(1, 400), st.integers(1, 100), st.integers(1, 64))
def test_a_prefix_is_the_smallest_that_reaches_its_share(frames: int, percent: int, clip_frames: int) -> None:
    pair = pair_for_prefix(frames, percent / 100, Spacing(clip_frames, 15))
    assert pair.future == FrameRange(0, frames)
    assert pair.observed.first == 0
    assert (pair.observed.frames - 1) * 100 < percent * frames <= pair.observed.frames * 100
    assert pair.repeated == (pair.observed.frames < clip_frames)

"""The frame numbers of the two segments of a record."""

import pytest

from tf_records.plan import (
    FrameRange,
    Spacing,
    pair_for_anticipation,
    pair_for_prefix,
    pair_for_training,
)

JHMDB = Spacing(clip_frames=8, offset_frames=15)
# On a clock of 60 frames per second: 32 frames, then one second.
EPIC = Spacing(clip_frames=32, offset_frames=92, before_action=True)


def test_forty_frames_leave_room_for_the_whole_offset() -> None:
    pair = pair_for_training(40, FrameRange(0, 40), JHMDB)
    assert (pair.observed, pair.future) == (FrameRange(0, 25), FrameRange(15, 40))
    assert (pair.offset_frames, pair.shortened, pair.repeated) == (15, False, False)


def test_twenty_frames_shorten_the_offset_to_twelve_and_say_so() -> None:
    pair = pair_for_training(20, FrameRange(0, 20), JHMDB)
    assert (pair.observed, pair.future) == (FrameRange(0, 8), FrameRange(12, 20))
    assert (pair.offset_frames, pair.shortened, pair.repeated) == (12, True, False)


@pytest.mark.parametrize("frames", [1, 5, 7])
def test_a_video_shorter_than_a_clip_is_repeated(frames: int) -> None:
    pair = pair_for_training(frames, FrameRange(0, frames), JHMDB)
    assert pair.observed == pair.future == FrameRange(0, frames)
    assert pair.offset_frames == 0
    assert pair.shortened
    assert pair.repeated


def test_an_action_late_enough_keeps_its_first_frame_in_training() -> None:
    pair = pair_for_training(100, FrameRange(60, 90), JHMDB)
    assert (pair.observed, pair.future) == (FrameRange(45, 75), FrameRange(60, 90))
    assert not pair.shortened


def test_an_action_at_the_start_gives_future_clips_only_from_the_offset_on() -> None:
    pair = pair_for_training(100, FrameRange(5, 40), JHMDB)
    assert (pair.observed, pair.future) == (FrameRange(0, 25), FrameRange(15, 40))
    assert not pair.shortened


def test_the_training_segments_of_a_long_action_end_before_the_observed_one_reaches_it() -> None:
    pair = pair_for_training(1000, FrameRange(300, 900), EPIC)
    assert (pair.observed, pair.future) == (FrameRange(208, 300), FrameRange(300, 392))
    assert (pair.offset_frames, pair.shortened) == (92, False)


def test_an_early_action_shifts_the_future_before_it_shrinks_the_offset() -> None:
    pair = pair_for_training(1000, FrameRange(40, 200), EPIC)
    assert (pair.observed, pair.future) == (FrameRange(0, 92), FrameRange(92, 184))
    short = pair_for_training(1000, FrameRange(40, 90), EPIC)
    assert (short.observed, short.future) == (FrameRange(0, 32), FrameRange(58, 90))
    assert (short.offset_frames, short.shortened) == (58, True)


def test_a_test_record_of_a_long_action_holds_all_of_it() -> None:
    pair = pair_for_anticipation(1000, FrameRange(300, 900), EPIC)
    assert (pair.observed, pair.future) == (FrameRange(208, 240), FrameRange(300, 900))


def test_an_action_shorter_than_a_clip_is_widened_forward() -> None:
    assert pair_for_training(100, FrameRange(50, 53), JHMDB).future == FrameRange(50, 58)


def test_an_action_at_the_very_end_is_widened_backward() -> None:
    assert pair_for_training(100, FrameRange(98, 100), JHMDB).future == FrameRange(92, 100)


def test_a_test_record_observes_one_clip_before_the_action() -> None:
    pair = pair_for_anticipation(100, FrameRange(60, 90), JHMDB)
    assert (pair.observed, pair.future) == (FrameRange(45, 53), FrameRange(60, 90))
    assert not pair.shortened


def test_a_test_record_of_an_early_action_holds_the_whole_action_and_is_marked() -> None:
    """Frames 5 to 7 are in the observed clip: the offset back from the action's start is 5, not 15."""
    pair = pair_for_anticipation(100, FrameRange(5, 40), JHMDB)
    assert pair.observed == FrameRange(0, 8)
    assert pair.future == FrameRange(5, 40)
    assert pair.shortened


@pytest.mark.parametrize(
    ("frames", "observed"), [(15, 3), (16, 4), (20, 4), (35, 7), (36, 8), (40, 8), (1, 1)]
)
def test_the_first_fifth_is_rounded_up_exactly(frames: int, observed: int) -> None:
    pair = pair_for_prefix(frames, 0.2, JHMDB)
    assert (pair.observed, pair.future) == (FrameRange(0, observed), FrameRange(0, frames))
    assert not pair.shortened


def test_the_first_tenth_share_is_exact_for_every_length() -> None:
    for tenths in range(1, 11):
        for frames in range(1, 300):
            pair = pair_for_prefix(frames, tenths / 10, JHMDB)
            assert pair.observed.frames == -(-frames * tenths // 10)


def test_a_prefix_shorter_than_a_clip_is_marked_as_repeated() -> None:
    assert pair_for_prefix(35, 0.2, JHMDB).repeated
    assert not pair_for_prefix(36, 0.2, JHMDB).repeated

"""From an action in a video to the two frame windows of a record. Pure functions on frame numbers.

A window is half open, [first, stop), in frames of the video. Clips are drawn from the windows by the
reader, both with the same start, so that x_{t-tau} and x_t stay `offset_frames` apart.
"""

import dataclasses
import math
from fractions import Fraction
from typing import NamedTuple


class Window(NamedTuple):
    """Frames [first, stop)."""

    first: int
    stop: int

    @property
    def frames(self) -> int:
        return self.stop - self.first


class Spacing(NamedTuple):
    """A ClipSpec in frames of one video's clock.

    `before_action`: no observed training clip may show the action, where the video leaves room for
    that (protocols whose tau is measured to the start of the action). `longest_offset`: observed test
    segments begin so far before the action, and end with its start, for evaluation at other distances.
    """

    clip_frames: int
    offset_frames: int
    before_action: bool = False
    longest_offset: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The observed and the future segment of one record.

    `offset_frames` is the true distance of two clips drawn with the same start; it is below the
    Spacing's, and `shortened` says so, where the video leaves no room. `repeated` marks a segment
    shorter than a clip.
    """

    observed: Window
    future: Window
    offset_frames: int
    shortened: bool
    repeated: bool


def pair_for_training(num_frames: int, action: Window, spacing: Spacing) -> Pair:
    """Segments from which training draws clips anew each epoch.

    Future clips lie in the action, observed clips `offset_frames` earlier. An action shorter than a
    clip is widened to one. Where the offset reaches back beyond the video's first frame the future
    segment starts later, and if no clip is left then, the future clip moves back to end with the
    action and the offset shrinks. With `before_action` the segments end where the observed one would
    reach the future one.
    """
    action = _widen_to_clip(num_frames, action, spacing.clip_frames)
    last_start = action.stop - spacing.clip_frames
    first = max(action.first, min(spacing.offset_frames, last_start))
    offset_frames = min(spacing.offset_frames, first)
    stop = action.stop
    if spacing.before_action:
        stop = min(stop, first + max(spacing.clip_frames, offset_frames))
    observed = Window(first - offset_frames, stop - offset_frames)
    return _pair(observed, Window(first, stop), offset_frames, spacing)


def frames_for_training(spacing: Spacing) -> int | None:
    """The first so many frames hold the training segments of an action that is the whole video; None is all.

    However long the video is: what comes later need not be encoded.
    """
    if not spacing.before_action:
        return None
    return spacing.offset_frames + max(spacing.clip_frames, spacing.offset_frames)


def pair_for_anticipation(num_frames: int, action: Window, spacing: Spacing) -> Pair:
    """Segments of a test record: one observed clip, before the action as far as the video allows.

    With a `longest_offset` that clip lies within a longer segment, at `offset_frames` before the action.
    """
    action = _widen_to_clip(num_frames, action, spacing.clip_frames)
    offset_frames = min(spacing.offset_frames, action.first)
    first = action.first - offset_frames
    observed = Window(first, min(first + spacing.clip_frames, num_frames))
    if spacing.longest_offset is not None:
        earliest = max(0, action.first - spacing.longest_offset)
        observed = Window(min(first, earliest), max(observed.stop, action.first))
    return _pair(observed, action, offset_frames, spacing)


def pair_for_prefix(num_frames: int, fraction: float, spacing: Spacing) -> Pair:
    """Segments of a JHMDB test record: the first `fraction` of the frames, rounded up, and all of them."""
    observed_frames = math.ceil(Fraction(str(fraction)) * num_frames)
    return _pair(Window(0, observed_frames), Window(0, num_frames), 0, spacing, shortened=False)


def _widen_to_clip(num_frames: int, action: Window, clip_frames: int) -> Window:
    stop = min(max(action.stop, action.first + clip_frames), num_frames)
    return Window(max(0, min(action.first, stop - clip_frames)), stop)


def _pair(
    observed: Window, future: Window, offset_frames: int, spacing: Spacing, shortened: bool | None = None
) -> Pair:
    return Pair(
        observed=observed,
        future=future,
        offset_frames=offset_frames,
        shortened=offset_frames < spacing.offset_frames if shortened is None else shortened,
        repeated=min(observed.frames, future.frames) < spacing.clip_frames,
    )

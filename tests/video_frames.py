"""Frames of a whole video, and of a stretch of a clock, as records get them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tf_records.sources.sample import FolderClock
from tf_records.video import open_video


def stored_frames(path: str | Path, *, short_side: int | None = None) -> Iterator[np.ndarray]:
    """Every stored frame in order, whatever its time stamp: uint8 `(H, W, 3)`, RGB."""
    with open_video(path, short_side=short_side) as video:
        yield from video.stored()


def clock_frames(
    path: str | Path, first: int, stop: int, *, fps: float | None = None, folder: FolderClock | None = None
) -> Iterator[np.ndarray]:
    """Frames `first` to `stop` - 1 of a clock of `fps`, or of the video's own."""
    with open_video(path, folder) as video:
        yield from video.shown_at([video.info.shown_s(tick, fps) for tick in range(first, stop)])

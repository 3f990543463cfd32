"""From a video file, or a folder of pictures, to RGB frames."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from tf_records.frame_folder import FrameFolder, holds_frames
from tf_records.sources.sample import FolderClock
from tf_records.video_file import Limits, Resizer, VideoFile, VideoInfo

Video = VideoFile | FrameFolder
_LIMITS = Limits()


@contextmanager
def open_video(
    path: str | os.PathLike[str],
    folder: FolderClock | None = None,
    *,
    short_side: int | None = None,
    limits: Limits = _LIMITS,
) -> Iterator[Video]:
    """Opens a video, whose `stored` and `shown_at` then give its frames.

    Args:
        path: a video file, or a folder of frames.
        folder: what is known of the latter.
        short_side: pixels that the shorter side of the frames should have, or None for their own.
        limits: what the video may ask for.

    Raises:
        VideoError: no such file, not a video, no frame rate, or beyond the limits.
    """
    name, resizer = os.fspath(path), Resizer(short_side, limits)
    if holds_frames(name):
        yield FrameFolder(name, folder, resizer, limits)
        return
    video = VideoFile(name, resizer, limits)
    try:
        yield video
    finally:
        video.close()


def probe(
    path: str | os.PathLike[str], folder: FolderClock | None = None, *, limits: Limits = _LIMITS
) -> VideoInfo:
    """Reads the container's header; reads on, without decoding, only where that states no duration.

    Raises:
        VideoError: as `open_video`.
    """
    with open_video(path, folder, limits=limits) as video:
        return video.info


def read_all_frames(path: str | os.PathLike[str], *, short_side: int | None = None) -> Iterator[np.ndarray]:
    """Yields every stored frame in order, whatever its time stamp.

    Data sets that count frames (JHMDB) count these: its files were written at 30 frames per second
    with the duplicates left out, so that 40 stored frames span 48 ticks of the clock.

    Yields:
        uint8 `(H, W, 3)`, RGB.

    Raises:
        VideoError: the file cannot be decoded, or ends before the end its header gives.
    """
    with open_video(path, short_side=short_side) as video:
        yield from video.stored()


def read_clock_frames(
    path: str | os.PathLike[str],
    first: int,
    stop: int,
    *,
    fps: float | None = None,
    folder: FolderClock | None = None,
) -> Iterator[np.ndarray]:
    """Yields frames `first` to `stop` - 1 of a clock.

    A tick shows the stored frame nearest to it at or before it, so that a clock of another rate never
    shows the future; a tick without a frame of its own (dropped frames, variable rate) shows the one
    before. Only the part of the file from the key frame before `first` is decoded.

    Args:
        path: a video file, or a folder of frames.
        first, stop: ticks.
        fps: rate of the clock, or None for the video's own mean rate.
        folder: what is known of a folder of frames.

    Yields:
        uint8 `(H, W, 3)`, RGB.

    Raises:
        VideoError: the file cannot be decoded, or ends before frame `first`.
    """
    with open_video(path, folder) as video:
        yield from video.shown_at([video.info.shown_s(tick, fps) for tick in range(first, stop)])

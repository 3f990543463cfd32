"""From a video file, or a folder of pictures, to RGB frames."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tf_records.container import Limits
from tf_records.frame_folder import FrameFolder, holds_frames
from tf_records.sources.sample import FolderClock
from tf_records.video_file import Resizer, VideoFile, VideoInfo

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

"""A video, whether it is a file or a folder of numbered images, as data sets hand out extracted frames."""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import av
import numpy as np
from PIL import Image

from tf_records.container import Limits
from tf_records.errors import VideoError
from tf_records.sources.sample import FolderClock
from tf_records.video_file import Resizer, VideoFile, VideoInfo

_PICTURE = re.compile(r"(?P<prefix>.*?)(?P<number>[0-9]{1,18})(?P<suffix>\.(?:jpe?g|png))", re.IGNORECASE)
# A folder may lack or have a few frames more than its rate says; more than that is another rate.
_LENGTH_TOLERANCE = 0.01
_SPARE_FRAMES = 2
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


def holds_frames(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a folder with a numbered picture in it."""
    if not os.path.isdir(path):
        return False
    with os.scandir(path) as entries:
        return any(_PICTURE.fullmatch(entry.name) for entry in entries)


def count_frames(path: str | os.PathLike[str]) -> int:
    """Pictures in the folder. Raises what `read_pictures` raises for a bad folder."""
    return len(_list_pictures(os.fspath(path), os.stat(path).st_mtime_ns))


def find_rate(path: str | os.PathLike[str], clock: FolderClock | None) -> float:
    """The rate, of those that the annotations allow, that the number of frames fits.

    EPIC-KITCHENS hands out frames taken at 60 a second from videos of 59.94: over half an hour that is
    two seconds, more than the protocol's tau.

    Raises:
        VideoError: the annotations state no rate, or none of theirs fits.
    """
    if clock is None:
        raise VideoError(f"{path} is a folder of frames, but no rate is known for it. Give the video file.")
    frames = count_frames(path)
    rate = min(clock.rates, key=lambda rate: abs(frames - rate * clock.duration_s))
    if abs(frames - rate * clock.duration_s) > _SPARE_FRAMES + _LENGTH_TOLERANCE * rate * clock.duration_s:
        rates = " or ".join(f"{rate:.5g}" for rate in clock.rates)
        raise VideoError(
            f"{path} holds {frames} frames, but {clock.duration_s:.2f} s at {rates} frames per second are "
            f"{round(rate * clock.duration_s)}. Extract the frames again, or correct the annotations' rate."
        )
    return rate


class FrameFolder:
    """Frames of one folder, counted from 0.

    `frames_decoded` counts the pictures read. A damaged one is refused, so that `shows_damage` is never true.

    Raises:
        VideoError: no frames, a number missing between the first and the last, a first number above 1, or
            no rate that fits.
    """

    def __init__(self, path: str, clock: FolderClock | None, resizer: Resizer, limits: Limits) -> None:
        self.path = path
        self.frames_decoded = 0
        self.shows_damage = False
        self.damaged_s: set[float] = set()
        self._resizer = resizer
        self._limits = limits
        self._clock = clock
        self._names = _list_pictures(path, os.stat(path).st_mtime_ns)

    @property
    def info(self) -> VideoInfo:
        fps = find_rate(self.path, self._clock)
        return VideoInfo(fps=fps, duration_s=len(self._names) / fps)

    @property
    def frames(self) -> int:
        """Pictures in the folder."""
        return len(self._names)

    def picture(self, number: int) -> av.VideoFrame:
        """Frame `number` in its own size. Raises VideoError where it cannot be read."""
        return self._load(os.path.join(self.path, self._names[number]))

    def stored(self) -> Iterator[np.ndarray]:
        """Every frame in order: uint8 `(H, W, 3)`, RGB."""
        return self._read(range(len(self._names)))

    def shown_at(self, times_s: Sequence[float]) -> Iterator[np.ndarray]:
        """For each time, ascending, the frame that is shown then; beyond the last, the last.

        Times that show the same frame get the same array.

        Raises:
            VideoError: frames of different sizes, or one that cannot be read.
        """
        fps = self.info.fps
        return self._read(min(math.floor(time_s * fps), len(self._names) - 1) for time_s in times_s)

    def _read(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:
        before: int | None = None
        size: tuple[int, int] | None = None
        for number in numbers:
            if number != before:
                frame = self.picture(number)
                if size is not None and (frame.width, frame.height) != size:
                    raise VideoError(
                        f"{os.path.join(self.path, self._names[number])} is {frame.width}x{frame.height}, "
                        f"the frame before it is not."
                    )
                before, size = number, (frame.width, frame.height)
                picture = self._resizer.convert(frame, self.path)
            yield picture

    def _load(self, path: str) -> av.VideoFrame:
        try:
            with Image.open(path) as image:
                self._limits.check_size(path, *image.size)
                rgb = np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            reason = getattr(error, "strerror", None) or str(error).replace(f" {path!r}", "")
            raise VideoError(f"{path} cannot be read as a picture: {reason}.") from error
        self.frames_decoded += 1
        return av.VideoFrame.from_ndarray(rgb, format="rgb24")


@functools.lru_cache(maxsize=4)
def _list_pictures(path: str, changed_ns: int) -> list[str]:
    """Names in the order of their numbers. `changed_ns` keeps a changed folder from being remembered."""
    found: dict[int, str] = {}
    for name in os.listdir(path):
        match = _PICTURE.fullmatch(name)
        if match is None:
            continue
        number = int(match["number"])
        if number in found:
            raise VideoError(f"{path} has two frames of one number: {found[number]} and {name}. Keep one.")
        found[number] = name
    if not found:
        raise VideoError(f"{path} holds no frames such as frame_0000000001.jpg.")
    first, last = min(found), max(found)
    if first > 1 or last - first + 1 != len(found):
        gap = next((n for n in range(min(first, 1), last) if n not in found and n > 0), 1)
        raise VideoError(f"{path} lacks frame {gap}, though it has frame {last}. Extract the frames again.")
    return [found[number] for number in range(first, last + 1)]


Video = VideoFile | FrameFolder

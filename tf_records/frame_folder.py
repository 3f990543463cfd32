"""A video that lies as a folder of numbered pictures, as data sets hand out extracted frames."""

import functools
import os
import re
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tf_records.errors import VideoError
from tf_records.sources.sample import FolderClock

_PICTURE = re.compile(r"(?P<prefix>.*?)(?P<number>[0-9]{1,18})(?P<suffix>\.(?:jpe?g|png))", re.IGNORECASE)
# A folder may lack or have a few frames more than its rate says; more than that is another rate.
_LENGTH_TOLERANCE = 0.01
_SPARE_FRAMES = 2


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


def read_pictures(path: str | os.PathLike[str], numbers: Iterator[int]) -> Iterator[np.ndarray]:
    """Yields the frames with these numbers, counted from 0; beyond the last, the last.

    Yields:
        uint8 `(H, W, 3)`, RGB.

    Raises:
        VideoError: no frames, a number missing between the first and the last, a first number above 1,
            frames of different sizes, or one that cannot be read.
    """
    names = _list_pictures(os.fspath(path), os.stat(path).st_mtime_ns)
    shape: tuple[int, ...] | None = None
    for number in numbers:
        picture = os.path.join(path, names[min(number, len(names) - 1)])
        try:
            with Image.open(picture) as image:
                frame = np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            reason = getattr(error, "strerror", None) or str(error).replace(f" {picture!r}", "")
            raise VideoError(f"{picture} cannot be read as a picture: {reason}.") from error
        if shape is not None and frame.shape != shape:
            raise VideoError(f"{picture} is {frame.shape[1]}x{frame.shape[0]}, the frame before it is not.")
        shape = frame.shape
        yield frame


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

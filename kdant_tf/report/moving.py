"""A pair of clips as one looping picture."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

HEIGHT = 112
MOST_FRAMES = 16
# The last frame stays, so that the loop jumps about once a second and not four times.
_HOLD_MS = 700
_GAP, _GAP_GREY = 6, 128
_QUALITY = 70


def side_by_side(observed: np.ndarray, future: np.ndarray) -> list[Image.Image]:
    """Frames with the observed clip on the left and the future one on the right, a bar between them.

    Args:
        observed, future: RGB `(T, H, W, 3)` in [0, 1], of one size; of more than MOST_FRAMES frames some
            are left out evenly.
    """
    kept = range(0, len(observed), -(-len(observed) // MOST_FRAMES))
    return [_join(observed[number], future[number]) for number in kept]


def _join(left: np.ndarray, right: np.ndarray) -> Image.Image:
    halves = [Image.fromarray(np.round(255 * half).astype(np.uint8)) for half in (left, right)]
    width = max(1, round(halves[0].width * HEIGHT / halves[0].height))
    joined = Image.new("RGB", (2 * width + _GAP, HEIGHT), (_GAP_GREY,) * 3)
    for half, at in zip(halves, (0, width + _GAP), strict=True):
        joined.paste(half.resize((width, HEIGHT), Image.Resampling.BICUBIC), (at, 0))
    return joined


def encode_still(frame: Image.Image) -> bytes:
    """WebP."""
    file = io.BytesIO()
    frame.save(file, "WEBP", quality=_QUALITY, method=4)
    return file.getvalue()


def encode_moving(frames: Sequence[Image.Image], seconds: float) -> bytes:
    """An animated WebP that loops, the last frame held.

    Args:
        frames: at least one.
        seconds: that the clip lasts; each frame stays for its part.
    """
    each_ms = max(1, round(1000 * seconds / len(frames)))
    durations = [each_ms] * (len(frames) - 1) + [max(each_ms, _HOLD_MS)]
    file = io.BytesIO()
    frames[0].save(
        file,
        "WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=0,
        quality=_QUALITY,
        method=4,
    )
    return file.getvalue()

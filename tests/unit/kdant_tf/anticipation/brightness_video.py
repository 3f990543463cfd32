"""Videos whose frames tell their number by their brightness."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

_STEP, _FIRST = 6, 20
MAX_FRAMES = (255 - _FIRST) // _STEP


def encode_brightness(
    path: Path, times: Sequence[Fraction], *, size: tuple[int, int] = (48, 64), rate: int | None = None
) -> Path:
    """A video that shows frame n from `times[n]` on, in seconds, at an even `rate` where it is given."""
    base = 90000 if rate is None else rate
    assert len(times) <= MAX_FRAMES
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=30 if rate is None else rate, options={"crf": "4", "preset": "ultrafast"}
        )
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, base)
        for number, time in enumerate(times):
            picture = np.full((*size, 3), _FIRST + _STEP * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(time * base), Fraction(1, base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def number_of(picture: np.ndarray) -> int:
    """Of a decoded frame, of any size."""
    return round((float(picture.mean()) - _FIRST) / _STEP)

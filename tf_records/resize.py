"""The one place where frames get their size: colours and size in one pass of ffmpeg's swscale."""

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image

from tf_records.limits import Limits

# For the manifest: numbers do not reproduce across resizes.
RESIZE = "swscale bilinear"
# swscale's bilinear widens with the scale, so that nothing aliases. The flags keep chroma at full
# resolution (without them large reductions lose 20 dB) and the bytes the same on every processor.
SWSCALE_FLAGS = (
    Interpolation.BILINEAR
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.BITEXACT
)


class Resizer:
    """Turns decoded frames into RGB whose shorter side has `short_side` pixels, or as many as it has."""

    def __init__(self, short_side: int | None, limits: Limits) -> None:
        self._short_side = short_side
        self._limits = limits
        self._reformatter = VideoReformatter()

    def convert(self, frame: av.VideoFrame, path: str) -> np.ndarray:
        """uint8 `(H, W, 3)`, turned upright as the frame's rotation mark says, in steps of 90 degrees.

        Raises:
            VideoError: the result would be too large.
        """
        width, height = frame.width, frame.height
        if self._short_side is not None:
            scale = self._short_side / min(width, height)
            width, height = round(width * scale), round(height * scale)
            self._limits.check_size(path, width, height)
        rgba = self._reformatter.reformat(
            frame, width, height, "rgba", interpolation=SWSCALE_FLAGS, threads=1
        ).to_ndarray()
        # Both count counterclockwise.
        return np.rot90(np.ascontiguousarray(rgba)[..., :3], round(frame.rotation / 90) % 4)


def to_picture(frame: np.ndarray) -> Image.Image:
    """A frame, RGB or grey, as Pillow's image.

    Pillow keeps four bytes a pixel, as `Resizer` does, so that most of its frames need not be copied.
    """
    height, width = frame.shape[:2]
    if frame.strides == (4 * width, 4, 1):
        whole = np.lib.stride_tricks.as_strided(frame, (height, width, 4))
        return Image.frombuffer("RGBX", (width, height), whole, "raw", "RGBX", 0, 1)
    return Image.fromarray(frame)

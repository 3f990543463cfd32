"""Pictures as data URIs, so that the page needs no other file. No TensorFlow here."""

import base64
import io
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from kdant_tf.report.content import Picture

_QUALITY = 90


def draw_inline(draw: Callable[[Path], object], *, alt: str, caption: str, frames: bool = False) -> Picture:
    """What a function writes into a PNG, as WebP.

    Args:
        draw: path of the PNG → anything.
        alt, caption: see Picture.
        frames: it shows frames of videos, which lossless compression leaves large.
    """
    with tempfile.TemporaryDirectory(prefix="kdant-") as folder:
        path = Path(folder) / "picture.png"
        draw(path)
        with Image.open(path) as image:
            width, height = image.size
            file = io.BytesIO()
            image.convert("RGB").save(file, "WEBP", lossless=not frames, quality=_QUALITY)
    source = data_uri("image/webp", file.getvalue())
    return Picture(source=source, width=width, height=height, alt=alt, caption=caption)


def data_uri(media_type: str, data: bytes) -> str:
    """Such as "data:image/webp;base64,UklGR…"."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"

"""Pictures as data URIs, so that the page needs no other file. No TensorFlow here."""

import base64
import io
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from kdant_tf.report.content import Picture


def draw_inline(draw: Callable[[Path], object], *, alt: str, caption: str) -> Picture:
    """What a function writes into a PNG.

    Args:
        draw: path of the PNG → anything.
        alt, caption: see Picture.
    """
    with tempfile.TemporaryDirectory(prefix="kdant-") as folder:
        path = Path(folder) / "picture.png"
        draw(path)
        data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
    return Picture(source=data_uri("image/png", data), width=width, height=height, alt=alt, caption=caption)


def data_uri(media_type: str, data: bytes) -> str:
    """Such as "data:image/png;base64,iVBOR…"."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"

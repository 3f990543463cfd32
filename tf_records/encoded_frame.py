"""From resized frames to what a record holds of each: a JPEG, and the optical flow that leads to it."""

import io
from collections.abc import Collection

import numpy as np
from PIL import Image

from tf_records.flow import compute_flow, flow_to_bytes
from tf_records.plan import BuildOptions
from tf_records.resize import to_picture
from tf_records.schema import FLOW, RGB

# Modality → its pictures, in the order of `schema.VIEW_KEYS`: one of RGB, u and v of flow.
EncodedFrame = dict[str, tuple[bytes, ...]]


def with_frames_before(needed: Collection[int], options: BuildOptions) -> set[int]:
    """The frames to decode so that the `needed` ones can be encoded: for flow, also the one before each."""
    if options.flow is None:
        return set(needed)
    return {*needed, *(number - 1 for number in needed if number > 0)}


class FrameEncoder:
    """Encodes frames of one clock, in rising order, in every modality of `options`.

    The flow of frame t leads from frame t - 1 to it and depends on nothing else; frame 0 has none, so its
    flow is zero.
    """

    def __init__(self, options: BuildOptions) -> None:
        self._options = options
        self._before: tuple[int, np.ndarray] | None = None
        self._jpeg: tuple[np.ndarray, bytes] | None = None

    def encode(self, number: int, frame: np.ndarray) -> EncodedFrame:
        """Encodes frame `number`, resized RGB uint8 `(H, W, 3)`.

        Raises:
            KdantError: OpenCV is missing, or too old for the flow asked for.
        """
        encoded: EncodedFrame = {}
        if RGB in self._options.modalities:
            # Where the clock is faster than the video, several ticks show one frame.
            if self._jpeg is None or frame is not self._jpeg[0]:
                self._jpeg = (frame, _to_jpeg(frame, self._options.jpeg_quality))
            encoded[RGB] = (self._jpeg[1],)
        if FLOW in self._options.modalities:
            encoded[FLOW] = _encode_flow(self._before, (number, frame), self._options)
        return encoded

    def remember(self, number: int, frame: np.ndarray) -> None:
        """Takes the frame that the next flow leads from."""
        self._before = (number, frame)


def _encode_flow(
    before: tuple[int, np.ndarray] | None, now: tuple[int, np.ndarray], options: BuildOptions
) -> tuple[bytes, bytes]:
    assert options.flow is not None  # BuildOptions has made sure of it
    number, frame = now
    if number == 0:
        flow = np.zeros((*frame.shape[:2], 2), np.float32)
    elif before is None or before[0] != number - 1:
        raise ValueError(f"The flow of frame {number} needs frame {number - 1}. Received: {before}.")
    else:
        flow = compute_flow(to_grey(before[1]), to_grey(frame), options.flow)
    u, v = (_to_jpeg(flow_to_bytes(flow[..., i], options.flow.bound), options.jpeg_quality) for i in range(2))
    return u, v


def to_grey(frame: np.ndarray) -> np.ndarray:
    """RGB uint8 `(H, W, 3)` → uint8 `(H, W)`, of which flow is computed."""
    return np.asarray(Image.fromarray(frame).convert("L"))


def _to_jpeg(picture: np.ndarray, quality: int) -> bytes:
    """JPEG of uint8 `(H, W, 3)` RGB or `(H, W)` grey."""
    buffer = io.BytesIO()
    to_picture(picture).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()

"""From resized frames to what a record holds of each: a JPEG, and the optical flow that leads to it."""

import io
from collections.abc import Collection, Iterable

import numpy as np
from PIL import Image

from tf_records.flow import compute_flow, flow_to_bytes
from tf_records.plan import BuildOptions
from tf_records.schema import FLOW, RGB

# Modality → its pictures, in the order of `schema.VIEW_KEYS`: one of RGB, u and v of flow.
EncodedFrame = dict[str, tuple[bytes, ...]]


def with_frames_before(needed: Collection[int], options: BuildOptions) -> set[int]:
    """The frames to decode so that the `needed` ones can be encoded: for flow, also the one before each."""
    if options.flow is None:
        return set(needed)
    return {*needed, *(number - 1 for number in needed if number > 0)}


def encode_frames(
    frames: Iterable[tuple[int, np.ndarray]], options: BuildOptions, needed: Collection[int] | None = None
) -> dict[int, EncodedFrame]:
    """Encodes the needed frames in every modality of `options`.

    The flow of frame t leads from frame t - 1 to it and depends on nothing else; frame 0 has none, so its
    flow is zero.

    Args:
        frames: (number in the video, resized RGB uint8 `(H, W, 3)`), in rising order.
        options: modality, quality, and how to compute flow.
        needed: numbers to encode, or None for all.

    Returns:
        Number → EncodedFrame.

    Raises:
        KdantError: OpenCV is missing, or too old for the flow asked for.
    """
    encoded: dict[int, EncodedFrame] = {}
    before: tuple[int, np.ndarray] | None = None
    for number, frame in frames:
        if needed is None or number in needed:
            encoded[number] = {}
            if RGB in options.modalities:
                encoded[number][RGB] = (_to_jpeg(frame, options.jpeg_quality),)
            if FLOW in options.modalities:
                encoded[number][FLOW] = _encode_flow(before, (number, frame), options)
        before = (number, frame)
    return encoded


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
        flow = compute_flow(_to_grey(before[1]), _to_grey(frame), options.flow)
    u, v = (_to_jpeg(flow_to_bytes(flow[..., i], options.flow.bound), options.jpeg_quality) for i in range(2))
    return u, v


def _to_grey(frame: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(frame).convert("L"))


def _to_jpeg(picture: np.ndarray, quality: int) -> bytes:
    """JPEG of uint8 `(H, W, 3)` RGB or `(H, W)` grey."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()

"""What happens to frames between a record and a network; the same functions train, evaluate and serve.

A crop is a square of 7/8 of the frame's shorter side (224 of 256, §4.2), scaled to the crop size asked
for: 224 of records with short side 256, and 112 of short side 128, are cut without any scaling. One
`Decision` is drawn for a pair and shared by both clips. Frames of three channels are RGB, those of two
optical flow (u, v) in the 8 bits of `schema.FLOW_ZERO`; flow stays in pixels of the stored frame, however
its crop is scaled.
"""

from fractions import Fraction
from typing import NamedTuple

import tensorflow as tf

from tf_records.schema import CHANNELS, FLOW, FLOW_STEPS, FLOW_ZERO

CROP_FRACTION = Fraction(7, 8)


class Decision(NamedTuple):
    """Random numbers of one sample: `start`, `top`, `left` float32 in [0, 1), `flip` bool."""

    start: tf.Tensor
    top: tf.Tensor
    left: tf.Tensor
    flip: tf.Tensor


def draw_decision(seed: int, epoch: int | tf.Tensor, index: tf.Tensor) -> Decision:
    """The decision of record `index` in `epoch`: a function of its arguments and of nothing else."""
    key = tf.random.fold_in(tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)]), index)
    start, top, left, flip = tf.unstack(tf.random.stateless_uniform((4,), seed=key))
    return Decision(start, top, left, flip < 0.5)


def clip_indices(num_frames: tf.Tensor, start: tf.Tensor, clip_frames: int) -> tf.Tensor:
    """Frame numbers of a clip: int32 `(clip_frames,)`; a shorter segment repeats in time order."""
    return (start + tf.range(clip_frames)) % num_frames


def window_starts(num_frames: tf.Tensor, clip_frames: int, windows: int) -> tf.Tensor:
    """Starts of evenly spaced windows, without repeats: int32 `(n,)`, 1 <= n <= `windows`.

    One window is the middle one.
    """
    last = tf.maximum(num_frames - clip_frames, 0)
    if windows == 1:
        return tf.reshape(last // 2, (1,))
    count = tf.minimum(windows, last + 1)
    return tf.range(count) * last // tf.maximum(count - 1, 1)


def decode_frames(encoded: tf.Tensor, indices: tf.Tensor, clip_frames: int) -> tf.Tensor:
    """JPEG strings `(N,)` → uint8 `(clip_frames, H, W, 3)`, decoding only the frames asked for."""
    chosen = tf.gather(encoded, indices)
    return tf.stack([decode_jpeg(chosen[i], channels=3) for i in range(clip_frames)])


def decode_flow(encoded: tf.Tensor, indices: tf.Tensor, clip_frames: int) -> tf.Tensor:
    """JPEG strings of u and v `(N, 2)` → uint8 `(clip_frames, H, W, 2)`, likewise."""
    chosen = tf.gather(encoded, indices)
    frames = [[decode_jpeg(chosen[i, j], channels=1) for j in range(2)] for i in range(clip_frames)]
    return tf.stack([tf.concat(u_and_v, axis=-1) for u_and_v in frames])


def decode_features(
    encoded: tf.Tensor, indices: tf.Tensor, clip_frames: int, shape: tuple[int | None, ...]
) -> tf.Tensor:
    """float16 bytes a frame `(N,)` → float32 `(clip_frames, *shape)`."""
    values = tf.io.decode_raw(tf.gather(encoded, indices), tf.float16)
    return tf.cast(tf.reshape(values, (clip_frames, *shape)), tf.float32)


def decode_map(raw: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """float16 bytes of a clip's features, a string scalar, → float16 `(T, H, W, C)` of `shape`."""
    return tf.reshape(tf.io.decode_raw(raw, tf.float16), shape)


def crop_map(features: tf.Tensor, decision: Decision | None, side: int) -> tf.Tensor:
    """float16 `(T, H, W, C)` → float32 `(T, side, side, C)`: the square decided on, or the middle one.

    There is no flip. The map of a mirrored clip is not the mirrored map: the stem's filters know left
    from right, and its strides begin at one side. §4.3 draws crops alone.
    """
    top, left = (tf.constant(0.5),) * 2 if decision is None else (decision.top, decision.left)
    y, x = _place(top, tf.shape(features)[1], side), _place(left, tf.shape(features)[2], side)
    return tf.cast(features[:, y : y + side, x : x + side], tf.float32)


def crop_randomly(frames: tf.Tensor, decision: Decision, crop: int) -> tf.Tensor:
    """uint8 `(T, H, W, C)` → float32 `(T, crop, crop, C)` in [-1, 1], cut and flipped as decided.

    In a mirror, what moved to the right moves to the left: u changes its sign.
    """
    cut = _cut_square(frames, decision.top, decision.left, crop, decision.flip)
    if not _is_flow(frames):
        return cut
    return tf.where(decision.flip, cut * (-1.0, 1.0), cut)


def crop_centrally(frames: tf.Tensor, crop: int) -> tf.Tensor:
    """uint8 `(T, H, W, C)` → float32 `(T, crop, crop, C)` in [-1, 1], the square in the middle."""
    middle = tf.constant(0.5)
    return _cut_square(frames, middle, middle, crop, tf.constant(False))


def scale(frames: tf.Tensor) -> tf.Tensor:
    """`(T, H, W, C)` in the range of 8 bits → float32 in [-1, 1]."""
    values = tf.cast(frames, tf.float32)
    if _is_flow(frames):
        # A JPEG may end a step beyond the values that went into it.
        return tf.clip_by_value((values - FLOW_ZERO) / FLOW_STEPS, -1.0, 1.0)
    return values / 127.5 - 1.0


def _cut_square(
    frames: tf.Tensor, top: tf.Tensor, left: tf.Tensor, crop: int, mirror: tf.Tensor
) -> tf.Tensor:
    """The square at shares `top` and `left` of its places, scaled, and mirrored while still in 8 bits."""

    def mirrored(square: tf.Tensor) -> tf.Tensor:
        return tf.cond(mirror, lambda: tf.reverse(square, axis=[2]), lambda: square)

    height, width = tf.shape(frames)[1], tf.shape(frames)[2]
    shorter = tf.minimum(height, width)
    side = (shorter * CROP_FRACTION.numerator + CROP_FRACTION.denominator // 2) // CROP_FRACTION.denominator
    y, x = _place(top, height, side), _place(left, width, side)
    square = frames[:, y : y + side, x : x + side, :]
    scaled = tf.cond(
        tf.equal(side, crop),
        lambda: tf.cast(mirrored(square), tf.float32),
        lambda: mirrored(tf.image.resize(square, (crop, crop), method="bilinear", antialias=True)),
    )
    return scale(tf.ensure_shape(scaled, (frames.shape[0], crop, crop, frames.shape[3])))


def _place(share: tf.Tensor, size: tf.Tensor, side: int | tf.Tensor) -> tf.Tensor:
    """A share in [0, 1) of the places of `side` in `size`; 0.5 of 33 places is place 16, the middle one."""
    return tf.cast(share * tf.cast(size - side + 1, tf.float32), tf.int32)


def _is_flow(frames: tf.Tensor) -> bool:
    return bool(frames.shape[3] == CHANNELS[FLOW])


def decode_jpeg(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    """A JPEG string (or PNG) → uint8 `(H, W, channels)`."""
    return tf.io.decode_jpeg(encoded, channels=channels, dct_method="INTEGER_ACCURATE")

"""What happens to frames between a record and a network; the same functions train, evaluate and serve.

A crop is a square of 7/8 of the frame's shorter side (224 of 256, §4.2), scaled to the crop size asked
for: 224 of records with short side 256, and 112 of short side 128, are cut without any scaling. One
`Decision` is drawn for a pair and shared by both clips. Frames of three channels are RGB, those of two
optical flow (u, v) in the 8 bits of `schema.FLOW_ZERO`; flow stays in pixels of the stored frame, however
its crop is scaled.
"""

import dataclasses
import math
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_records.schema import CHANNELS, FLOW, FLOW_STEPS, FLOW_ZERO

CROP_FRACTION = Fraction(7, 8)
# Of NTSC (ITU-R BT.470): luma, and the two axes of colour.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_GREY = np.tile(_YIQ[0], (3, 1))
# The turn by a right angle about the axis of greys.
_TURN = np.linalg.inv(_YIQ) @ [[0, 0, 0], [0, 0, -1], [0, 1, 0]] @ _YIQ
# What keeps a draw independent of the others that one key has.
_COLOUR_DRAW, _SHARE_DRAW = 1, 2
# Shares of a video are drawn from 1/10, 2/10 … 10/10.
SHARES = 10


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """What is drawn for a pair beside its start, crop and flip; all off by default.

    Args:
        brightness, contrast, saturation: from 0 to 1; the factor of each is drawn from 1 - it to 1 + it.
        hue: from 0 to 0.5 of a turn; the turn is drawn from -hue to hue.
        observed_share: draw the observed clip from the first s of the video, s from 0.1, 0.2 … 1.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    observed_share: bool = False

    @property
    def changes_colours(self) -> bool:
        return max(self.brightness, self.contrast, self.saturation, self.hue) > 0


NO_AUGMENTATION = Augmentation()


class Decision(NamedTuple):
    """Random numbers of one sample: `start`, `top`, `left` float32 in [0, 1), `flip` bool.

    `colours`: float32 `(3, 4)`, where colours change, see `colour_matrix`. `tenths`: int32, where only so
    many of the video are observed.
    """

    start: tf.Tensor
    top: tf.Tensor
    left: tf.Tensor
    flip: tf.Tensor
    colours: tf.Tensor | None = None
    tenths: tf.Tensor | None = None


def draw_decision(
    seed: int, epoch: int | tf.Tensor, index: tf.Tensor, augmentation: Augmentation = NO_AUGMENTATION
) -> Decision:
    """The decision of record `index` in `epoch`: a function of its arguments and of nothing else."""
    key = tf.random.fold_in(tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)]), index)
    start, top, left, flip = tf.unstack(tf.random.stateless_uniform((4,), seed=key))
    colours = None
    if augmentation.changes_colours:
        drawn = tf.random.stateless_uniform((4,), tf.random.fold_in(key, _COLOUR_DRAW), -1.0, 1.0)
        brightness, contrast, saturation, hue = tf.unstack(drawn)
        colours = colour_matrix(
            1.0 + augmentation.brightness * brightness,
            1.0 + augmentation.contrast * contrast,
            1.0 + augmentation.saturation * saturation,
            augmentation.hue * hue,
        )
    tenths = None
    if augmentation.observed_share:
        share_key = tf.random.fold_in(key, _SHARE_DRAW)
        tenths = tf.random.stateless_uniform((), share_key, 1, SHARES + 1, tf.int32)
    return Decision(start, top, left, flip < 0.5, colours, tenths)


def colour_matrix(
    brightness: tf.Tensor, contrast: tf.Tensor, saturation: tf.Tensor, hue: tf.Tensor
) -> tf.Tensor:
    """The change of colours that `change_colours` makes: matrix and offset, float32 `(3, 4)`.

    Of a pixel p with values in [0, 1], in this order: b·p; c·p + (1 - c)/2; s·p + (1 - s)·luma(p); a turn of
    p's colour about the axis of greys. Each is affine in p, and so is the whole. None looks at other pixels,
    so that what has one colour in both clips of a pair has one colour afterwards.

    Args:
        brightness, contrast, saturation: float32 scalars >= 0, b, c and s; 1 changes nothing.
        hue: float32 scalar, in turns.

    Source: Filter Effects Module Level 1 (W3C), feColorMatrix, saturate and hueRotate. Deviations: luma and
    axes are those of YIQ.
    """
    angle = 2 * math.pi * hue
    colour = tf.cos(angle) * (np.eye(3) - _GREY).astype(np.float32) + tf.sin(angle) * _TURN.astype(np.float32)
    matrix = brightness * contrast * (_GREY.astype(np.float32) + saturation * colour)
    # Rows of both parts sum to 1 and 0, so that grey stays grey; the offset is that of values in [-1, 1].
    offset = tf.fill((3, 1), contrast * (brightness - 1.0))
    return tf.concat([matrix, offset], axis=1)


def change_colours(clip: tf.Tensor, colours: tf.Tensor) -> tf.Tensor:
    """float32 `(T, H, W, 3)` in [-1, 1] → the same with every pixel changed by `colour_matrix`."""
    # (T, H, W, 3) → (T · H · W, 3)
    pixels = tf.reshape(clip, (-1, 3)) @ tf.transpose(colours[:, :3]) + colours[:, 3]
    return tf.reshape(tf.clip_by_value(pixels, -1.0, 1.0), clip.shape)


def clip_indices(num_frames: tf.Tensor, start: tf.Tensor, clip_frames: int) -> tf.Tensor:
    """Frame numbers of a clip: int32 `(clip_frames,)`; a shorter segment repeats in time order."""
    return (start + tf.range(clip_frames)) % num_frames


def clip_of_share(
    decision: Decision, observed: tf.Tensor, future: tf.Tensor, offset: tf.Tensor, clip_frames: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """A clip of the first tenths of a video, of which a record holds the frames of two segments.

    Every start at which the record holds the whole clip is as likely as any other. A share shorter than a
    clip repeats in time order, as in evaluation.

    Args:
        decision: of the pair, with `tenths`.
        observed, future: strings `(N, …)` of the segments [0, N) and [offset, offset + M) of the video, which
            ends with the latter.
        offset: int32, in frames.
        clip_frames: int >= 1.

    Returns:
        The clip's strings `(clip_frames, …)`, and int32, the number of its first frame.
    """
    assert decision.tenths is not None
    early, late = tf.shape(observed)[0], tf.shape(future)[0]
    seen = -(-decision.tenths * (offset + late) // SHARES)  # rounded up
    last = tf.maximum(seen - clip_frames, 0)
    # Where frames between the segments are not held, starts are those of either.
    split = early < offset
    before = tf.where(split, tf.minimum(last, tf.maximum(early - clip_frames, 0)), last) + 1
    after = tf.where(split, tf.maximum(last - offset + 1, 0), 0)
    drawn = tf.cast(decision.start * tf.cast(before + after, tf.float32), tf.int32)
    start = tf.where(drawn < before, drawn, offset + drawn - before)
    numbers = clip_indices(seen, start, clip_frames)
    held = tf.where(numbers < early, numbers, early + numbers - offset)
    return tf.gather(tf.concat([observed, future], axis=0), held), start


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
    """uint8 `(T, H, W, C)` → float32 `(T, crop, crop, C)` in [-1, 1], cut, flipped and coloured as decided.

    In a mirror, what moved to the right moves to the left: u changes its sign.
    """
    cut = _cut_square(frames, decision.top, decision.left, crop, decision.flip)
    if not _is_flow(frames):
        return cut if decision.colours is None else change_colours(cut, decision.colours)
    return tf.where(decision.flip, cut * (-1.0, 1.0), cut)


def crop_in_eight_bits(frames: tf.Tensor, decision: Decision, crop: int) -> tf.Tensor:
    """uint8 `(T, H, W, C)` → uint8 `(T, crop, crop, C)`, of which `scale` makes what `crop_randomly` gives.

    Of frames whose square is as large as the crop, and without a change of colours.
    """
    cut = _mirrored(_square_of(frames, decision.top, decision.left), decision.flip)
    if _is_flow(frames):
        # u changes its sign; 0, a step below -1, becomes 1 as it does in `scale`.
        u = tf.minimum(2 * FLOW_ZERO - tf.cast(cut[..., :1], tf.int32), 255)
        turned = tf.concat([tf.cast(u, tf.uint8), cut[..., 1:]], axis=-1)
        cut = tf.where(decision.flip, turned, cut)
    return tf.ensure_shape(cut, (frames.shape[0], crop, crop, frames.shape[3]))


def crop_centrally(frames: tf.Tensor, crop: int) -> tf.Tensor:
    """uint8 `(T, H, W, C)` → float32 `(T, crop, crop, C)` in [-1, 1], the square in the middle."""
    middle = tf.constant(0.5)
    return _cut_square(frames, middle, middle, crop, tf.constant(False))


def square_side(shorter: Any) -> Any:
    """Pixels of the square that is cut out of frames whose shorter side is `shorter`: CROP_FRACTION of it."""
    return (shorter * CROP_FRACTION.numerator + CROP_FRACTION.denominator // 2) // CROP_FRACTION.denominator


def scale(frames: tf.Tensor) -> tf.Tensor:
    """`(…, H, W, C)` in the range of 8 bits → float32 in [-1, 1]."""
    values = tf.cast(frames, tf.float32)
    if _is_flow(frames):
        # A JPEG may end a step beyond the values that went into it.
        return tf.clip_by_value((values - FLOW_ZERO) / FLOW_STEPS, -1.0, 1.0)
    return values / 127.5 - 1.0


def _cut_square(
    frames: tf.Tensor, top: tf.Tensor, left: tf.Tensor, crop: int, mirror: tf.Tensor
) -> tf.Tensor:
    """The square at shares `top` and `left` of its places, scaled, and mirrored while still in 8 bits."""
    square = _square_of(frames, top, left)
    scaled = tf.cond(
        tf.equal(tf.shape(square)[1], crop),
        lambda: tf.cast(_mirrored(square, mirror), tf.float32),
        lambda: _mirrored(tf.image.resize(square, (crop, crop), method="bilinear", antialias=True), mirror),
    )
    return scale(tf.ensure_shape(scaled, (frames.shape[0], crop, crop, frames.shape[3])))


def _square_of(frames: tf.Tensor, top: tf.Tensor, left: tf.Tensor) -> tf.Tensor:
    """The square at shares `top` and `left` of its places, as it is stored."""
    height, width = tf.shape(frames)[1], tf.shape(frames)[2]
    side = square_side(tf.minimum(height, width))
    y, x = _place(top, height, side), _place(left, width, side)
    return frames[:, y : y + side, x : x + side, :]


def _mirrored(square: tf.Tensor, mirror: tf.Tensor) -> tf.Tensor:
    """The frames mirrored from left to right, where that is decided."""
    return tf.cond(mirror, lambda: tf.reverse(square, axis=[2]), lambda: square)


def _place(share: tf.Tensor, size: tf.Tensor, side: int | tf.Tensor) -> tf.Tensor:
    """A share in [0, 1) of the places of `side` in `size`; 0.5 of 33 places is place 16, the middle one."""
    return tf.cast(share * tf.cast(size - side + 1, tf.float32), tf.int32)


def _is_flow(frames: tf.Tensor) -> bool:
    return bool(frames.shape[-1] == CHANNELS[FLOW])


def decode_jpeg(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    """A JPEG string (or PNG) → uint8 `(H, W, channels)`."""
    return tf.io.decode_jpeg(encoded, channels=channels, dct_method="INTEGER_ACCURATE")

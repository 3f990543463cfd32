"""What a request holds, checked inside the served graph, and encoded frames decoded there.

A server sees nothing but the graph, so what is wrong with a request is found by its own assertions. Stock
operations alone: no Python runs in a server.
"""

from collections.abc import Callable

import tensorflow as tf

from tf_records.augment import decode_jpeg
from tf_records.clips import plain
from tf_records.schema import CHANNELS, FLOW, RGB

Prepare = Callable[[tf.Tensor], tf.Tensor]


def clips_spec(name: str, frames: int, channels: int) -> tf.TensorSpec:
    """Of uint8 clips."""
    return tf.TensorSpec((None, frames, None, None, channels), tf.uint8, name=name)


def frames_spec(name: str, frames: int, channels: int) -> tf.TensorSpec:
    """Of JPEG or PNG strings: one a frame `(B, T)`, of flow u and v `(B, T, 2)`."""
    shape = (None, frames, 2) if channels == CHANNELS[FLOW] else (None, frames)
    return tf.TensorSpec(shape, tf.string, name=name)


def checked(values: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    """`values`, unless their shape is another than that of `spec`, or holds a 0: then the request fails.

    A server does not compare a request with the shapes that a signature states.
    """
    # Forgets the stated shape, by which the comparison would be computed before any request is there.
    given = tf.raw_ops.PlaceholderWithDefault(input=values, shape=tf.TensorShape(None))
    shape, rank = tf.shape(given), len(spec.shape)
    padded = tf.concat([shape, tf.zeros((rank,), tf.int32)], axis=0)[:rank]
    fits = tf.equal(tf.size(shape), rank) & tf.reduce_all(padded > 0)
    for axis, size in enumerate(spec.shape):
        if size is not None:
            fits &= tf.equal(padded[axis], size)
    kind = "uint8" if spec.dtype == tf.uint8 else "strings, a JPEG or PNG each,"
    wanted = (
        "(" + ", ".join("BTHWC"[axis] if n is None else str(n) for axis, n in enumerate(spec.shape)) + ")"
    )
    message = tf.strings.format(
        f"`{spec.name}` should be {kind} of shape {wanted}, nowhere 0. Received shape: {{}}.", shape
    )
    with tf.control_dependencies([tf.debugging.Assert(fits, [message])]):
        return tf.ensure_shape(tf.identity(given), spec.shape)


def prepare_clips(clips: tf.Tensor, prepare: Prepare) -> tf.Tensor:
    """uint8 `(B, T, H, W, C)` → float32 `(B, T, h, w, C)`."""
    shape = tf.shape(clips)
    # (B, T, H, W, C) → (B·T, H, W, C)
    return _unfold(prepare(tf.reshape(clips, (-1, shape[2], shape[3], clips.shape[4]))), clips.shape[1])


def decode_clips(encoded: tf.Tensor, prepare: Prepare) -> tf.Tensor:
    """Strings of `frames_spec` → float32 `(B, T, h, w, C)`.

    Frames are decoded in parallel. One that cannot be makes the request fail with its place: TensorFlow's
    decoder does not say which string it was given, and `ignore_errors` is the one operation that survives
    it. (That it may stall is said of damaged files of records, not of a list of strings.)
    """
    # (B, T) → (B·T,), or of u and v (B, T, 2) → (B·T, 2)
    flat = tf.reshape(encoded, (-1, *encoded.shape[2:]))
    count = tf.shape(flat, tf.int64)[0]
    channels = CHANNELS[RGB] if flat.shape.rank == 1 else CHANNELS[FLOW]

    @plain
    def decode(number: tf.Tensor, strings: tf.Tensor) -> tuple[tf.Tensor, ...]:
        frame = _decode_rgb(strings) if channels == CHANNELS[RGB] else _decode_flow(strings)
        image = prepare(frame[None])[0]
        return number, image, tf.shape(image)[:2]

    decoded = tf.data.Dataset.from_tensor_slices(flat).enumerate()
    decoded = decoded.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).ignore_errors()
    # Nothing at all may have been decoded, and a batch of nothing is an error of another kind.
    end = tf.data.Dataset.from_tensors((count, tf.zeros((1, 1, channels)), tf.ones((2,), tf.int32)))
    numbers, images, sizes = decoded.concatenate(end).padded_batch(count + 1).get_single_element()
    with tf.control_dependencies([_assert_all_decoded(numbers, count, encoded.shape[1])]):
        sizes = tf.identity(sizes)[:-1]
    with tf.control_dependencies([_assert_one_size(sizes, encoded.shape[1])]):
        return _unfold(tf.identity(images)[:-1], encoded.shape[1])


def _decode_rgb(string: tf.Tensor) -> tf.Tensor:
    return decode_jpeg(string, CHANNELS[RGB])


def _decode_flow(strings: tf.Tensor) -> tf.Tensor:
    """u and v, a grey picture each → uint8 `(H, W, 2)`."""
    return tf.concat([decode_jpeg(strings[0], 1), decode_jpeg(strings[1], 1)], axis=-1)


def _assert_all_decoded(numbers: tf.Tensor, count: tf.Tensor, frames: int) -> tf.Operation:
    # The end's number stands where the first missing one should, or, where none is missing, in its own place.
    is_right = tf.equal(numbers, tf.range(tf.size(numbers, tf.int64)))
    missing = tf.argmin(tf.cast(is_right, tf.int32))
    message = tf.strings.format(
        "Frame {} of clip {} should be a JPEG or PNG picture. It cannot be decoded.",
        (missing % frames, missing // frames),
    )
    return tf.debugging.Assert(tf.equal(tf.size(numbers, tf.int64), count + 1), [message])


def _assert_one_size(sizes: tf.Tensor, frames: int) -> tf.Operation:
    """Frames that are not cut to one size have to come in one."""
    is_first = tf.reduce_all(tf.equal(sizes, sizes[:1]), axis=1)
    other = tf.argmin(tf.cast(is_first, tf.int32))
    message = tf.strings.format(
        "Frames of a request should have one shape. Received: {} for frame {} of clip {}, {} for the first.",
        (sizes[other], other % frames, other // frames, sizes[0]),
    )
    return tf.debugging.Assert(tf.reduce_all(is_first), [message])


def _unfold(images: tf.Tensor, frames: int) -> tf.Tensor:
    """`(B·T, h, w, C)` → `(B, T, h, w, C)`."""
    shape = tf.shape(images)
    return tf.reshape(images, (-1, frames, shape[1], shape[2], images.shape[3]))

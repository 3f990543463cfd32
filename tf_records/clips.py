"""From a serialized record to the clips that are cut out of it: frames, flow or features."""

from typing import Any

import tensorflow as tf

from tf_records import augment, schema
from tf_records.records import Records
from tf_records.schema import EITHER, FLOW, FUTURE, OBSERVED

# Pixels of a clip for each position of I3D's map at MaxPool3d_4a_3x3.
MAP_STRIDE = 16

# Nothing here needs AutoGraph, and its conversion takes longer than the tracing, anew for each epoch.
plain = tf.autograph.experimental.do_not_convert
_CONTEXT = {
    schema.LABEL_INDEX: tf.io.FixedLenFeature((), tf.int64),
    schema.CLIP_ID: tf.io.FixedLenFeature((), tf.string),
    schema.CLIP_VIDEO: tf.io.FixedLenFeature((), tf.string),
    # Empty in records of frames.
    schema.FEATURE_SHAPE: tf.io.RaggedFeature(tf.int64),
}


def map_side(crop: int) -> int:
    """Positions a side that I3D's stem makes of `crop` pixels."""
    return -(-crop // MAP_STRIDE)


def pair_of_clips(
    records: Records, serialized: tf.Tensor, decision: augment.Decision, views: tuple[str, ...], crop: int
) -> dict[str, tf.Tensor]:
    """Clips of the views, cut with the same start, square and flip."""
    context, segments = parse(records, serialized, (OBSERVED, FUTURE))
    observed, future = segments[OBSERVED], segments[FUTURE]
    entries = records.clip_entries
    starts = [tf.maximum(tf.shape(encoded)[0] - entries + 1, 1) for encoded in (observed, future)]
    shared = _draw_start(decision, tf.minimum(*starts))
    drawn = _draw_start(decision, starts[0] + starts[1])
    clips = {}
    for view in views:
        if view == EITHER:
            in_future = drawn >= starts[0]
            encoded = tf.cond(in_future, lambda: future, lambda: observed)
            start = tf.where(in_future, drawn - starts[0], drawn)
        else:
            encoded, start = segments[view], shared
        clips[view] = cut_clip(records, context, encoded, start, crop, decision)
    return clips


def cut_clip(
    records: Records,
    context: dict[str, Any],
    encoded: tf.Tensor,
    start: tf.Tensor,
    crop: int,
    decision: augment.Decision | None,
) -> tf.Tensor:
    """The clip that begins at `start`; of frames and maps, the square decided on, or the central one."""
    features, clip_frames = records.manifest.features, records.manifest.clip.clip_frames
    if features is not None and features.per == schema.PER_CLIP:
        side = map_side(crop)
        features_map = augment.decode_map(encoded[start], context[schema.FEATURE_SHAPE])
        cut = augment.crop_map(features_map, decision, side)
        return tf.ensure_shape(cut, (features.shape[0], side, side, features.shape[-1]))
    if features is not None:
        indices = augment.clip_indices(tf.shape(encoded)[0], start, clip_frames)
        return augment.decode_features(encoded, indices, clip_frames, features.shape)
    frames = decode_clip(records, encoded, start)
    if decision is None:
        return augment.crop_centrally(frames, crop)
    return augment.crop_randomly(frames, decision, crop)


def decode_clip(records: Records, encoded: tf.Tensor, start: tf.Tensor | int) -> tf.Tensor:
    """A segment's strings, as `parse` gives them → the clip at `start`: uint8 `(T, H, W, C)`."""
    clip_frames = records.manifest.clip.clip_frames
    indices = augment.clip_indices(tf.shape(encoded)[0], start, clip_frames)
    decode = augment.decode_flow if records.modality == FLOW else augment.decode_frames
    return decode(encoded, indices, clip_frames)


def _draw_start(decision: augment.Decision, starts: tf.Tensor) -> tf.Tensor:
    return tf.cast(decision.start * tf.cast(starts, tf.float32), tf.int32)


def parse_context(serialized: tf.Tensor) -> dict[str, Any]:
    """Label, id, video and the shape of features, where there are any."""
    context, _ = tf.io.parse_single_sequence_example(serialized, context_features=_CONTEXT)
    return context


def parse(
    records: Records, serialized: tf.Tensor, views: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, tf.Tensor]]:
    """The context, and view → its strings `(N,)`, or `(N, 2)` of u and v."""
    keys = records.view_keys
    context, lists = tf.io.parse_single_sequence_example(
        serialized,
        context_features=_CONTEXT,
        sequence_features={
            key: tf.io.FixedLenSequenceFeature((), tf.string) for view in views for key in keys[view]
        },
    )
    segments = {view: [lists[key] for key in keys[view]] for view in views}
    return context, {
        view: strings[0] if len(strings) == 1 else tf.stack(strings, axis=1)
        for view, strings in segments.items()
    }

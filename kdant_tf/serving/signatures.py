"""The signatures of an exported model: clips, encoded frames, and features."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from kdant_tf.serving.inputs import checked, clips_spec, decode_clips, frames_spec, prepare_clips
from kdant_tf.serving.streams import Stream

DEFAULT = "serving_default"
ENCODED = "encoded"
FEATURES = "features"
TOP_K = 5

Outputs = dict[str, tf.Tensor]
Read = Callable[[Stream, tf.Tensor], tf.Tensor]


def add_signatures(archive: keras.export.ExportArchive, streams: Sequence[Stream]) -> dict[str, Any]:
    """Adds the signatures of one network, or of two whose logits are added.

    Inputs are `clips`, of a pair also `flow_clips`; in ENCODED `frames`, of a pair also `flow_frames`.
    FEATURES gives the means of the feature maps, of a pair one after the other.

    Args:
        archive: that will be written.
        streams: RGB first.

    Returns:
        Name → "inputs" and "outputs" → name → "dtype" and "shape", for config.json.
    """
    classes = streams[0].run.classes
    infer = _infer_once(streams)

    def name_classes(inputs: Sequence[tf.Tensor]) -> Outputs:
        probabilities, _ = infer(*inputs)
        top, indices = tf.math.top_k(probabilities, k=min(TOP_K, len(classes)))
        return {
            "probabilities": probabilities,
            "top_k_classes": tf.gather(tf.constant(classes), indices),
            "top_k_probabilities": top,
        }

    def give_features(inputs: Sequence[tf.Tensor]) -> Outputs:
        probabilities, features = infer(*inputs)
        return {"features": features, "probabilities": probabilities}

    clips, frames = _specs(clips_spec, DEFAULT, streams), _specs(frames_spec, ENCODED, streams)
    return {
        DEFAULT: _add(archive, DEFAULT, streams, clips, _prepare, name_classes),
        ENCODED: _add(archive, ENCODED, streams, frames, _decode, name_classes),
        FEATURES: _add(archive, FEATURES, streams, clips, _prepare, give_features),
    }


def input_names(signature: str, streams: Sequence[Stream]) -> list[str]:
    """Names of a signature's inputs, one for each stream."""
    name = "frames" if signature == ENCODED else "clips"
    return [name if stream is streams[0] else f"{stream.run.modality}_{name}" for stream in streams]


def _infer_once(streams: Sequence[Stream]) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """Prepared clips of each stream → probabilities and features; one graph for all signatures."""
    specs = [tf.TensorSpec((None, *stream.prepared_shape), tf.float32) for stream in streams]

    @tf.function(input_signature=specs, autograph=False)
    def infer(*inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        outputs = [stream.infer(clips) for stream, clips in zip(streams, inputs, strict=True)]
        logits = tf.add_n(
            [stream.weight * logits for stream, (logits, _) in zip(streams, outputs, strict=True)]
        )
        return tf.nn.softmax(logits), tf.concat([features for _, features in outputs], axis=-1)

    return infer


def _specs(
    make: Callable[[str, int, int], tf.TensorSpec], signature: str, streams: Sequence[Stream]
) -> list[tf.TensorSpec]:
    return [
        make(name, stream.run.clip.clip_frames, stream.channels)
        for name, stream in zip(input_names(signature, streams), streams, strict=True)
    ]


def _prepare(stream: Stream, clips: tf.Tensor) -> tf.Tensor:
    return prepare_clips(clips, stream.prepare)


def _decode(stream: Stream, frames: tf.Tensor) -> tf.Tensor:
    return decode_clips(frames, stream.prepare)


def _add(
    archive: keras.export.ExportArchive,
    name: str,
    streams: Sequence[Stream],
    specs: Sequence[tf.TensorSpec],
    read: Read,
    answer: Callable[[Sequence[tf.Tensor]], Outputs],
) -> dict[str, Any]:
    def serve(*inputs: tf.Tensor) -> Outputs:
        prepared = [
            tf.ensure_shape(read(stream, checked(values, spec)), (None, *stream.prepared_shape))
            for stream, values, spec in zip(streams, inputs, specs, strict=True)
        ]
        return answer(prepared)

    traced = archive.add_endpoint(name=name, fn=serve, input_signature=specs)
    outputs = traced.get_concrete_function().structured_outputs
    return {
        "inputs": {spec.name: _describe(spec) for spec in specs},
        "outputs": {name: _describe(spec) for name, spec in outputs.items()},
    }


def _describe(spec: tf.TensorSpec) -> dict[str, Any]:
    return {"dtype": spec.dtype.name, "shape": list(spec.shape)}

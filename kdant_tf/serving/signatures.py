"""The signatures of an exported model: uint8 clips, encoded frames, and features.

A `Stream` is a run's network with everything before it, from uint8 frames on, as evaluation has it; a
signature reads its inputs, lets one stream or two infer, and names the classes. A server runs nothing but the
graph, so what is wrong with a request is found by assertions in it; it is made of stock operations alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from kdant_tf.losses.heads import head_probabilities
from kdant_tf.models.batch_norm_folding import fold_batch_norm
from kdant_tf.models.i3d_stem import load_stem_of, middle_of_map
from kdant_tf.models.inference import FLOAT32, freeze
from kdant_tf.models.networks import LOGITS, feature_map_name, load_network
from kdant_tf.runs import Run
from kdant_tf.serving import ENCODED, FEATURES, RAW
from tf_records import augment
from tf_records.errors import RunError
from tf_records.heads import column_slices
from tf_records.schema import CHANNELS, FLOW, RGB

TOP_K = 5

Prepare = Callable[[tf.Tensor], tf.Tensor]
Outputs = dict[str, tf.Tensor]


def make_signatures(streams: Sequence[Stream], precision: str = FLOAT32) -> ServedModule:
    """The signatures of one network, or of two whose logits are added, ready for `tf.saved_model.save`.

    Inputs are `clips`, of a pair also `flow_clips`; in ENCODED `frames`, of a pair also `flow_frames`.
    FEATURES gives the means of the feature maps, of a pair one after the other.

    Of several heads `probabilities` are those of all columns, see `tf_records.heads`, and each head has its
    own as well: `verb_probabilities`, `verb_top_k_classes`, `verb_top_k_probabilities`.

    The weights are constants of the graph: TensorFlow then folds batch normalisation into the convolutions
    and lays out kernels once. They stay variables where they are too large for a graph.

    Args:
        streams: RGB first.
        precision: "float32" or "bfloat16", in which all but the last layers compute.
    """
    classes, heads = streams[0].run.classes, streams[0].run.heads
    infer = infer_once(streams, precision)

    def name_classes(inputs: Sequence[tf.Tensor]) -> Outputs:
        logits, _ = infer(*inputs)
        probabilities = head_probabilities(logits, heads)
        outputs = {"probabilities": probabilities}
        if len(heads) < 2:
            return {**outputs, **_top_k(probabilities, classes)}
        for head, columns in zip(heads, column_slices(heads).values(), strict=True):
            own = {
                "probabilities": probabilities[:, columns],
                **_top_k(probabilities[:, columns], head.classes),
            }
            outputs |= {f"{head.name}_{name}": value for name, value in own.items()}
        return outputs

    def give_features(inputs: Sequence[tf.Tensor]) -> Outputs:
        logits, features = infer(*inputs)
        return {"features": features, "probabilities": head_probabilities(logits, heads)}

    clips, frames = _specs(clips_spec, RAW, streams), _specs(frames_spec, ENCODED, streams)
    module = ServedModule()
    module.functions = {
        RAW: _trace(streams, clips, prepare_clips, name_classes),
        ENCODED: _trace(streams, frames, decode_clips, name_classes),
        FEATURES: _trace(streams, clips, prepare_clips, give_features),
    }
    if infer.captured_inputs:  # Variables, or tables that layers of one's own look things up in.
        module.networks = [part for stream in streams for part in stream.networks]
    return module


def _top_k(probabilities: tf.Tensor, classes: Sequence[str]) -> Outputs:
    top, indices = tf.math.top_k(probabilities, k=min(TOP_K, len(classes)))
    return {"top_k_classes": tf.gather(tf.constant(classes), indices), "top_k_probabilities": top}


class ServedModule(tf.Module):
    """What is saved: `functions`, name → traced function, and the `networks` that hold what they capture."""

    functions: dict[str, Any]
    networks: list[keras.Model]

    def describe(self) -> dict[str, Any]:
        """Name → "inputs" and "outputs" → name → "dtype" and "shape", for config.json."""
        return {
            name: {
                "inputs": {spec.name: _describe(spec) for spec in traced.structured_input_signature[0]},
                "outputs": {key: _describe(spec) for key, spec in traced.structured_outputs.items()},
            }
            for name, traced in self.functions.items()
        }


def input_names(signature: str, streams: Sequence[Stream]) -> list[str]:
    """Names of a signature's inputs, one for each stream."""
    name = "frames" if signature == ENCODED else "clips"
    return [name if stream is streams[0] else f"{stream.run.modality}_{name}" for stream in streams]


def infer_once(streams: Sequence[Stream], precision: str = FLOAT32) -> Any:
    """Prepared clips of each stream → logits and features; one graph for all signatures.

    Its weights are constants where they are not too large for a graph.
    """

    def infer(*inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        outputs = [stream.infer(clips) for stream, clips in zip(streams, inputs, strict=True)]
        logits = tf.add_n(
            [stream.weight * logits for stream, (logits, _) in zip(streams, outputs, strict=True)]
        )
        return logits, tf.concat([features for _, features in outputs], axis=-1)

    specs = [tf.TensorSpec((None, *stream.prepared_shape), tf.float32) for stream in streams]
    return freeze(infer, [part for stream in streams for part in stream.networks], specs, precision)


def _specs(
    make: Callable[[str, int, int], tf.TensorSpec], signature: str, streams: Sequence[Stream]
) -> list[tf.TensorSpec]:
    return [
        make(name, stream.run.clip.clip_frames, stream.channels)
        for name, stream in zip(input_names(signature, streams), streams, strict=True)
    ]


def _trace(
    streams: Sequence[Stream],
    specs: Sequence[tf.TensorSpec],
    read: Callable[[tf.Tensor, Prepare], tf.Tensor],
    answer: Callable[[Sequence[tf.Tensor]], Outputs],
) -> Any:
    def serve(*inputs: tf.Tensor) -> Outputs:
        prepared = [
            tf.ensure_shape(read(check_shape(values, spec), stream.prepare), (None, *stream.prepared_shape))
            for stream, values, spec in zip(streams, inputs, specs, strict=True)
        ]
        return answer(prepared)

    return tf.function(serve, input_signature=specs, autograph=False).get_concrete_function()


def _describe(spec: tf.TensorSpec) -> dict[str, Any]:
    return {"dtype": spec.dtype.name, "shape": list(spec.shape)}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stream:
    """One network of an exported model.

    Args:
        run: whose network it is.
        network: of the run.
        stem: makes the features that the network sees, where the run was trained on features.
        weight: of its logits.
    """

    run: Run
    network: keras.Model
    stem: keras.Model | None = None
    weight: float = 1.0

    @property
    def channels(self) -> int:
        return CHANNELS[self.run.modality]

    @property
    def networks(self) -> list[keras.Model]:
        """Those that `infer` calls."""
        return [self.network] if self.stem is None else [self.network, self.stem]

    @property
    def crop(self) -> int | None:
        """Pixels of the square cut out of each frame; None where the stem sees whole frames."""
        return self.run.config.crop if self.run.features is None else self.run.features.crop

    @property
    def prepared_shape(self) -> tuple[int | None, ...]:
        """(T, H, W, C) of what `infer` takes."""
        return (self.run.clip.clip_frames, self.crop, self.crop, self.channels)

    def prepare(self, frames: tf.Tensor) -> tf.Tensor:
        """uint8 `(N, H, W, C)` → float32 `(N, crop, crop, C)` in [-1, 1]; whole frames keep their shape."""
        if self.crop is not None:
            return augment.crop_centrally(frames, self.crop)
        size = tf.shape(frames)[1:3]
        short_side = self.run.short_side
        scaled = tf.cast(tf.round(size * short_side / tf.reduce_min(size)), tf.int32)
        right_size = tf.cond(
            tf.reduce_all(tf.equal(scaled, size)),
            lambda: tf.cast(frames, tf.float32),
            lambda: tf.image.resize(frames, scaled, method="bilinear", antialias=True),
        )
        return augment.scale(tf.ensure_shape(right_size, (None, None, None, self.channels)))

    def infer(self, clips: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Prepared `(B, T, H, W, C)` → logits `(B, classes)` and the mean of the feature map `(B, d)`."""
        outputs = self.network(self._network_input(clips), training=False)
        features = tf.cast(outputs[feature_map_name(self.network)], tf.float32)
        return outputs[LOGITS], tf.reduce_mean(features, axis=list(range(1, len(features.shape) - 1)))

    def folded(self) -> Stream:
        """The same with batch normalisation folded into the layers before it."""
        stem = None if self.stem is None else fold_batch_norm(self.stem)
        return dataclasses.replace(self, network=fold_batch_norm(self.network), stem=stem)

    def _network_input(self, clips: tf.Tensor) -> tf.Tensor:
        """The clips, or their features as records hold them: float16, of a map's middle."""
        if self.stem is None:
            return clips
        assert self.run.features is not None  # A stem is only there with them.
        maps = self.stem(clips, training=False)
        return middle_of_map(maps, self.run.features.map_side(self.run.config.crop))


def open_streams(
    runs: Sequence[Run],
    weights: Sequence[float] = (),
    *,
    stem: str | None = None,
    network: keras.Model | None = None,
) -> tuple[Stream, ...]:
    """Loads one network, or the two of a pair of RGB and flow, RGB first.

    Args:
        runs: finished.
        weights: of their logits; none for equal ones.
        stem: where the weights lie that made the runs' features, see
            `kdant_tf.models.i3d_stem.load_stem`; None for where they were.
        network: of the first run, where it is loaded already.

    Raises:
        RunError: a pair that does not fit together, or a stem other than that of the features.
        WeightsError: the stem's weights cannot be had.
    """
    if len(runs) > 1:
        _check_pair(runs)
    if stem is not None and all(run.features is None for run in runs):
        raise RunError(
            f"--stem is for runs trained on features. Received: {runs[0].folder}, which sees frames."
        )
    streams = [
        _open_stream(run, weight, stem, network if run is runs[0] else None)
        for run, weight in zip(runs, weights or (1.0,) * len(runs), strict=True)
    ]
    return tuple(sorted(streams, key=lambda stream: -stream.channels))


def _open_stream(run: Run, weight: float, stem: str | None, network: keras.Model | None) -> Stream:
    network = load_network(run) if network is None else network
    own = None if run.features is None else load_stem_of(run, run.features, stem)
    return Stream(run=run, network=network, stem=own, weight=weight)


def _check_pair(runs: Sequence[Run]) -> None:
    first, second = runs
    if first.modality == second.modality:
        raise RunError(
            f"Two streams are one of RGB and one of flow. Received: {first.folder} and {second.folder}, both "
            f"of {first.modality}."
        )
    for what in ("classes", "heads", "clip", "anticipates"):
        own, other = getattr(first, what), getattr(second, what)
        if own != other:
            raise RunError(
                f"Two streams should agree in `{what}`. Received: {own} of {first.folder}, {other} of "
                f"{second.folder}. Train both on the same records."
            )


def clips_spec(name: str, frames: int, channels: int) -> tf.TensorSpec:
    """Of uint8 clips."""
    return tf.TensorSpec((None, frames, None, None, channels), tf.uint8, name=name)


def frames_spec(name: str, frames: int, channels: int) -> tf.TensorSpec:
    """Of JPEG or PNG strings: one a frame `(B, T)`, of flow u and v `(B, T, 2)`."""
    shape = (None, frames, 2) if channels == CHANNELS[FLOW] else (None, frames)
    return tf.TensorSpec(shape, tf.string, name=name)


def check_shape(values: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
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
    return _restore_clips(
        prepare(tf.reshape(clips, (-1, shape[2], shape[3], clips.shape[4]))), clips.shape[1]
    )


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

    def decode(number: tf.Tensor, strings: tf.Tensor) -> tuple[tf.Tensor, ...]:
        frame = _decode_rgb(strings) if channels == CHANNELS[RGB] else _decode_flow(strings)
        image = prepare(frame[None])[0]
        return number, image, tf.shape(image)[:2]

    decoded = tf.data.Dataset.from_tensor_slices(flat).enumerate()
    decode = tf.autograph.experimental.do_not_convert(decode)
    decoded = decoded.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).ignore_errors()
    # Nothing at all may have been decoded, and a batch of nothing is an error of another kind.
    end = tf.data.Dataset.from_tensors((count, tf.zeros((1, 1, channels)), tf.ones((2,), tf.int32)))
    numbers, images, sizes = decoded.concatenate(end).padded_batch(count + 1).get_single_element()
    with tf.control_dependencies([_assert_all_decoded(numbers, count, encoded.shape[1])]):
        sizes = tf.identity(sizes)[:-1]
    with tf.control_dependencies([_assert_one_size(sizes, encoded.shape[1])]):
        return _restore_clips(tf.identity(images)[:-1], encoded.shape[1])


def _decode_rgb(string: tf.Tensor) -> tf.Tensor:
    return augment.decode_jpeg(string, CHANNELS[RGB])


def _decode_flow(strings: tf.Tensor) -> tf.Tensor:
    """u and v, a grey picture each → uint8 `(H, W, 2)`."""
    return tf.concat([augment.decode_jpeg(strings[0], 1), augment.decode_jpeg(strings[1], 1)], axis=-1)


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


def _restore_clips(images: tf.Tensor, frames: int) -> tf.Tensor:
    """`(B·T, h, w, C)` → `(B, T, h, w, C)`."""
    shape = tf.shape(images)
    return tf.reshape(images, (-1, frames, shape[1], shape[2], images.shape[3]))

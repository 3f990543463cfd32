"""Networks written in other formats than SavedModel, with their preprocessing inside.

TensorFlow resizes frames by an operation that no converter knows. Here the same resampling is two products
with matrices, which are computed from the frames' size in the graph: every runtime has them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from keras import layers

from kdant_tf.losses.heads import head_probabilities
from kdant_tf.models.inference import FLOAT32, OPENVINO, import_openvino, without_telemetry
from kdant_tf.models.pooling_in_2d import split_pooling
from kdant_tf.private_apis import layers_within
from kdant_tf.serving import RAW
from kdant_tf.serving.formats import FLOAT16, FORMATS, INT8, LITERT, ONNX
from kdant_tf.serving.signatures import ServedModule, Stream, clips_spec, infer_once, input_names
from kdant_tf.serving.trial_clips import TrialClip
from tf_records import augment
from tf_records.errors import RunError, first_line
from tf_records.start_tensorflow import without_native_messages

# Later ones are not read by runtimes of two years ago.
_OPSET = 18
_LEAST_HALVED = 16
# Begins the names of the operations before the network, which are never computed in 8 bits.
PREPARING = "preparing"
# Clips at most by which ranges of values are found.
CALIBRATION_CLIPS = 100
# Operations of ONNX that are computed in 8 bits.
_QUANTIZED = ["Conv", "MatMul", "Gemm", "MaxPool", "AveragePool", "Concat", "Add", "Relu", "Clip"]


def convert(
    streams: Sequence[Stream],
    folder: Path,
    format: str,
    precision: str,
    calibration: Iterable[TrialClip] = (),
) -> dict[str, Any]:
    """Writes the network, or two whose logits are added, into `folder`.

    Args:
        streams: RGB first.
        folder: that gets the file.
        format: a key of `kdant_tf.serving.formats.FORMATS`, but for SavedModel.
        precision: one of the format's.
        calibration: for INT8, clips by which the ranges of values are found; gone over more than once.

    Returns:
        The signatures for config.json: of RAW alone, with outputs "logits" and "probabilities".

    Raises:
        RunError: the converter cannot do this network.
        OSError: the folder cannot be written.
    """
    if (format, precision) == (LITERT, INT8):
        _check_has_8_bits(streams)
    # Batch normalisation is folded here: what converters make of it differs.
    folded = [stream.folded() for stream in streams]
    function = trace([_split(stream) for stream in folded], 1) if format == LITERT else trace(folded)
    inputs = _Inputs(streams, calibration)
    writers: dict[str, Callable[[Any, Path, str, _Inputs], None]] = {
        OPENVINO: _write_openvino,
        ONNX: _write_onnx,
        LITERT: _write_litert,
    }
    try:
        folder.mkdir(exist_ok=True)
        writers[format](function, folder / FORMATS[format].file, precision, inputs)
    except OSError:
        raise
    except Exception as error:  # Converters have their own.
        raise RunError(
            f"{FORMATS[format].title} cannot hold the network of run {streams[0].run.folder}: "
            f"{first_line(error)}. Export it in another format, such as --format savedmodel."
        ) from error
    module = ServedModule()
    module.functions = {RAW: function.get_concrete_function()}
    return module.describe()


def trace(streams: Sequence[Stream], batch: int | None = None) -> Any:
    """A tf.function of uint8 clips of each stream → "logits" and "probabilities", `(B, classes)`.

    Args:
        streams: RGB first.
        batch: clips a call; None for any number.
    """
    infer = infer_once(streams)
    if infer.captured_inputs:
        raise RunError(
            f"The network of run {streams[0].run.folder} has more weights than such a file can hold, or "
            f"looks things up in tables. Export it with --format savedmodel."
        )

    def answer(*clips: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.name_scope(PREPARING):
            prepared = [
                _with_shape(prepare(values, stream), (batch, *stream.prepared_shape))
                for values, stream in zip(clips, streams, strict=True)
            ]
        logits, _ = infer(*prepared)
        return {"logits": logits, "probabilities": head_probabilities(logits, streams[0].run.heads)}

    specs = [
        clips_spec(name, stream.run.clip.clip_frames, stream.channels)
        for name, stream in zip(input_names(RAW, streams), streams, strict=True)
    ]
    specs = [tf.TensorSpec((batch, *spec.shape[1:]), spec.dtype, name=spec.name) for spec in specs]
    return tf.function(answer, input_signature=specs, autograph=False)


def _with_shape(values: tf.Tensor, shape: tuple[int | None, ...]) -> tf.Tensor:
    """A reshape where the shape is known: for LiteRT a map's shape is what its makers' constants say."""
    return tf.ensure_shape(values, shape) if None in shape else tf.reshape(values, shape)


def _split(stream: Stream) -> Stream:
    stem = None if stream.stem is None else split_pooling(stream.stem)
    return dataclasses.replace(stream, network=split_pooling(stream.network), stem=stem)


def prepare(clips: tf.Tensor, stream: Stream) -> tf.Tensor:
    """`Stream.prepare` of uint8 `(B, T, H, W, C)` in operations that every converter knows.

    Returns:
        float32 `(B, T, h, w, C)` in [-1, 1], within 3e-5 of what `Stream.prepare` gives.
    """
    height, width = tf.shape(clips)[2], tf.shape(clips)[3]
    shorter = tf.minimum(height, width)
    if stream.crop is None:
        short_side = stream.run.short_side
        high, wide = (tf.cast(tf.round(size * short_side / shorter), tf.int32) for size in (height, width))
        rows = resampling_matrix(height, tf.constant(0), height, high)
        columns = resampling_matrix(width, tf.constant(0), width, wide)
    else:
        high = wide = tf.constant(stream.crop)
        side = augment.square_side(shorter)
        rows = resampling_matrix(height, (height - side + 1) // 2, side, high)
        columns = resampling_matrix(width, (width - side + 1) // 2, side, wide)
    frames, channels = clips.shape[1], clips.shape[4]
    # Channels before the rows: the products are then large ones. (B, T, H, W, C) → (B·T, C, H, W) → …
    values = tf.transpose(tf.reshape(tf.cast(clips, tf.float32), (-1, height, width, channels)), (0, 3, 1, 2))
    # … → (B·T, C, h, W) → (B·T·C·h, W) → (B·T·C·h, w) → (B·T, C, h, w) → (B·T, h, w, C)
    values = tf.reshape(tf.matmul(rows, values), (-1, width))
    values = tf.reshape(tf.matmul(values, columns, transpose_b=True), (-1, channels, high, wide))
    scaled = augment.scale(tf.transpose(values, (0, 2, 3, 1)))
    return tf.reshape(scaled, (-1, frames, high, wide, channels))


def resampling_matrix(size: tf.Tensor, start: tf.Tensor, side: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """What `tf.image.resize(…, "bilinear", antialias=True)` does to a stretch of an axis.

    Args:
        size: of the axis, int32.
        start, side: of the stretch, int32: where it begins, and its pixels.
        pixels: that it becomes, int32.

    Returns:
        float32 `(pixels, size)`, rows that sum to 1: triangles around each pixel's centre, as wide as the
        distance of two centres where the stretch is shrunk, else two pixels of the stretch wide.
    """
    ratio = tf.cast(side, tf.float32) / tf.cast(pixels, tf.float32)
    centres = (tf.cast(tf.range(pixels), tf.float32) + 0.5) * ratio - 0.5
    places = tf.cast(tf.range(size) - start, tf.float32)
    heights = tf.nn.relu(1 - tf.abs(centres[:, None] - places[None]) / tf.maximum(ratio, 1.0))
    inside = (places >= 0) & (places < tf.cast(side, tf.float32))
    heights *= tf.cast(inside, tf.float32)[None]
    return heights / tf.reduce_sum(heights, axis=1, keepdims=True)


def _write_litert(function: Any, path: Path, precision: str, calibration: _Inputs) -> None:
    """By way of a SavedModel, from which alone a converter takes the names of inputs and outputs."""
    module = tf.Module()
    module.function = function
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={RAW: function.get_concrete_function()})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if precision != FLOAT32:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == FLOAT16:
            converter.target_spec.supported_types = [tf.float16]
        with without_native_messages():
            converted = _quantize_litert(converter, calibration) if precision == INT8 else converter.convert()
        path.write_bytes(converted)


def _quantize_litert(converter: Any, calibration: _Inputs) -> bytes:
    """8 bits but for the preprocessing and the probabilities, by the debugger, which alone can leave out."""
    from ai_edge_litert.interpreter import Interpreter

    converter.optimizations = []
    tensors = Interpreter(model_content=converter.convert()).get_tensor_details()
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
        tf.lite.OpsSet.TFLITE_BUILTINS,
    ]
    converter.representative_dataset = lambda: iter(calibration)
    options = tf.lite.experimental.QuantizationDebugOptions(
        denylisted_nodes=[each["name"] for each in tensors if f"{PREPARING}/" in each["name"]],
        denylisted_ops=["SOFTMAX", "LOGISTIC"],
    )
    with warnings.catch_warnings():  # Its own interpreter says that it will be moved.
        warnings.simplefilter("ignore")
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=converter.representative_dataset, debug_options=options
        )
    quantized: bytes = debugger.get_nondebug_quantized_model()
    return quantized


def _check_has_8_bits(streams: Sequence[Stream]) -> None:
    """Refuses a network whose convolutions are all of three dimensions, which LiteRT computes in float32."""
    networks = [network for stream in streams for network in stream.networks]
    parts = [layer for network in networks for layer in layers_within(network)]
    flat = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)
    if not any(isinstance(layer, flat) for layer in parts):
        raise RunError(
            f"LiteRT computes convolutions in three dimensions in {FLOAT32} alone, and run "
            f"{streams[0].run.folder} has no others. Export it with --precision {FLOAT16}, or "
            f"--format {OPENVINO} --precision {INT8}."
        )


class _Inputs:
    """Clips as the network's inputs by name; each pass reads them anew."""

    def __init__(self, streams: Sequence[Stream], clips: Iterable[TrialClip]) -> None:
        self._streams, self._clips = streams, clips

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return (clip.requests(self._streams)[RAW] for clip in self._clips)


def _write_openvino(function: Any, path: Path, precision: str, calibration: _Inputs) -> None:
    openvino = import_openvino()
    model = openvino.convert_model(function.get_concrete_function())
    if precision == INT8:
        model = _quantize_openvino(model, calibration)
    # What is computed in bfloat16 is kept in float16, which has more digits.
    openvino.save_model(model, str(path), compress_to_fp16=precision != FLOAT32)


def _quantize_openvino(model: Any, calibration: _Inputs) -> Any:
    with without_telemetry():
        import nncf

    nncf.set_log_level(logging.ERROR)
    # Progress bars on stdout, which is for results.
    with contextlib.redirect_stdout(io.StringIO()):
        return nncf.quantize(
            model,
            nncf.Dataset(calibration),
            subset_size=CALIBRATION_CLIPS,
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(patterns=[f".*{PREPARING}/.*"]),
        )


def _write_onnx(function: Any, path: Path, precision: str, calibration: _Inputs) -> None:
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    model, _ = tf2onnx.convert.from_function(function, function.input_signature, opset=_OPSET)
    if precision == FLOAT16:
        _halve_weights(model.graph)
    if precision == INT8:
        _quantize_onnx(model, path, calibration)
    else:
        path.write_bytes(model.SerializeToString())


def _quantize_onnx(model: Any, path: Path, calibration: _Inputs) -> None:
    from onnxruntime import quantization

    clips = iter(calibration)

    class Reader(quantization.CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(clips, None)

    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # Advice to optimise first, which quantising does anyway.
    try:
        quantization.quantize_static(
            model,
            str(path),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=_QUANTIZED,
            nodes_to_exclude=[node.name for node in model.graph.node if f"{PREPARING}/" in node.name],
        )
    finally:
        logging.disable(level)


def _halve_weights(graph: Any) -> None:
    """Keeps the weights of an ONNX graph in float16; they become float32 as a runtime loads them."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weights in graph.initializer:
        values = numpy_helper.to_array(weights)
        # Small ones are sizes and ranges; what float16 cannot hold stays.
        if weights.data_type != TensorProto.FLOAT or values.size < _LEAST_HALVED:
            continue
        halved = values.astype(np.float16)
        if np.isfinite(halved).all():
            name = weights.name
            weights.CopyFrom(numpy_helper.from_array(halved, f"{name}_float16"))
            casts.append(helper.make_node("Cast", [weights.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)

"""A run or an export, loaded into this process, as a subject of the benchmark."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from kdant_tf.runs import load_run
from kdant_tf.serving.benchmark import Call, Subject
from kdant_tf.serving.inputs import decode_clips, prepare_clips
from kdant_tf.serving.model import find_version, load_model, model_of_export, read_export_config
from kdant_tf.serving.served import ENCODED, RAW, make_inputs
from tf_records.augment import crop_centrally
from tf_records.errors import RunError

Answer = Callable[..., Mapping[str, tf.Tensor]]


def open_local(folder: Path, *, constants: bool = False) -> Subject:
    """The model of a run folder, or of one that `kdant export` wrote.

    Args:
        folder: of the run or the export.
        constants: put the export's weights into its graph, which TensorFlow then folds; only
            `serving_default` is there then.

    Raises:
        RunError: it cannot be read.
    """
    version = find_version(folder)
    if version is None:
        model, run = load_model(folder), load_run(folder)
        crops = None if run.features is not None else [run.config.crop]

        def make_calls(clips: np.ndarray) -> dict[str, Call]:
            before = _parts(RAW, make_inputs(clips, model.modality, RAW), crops)
            return {RAW: Call(whole=lambda: model.infer(clips), before=before)}

        return Subject(name=str(folder), model=model, make_calls=make_calls)
    return _open_export(folder, version, constants)


def _open_export(folder: Path, version: Path, constants: bool) -> Subject:
    config = read_export_config(version)
    signatures = _load_signatures(version, constants)
    modality, crops = config["modality"], _crops(config)

    def make_calls(clips: np.ndarray) -> dict[str, Call]:
        calls = {}
        for name, signature in signatures.items():
            inputs = make_inputs(clips, modality, name)
            calls[name] = Call(whole=partial(_ask, signature, inputs), before=_parts(name, inputs, crops))
        return calls

    def infer(clips: np.ndarray) -> np.ndarray:
        return _ask(signatures[RAW], make_inputs(clips, modality, RAW))

    name = f"{folder} as constants" if constants else str(folder)
    return Subject(name=name, model=model_of_export(config, infer, name), make_calls=make_calls)


def _load_signatures(version: Path, constants: bool) -> dict[str, Answer]:
    try:
        loaded = tf.saved_model.load(str(version))
        signatures = dict(loaded.signatures)
        if constants:
            return {RAW: _freeze(signatures[RAW])}
    except Exception as error:  # TensorFlow has many for a damaged SavedModel, KeyError for a foreign one.
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise RunError(f"SavedModel {version} cannot be loaded: {reason}. Export the run again.") from error
    # `loaded` owns the variables, which its signatures alone do not keep.
    return {name: partial(_call, loaded, signature) for name, signature in signatures.items()}


def _call(owner: object, signature: Answer, **inputs: tf.Tensor) -> Mapping[str, tf.Tensor]:
    return signature(**inputs)


def _freeze(signature: Any) -> Answer:
    """The signature with its weights as constants of the graph."""
    frozen, names = convert_variables_to_constants_v2(signature), sorted(signature.structured_outputs)
    return lambda **inputs: dict(zip(names, frozen(**inputs), strict=True))


def _ask(answer: Answer, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    return answer(**{name: tf.constant(value) for name, value in inputs.items()})["probabilities"].numpy()


def _crops(config: Mapping[str, Any]) -> list[int] | None:
    """Pixels of each stream's square; None where a network sees features, whose making is no part apart."""
    streams = [config[name] for name in ("run", "with") if name in config]
    if any(stream.get("features") for stream in streams):
        return None
    return [stream["config"]["crop"] for stream in streams]


def _parts(
    signature: str, inputs: Mapping[str, np.ndarray], crops: Sequence[int] | None
) -> dict[str, Callable[[], object]]:
    """The parts before the network, done by the functions that the served graph is made of."""
    if crops is None:
        return {}
    values = list(inputs.values())
    prepares = [partial(crop_centrally, crop=crop) for crop in crops]
    if signature != ENCODED:
        return {"preprocess": _together(prepare_clips, values, prepares)}
    as_they_are = [lambda frames: tf.cast(frames, tf.float32)] * len(values)
    return {
        "decode": _together(decode_clips, values, as_they_are),
        "preprocess": _together(decode_clips, values, prepares),
    }


def _together(
    read: Callable[..., tf.Tensor], values: Sequence[np.ndarray], prepares: Sequence[Callable[..., tf.Tensor]]
) -> Callable[[], object]:
    function = tf.function(
        lambda *tensors: [read(tensor, prepare) for tensor, prepare in zip(tensors, prepares, strict=True)],
        autograph=False,
    )

    def do() -> None:
        function(*(tf.constant(value) for value in values))
        tf.test.experimental.sync_devices()

    return do

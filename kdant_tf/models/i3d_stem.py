"""Frozen stems, of which features are made once, and I3D's head that learns from them (§4.3).

A run that learned from features gets its stem back in front of its network where it is to see frames.
"""

import hashlib
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras

from kdant_tf.config import INITS, TrainConfig
from kdant_tf.models.frame_stem import load_frame_stem, stride_of
from kdant_tf.models.i3d import HEAD, build_i3d, split_i3d, width_of
from kdant_tf.models.networks import LOGITS, build_network, load_network, load_saved
from kdant_tf.models.weights import WeightsError, initialize
from kdant_tf.runs import CONFIG_NAME, MODEL_NAME, Run, load_run
from tf_records.errors import RunError
from tf_records.schema import CHANNELS, MAP_STRIDE, RGB, FeatureInfo

I3D = "i3d"
ENDPOINT = "MaxPool3d_4a_3x3"
# The last maps of image networks.
_MOBILENET_END, _RESNET_END = "out_relu", "conv5_block3_out"
_ADVICE = "Put its weights there; kdant export also takes the place where they lie, as --stem INIT."


class Stem(NamedTuple):
    """A network up to `endpoint`: float `(B, T, H, W, C)` in [-1, 1] → `(B, T', H', W', d)`."""

    network: keras.Model
    source: str
    width: float | None
    weights_sha256: str
    model: str = I3D
    endpoint: str = ENDPOINT
    stride: int = MAP_STRIDE


def load_stem(
    init: str, *, modality: str, clip_frames: int, model: str = I3D, endpoint: str | None = None
) -> Stem:
    """The stem of a trained network.

    Args:
        init: "kinetics"; "random", a width of 1 and seed 0; or the path of a DeepMind checkpoint, of
            the run folder of an I3D, or of a .keras file of one. Of an image network, see
            `kdant_tf.models.frame_stem.load_frame_stem`.
        modality: of the records, "rgb" or "flow".
        clip_frames: of the records.
        model: "i3d" or a key of `kdant_tf.config.FRAME_STEMS`.
        endpoint: its last layer; None is ENDPOINT of I3D, whose only one it is. Image networks want one.

    Raises:
        WeightsError: weights that cannot be had, or are of another network or modality; no such endpoint.
    """
    if model != I3D:
        return _load_frame_stem(init, modality, model, endpoint)
    if endpoint not in (None, ENDPOINT):
        raise WeightsError(f"`--endpoint` of i3d should be {ENDPOINT}. Received: {endpoint!r}.")
    channels = CHANNELS[modality]
    path = Path(init)
    if (path / CONFIG_NAME).is_file() or init.endswith(".keras"):
        network = _load_i3d(path, channels)
    else:
        keras.utils.set_random_seed(0)
        network = build_i3d(2, (clip_frames, None, None, channels))
        initialize(network, init, modality=modality)
    stem, _ = split_i3d(keras.Model(network.input, {LOGITS: network.output[LOGITS]}), ENDPOINT)
    width = width_of(stem)
    assert width is not None  # It is of an I3D.
    return Stem(stem, init, width, _digest(stem))


def _load_frame_stem(init: str, modality: str, model: str, endpoint: str | None) -> Stem:
    if modality != RGB:
        raise WeightsError(f"{model} sees RGB. Received records of {modality}. Give --model i3d.")
    if endpoint is None:
        example = _MOBILENET_END if model == "mobilenet_v2" else _RESNET_END
        raise WeightsError(f"Features of {model} want --endpoint LAYER, such as {example}.")
    network = load_frame_stem(model, endpoint, init)
    return Stem(network, init, None, _digest(network), model, endpoint, stride_of(network))


def load_stem_of(run: Run, features: FeatureInfo, init: str | None = None) -> keras.Model:
    """The stem that made the features which a run was trained on.

    Args:
        run: on features.
        features: that it was trained on.
        init: where the weights lie that made them, see `load_stem`; None for where they were.

    Raises:
        RunError: no weights there, or those of another stem.
        WeightsError: weights that cannot be had.
    """
    source = features.source if init is None else init
    if source not in INITS and not Path(source).exists() and not Path(f"{source}.index").exists():
        raise RunError(
            f"Run {run.folder} was trained on features of a stem whose weights are not at {source}. {_ADVICE}"
        )
    stem = load_stem(
        source,
        modality=run.modality,
        clip_frames=run.clip.clip_frames,
        model=features.network,
        endpoint=features.endpoint,
    )
    if stem.weights_sha256 != features.weights_sha256:
        raise RunError(
            f"Run {run.folder} was trained on features of another stem than that of {source}. {_ADVICE}"
        )
    return stem.network


def load_with_stem(run: Run, network: keras.Model | None = None) -> keras.Model:
    """The trained network of a run, with its stem in front where `run.stem` says so.

    Args:
        run: finished.
        network: of the run, where it is loaded already, with or without that stem.

    Raises:
        NetworkError: it is a person's own, whose module cannot be imported.
        RunError: its model.keras, or the stem's weights, cannot be read.
    """
    network = load_network(run) if network is None else network
    if run.stem is None:
        return network
    stem, side = load_stem_of(run, run.stem), run.stem.map_side(run.config.crop)
    return put_in_front(stem, network, side, run.clip.clip_frames)


def put_in_front(stem: keras.Model, network: keras.Model, side: int, clip_frames: int) -> keras.Model:
    """The outputs of a network that sees features, from the clips that a stem makes them of.

    Args:
        stem: see `Stem`.
        network: that was trained on such features; one with a stem in front stays as it is.
        side: positions of the map that the network sees.
        clip_frames: of a clip.

    Returns:
        keras.Model of the network's name, from float `(B, T, H, W, C)` in [-1, 1], with its outputs.
    """
    if any(isinstance(layer, MiddleOfMap) for layer in network.layers):
        return network
    clip = keras.Input((clip_frames, *stem.input.shape[2:]), name="clip")
    features = MiddleOfMap(side, name="middle_of_map")(stem(clip, training=False))
    return keras.Model(clip, network(features, training=False), name=network.name)


@keras.saving.register_keras_serializable(package="kdant")
class MiddleOfMap(keras.layers.Layer):
    """Float `(B, T, H, W, d)` → float32 `(B, T, side, side, d)`, in the 16 bits that records keep."""

    def __init__(self, side: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.side = side

    def call(self, maps: Any) -> Any:
        return middle_of_map(maps, self.side)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:2], self.side, self.side, input_shape[-1])

    def compute_output_spec(self, maps: Any) -> keras.KerasTensor:
        return keras.KerasTensor(self.compute_output_shape(maps.shape), "float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "side": self.side}


def middle_of_map(maps: Any, side: int) -> Any:
    """Float `(B, T, H, W, d)` → float32 `(B, T, side, side, d)`, as records of features give it."""
    height, width = keras.ops.shape(maps)[2:4]
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    cut = keras.ops.cast(maps, "float16")[:, :, top : top + side, left : left + side]
    # Slices at places that the size of a clip decides have no shape of their own.
    return keras.ops.cast(keras.ops.reshape(cut, (-1, maps.shape[1], side, side, maps.shape[-1])), "float32")


def build_head(
    config: TrainConfig,
    classes: Sequence[str],
    clip_shape: tuple[int, int, int, int],
    *,
    modality: str,
    load_weights: bool,
) -> keras.Model:
    """I3D from `ENDPOINT` on, with the first weights that `config.init` names.

    Args:
        config: of an I3D.
        classes: names, two or more.
        clip_shape: (T, H, W, C) of the clips that the features were made of.
        modality: "rgb" or "flow".
        load_weights: False leaves random weights.

    Returns:
        keras.Model from the stem's map, any H and W, to the outputs of the whole I3D.

    Raises:
        WeightsError: weights that cannot be had, or are of another network.
    """
    network = build_network(config, len(classes), clip_shape)
    _, head = split_i3d(network, ENDPOINT)
    if load_weights:
        # The two share their layers, so that loading the one loads the other.
        target = head if _is_head(config.init) else network
        initialize(target, config.init, modality=modality, classes=classes)
    return head


def _load_i3d(path: Path, channels: int) -> keras.Model:
    network = load_saved(path if path.suffix == ".keras" else load_run(path).model_path)
    if width_of(network) is None or ENDPOINT not in {layer.name for layer in network.layers}:
        raise WeightsError(
            f"{path} should hold a whole I3D, whose stem makes the features. Received: network "
            f"{network.name!r}."
        )
    if network.input.shape[-1] != channels:
        raise WeightsError(
            f"{path} is an I3D for {network.input.shape[-1]} channels, the records have {channels}. "
            f"Give one of the same modality."
        )
    return network


def _is_head(init: str | None) -> bool:
    """Whether `init` is the run folder or .keras file of a head."""
    if init is None:
        return False
    path = Path(init) if init.endswith(".keras") else Path(init) / MODEL_NAME
    try:
        with zipfile.ZipFile(path) as archive:
            name: object = json.loads(archive.read("config.json"))["config"]["name"]
            return name == HEAD
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError):
        return False  # Whatever is wrong with the file, loading it says so.


def _digest(network: keras.Model) -> str:
    digest = hashlib.sha256()
    for variable in sorted(network.weights, key=lambda variable: variable.path):
        digest.update(variable.path.encode())
        digest.update(keras.ops.convert_to_numpy(variable).tobytes())
    return digest.hexdigest()

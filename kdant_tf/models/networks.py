"""Which network a training builds: I3D, a baseline, or a person's own.

Every network maps a clip `(B, T, H, W, C)` in [-1, 1] to a dict of "logits" `(B, classes)` and one
feature map, `(B, N, d)` or `(B, T, H, W, d)`, under a name of its own; the distillation asks for no more.
"""

import importlib
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras

from kdant_tf.config import INITS, ConfigError, TrainConfig
from kdant_tf.models.baselines import BACKBONES, build_features3d, build_frame_mlp, build_tsn
from kdant_tf.models.i3d import ENDPOINTS, build_i3d, endpoint_layer
from kdant_tf.private_apis import call_that_made, layers_within, remember_what_is_not_saved
from kdant_tf.runs import Run
from tf_records.errors import KdantError, RunError, first_line
from tf_records.schema import RGB

LOGITS = "logits"
FLOAT32 = "float32"


class NetworkError(KdantError):
    """A network of one's own that cannot be built or used."""


def check_network_settings(config: TrainConfig, clip_frames: int, modality: str = RGB) -> None:
    """Refuses settings that no network can be built with, before anything is built.

    Raises:
        ConfigError: an unknown endpoint or backbone, more segments than frames, or an RGB network for
            flow.
    """
    if modality != RGB and config.model in INITS["imagenet"]:
        raise ConfigError(
            f"Setting `model` should be i3d or MODULE:FUNCTION for {modality}: tsn and frame-mlp see RGB. "
            f"Received: {config.model!r}."
        )
    if config.endpoint not in ENDPOINTS:
        raise ConfigError(
            f"Setting `endpoint` should be one of {', '.join(ENDPOINTS)}. Received: {config.endpoint!r}."
        )
    if config.backbone is not None and config.backbone not in BACKBONES:
        raise ConfigError(
            f"Setting `backbone` should be one of {', '.join(BACKBONES)}. Received: {config.backbone!r}."
        )
    if config.model == "tsn" and config.segments > clip_frames:
        raise ConfigError(
            f"Setting `segments` should be at most the {clip_frames} frames of a clip. "
            f"Received: {config.segments}."
        )


def build_network(
    config: TrainConfig, num_classes: int, input_shape: tuple[int, int, int, int]
) -> keras.Model:
    """The network that `config.model` names, with random weights.

    Args:
        config: `model`, and the settings of that model.
        num_classes: int >= 2.
        input_shape: (T, H, W, C).

    Raises:
        NetworkError: a function of one's own that cannot be imported, fails, or gives something else
            than the dict described above.
    """
    if config.model == "i3d":
        return build_i3d(
            num_classes,
            input_shape,
            width=config.width,
            endpoints=(config.endpoint,),
            dropout=config.dropout,
            batch_norm_momentum=config.batch_norm_momentum,
            seed=config.seed,
        )
    if config.model == "tsn":
        return build_tsn(
            num_classes,
            input_shape,
            backbone=config.backbone or "ResNet50",
            segments=config.segments,
            dropout=config.dropout,
            batch_norm_momentum=config.batch_norm_momentum,
            seed=config.seed,
        )
    if config.model == "features3d":
        return build_features3d(
            num_classes,
            input_shape,
            width=config.width,
            dropout=config.dropout,
            batch_norm_momentum=config.batch_norm_momentum,
            seed=config.seed,
        )
    if config.model == "frame-mlp":
        backbone = config.backbone or "ResNet152"
        return build_frame_mlp(num_classes, input_shape, backbone, dropout=config.dropout, seed=config.seed)
    return _build_own(config.model, num_classes, input_shape)


def feature_map_name(network: keras.Model) -> str:
    """Name of a network's one output beside "logits"."""
    name: str
    (name,) = (name for name in network.output if name != LOGITS)
    return name


def load_network(run: Run) -> keras.Model:
    """The trained network of a run.

    Raises:
        NetworkError: it is a person's own, whose module cannot be imported.
        RunError: its model.keras cannot be read.
    """
    import_own(run.config.model)
    return load_saved(run.model_path)


def load_saved(path: str | Path) -> keras.Model:
    """A network that Keras saved as `path`; it computes in float32, also where it was trained in less.

    Raises:
        RunError: `path` cannot be read.
    """
    if Path(path).is_file() and not zipfile.is_zipfile(path):
        raise RunError(
            f"{path} cannot be read: of {Path(path).stat().st_size:,} bytes, it is no whole .keras file. "
            f"Train the run again."
        )
    remember_what_is_not_saved()
    try:
        network = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras, zipfile and h5py each have their own for a damaged file.
        raise RunError(f"{path} cannot be read: {first_line(error)}. Train the run again.") from error
    set_precision(network, FLOAT32)
    return network


def load_teacher(run: Run, student: TrainConfig) -> keras.Model:
    """The trained network of a run; an I3D gives the map that an I3D student is told to learn from."""
    network = load_network(run)
    if not run.config.model == student.model == "i3d" or student.endpoint in network.output:
        return network
    outputs = {
        LOGITS: network.output[LOGITS],
        student.endpoint: endpoint_layer(network, student.endpoint).output,
    }
    return keras.Model(network.input, outputs, name=network.name)


def set_precision(network: keras.Model, precision: str) -> None:
    """Lets the layers of one network compute in `precision`; its weights stay float32.

    No global policy is set, which other networks would inherit. The last layer with weights before the
    logits, and what follows it, compute in float32 whatever the precision.

    Args:
        network: functional, with an output "logits", or a stem without.
        precision: name of a Keras policy: "float32", "mixed_bfloat16" or "mixed_float16".
    """
    for layer in layers_within(network):
        layer.dtype_policy = precision
    if precision == FLOAT32 or not isinstance(network.output, dict):
        return
    for layer in _layers_of_logits(network.output[LOGITS]):
        for part in layers_within(layer, include_self=True):
            part.dtype_policy = FLOAT32


def import_own(model: str) -> Callable[..., keras.Model] | None:
    """The function that "package.module:function" names, or None where `model` is one of kdant's own.

    The current folder is searched too, and importing registers the module's layers with Keras.

    Raises:
        NetworkError: no such module or function.
    """
    module, _, name = model.partition(":")
    if not name:
        return None
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        function: Callable[..., keras.Model] = getattr(importlib.import_module(module), name)
    except Exception as error:  # A module may fail with anything while it is imported.
        raise NetworkError(
            f"Network {model!r} cannot be imported: {first_line(error)}. Give MODULE:FUNCTION, the "
            f"module installed or in the current folder."
        ) from error
    return function


def _build_own(model: str, num_classes: int, input_shape: tuple[int, int, int, int]) -> keras.Model:
    function = import_own(model)
    assert function is not None  # TrainConfig lets no other name pass.
    try:
        network = function(num_classes, input_shape)
    except Exception as error:
        raise NetworkError(
            f"{model}({num_classes}, {input_shape}) failed: {type(error).__name__}: {first_line(error)}. "
            f"See where with --verbose."
        ) from error
    problem = _problem_of(network, num_classes, input_shape)
    if problem:
        raise NetworkError(
            f"{model}({num_classes}, {input_shape}) should return a keras.Model from clips to a dict of "
            f'"logits" and one feature map. Received: {problem}.'
        )
    _check_it_can_be_loaded_again(model, network)
    return network


def _check_it_can_be_loaded_again(model: str, network: keras.Model) -> None:
    """Finds out before the training what else would be found out after it."""
    try:
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(network))
    except Exception as error:
        raise NetworkError(
            f"{model} returns a network that Keras cannot load again: {first_line(error)}. Put "
            f"@keras.saving.register_keras_serializable() over its own layers, and use no Lambda."
        ) from error


def _problem_of(network: object, num_classes: int, input_shape: tuple[int, int, int, int]) -> str | None:
    """What is wrong with a network of one's own, or None."""
    if not isinstance(network, keras.Model) or not network.built:
        return f"{type(network).__name__}, which is no functional keras.Model"
    outputs = getattr(network, "output", None)
    if not isinstance(outputs, dict) or LOGITS not in outputs or len(outputs) != 2:
        return f"outputs {sorted(outputs) if isinstance(outputs, dict) else type(outputs).__name__}"
    if not all(isinstance(value, keras.KerasTensor) for value in outputs.values()):
        return "outputs that are not one tensor each"
    if tuple(outputs[LOGITS].shape) != (None, num_classes):
        return f"logits of shape {tuple(outputs[LOGITS].shape)}"
    if len(outputs[feature_map_name(network)].shape) not in (3, 5):
        return f"a feature map of shape {tuple(outputs[feature_map_name(network)].shape)}, not 3-D or 5-D"
    if not isinstance(network.input, keras.KerasTensor):
        return f"{len(network.inputs)} inputs in a {type(network.input).__name__}, not one input"
    if tuple(network.input.shape[1:]) != tuple(input_shape):
        return f"an input of shape {tuple(network.input.shape)}"
    return None


def _layers_of_logits(tensor: Any) -> Iterator[keras.layers.Layer]:
    """The layers between `tensor` and the nearest weights before it, with the layer that has these."""
    operation, inputs, index = call_that_made(tensor)
    if isinstance(operation, keras.Model) and hasattr(operation, "outputs"):
        yield from _layers_of_logits(operation.outputs[index])
        return
    is_layer = isinstance(operation, keras.layers.Layer)
    if is_layer:
        yield operation
    if not (is_layer and operation.weights):
        for before in inputs:
            yield from _layers_of_logits(before)

"""Frozen image networks up to a named layer, run over each frame of a clip.

With I3D's stem (i3d_stem.py) these are what records of features are made with.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import keras
from keras import layers, ops

from kdant_tf.config import FRAME_STEMS
from kdant_tf.models.baselines import build_backbone, prepare_frames
from kdant_tf.models.networks import load_saved
from kdant_tf.models.weights import (
    WeightsError,
    find_backbone,
    is_backbone_file,
    load_backbone_file,
    load_imagenet,
)
from kdant_tf.runs import CONFIG_NAME, load_run

# Square by which the stride of a layer is found out; every stride divides it.
_PROBE = 224


def load_frame_stem(model: str, endpoint: str, init: str) -> keras.Model:
    """An image network up to one of its layers, frame by frame, with trained weights.

    Args:
        model: a key of `kdant_tf.config.FRAME_STEMS`, such as "mobilenet_v2".
        endpoint: name of a layer whose output is a map, such as "block_13_expand_relu".
        init: "imagenet"; "random", of seed 0; a Keras .h5 or .weights.h5 file of the network without its
            head; or the run folder or .keras file of a `tsn` on that network.

    Returns:
        keras.Model from float `(B, T, H, W, 3)` in [-1, 1], any sizes, to `(B, T, h, w, d)`.

    Raises:
        WeightsError: no such layer, one that is no map, or weights that cannot be had or are of another
            network.
    """
    name = FRAME_STEMS[model]
    keras.utils.set_random_seed(0)
    backbone = build_backbone(name, (None, None, 3))
    _load_weights(backbone, name, init)
    network = _up_to(backbone.layers[-1], endpoint, model)
    clip = layers.Input((None, None, None, 3), name="clip")
    frames = prepare_frames(name, FoldFrames(name="fold")(clip))
    maps = UnfoldFrames(name="unfold")([network(frames), clip])
    stem = keras.Model(clip, maps, name="stem")
    stem.trainable = False
    return stem


def stride_of(stem: keras.Model) -> int:
    """Pixels for each position of a frame stem's map."""
    shape = stem.compute_output_shape((1, 1, _PROBE, _PROBE, 3))
    return _PROBE // int(shape[2])


def _load_weights(backbone: keras.Model, name: str, init: str) -> None:
    path = Path(init)
    if init == "imagenet":
        load_imagenet(backbone)
    elif is_backbone_file(init):
        load_backbone_file(backbone, init)
    elif (path / CONFIG_NAME).is_file() or init.endswith(".keras"):
        network = load_saved(path if init.endswith(".keras") else load_run(path).model_path)
        trained = find_backbone(network, init)
        if trained.name != name:
            raise WeightsError(f"{init} should be a network on {name}. Received: one on {trained.name}.")
        backbone.set_weights(trained.get_weights())
    elif init != "random":
        raise WeightsError(
            f"`--init` of an image network should be imagenet, random, a .h5 file, or the run folder or "
            f".keras file of a tsn. Received: {init!r}."
        )


def _up_to(network: keras.Model, endpoint: str, model: str) -> keras.Model:
    """An application of Keras up to the output of its layer `endpoint`."""
    maps = {layer.name: layer for layer in network.layers if len(getattr(layer.output, "shape", ())) == 4}
    if endpoint not in maps:
        close = ", ".join(difflib.get_close_matches(endpoint, maps, n=3, cutoff=0))
        raise WeightsError(
            f"`--endpoint` should be a layer of {model} whose output is a map. Received: {endpoint!r}. "
            f"Near it: {close}."
        )
    return keras.Model(network.input, maps[endpoint].output, name=f"{model}_{endpoint}")


@keras.saving.register_keras_serializable(package="kdant")
class FoldFrames(layers.Layer):
    """`(B, T, H, W, C)` → `(B·T, H, W, C)`, any sizes."""

    def call(self, clip: Any) -> Any:
        return ops.reshape(clip, (-1, *ops.shape(clip)[2:]))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, frames, *frame = input_shape
        return (None if batch is None or frames is None else batch * frames, *frame)

    def compute_output_spec(self, clip: Any) -> keras.KerasTensor:
        return keras.KerasTensor(self.compute_output_shape(clip.shape), clip.dtype)


@keras.saving.register_keras_serializable(package="kdant")
class UnfoldFrames(layers.Layer):
    """`(B·T, h, w, d)` and the clip `(B, T, …)` that it was made of → `(B, T, h, w, d)`."""

    def call(self, inputs: Any) -> Any:
        maps, clip = inputs
        return ops.reshape(maps, (*ops.shape(clip)[:2], *ops.shape(maps)[1:]))

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        maps, clip = input_shape
        return (*clip[:2], *maps[1:])

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        maps, clip = inputs
        return keras.KerasTensor(self.compute_output_shape([maps.shape, clip.shape]), maps.dtype)

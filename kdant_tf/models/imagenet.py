"""Two-dimensional networks of keras.applications, for the baselines that see frame by frame."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import applications, layers, ops


class _Backbone(NamedTuple):
    """`inputs`: "caffe" is BGR less ImageNet's mean, "tf" is RGB in [-1, 1]."""

    build: Callable[..., keras.Model]
    inputs: str


BACKBONES = {
    "ResNet50": _Backbone(applications.ResNet50, "caffe"),
    "ResNet101": _Backbone(applications.ResNet101, "caffe"),
    "ResNet152": _Backbone(applications.ResNet152, "caffe"),
    "MobileNetV2": _Backbone(applications.MobileNetV2, "tf"),
}
# Means of ImageNet's blue, green and red, in [0, 255].
_MEAN_BGR = (103.939, 116.779, 123.68)


def build_backbone(
    name: str,
    frame_shape: tuple[int, int, int],
    weights: str | None = None,
    batch_norm_momentum: float | None = None,
) -> keras.Model:
    """A backbone of BACKBONES without its head, from RGB frames in [-1, 1].

    Args:
        name: a key of BACKBONES.
        frame_shape: (H, W, 3).
        weights: "imagenet", downloaded by Keras into its cache, or None for random ones.
        batch_norm_momentum: of the moving statistics; None keeps the backbone's own.

    Returns:
        keras.Model `name` from float `(N, H, W, 3)` to the last map, float `(N, h, w, d)`.

    Raises:
        ValueError: an unknown name, or channels other than 3.
    """
    if name not in BACKBONES:
        raise ValueError(f"`name` should be one of {', '.join(BACKBONES)}. Received: {name!r}.")
    if frame_shape[-1] != 3:
        raise ValueError(f"{name} sees RGB frames of 3 channels. Received shape: {frame_shape}.")
    frames = layers.Input(frame_shape, name="frames")
    backbone = BACKBONES[name].build(include_top=False, weights=weights, input_shape=frame_shape)
    if batch_norm_momentum is not None:
        for layer in backbone.layers:
            if isinstance(layer, layers.BatchNormalization):
                layer.momentum = batch_norm_momentum
    x = _to_caffe(frames) if BACKBONES[name].inputs == "caffe" else frames
    return keras.Model(frames, backbone(x), name=name)


def fold_frames(clip: Any) -> Any:
    """`(B, T, H, W, C)` → `(B·T, H, W, C)`."""
    return ops.reshape(clip, (-1, *clip.shape[2:]))


def _to_caffe(frames: Any) -> Any:
    """RGB in [-1, 1] → BGR in [0, 255] less ImageNet's mean."""
    offset = [127.5 - mean for mean in _MEAN_BGR]
    return layers.Rescaling(127.5, offset=offset, name="to_caffe")(ops.flip(frames, axis=-1))

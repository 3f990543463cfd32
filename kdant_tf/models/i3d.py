"""I3D: Inception-v1 inflated to three dimensions (Carreira and Zisserman 2017), for RGB or flow.

Endpoint names, channels, strides, padding and batch normalisation are DeepMind's. A layer's name is
its scope in DeepMind's checkpoints with dots for slashes: "Mixed_4f.Branch_0.Conv3d_0a_1x1.conv_3d".
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import layers, ops

BATCH_NORM_EPSILON = 1e-3
_FIRST = "Conv3d_1a_7x7"


class _Mixed(NamedTuple):
    """Channels of an Inception block: 1x1; 1x1 → 3x3; 1x1 → 3x3; pool → 1x1."""

    branch_0: int
    branch_1: tuple[int, int]
    branch_2: tuple[int, int]
    branch_3: int


class _Conv(NamedTuple):
    channels: int
    kernel: int
    stride: int = 1


class _Pool(NamedTuple):
    kernel: tuple[int, int, int]
    stride: tuple[int, int, int]


_STAGES: dict[str, _Mixed | _Conv | _Pool] = {
    _FIRST: _Conv(64, 7, 2),
    "MaxPool3d_2a_3x3": _Pool((1, 3, 3), (1, 2, 2)),
    "Conv3d_2b_1x1": _Conv(64, 1),
    "Conv3d_2c_3x3": _Conv(192, 3),
    "MaxPool3d_3a_3x3": _Pool((1, 3, 3), (1, 2, 2)),
    "Mixed_3b": _Mixed(64, (96, 128), (16, 32), 32),
    "Mixed_3c": _Mixed(128, (128, 192), (32, 96), 64),
    "MaxPool3d_4a_3x3": _Pool((3, 3, 3), (2, 2, 2)),
    "Mixed_4b": _Mixed(192, (96, 208), (16, 48), 64),
    "Mixed_4c": _Mixed(160, (112, 224), (24, 64), 64),
    "Mixed_4d": _Mixed(128, (128, 256), (24, 64), 64),
    "Mixed_4e": _Mixed(112, (144, 288), (32, 64), 64),
    "Mixed_4f": _Mixed(256, (160, 320), (32, 128), 128),
    "MaxPool3d_5a_2x2": _Pool((2, 2, 2), (2, 2, 2)),
    "Mixed_5b": _Mixed(256, (160, 320), (32, 128), 128),
    "Mixed_5c": _Mixed(384, (192, 384), (48, 128), 128),
}
ENDPOINTS = tuple(_STAGES)
# Name of the part of a cut I3D that gives the logits.
HEAD = "head"


def build_i3d(
    num_classes: int,
    input_shape: tuple[int | None, ...] = (8, 224, 224, 3),
    width: float = 1.0,
    endpoints: Sequence[str] = ("Mixed_4f",),
    dropout: float = 0.5,
    batch_norm_momentum: float = 0.9,
    seed: int | None = None,
) -> keras.Model:
    """I3D as a functional model with named endpoints.

    Args:
        num_classes: int >= 1.
        input_shape: (T, H, W, C); C is 3 for RGB, 2 for flow. H and W may be None, T may not.
        width: float > 0, multiplies every channel count but the last; 1.0 is the published network.
        endpoints: names from ENDPOINTS to give out beside the logits; () for the logits alone.
        dropout: share dropped before the last layer, while training.
        batch_norm_momentum: of the moving statistics. DeepMind's 0.999 needs thousands of steps.
        seed: of the dropout.

    Returns:
        keras.Model from float `(B, T, H, W, C)` in [-1, 1] to a dict: "logits" float32
        `(B, num_classes)` and one entry an endpoint. 8x224x224 gives Mixed_4f of `(B, 2, 14, 14, 832)`.
        Without endpoints it gives no dict but the logits, as `fit(clips, labels)` wants them.

    Raises:
        ValueError: an unknown endpoint, T of None, or an argument out of range.

    Example:
        >>> network = build_i3d(21, (8, 112, 112, 3), width=0.125)
        >>> {name: output.shape for name, output in network.output.items()}
        {'Mixed_4f': (None, 2, 7, 7, 104), 'logits': (None, 21)}
        >>> classifier = build_i3d(21, (8, 112, 112, 3), width=0.125, endpoints=())
        >>> classifier.output.shape
        (None, 21)

    Source: Tran et al. 2019, §4.2; Carreira and Zisserman 2017. Deviations: the last pooling spans the whole
    map in space, and in time no more than it has, so that other sizes than 224 and clips of 8 frames
    work; at 16 frames and more of 224x224 it is DeepMind's 2x7x7.
    """
    _check_arguments(num_classes, input_shape, width, endpoints)
    builder = _Builder(width, batch_norm_momentum)
    clip = layers.Input(input_shape, name="clip")
    outputs: dict[str, Any] = {}
    x = clip
    for name, stage in _STAGES.items():
        x = builder.add(x, name, stage)
        if name in endpoints:
            outputs[name] = x
    outputs["logits"] = _add_head(x, num_classes, dropout, seed)
    return keras.Model(clip, outputs if endpoints else outputs["logits"], name="i3d")


def split_i3d(model: keras.Model, endpoint: str = "MaxPool3d_4a_3x3") -> tuple[keras.Model, keras.Model]:
    """Cuts an I3D in two, which share its layers, so that head(stem(clip)) is model(clip), bit for bit.

    Args:
        model: of `build_i3d`.
        endpoint: the stem's last layer, from ENDPOINTS, before every map that `model` gives out.

    Returns:
        stem: from float `(B, T, H, W, C)`, any T, H and W, to the endpoint's map; 32x256x456 gives
            8x16x29x480 at the default endpoint (§4.3).
        head: from that map, of the clip length of `model` and any height and width, to the outputs
            of `model`.

    Raises:
        ValueError: an unknown endpoint, or one that does not come before all outputs.

    Example:
        >>> stem, head = split_i3d(build_i3d(21, (8, 64, 64, 3), width=0.125))
        >>> head.input_shape
        (None, 2, None, None, 60)

    Source: Tran et al. 2019, §4.3. Deviations: none.
    """
    later = ENDPOINTS[ENDPOINTS.index(endpoint) + 1 :] if endpoint in ENDPOINTS else ()
    outputs = model.output if isinstance(model.output, dict) else ("logits",)
    if endpoint not in ENDPOINTS or not {*outputs} <= {*later, "logits"}:
        raise ValueError(
            f"`endpoint` should be one of {', '.join(ENDPOINTS)}, and come before the network's outputs "
            f"{', '.join(outputs)}. Received: {endpoint!r}."
        )
    middle = endpoint_layer(model, endpoint).output
    channels = model.input.shape[-1]
    stem = keras.Model(model.input, middle, name="stem")
    head = keras.Model(middle, model.output, name=HEAD)
    return (
        _with_input(stem, (None, None, None, channels)),
        _with_input(head, (middle.shape[1], None, None, middle.shape[-1])),
    )


def endpoint_layer(model: keras.Model, endpoint: str) -> keras.layers.Layer:
    """The layer of an I3D whose output is `endpoint`; of a convolution that is its ReLU."""
    is_convolution = isinstance(_STAGES[endpoint], _Conv)
    return model.get_layer(f"{endpoint}.relu" if is_convolution else endpoint)


def endpoint_channels(endpoint: str, width: float = 1.0) -> int:
    """Channels of `endpoint` in an I3D of `width`."""
    # A pooling has the channels of the stage before it.
    stages = [_STAGES[name] for name in ENDPOINTS[: ENDPOINTS.index(endpoint) + 1]]
    stage = next(stage for stage in reversed(stages) if not isinstance(stage, _Pool))
    if isinstance(stage, _Conv):
        return _widened(stage.channels, width)
    branches = (stage.branch_0, stage.branch_1[1], stage.branch_2[1], stage.branch_3)
    return sum(_widened(channels, width) for channels in branches)


def width_of(model: keras.Model) -> float | None:
    """`width` that an I3D or its stem was built with, as its first channels have it; None of others."""
    name = f"{_FIRST}.conv_3d"
    if name not in {layer.name for layer in model.layers}:
        return None
    width: float = model.get_layer(name).filters / endpoint_channels(_FIRST)
    return width


def _widened(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _with_input(model: keras.Model, shape: tuple[int | None, ...]) -> keras.Model:
    """The same layers on an input of another shape."""
    return keras.models.clone_model(
        model, input_tensors=layers.Input(shape), clone_function=lambda layer: layer
    )


class _Builder:
    """Adds stages with the width and momentum of one network."""

    def __init__(self, width: float, batch_norm_momentum: float) -> None:
        self.width = width
        self.batch_norm_momentum = batch_norm_momentum

    def add(self, x: Any, name: str, stage: _Mixed | _Conv | _Pool) -> Any:
        if isinstance(stage, _Conv):
            return self._conv(x, name, *stage)
        if isinstance(stage, _Pool):
            return layers.MaxPooling3D(stage.kernel, stage.stride, padding="same", name=name)(x)
        return self._mixed(x, name, stage)

    def _conv(self, x: Any, name: str, channels: int, kernel: int, stride: int = 1) -> Any:
        """Convolution without bias, batch norm without scale, ReLU: DeepMind's Unit3D."""
        convolution = {"strides": stride, "padding": "same", "use_bias": False}
        x = _apply(layers.Conv3D, x, f"{name}.conv_3d", _widened(channels, self.width), kernel, **convolution)
        normalization = {"momentum": self.batch_norm_momentum, "epsilon": BATCH_NORM_EPSILON, "scale": False}
        x = _apply(layers.BatchNormalization, x, f"{name}.batch_norm", **normalization)
        return layers.ReLU(name=f"{name}.relu")(x)

    def _mixed(self, x: Any, name: str, mixed: _Mixed) -> Any:
        # DeepMind misnamed one layer, and its checkpoints carry the name.
        second_3x3 = "Conv3d_0a_3x3" if name == "Mixed_5b" else "Conv3d_0b_3x3"
        branch_0 = self._conv(x, f"{name}.Branch_0.Conv3d_0a_1x1", mixed.branch_0, 1)
        branch_1 = self._conv(x, f"{name}.Branch_1.Conv3d_0a_1x1", mixed.branch_1[0], 1)
        branch_1 = self._conv(branch_1, f"{name}.Branch_1.Conv3d_0b_3x3", mixed.branch_1[1], 3)
        branch_2 = self._conv(x, f"{name}.Branch_2.Conv3d_0a_1x1", mixed.branch_2[0], 1)
        branch_2 = self._conv(branch_2, f"{name}.Branch_2.{second_3x3}", mixed.branch_2[1], 3)
        branch_3 = layers.MaxPooling3D(3, 1, padding="same", name=f"{name}.Branch_3.MaxPool3d_0a_3x3")(x)
        branch_3 = self._conv(branch_3, f"{name}.Branch_3.Conv3d_0b_1x1", mixed.branch_3, 1)
        return layers.Concatenate(name=name)([branch_0, branch_1, branch_2, branch_3])


def _apply(layer_class: type[layers.Layer], x: Any, name: str, *arguments: Any, **options: Any) -> Any:
    """What a new layer of this name makes of `x`.

    PyTorch allows no dots in the names of parameters, which Keras makes of the layer's while it is built. The
    layer itself is called the same on every backend, and so are its weights in a file.
    """
    on_torch = keras.backend.backend() == "torch"
    layer = layer_class(*arguments, name=name.replace(".", "_") if on_torch else name, **options)
    x = layer(x)
    layer.name = name
    return x


def _add_head(x: Any, num_classes: int, dropout: float, seed: int | None) -> Any:
    """Pooling over space and pairs of time steps, dropout, 1x1x1 convolution, mean over time."""
    x = ops.mean(x, axis=(2, 3), keepdims=True)
    x = layers.AveragePooling3D((min(2, x.shape[1]), 1, 1), 1, name="Logits.AvgPool3d_0a")(x)
    x = _apply(layers.Dropout, x, "Logits.Dropout_0b", dropout, seed=seed)
    x = _apply(layers.Conv3D, x, "Logits.Conv3d_0c_1x1.conv_3d", num_classes, 1, dtype="float32")
    # (B, T, 1, 1, classes) → (B, classes)
    return ops.mean(x, axis=(1, 2, 3))


def _check_arguments(
    num_classes: int, input_shape: tuple[int | None, ...], width: float, endpoints: Sequence[str]
) -> None:
    unknown = [name for name in endpoints if name not in ENDPOINTS]
    if unknown:
        raise ValueError(f"`endpoints` should be among {', '.join(ENDPOINTS)}. Received: {unknown}.")
    if len(input_shape) != 4 or input_shape[0] is None or input_shape[3] is None:
        raise ValueError(f"`input_shape` should be (T, H, W, C) with T and C known. Received: {input_shape}.")
    if num_classes < 1 or not width > 0:
        raise ValueError(
            f"`num_classes` should be at least 1 and `width` positive. Received: {num_classes}, {width}."
        )

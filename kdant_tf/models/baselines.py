"""Networks beside I3D: TSN-RGB (Wang et al. 2016), an MLP on ResNet-152 (paper §4.4), and small 3-D ones.

The first two see frame by frame and stand on a two-dimensional network of keras.applications. All have the
outputs of `build_i3d`: a dict of "logits" and one map.
"""

import itertools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import applications, layers, ops

# The two layers of `build_frame_mlp`: what is frozen, and what learns.
STEM = "frame_features"
HEAD = "mlp"
# The layer of `build_features3d` whose map is distilled, and its channels.
FEATURES3D = "features3d"
FEATURES3D_CHANNELS = 128


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


def build_tsn(
    num_classes: int,
    input_shape: tuple[int, int, int, int] = (8, 224, 224, 3),
    backbone: str = "ResNet50",
    segments: int = 3,
    dropout: float = 0.5,
    batch_norm_momentum: float | None = None,
    seed: int | None = None,
) -> keras.Model:
    """TSN-RGB: a 2-D network sees one frame of each segment of a clip, and their logits are averaged.

    Args:
        num_classes: int >= 1.
        input_shape: (T, H, W, 3).
        backbone: a key of `kdant_tf.models.baselines.BACKBONES`; its weights begin random.
        segments: TSN's K.
        dropout: share dropped before the last layer, while training.
        batch_norm_momentum: of the moving statistics; None keeps the backbone's own.
        seed: of the dropout and the drawn frames.

    Returns:
        keras.Model from float `(B, T, H, W, 3)` in [-1, 1] to a dict: "logits" float32
        `(B, num_classes)`, the mean over segments, and "frames" `(B, K, h, w, d)`, the backbone's maps.

    Raises:
        ValueError: an unknown backbone, or more segments than frames.

    Example:
        >>> network = build_tsn(5, (8, 32, 32, 3), backbone="MobileNetV2", segments=2)
        >>> {name: output.shape for name, output in network.output.items()}
        {'logits': (None, 5), 'frames': (None, 2, 1, 1, 1280)}

    Source: Wang et al. 2016; Tran et al. 2019, Table 3. Deviations: ResNet-50 in place of
    BN-Inception, which keras.applications does not have; all batch normalisations learn.
    """
    _check_segments(segments, input_shape[0])
    clip = layers.Input(input_shape, name="clip")
    chosen = SegmentFrames(segments, seed, name="segments")(clip)
    network = build_backbone(backbone, input_shape[1:], batch_norm_momentum=batch_norm_momentum)
    maps = network(fold_frames(chosen))
    x = layers.GlobalAveragePooling2D(name="pool")(maps)
    x = layers.Dropout(dropout, seed=seed, name="dropout")(x)
    x = layers.Dense(num_classes, dtype="float32", name="Logits")(x)
    # (B·K, classes) → (B, K, classes) → (B, classes)
    logits = ops.mean(ops.reshape(x, (-1, segments, num_classes)), axis=1)
    frames = ops.reshape(maps, (-1, segments, *maps.shape[1:]))
    return keras.Model(clip, {"logits": logits, "frames": frames}, name="tsn")


def build_frame_mlp(
    num_classes: int,
    input_shape: tuple[int, int, int, int] = (8, 224, 224, 3),
    backbone: str = "ResNet152",
    hidden: int = 1024,
    dropout: float = 0.5,
    seed: int | None = None,
) -> keras.Model:
    """A frozen 2-D network a frame, and an MLP that learns; scores are averaged over frames (paper §4.4).

    The two parts are the layers STEM, `(B, T, H, W, 3)` → `(B, T, d)`, and HEAD, from there to the
    outputs; training can run the head alone on features that were computed once.

    Args:
        num_classes: int >= 1.
        input_shape: (T, H, W, 3).
        backbone: a key of `kdant_tf.models.baselines.BACKBONES`; its weights begin random.
        hidden: units of the MLP's hidden layer.
        dropout: share dropped before the last layer, while training.
        seed: of the dropout.

    Returns:
        keras.Model from float `(B, T, H, W, 3)` in [-1, 1] to a dict: "logits" float32
        `(B, num_classes)`, whose softmax is the mean of the frames' probabilities, and "hidden"
        `(B, T, hidden)`, the hidden layer's map.

    Raises:
        ValueError: an unknown backbone.

    Source: Tran et al. 2019, §4.4. Deviations: the paper does not give the MLP's size.
    """
    clip = layers.Input(input_shape, name="clip")
    stem = _build_stem(input_shape, backbone)
    head = _build_head(num_classes, stem.output.shape[1:], hidden, dropout, seed)
    return keras.Model(clip, head(stem(clip)), name="frame_mlp")


def build_backbone(
    name: str,
    frame_shape: tuple[int | None, int | None, int],
    weights: str | None = None,
    batch_norm_momentum: float | None = None,
) -> keras.Model:
    """A backbone of BACKBONES without its head, from RGB frames in [-1, 1].

    Args:
        name: a key of BACKBONES.
        frame_shape: (H, W, 3); None for any H and W.
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
    with warnings.catch_warnings():
        # MobileNet's weights for 224 pixels serve frames of any size; Keras warns of each but five.
        warnings.filterwarnings("ignore", message="`input_shape` is undefined or non-square")
        backbone = BACKBONES[name].build(include_top=False, weights=weights, input_shape=frame_shape)
    if batch_norm_momentum is not None:
        for layer in backbone.layers:
            if isinstance(layer, layers.BatchNormalization):
                layer.momentum = batch_norm_momentum
    return keras.Model(frames, backbone(prepare_frames(name, frames)), name=name)


def prepare_frames(name: str, frames: Any) -> Any:
    """RGB frames in [-1, 1] as the application of Keras behind a key of BACKBONES wants them."""
    return _to_caffe(frames) if BACKBONES[name].inputs == "caffe" else frames


@keras.saving.register_keras_serializable(package="kdant")
class SegmentFrames(keras.layers.Layer):
    """One frame of each of K equal segments of a clip: a random one in training, else the middle one.

    Args:
        segments: int >= 1, TSN's K; at most the clip's frames.
        seed: of the draws.

    Call Args:
        clip: float `(B, T, H, W, C)`.
        training: whether to draw.

    Output:
        `(B, K, H, W, C)`.

    Raises:
        ValueError: more segments than frames (says both).

    Source: Wang et al. 2016, §3.1. Deviations: none.
    """

    def __init__(self, segments: int, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.segments = segments
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, clip: Any, training: bool = False) -> Any:
        batch, frames = ops.shape(clip)[0], clip.shape[1]
        _check_segments(self.segments, frames)
        bounds = [k * frames // self.segments for k in range(self.segments + 1)]
        lengths = [stop - first for first, stop in itertools.pairwise(bounds)]
        if training:
            place = keras.random.uniform((batch, self.segments), seed=self.seed_generator)
        else:
            place = ops.full((batch, self.segments), 0.5)
        within = ops.cast(place * ops.convert_to_tensor(lengths, "float32"), "int32")
        chosen = ops.convert_to_tensor(bounds[:-1], "int32") + within
        # (B, K) frame numbers → rows of (B·T, H, W, C) → (B, K, H, W, C)
        rows = ops.expand_dims(ops.arange(batch) * frames, 1) + chosen
        return ops.take(fold_frames(clip), rows, axis=0)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, frames, *frame = input_shape
        _check_segments(self.segments, frames)
        return (batch, self.segments, *frame)

    def compute_output_spec(self, clip: Any, training: bool = False) -> keras.KerasTensor:
        return keras.KerasTensor(self.compute_output_shape(clip.shape), clip.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "segments": self.segments, "seed": self.seed}


def build_features3d(
    num_classes: int,
    input_shape: tuple[int, int, int, int],
    width: float = 1.0,
    dropout: float = 0.5,
    batch_norm_momentum: float = 0.9,
    seed: int | None = None,
) -> keras.Model:
    """Features, normalised and reduced, seen over space and then over time; the means of both decide.

    Args:
        num_classes: int >= 1.
        input_shape: (T, h, w, d) of the features.
        width: multiplies the 128 channels of the map.
        dropout: share of the pooled features that is dropped, while training.
        batch_norm_momentum: of the moving statistics.
        seed: of the dropout.

    Returns:
        keras.Model from float `(B, T, h, w, d)` to a dict: "logits" float32 `(B, num_classes)`, and the map
        FEATURES3D `(B, T, h, w, 128·width)`, which is compared with the teacher's.

    Example:
        >>> network = build_features3d(5, (8, 7, 7, 1280))
        >>> {name: output.shape for name, output in network.output.items()}
        {'logits': (None, 5), 'features3d': (None, 8, 7, 7, 128)}

    Source: (2+1)-D convolutions of Tran et al. 2018. Deviations: one of them, on frozen features, with a
    shortcut around it, and the mean of the features beside the map's before the last layer.
    """
    channels = max(1, round(FEATURES3D_CHANNELS * width))

    def convolve(x: Any, kernel: tuple[int, int, int], name: str) -> Any:
        x = layers.Conv3D(channels, kernel, padding="same", use_bias=False, name=name)(x)
        return layers.BatchNormalization(momentum=batch_norm_momentum, name=f"{name}_norm")(x)

    features = layers.Input(input_shape, name="features")
    norm = layers.BatchNormalization(center=False, scale=False, momentum=batch_norm_momentum, name="norm")
    normalised = norm(features)
    reduced = layers.ReLU(name="reduced")(convolve(normalised, (1, 1, 1), "reduce"))
    x = layers.ReLU(name="in_space")(convolve(reduced, (1, 3, 3), "space"))
    x = convolve(x, (3, 1, 1), "time")
    maps = layers.ReLU(name=FEATURES3D)(x + reduced)
    means = [ops.mean(each, axis=(1, 2, 3)) for each in (maps, normalised)]
    pooled = layers.Concatenate(name="pooled")(means)
    dropped = layers.Dropout(dropout, seed=seed, name="dropout")(pooled)
    logits = layers.Dense(num_classes, dtype="float32", name="Logits")(dropped)
    return keras.Model(features, {"logits": logits, FEATURES3D: maps}, name="features3d")


def build_small_3d(num_classes: int, input_shape: tuple[int, int, int, int] = (8, 56, 56, 3)) -> keras.Model:
    """Four 3-D convolutions, which two CPU cores train in a minute: the network of the drift study.

    As `--model kdant_tf.models.baselines:build_small_3d` it is trained as any other.

    Args:
        num_classes: int >= 1.
        input_shape: (T, H, W, C).

    Returns:
        keras.Model from float `(B, T, H, W, C)` in [-1, 1] to a dict: "logits" float32
        `(B, num_classes)`, and "small_3d" `(B, T/2, H/8, W/8, 32)`, sizes rounded up.

    Example:
        >>> network = build_small_3d(4)
        >>> {name: output.shape for name, output in network.output.items()}
        {'logits': (None, 4), 'small_3d': (None, 4, 7, 7, 32)}
    """
    clip = x = layers.Input(input_shape, name="clip")
    for channels, kernel, strides in (
        (8, (3, 5, 5), (1, 2, 2)),
        (16, (3, 3, 3), (1, 2, 2)),
        (32, (3, 3, 3), (2, 2, 2)),
        (32, (3, 3, 3), (1, 1, 1)),
    ):
        x = layers.Conv3D(channels, kernel, strides, padding="same", use_bias=False)(x)
        # A training on few videos has too few steps for Keras' momentum of 0.99.
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    maps = layers.Identity(name="small_3d")(x)
    pooled = layers.GlobalAveragePooling3D(name="pooled")(maps)
    logits = layers.Dense(num_classes, dtype="float32", name="Logits")(pooled)
    return keras.Model(clip, {"logits": logits, "small_3d": maps}, name="small_3d")


def fold_frames(clip: Any) -> Any:
    """`(B, T, H, W, C)` → `(B·T, H, W, C)`."""
    return ops.reshape(clip, (-1, *clip.shape[2:]))


def _check_segments(segments: int, frames: int | None) -> None:
    if frames is None or not 1 <= segments <= frames:
        raise ValueError(
            f"`segments` should be at least 1 and at most the clip's frames. Received: {segments} segments, "
            f"{frames} frames."
        )


def _build_stem(input_shape: tuple[int, int, int, int], backbone: str) -> keras.Model:
    clip = layers.Input(input_shape, name="clip")
    maps = build_backbone(backbone, input_shape[1:])(fold_frames(clip))
    features = layers.GlobalAveragePooling2D(name="pool")(maps)
    # (B·T, d) → (B, T, d)
    features = ops.reshape(features, (-1, input_shape[0], features.shape[-1]))
    stem = keras.Model(clip, features, name=STEM)
    stem.trainable = False
    return stem


def _build_head(
    num_classes: int, features_shape: tuple[int, int], hidden: int, dropout: float, seed: int | None
) -> keras.Model:
    features = layers.Input(features_shape, name="features")
    x = layers.Dense(hidden, activation="relu", name="hidden")(features)
    dropped = layers.Dropout(dropout, seed=seed, name="dropout")(x)
    scores = layers.Dense(num_classes, dtype="float32", name="Logits")(dropped)
    return keras.Model(features, {"logits": _mean_of_probabilities(scores), "hidden": x}, name=HEAD)


def _mean_of_probabilities(scores: Any) -> Any:
    """Logits `(B, T, classes)` a frame → `(B, classes)`, the logarithm of the mean softmax."""
    return ops.logsumexp(ops.log_softmax(scores, axis=-1), axis=1) - ops.log(float(scores.shape[1]))


def _to_caffe(frames: Any) -> Any:
    """RGB in [-1, 1] → BGR in [0, 255] less ImageNet's mean."""
    offset = [127.5 - mean for mean in _MEAN_BGR]
    return layers.Rescaling(127.5, offset=offset, name="to_caffe")(ops.flip(frames, axis=-1))

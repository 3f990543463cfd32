"""TSN-RGB (Wang et al. 2016): a 2-D network sees one frame of each segment; their logits are averaged."""

import itertools
from typing import Any

import keras
from keras import layers, ops

from kdant_tf.models.imagenet import build_backbone, fold_frames


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


def build_tsn(
    num_classes: int,
    input_shape: tuple[int, int, int, int] = (8, 224, 224, 3),
    backbone: str = "ResNet50",
    segments: int = 3,
    dropout: float = 0.5,
    batch_norm_momentum: float | None = None,
    seed: int | None = None,
) -> keras.Model:
    """TSN-RGB as a functional model with the outputs of `build_i3d`: "logits" and one map, "frames".

    Args:
        num_classes: int >= 1.
        input_shape: (T, H, W, 3).
        backbone: a key of `kdant_tf.models.imagenet.BACKBONES`; its weights begin random.
        segments: TSN's K.
        dropout: share dropped before the last layer, while training.
        batch_norm_momentum: of the moving statistics; None keeps the backbone's own.
        seed: of the dropout and the drawn frames.

    Returns:
        keras.Model from float `(B, T, H, W, 3)` in [-1, 1] to a dict: "logits" float32
        `(B, num_classes)`, the mean over segments, and "frames" `(B, K, h, w, d)`, the backbone's maps.

    Raises:
        ValueError: an unknown backbone, or more segments than frames.

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


def _check_segments(segments: int, frames: int | None) -> None:
    if frames is None or not 1 <= segments <= frames:
        raise ValueError(
            f"`segments` should be at least 1 and at most the clip's frames. Received: {segments} segments, "
            f"{frames} frames."
        )

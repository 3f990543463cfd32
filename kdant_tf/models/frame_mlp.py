"""ResNet-152 features a frame with an MLP on top, scores averaged over frames (paper §4.4)."""

from typing import Any

import keras
from keras import layers, ops

from kdant_tf.models.imagenet import build_backbone, fold_frames

STEM = "frame_features"
HEAD = "mlp"


def build_frame_mlp(
    num_classes: int,
    input_shape: tuple[int, int, int, int] = (8, 224, 224, 3),
    backbone: str = "ResNet152",
    hidden: int = 1024,
    dropout: float = 0.5,
    seed: int | None = None,
) -> keras.Model:
    """A frozen 2-D network a frame, and an MLP that learns.

    The two parts are the layers STEM, `(B, T, H, W, 3)` → `(B, T, d)`, and HEAD, from there to the
    outputs; training can run the head alone on features that were computed once.

    Args:
        num_classes: int >= 1.
        input_shape: (T, H, W, 3).
        backbone: a key of `kdant_tf.models.imagenet.BACKBONES`; its weights begin random.
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

"""A small (2+1)-D network on maps of frozen features, which trains in seconds on a CPU."""

from typing import Any

import keras
from keras import layers, ops

# The layer whose map is distilled.
MAP = "features3d"
CHANNELS = 128


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
        width: multiplies the CHANNELS of the map.
        dropout: share of the pooled features that is dropped, while training.
        batch_norm_momentum: of the moving statistics.
        seed: of the dropout.

    Returns:
        keras.Model from float `(B, T, h, w, d)` to a dict: "logits" float32 `(B, num_classes)`, and MAP
        `(B, T, h, w, 128·width)`, which is compared with the teacher's.

    Example:
        >>> network = build_features3d(5, (8, 7, 7, 1280))
        >>> {name: output.shape for name, output in network.output.items()}
        {'logits': (None, 5), 'features3d': (None, 8, 7, 7, 128)}

    Source: (2+1)-D convolutions of Tran et al. 2018. Deviations: one of them, on frozen features, with a
    shortcut around it, and the mean of the features beside the map's before the last layer.
    """
    channels = max(1, round(CHANNELS * width))

    def convolve(x: Any, kernel: tuple[int, int, int], name: str) -> Any:
        x = layers.Conv3D(channels, kernel, padding="same", use_bias=False, name=name)(x)
        return layers.BatchNormalization(momentum=batch_norm_momentum, name=f"{name}_norm")(x)

    features = layers.Input(input_shape, name="features")
    norm = layers.BatchNormalization(center=False, scale=False, momentum=batch_norm_momentum, name="norm")
    normalised = norm(features)
    reduced = layers.ReLU(name="reduced")(convolve(normalised, (1, 1, 1), "reduce"))
    x = layers.ReLU(name="in_space")(convolve(reduced, (1, 3, 3), "space"))
    x = convolve(x, (3, 1, 1), "time")
    maps = layers.ReLU(name=MAP)(x + reduced)
    means = [ops.mean(each, axis=(1, 2, 3)) for each in (maps, normalised)]
    pooled = layers.Concatenate(name="pooled")(means)
    dropped = layers.Dropout(dropout, seed=seed, name="dropout")(pooled)
    logits = layers.Dense(num_classes, dtype="float32", name="Logits")(dropped)
    return keras.Model(features, {"logits": logits, MAP: maps}, name="features3d")

"""Weights and clips for I3D drawn from names alone, so that two implementations can be given the same.

Needs NumPy only. All draws are uniform: no logarithm or cosine, hence the same bits on every machine.
"""

import math
import zlib
from collections.abc import Mapping

import numpy as np

FIRST = "Conv3d_1a_7x7"
HEAD = "Logits.Conv3d_0c_1x1"


def generator(name: str) -> np.random.Generator:
    """Seeded by the name; Python's own hash() differs from process to process."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def draw_weights(kernel_shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Every weight of I3D, float32, named like Keras: "Conv3d_1a_7x7.conv_3d/kernel".

    Args:
        kernel_shapes: scope ("Mixed_3b.Branch_0.Conv3d_0a_1x1") → (kt, kh, kw, in, out).
    """
    weights = {}
    for scope, shape in kernel_shapes.items():
        draw = draw_head if scope == HEAD else draw_unit
        for name, values in draw(scope, shape).items():
            weights[f"{scope}.{name}"] = values.astype(np.float32)
    return weights


def draw_unit(scope: str, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Convolution and batch norm that keep activations near 1, and few channels dead, through the depth.

    Moving variances lie between 0.01 and 1, so that an epsilon of 1e-3 counts, and the kernel's scale
    follows them channel by channel, so that what leaves the batch norm does not depend on them.
    """
    random = generator(scope)
    deviation = random.uniform(0.1, 1.0, shape[-1])
    kernel = he_kernel(random, shape)
    if scope != FIRST:
        # Neighbours in pairs of opposite sign: the sum over input channels is 0. What comes out of a
        # ReLU has a mean, and it would drown the differences between positions and kill whole channels.
        kernel = (kernel - np.roll(kernel, 1, axis=3)) * math.sqrt(0.5)
    return {
        "conv_3d/kernel": kernel * deviation,
        "batch_norm/beta": random.uniform(0.0, 1.0, shape[-1]),
        "batch_norm/moving_mean": random.uniform(-0.5, 0.5, shape[-1]) * deviation,
        "batch_norm/moving_variance": deviation**2,
    }


def draw_head(scope: str, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    random = generator(scope)
    return {
        "conv_3d/kernel": he_kernel(random, shape),
        "conv_3d/bias": random.uniform(-0.5, 0.5, shape[-1]),
    }


def he_kernel(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform of variance 2 / fan-in."""
    limit = math.sqrt(6 / math.prod(shape[:-1]))
    return random.uniform(-limit, limit, shape)


def draw_clip(shape: tuple[int, ...]) -> np.ndarray:
    """`(B, T, H, W, C)`, float32 in [-1, 1]."""
    return generator(f"clip {shape}").uniform(-1, 1, shape).astype(np.float32)


def checksum(weights: Mapping[str, np.ndarray]) -> int:
    """CRC-32 of all weights in the order of their names."""
    result = 0
    for name in sorted(weights):
        result = zlib.crc32(weights[name].tobytes(), zlib.crc32(name.encode(), result))
    return result

"""3-D pooling as two of two dimensions."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers

from kdant_tf.models.i3d import build_i3d
from kdant_tf.models.pooling_in_2d import SplitPooling, split_pooling

CLIP = np.random.default_rng(0).normal(size=(2, 5, 7, 6, 3)).astype(np.float32)


def pool_by_hand(x: np.ndarray, size: tuple, strides: tuple, same: bool, reduce) -> np.ndarray:
    """Window by window, in float64; padding belongs to no window."""
    if same:
        counts = [-(-extent // stride) for extent, stride in zip(x.shape[1:4], strides, strict=True)]
        before = [
            max((count - 1) * stride + kernel - extent, 0) // 2
            for count, stride, kernel, extent in zip(counts, strides, size, x.shape[1:4], strict=True)
        ]
    else:
        counts = [
            (extent - kernel) // stride + 1
            for extent, kernel, stride in zip(x.shape[1:4], size, strides, strict=True)
        ]
        before = [0, 0, 0]
    out = np.zeros((len(x), *counts, x.shape[4]))
    for place in itertools.product(*map(range, counts)):
        window = tuple(
            slice(max(i * stride - pad, 0), i * stride - pad + kernel)
            for i, stride, pad, kernel in zip(place, strides, before, size, strict=True)
        )
        out[(slice(None), *place)] = reduce(x.astype(np.float64)[(slice(None), *window)], axis=(1, 2, 3))
    return out


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    ("size", "strides"),
    [
        ((1, 3, 3), (1, 2, 2)),
        ((3, 3, 3), (2, 2, 2)),
        ((2, 2, 2), (2, 2, 2)),
        ((3, 3, 3), (1, 1, 1)),
        ((2, 1, 1), (1, 1, 1)),
    ],
)
@pytest.mark.parametrize(
    ("kind", "reduce"), [(layers.MaxPooling3D, np.max), (layers.AveragePooling3D, np.mean)]
)
def test_values_are_those_of_three_dimensions(padding, size, strides, kind, reduce) -> None:
    pooling = kind(size, strides, padding=padding)
    split = SplitPooling(pooling)
    found = keras.ops.convert_to_numpy(split(CLIP))
    expected = pool_by_hand(CLIP, size, strides, padding == "same", reduce)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert split.compute_output_shape(CLIP.shape) == expected.shape


@pytest.mark.slow
def test_an_i3d_has_no_pooling_in_three_dimensions_left() -> None:
    network = build_i3d(3, (8, 32, 32, 3), width=0.0625)
    clips = np.random.default_rng(0).normal(size=(1, 8, 32, 32, 3)).astype(np.float32)
    split = split_pooling(network)
    kinds = [type(layer).__name__ for layer in split.layers]
    assert kinds.count("SplitPooling") == 14
    assert not {"MaxPooling3D", "AveragePooling3D"} & set(kinds)
    for name, expected in network(clips, training=False).items():
        np.testing.assert_allclose(split(clips, training=False)[name], expected, rtol=1e-5, atol=1e-7)

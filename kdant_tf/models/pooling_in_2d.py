"""3-D pooling as pooling of each frame and then over time, for runtimes that have none in 3-D."""

from typing import Any

import keras
from keras import layers, ops

_POOLS = (layers.MaxPooling3D, layers.AveragePooling3D)


def split_pooling(network: keras.Model) -> keras.Model:
    """A network with the outputs of `network`, whose 3-D poolings are two of two dimensions.

    Largest values are the same bit for bit, means up to rounding: a mean of means, since what a window holds
    of the map, of padding or none, is a box.

    Args:
        network: functional; networks within it are rebuilt too. Layers are shared with it.

    Returns:
        keras.Model of the same name, inputs and outputs.
    """

    def call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        return SplitPooling(layer)(*args) if isinstance(layer, _POOLS) else layer(*args, **kwargs)

    return keras.models.clone_model(
        network, clone_function=lambda layer: layer, call_function=call, recursive=True
    )


class SplitPooling(layers.Layer):
    """What a MaxPooling3D or AveragePooling3D does, in two dimensions at a time.

    Args:
        pooling: channels last.
    Call Args:
        x: float `(B, T, H, W, C)`; T, and H and W unless they are unknown, fit the pooling.
    Output:
        float `(B, t, h, w, C)`, as of `pooling`.
    """

    def __init__(self, pooling: keras.layers.Layer) -> None:
        super().__init__(name=pooling.name)
        self._pooling = pooling
        self._pool = ops.max_pool if isinstance(pooling, layers.MaxPooling3D) else ops.average_pool

    def call(self, x: Any) -> Any:
        (time, *space), (step, *steps) = self._pooling.pool_size, self._pooling.strides
        frames, channels, padding = x.shape[1], x.shape[4], self._pooling.padding
        height, width = ops.shape(x)[2:4]
        # (B, T, H, W, C) → (B·T, H, W, C) → (B·T, h, w, C)
        x = ops.reshape(x, (-1, height, width, channels))
        if (*space, *steps) != (1, 1, 1, 1):
            x = self._pool(x, tuple(space), tuple(steps), padding)
        height, width = ops.shape(x)[1:3]
        if (time, step) != (1, 1):
            # (B·T, h, w, C) → (B, T, h·w, C) → (B, t, h·w, C)
            x = ops.reshape(x, (-1, frames, height * width, channels))
            x = self._pool(x, (time, 1), (step, 1), padding)
            frames = x.shape[1]
        return ops.reshape(x, (-1, frames, height, width, channels))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        shape: tuple[int | None, ...] = self._pooling.compute_output_shape(input_shape)
        return shape

"""Attention pooling (paper §3.2): how much of a vector there is in a feature map, wherever it is."""

import math
from typing import Any

import keras
from keras import ops

from kdant_tf.layers.compilation import compile_with_xla


def attention_pool(queries: Any, keys: Any, alpha: float | None = None) -> Any:
    """phi(q, S) = softmax(alpha · q Sᵀ) S: the amount of each query in `keys` (paper eq. 4-6).

    A small alpha gives average pooling of `keys`; a large one the vector most similar to the query.

    Args:
        queries: float `(B, N, d)`.
        keys: float `(B, M, d)`, paper symbol S (A or R).
        alpha: float > 0, or None for 1/sqrt(d).

    Returns:
        float32 `(B, N, d)`.

    Raises:
        ValueError: a map is not 3-D or the channels differ (says both).

    Source: Tran et al. 2019, eq. 5. Deviations: none.
    """
    queries, keys = _as_float32(queries, keys)
    scale = _resolve_alpha(alpha, keys.shape[-1])
    return _pool(scale * _products(queries, keys), keys)


def bidirectional_attention_pool(observed: Any, future: Any, alpha: float | None = None) -> dict[str, Any]:
    """The four poolings of two maps, from three products of positions with positions.

    A Rᵀ serves both directions: its rows weigh R for each a_i, its columns weigh A for each r_i.

    Args:
        observed: float `(B, Na, d)`, paper symbol A.
        future: float `(B, Nr, d)`, paper symbol R.
        alpha: float > 0, or None for 1/sqrt(d).

    Returns:
        dict of float32: "a_in_r" = phi(a_i, R) and "a_in_a" = phi(a_i, A), `(B, Na, d)`;
        "r_in_a" = phi(r_i, A) and "r_in_r" = phi(r_i, R), `(B, Nr, d)`.

    Raises:
        ValueError: a map is not 3-D or the channels differ (says both).

    Source: Tran et al. 2019, eq. 4-6. Deviations: none.
    """
    a, r = _as_float32(observed, future)
    scale = _resolve_alpha(alpha, a.shape[-1])
    cross = scale * _products(a, r)  # (B, Na, Nr)
    return {
        "a_in_r": _pool(cross, r),
        "a_in_a": _pool(scale * _products(a, a), a),
        "r_in_a": _pool(ops.transpose(cross, (0, 2, 1)), a),
        "r_in_r": _pool(scale * _products(r, r), r),
    }


@keras.saving.register_keras_serializable(package="kdant")
class BidirectionalAttentionPooling(keras.layers.Layer):
    """Amounts of each map's vectors in both maps (paper eq. 4-6), compiled by XLA.

    Args:
        alpha: float > 0, or None for 1/sqrt(d). Paper symbol alpha.

    Call Args:
        inputs: pair [A, R] of floats, activations after ReLU: `(B, Na, d)` and `(B, Nr, d)`, or maps
            `(B, T, H, W, d)`, which are flattened over T, H, W.

    Output:
        dict of float32 `(B, Na, d)` under "a_in_r" and "a_in_a", `(B, Nr, d)` under "r_in_a" and
        "r_in_r"; flattened also where the maps came 5-D.

    Raises:
        ValueError: alpha is not positive, or the channels differ (says both).

    Example:
        >>> pooled = BidirectionalAttentionPooling()([student_map, teacher_map])
        >>> pooled["r_in_a"].shape  # amounts of the teacher's vectors in the student's map
        (2, 392, 832)

    Source: Tran et al. 2019, eq. 4-6. Deviations: none.
    """

    def __init__(self, alpha: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if alpha is not None and not alpha > 0:
            raise ValueError(f"`alpha` should be positive or None. Received: {alpha}.")
        self.alpha = alpha
        self._pool = compile_with_xla(bidirectional_attention_pool)

    def call(self, inputs: Any) -> dict[str, Any]:
        observed, future = inputs
        return self._pool(flatten_positions(observed), flatten_positions(future), self.alpha)

    def compute_output_shape(self, input_shape: Any) -> dict[str, tuple[int | None, ...]]:
        observed, future = (_flattened_shape(tuple(shape)) for shape in input_shape)
        _check_channels(observed[-1], future[-1])
        return {"a_in_r": observed, "a_in_a": observed, "r_in_a": future, "r_in_r": future}

    def compute_output_spec(self, inputs: Any) -> dict[str, keras.KerasTensor]:
        shapes = self.compute_output_shape([value.shape for value in inputs])
        return {name: keras.KerasTensor(shape, "float32") for name, shape in shapes.items()}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha}


def flatten_positions(feature_map: Any) -> Any:
    """`(B, T, H, W, d)` → `(B, T·H·W, d)`; a map that is 3-D already is returned as it is.

    Raises:
        ValueError: another rank, or unknown channels.
    """
    if len(feature_map.shape) == 3:
        return feature_map
    if len(feature_map.shape) != 5:
        raise ValueError(
            f"A feature map should be (B, N, d) or (B, T, H, W, d). Received shape: {feature_map.shape}."
        )
    # (B, T, H, W, d) → (B, N, d)
    return ops.reshape(feature_map, (ops.shape(feature_map)[0], -1, feature_map.shape[-1]))


def _flattened_shape(shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    if len(shape) == 3:
        return shape
    batch, *positions, channels = shape
    known = [size for size in positions if size is not None]
    return batch, math.prod(known) if len(known) == len(positions) else None, channels


def _as_float32(first: Any, second: Any) -> tuple[Any, Any]:
    first, second = ops.convert_to_tensor(first), ops.convert_to_tensor(second)
    if len(first.shape) != 3 or len(second.shape) != 3:
        raise ValueError(f"Maps should be (B, N, d). Received shapes: {first.shape} and {second.shape}.")
    _check_channels(first.shape[-1], second.shape[-1])
    return ops.cast(first, "float32"), ops.cast(second, "float32")


def _check_channels(first: int | None, second: int | None) -> None:
    if first != second:
        raise ValueError(
            f"Both maps should have the same number of channels. Received: {first} and {second}."
        )


def _resolve_alpha(alpha: float | None, channels: int) -> float:
    return 1.0 / math.sqrt(channels) if alpha is None else alpha


def _products(first: Any, second: Any) -> Any:
    """Scalar products of positions: `(B, N, d)`, `(B, M, d)` → `(B, N, M)`."""
    return ops.matmul(first, ops.transpose(second, (0, 2, 1)))


def _pool(similarities: Any, keys: Any) -> Any:
    """`(B, N, M)`, `(B, M, d)` → `(B, N, d)`."""
    if keys.shape[1] == 1:
        # Keras warns of a softmax over one value; its weight is 1.
        return ops.matmul(ops.ones_like(similarities), keys)
    return ops.matmul(ops.softmax(similarities, axis=-1), keys)

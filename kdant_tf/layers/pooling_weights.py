"""The weights of attention pooling (paper eq. 5), and the gradient of a pooling by hand."""

from typing import Any

import keras
from keras import ops


def pooling_weights(products: Any, scale: float) -> Any:
    """softmax(scale · q Sᵀ) over the last axis: `(B, N, M)` → `(B, N, M)`, rows that sum to 1.

    Args:
        products: float32 `(B, N, M)`, q Sᵀ.
        scale: paper symbol alpha.
    """
    # Scaled after the largest is taken off: fused by XLA, scale · p − largest is rounded but once, may
    # come out far above 0 where alpha is large, and overflows.
    largest = ops.stop_gradient(ops.max(products, axis=-1, keepdims=True))
    exponentials = ops.exp(scale * (products - largest))
    return exponentials / ops.sum(exponentials, axis=-1, keepdims=True)


def dot_products(first: Any, second: Any) -> Any:
    """Scalar products of positions: `(B, N, d)`, `(B, M, d)` → `(B, N, M)`."""
    return ops.matmul(first, transposed(second))


def self_products(vectors: Any) -> Any:
    """`dot_products` of a map with itself, `(B, N, d)` → `(B, N, N)`, differentiable once.

    The gradient is one product, (U + Uᵀ) S, where that of a product of two maps is two.
    """

    if isinstance(vectors, keras.KerasTensor):
        return dot_products(vectors, vectors)  # a custom gradient cannot be part of a functional model

    @ops.custom_gradient
    def of_itself(vectors: Any) -> Any:
        def gradient(*arguments: Any, upstream: Any = None) -> Any:
            # torch gives the inputs, and `upstream` by name; the other backends `upstream` alone.
            upstream = arguments[0] if upstream is None else upstream
            return ops.matmul(upstream + transposed(upstream), vectors)

        return dot_products(vectors, vectors), gradient

    return of_itself(vectors)


def transposed(matrices: Any) -> Any:
    """`(B, N, M)` → `(B, M, N)`."""
    return ops.transpose(matrices, (0, 2, 1))


def gradient_to_products(weights: Any, keys: Any, upstream: Any, scale: float) -> Any:
    """Gradient of phi(q, S) with respect to q Sᵀ; that with respect to q is its product with S.

    Args:
        weights: `(B, N, M)`, the pooling's.
        keys: `(B, M, d)`, paper symbol S.
        upstream: `(B, N, d)`, gradient with respect to phi(q, S).
        scale: paper symbol alpha.

    Returns:
        `(B, N, M)`.
    """
    to_weights = dot_products(upstream, keys)
    return scale * weights * (to_weights - ops.sum(weights * to_weights, axis=-1, keepdims=True))


def gradient_to_keys(weights: Any, to_products: Any, queries: Any, upstream: Any) -> Any:
    """Gradient of phi(q, S) with respect to S, which it weighs by and which it sums up.

    Args:
        weights: `(B, N, M)`, the pooling's.
        to_products: `(B, N, M)`, gradient with respect to q Sᵀ.
        queries: `(B, N, d)`.
        upstream: `(B, N, d)`, gradient with respect to phi(q, S).

    Returns:
        `(B, M, d)`.
    """
    return ops.matmul(transposed(to_products), queries) + ops.matmul(transposed(weights), upstream)

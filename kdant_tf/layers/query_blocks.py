"""Attention pooling for blocks of queries: no matrix of positions by positions is ever whole."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kdant_tf.layers.pooling_weights import (
    dot_products,
    gradient_to_keys,
    gradient_to_products,
    pooling_weights,
)

# From here on a matrix of positions by positions is larger than a map of 832 channels.
AUTOMATIC_POSITIONS = 1024
AUTOMATIC_LIMIT = 256


def block_limit(chunk: int | None, *maps: Any) -> int:
    """How many queries a block may hold; 0 where all are pooled at once.

    Args:
        chunk: the limit itself, or 0; None for 256 where one of `maps` is known to have 1,024
            positions or more, and 0 elsewhere.
        maps: `(B, N, d)`. For KerasTensors the answer is 0, as no functional model can hold a loop.

    Raises:
        ValueError: `chunk` is negative or no whole number.
    """
    check_chunk(chunk)
    if any(isinstance(value, keras.KerasTensor) for value in maps):
        return 0
    if chunk is not None:
        return chunk
    known = [value.shape[1] for value in maps if value.shape[1] is not None]
    return AUTOMATIC_LIMIT if max(known, default=0) >= AUTOMATIC_POSITIONS else 0


def check_chunk(chunk: int | None) -> None:
    """Raises a ValueError where `chunk` is neither None nor a whole number from 0 on."""
    if chunk is not None and (not isinstance(chunk, int) or chunk < 0):
        raise ValueError(f"`chunk` should be a number of queries, 0 or None. Received: {chunk!r}.")


def fold_blocks(step: Callable[..., Any], total: Any, queries: Any, limit: int) -> Any:
    """Folds `step` over blocks of queries of one size; the last ends with the map, so may overlap.

    Args:
        step: from (total, begin, size, fresh) to the new total. The block's queries are those from
            `begin` on; `fresh`, float32 `(size, 1)`, is 0 for those that an earlier block had.
        total: tensor, or tuple of tensors.
        queries: `(B, N, d)`.
        limit: int > 0, queries a block at most.
    """
    positions = ops.shape(queries)[1]
    count = -(-positions // limit)
    size = -(-positions // count)

    def body(index: Any, total: Any) -> Any:
        begin = _smaller(index * size, positions - size)
        fresh = ops.arange(size) >= index * size - begin
        return step(total, begin, size, ops.expand_dims(ops.cast(fresh, "float32"), -1))

    return ops.fori_loop(0, count, body, total)


def take_block(values: Any, begin: Any, size: Any) -> Any:
    """The rows from `begin` on: `(B, N, d)` → `(B, size, d)`."""
    batch, _, channels = ops.shape(values)
    return ops.slice(values, (0, begin, 0), (batch, size, channels))


def add_block(values: Any, begin: Any, block: Any) -> Any:
    """`values`, `(B, N, d)`, with `block` added to the rows from `begin` on."""
    rows = take_block(values, begin, ops.shape(block)[1])
    return ops.slice_update(values, (0, begin, 0), rows + block)


def pool_in_blocks(queries: Any, keys: Any, scale: float, limit: int) -> Any:
    """phi(q, S), whose gradient computes the weights once more in place of keeping them.

    Args:
        queries: float32 `(B, N, d)`.
        keys: float32 `(B, M, d)`, paper symbol S.
        scale: paper symbol alpha.
        limit: int > 0, queries a block at most.

    Returns:
        float32 `(B, N, d)`, differentiable once.

    Source: Tran et al. 2019, eq. 5. Deviations: none.
    """

    @ops.custom_gradient
    def pool(queries: Any, keys: Any) -> Any:
        def gradient(*arguments: Any, upstream: Any = None) -> Any:
            # torch gives the inputs, and `upstream` by name; the other backends `upstream` alone.
            upstream = arguments[0] if upstream is None else upstream
            return _gradients(queries, keys, upstream, scale, limit)

        return _pooled(queries, keys, scale, limit), gradient

    return pool(queries, keys)


def _pooled(queries: Any, keys: Any, scale: float, limit: int) -> Any:
    def step(pooled: Any, begin: Any, size: Any, fresh: Any) -> Any:
        weights = pooling_weights(dot_products(take_block(queries, begin, size), keys), scale)
        return add_block(pooled, begin, fresh * ops.matmul(weights, keys))

    return fold_blocks(step, ops.zeros_like(queries), queries, limit)


def _gradients(queries: Any, keys: Any, upstream: Any, scale: float, limit: int) -> tuple[Any, Any]:
    """Gradients with respect to `queries` and `keys`."""

    def step(total: tuple[Any, Any], begin: Any, size: Any, fresh: Any) -> tuple[Any, Any]:
        to_queries, to_keys = total
        block, slope = take_block(queries, begin, size), fresh * take_block(upstream, begin, size)
        weights = pooling_weights(dot_products(block, keys), scale)
        to_products = gradient_to_products(weights, keys, slope, scale)
        to_queries = add_block(to_queries, begin, ops.matmul(to_products, keys))
        return to_queries, to_keys + gradient_to_keys(weights, to_products, block, slope)

    return fold_blocks(step, (ops.zeros_like(queries), ops.zeros_like(keys)), queries, limit)


def _smaller(first: Any, second: Any) -> Any:
    """The smaller one, as Python's own number where both are: torch slices by those without copies."""
    if isinstance(first, int) and isinstance(second, int):
        return min(first, second)
    return ops.minimum(first, second)

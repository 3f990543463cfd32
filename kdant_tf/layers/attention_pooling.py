"""Attention pooling (paper §3.2): how much of a vector there is in a feature map, wherever it is.

`attention_pool` is the equation, `bidirectional_attention_pool` both directions between two maps, and
BidirectionalAttentionPooling the same as a Keras layer. Below them stands what the losses
(`kdant_tf.losses.features`) build on too: arguments and shapes, the weights and their gradients, blocks of
queries for maps too large to be pooled at once, and XLA.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import keras
from keras import ops

# From here on a matrix of positions by positions is larger than a map of 832 channels.
_AUTOMATIC_POSITIONS = 1024
_AUTOMATIC_LIMIT = 256

_Total = TypeVar("_Total")


def attention_pool(queries: Any, keys: Any, alpha: float | None = None, chunk: int | None = None) -> Any:
    """phi(q, S) = softmax(alpha · q Sᵀ) S: the amount of each query in `keys` (paper eq. 4-6).

    A small alpha gives average pooling of `keys`, exactly at 0; a large one the vector most similar to
    the query.

    Args:
        queries: float `(B, N, d)`.
        keys: float `(B, M, d)`, paper symbol S (A or R).
        alpha: float >= 0, or None for 1/sqrt(d).
        chunk: int > 0, pools blocks of so many queries at most, in less memory: the weights of all
            queries, `(B, N, M)`, never exist at once, and the gradient computes them a second time.
            0 pools all queries at once. None does so up to 1,023 positions.

    Returns:
        float32 `(B, N, d)`.

    Raises:
        ValueError: a map is not 3-D, channels or batches differ (says both), or alpha or chunk is
            negative.

    Example:
        >>> import keras
        >>> vectors = keras.ops.array([[[0.0, 1.0], [4.0, 0.0]]])  # a map of two positions
        >>> print(keras.ops.convert_to_numpy(attention_pool(vectors, vectors, alpha=0)))  # their mean
        [[[2.  0.5]
          [2.  0.5]]]
        >>> print(keras.ops.convert_to_numpy(attention_pool(vectors, vectors, alpha=100)))  # the most similar
        [[[0. 1.]
          [4. 0.]]]

    Source: Tran et al. 2019, eq. 5. Deviations: none.
    """
    queries, keys = as_float32_maps(queries, keys)
    scale = resolve_alpha(alpha, keys.shape[-1])
    limit = block_limit(chunk, queries, keys)
    if limit:
        return _pool_in_blocks(queries, keys, scale, limit)
    return ops.matmul(pooling_weights(dot_products(queries, keys), scale), keys)


def bidirectional_attention_pool(
    observed: Any, future: Any, alpha: float | None = None, chunk: int | None = None
) -> dict[str, Any]:
    """The four poolings of two maps, from three products of positions with positions.

    A Rᵀ serves both directions: its rows weigh R for each a_i, its columns weigh A for each r_i. In
    blocks it is computed for each direction. Differentiable once.

    Args:
        observed: float `(B, Na, d)`, paper symbol A.
        future: float `(B, Nr, d)`, paper symbol R.
        alpha: float >= 0, or None for 1/sqrt(d).
        chunk: as for `attention_pool`; None decides by the larger map.

    Returns:
        dict of float32: "a_in_r" = phi(a_i, R) and "a_in_a" = phi(a_i, A), `(B, Na, d)`;
        "r_in_a" = phi(r_i, A) and "r_in_r" = phi(r_i, R), `(B, Nr, d)`.

    Raises:
        ValueError: a map is not 3-D, channels or batches differ (says both), or alpha or chunk is
            negative.

    Example:
        >>> import keras
        >>> observed, future = keras.ops.ones((2, 5, 8)), keras.ops.ones((2, 3, 8))
        >>> pooled = bidirectional_attention_pool(observed, future)
        >>> {name: tuple(value.shape) for name, value in sorted(pooled.items())}
        {'a_in_a': (2, 5, 8), 'a_in_r': (2, 5, 8), 'r_in_a': (2, 3, 8), 'r_in_r': (2, 3, 8)}

    Source: Tran et al. 2019, eq. 4-6. Deviations: none.
    """
    a, r = as_float32_maps(observed, future)
    scale = resolve_alpha(alpha, a.shape[-1])
    limit = block_limit(chunk, a, r)
    if limit:
        pairs = {"a_in_r": (a, r), "a_in_a": (a, a), "r_in_a": (r, a), "r_in_r": (r, r)}
        return {name: _pool_in_blocks(*pair, scale, limit) for name, pair in pairs.items()}
    cross = dot_products(a, r)  # (B, Na, Nr)
    return {
        "a_in_r": ops.matmul(pooling_weights(cross, scale), r),
        "a_in_a": ops.matmul(pooling_weights(_self_products(a), scale), a),
        "r_in_a": ops.matmul(pooling_weights(_transposed(cross), scale), a),
        "r_in_r": ops.matmul(pooling_weights(_self_products(r), scale), r),
    }


@keras.saving.register_keras_serializable(package="kdant")
class BidirectionalAttentionPooling(keras.layers.Layer):
    """Amounts of each map's vectors in both maps (paper eq. 4-6), compiled by XLA where that pays.

    Args:
        alpha: float >= 0, or None for 1/sqrt(d). Paper symbol alpha.
        chunk: queries pooled at once, see `attention_pool`; None decides by the larger map.
        jit_compile: True to have XLA compile it under TensorFlow, False not to; "auto" where that pays, see
            `compile_where_it_pays`.

    Call Args:
        inputs: pair [A, R] of floats, activations after ReLU: `(B, Na, d)` and `(B, Nr, d)`, or maps
            `(B, T, H, W, d)`, which are flattened over T, H, W.

    Output:
        dict of float32 `(B, Na, d)` under "a_in_r" and "a_in_a", `(B, Nr, d)` under "r_in_a" and
        "r_in_r"; flattened also where the maps came 5-D. A policy of half precision changes nothing:
        maps are taken as they come and pooled in float32.

    Raises:
        ValueError: alpha or chunk is negative, or channels or batches differ (says both).

    Example:
        >>> import keras
        >>> student_map, teacher_map = keras.ops.ones((2, 1, 2, 2, 3)), keras.ops.ones((2, 5, 3))
        >>> pooled = BidirectionalAttentionPooling()([student_map, teacher_map])
        >>> tuple(pooled["r_in_a"].shape)  # amounts of the teacher's vectors in the student's map
        (2, 5, 3)

    Source: Tran et al. 2019, eq. 4-6. Deviations: none.
    """

    def __init__(
        self,
        alpha: float | None = None,
        chunk: int | None = None,
        jit_compile: bool | str = "auto",
        **kwargs: Any,
    ) -> None:
        # Keras would cast float32 maps to half precision before the call.
        super().__init__(**{"autocast": False, **kwargs})
        check_alpha(alpha)
        check_chunk(chunk)
        self.alpha = alpha
        self.chunk = chunk
        self.jit_compile = jit_compile
        self._pool = compile_where_it_pays(bidirectional_attention_pool, jit_compile, chunk)

    def call(self, inputs: Any) -> dict[str, Any]:
        observed, future = inputs
        pooled: dict[str, Any] = self._pool(
            flatten_positions(observed), flatten_positions(future), self.alpha, self.chunk
        )
        return pooled

    def compute_output_shape(self, input_shape: Any) -> dict[str, tuple[int | None, ...]]:
        observed, future = (_flattened_shape(tuple(shape)) for shape in input_shape)
        _check_fit(observed, future)
        return {"a_in_r": observed, "a_in_a": observed, "r_in_a": future, "r_in_r": future}

    def compute_output_spec(self, inputs: Any) -> dict[str, keras.KerasTensor]:
        shapes = self.compute_output_shape([value.shape for value in inputs])
        return {name: keras.KerasTensor(shape, "float32") for name, shape in shapes.items()}

    def get_config(self) -> dict[str, Any]:
        own = ("alpha", "chunk", "jit_compile")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


def flatten_positions(feature_map: Any) -> Any:
    """`(B, T, H, W, d)` → `(B, T·H·W, d)`; a map that is 3-D already is returned as it is.

    Raises:
        ValueError: another rank, or unknown channels.
    """
    batch, positions, channels = _flattened_shape(tuple(feature_map.shape))
    if len(feature_map.shape) == 3:
        return feature_map
    # (B, T, H, W, d) → (B, N, d); a number of positions that is known stays known.
    if positions is None:
        return ops.reshape(feature_map, (ops.shape(feature_map)[0], -1, channels))
    return ops.reshape(feature_map, (-1 if batch is None else batch, positions, channels))


def as_float32_maps(first: Any, second: Any) -> tuple[Any, Any]:
    """Both maps as float32 tensors `(B, N, d)`.

    Raises:
        ValueError: a map is not 3-D, or channels or batches differ (says both).
    """
    first, second = ops.convert_to_tensor(first), ops.convert_to_tensor(second)
    if len(first.shape) != 3 or len(second.shape) != 3:
        raise ValueError(
            f"Maps should be (B, N, d). Received shapes: {tuple(first.shape)} and {tuple(second.shape)}."
        )
    _check_fit(tuple(first.shape), tuple(second.shape))
    return ops.cast(first, "float32"), ops.cast(second, "float32")


def check_alpha(alpha: float | None) -> None:
    """Raises a ValueError where `alpha` is neither None nor a finite number from 0 on."""
    if alpha is not None and not 0 <= alpha < math.inf:
        raise ValueError(f"`alpha` should be finite and not negative, or None. Received: {alpha}.")


def resolve_alpha(alpha: float | None, channels: int) -> float:
    """`alpha`, or the paper's 1/sqrt(d) for None.

    Raises:
        ValueError: it is negative or not finite.
    """
    check_alpha(alpha)
    return 1.0 / math.sqrt(channels) if alpha is None else alpha


def check_chunk(chunk: int | None) -> None:
    """Raises a ValueError where `chunk` is neither None nor a whole number from 0 on."""
    if chunk is not None and (not isinstance(chunk, int) or chunk < 0):
        raise ValueError(f"`chunk` should be a number of queries, 0 or None. Received: {chunk!r}.")


def _flattened_shape(shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    if len(shape) not in (3, 5) or shape[-1] is None:
        raise ValueError(
            f"A feature map should be (B, N, d) or (B, T, H, W, d), d known. Received shape: {shape}."
        )
    batch, *positions, channels = shape
    known = [size for size in positions if size is not None]
    return batch, math.prod(known) if len(known) == len(positions) else None, channels


def _check_fit(first: tuple[int | None, ...], second: tuple[int | None, ...]) -> None:
    if first[-1] != second[-1]:
        raise ValueError(
            f"Both maps should have the same number of channels. Received: {first[-1]} and {second[-1]}."
        )
    if first[0] != second[0] and None not in (first[0], second[0]):
        raise ValueError(f"Both maps should have the same batch size. Received: {first[0]} and {second[0]}.")


def pooling_weights(products: Any, scale: float, prior: Any | None = None) -> Any:
    """softmax(scale · q Sᵀ) over the last axis: `(B, N, M)` → `(B, N, M)`, rows that sum to 1.

    Args:
        products: float32 `(B, N, M)`, q Sᵀ.
        scale: paper symbol alpha.
        prior: float32 `(N, M)`, taken off scale · products; None for the paper's equation.
    """
    # Scaled after the largest is taken off: fused by XLA, scale · p − largest is rounded but once, may
    # come out far above 0 where alpha is large, and overflows.
    largest = ops.stop_gradient(ops.max(products, axis=-1, keepdims=True))
    scores = scale * (products - largest)
    if prior is not None:
        scores = scores - prior
        scores = scores - ops.stop_gradient(ops.max(scores, axis=-1, keepdims=True))
    exponentials = ops.exp(scores)
    return exponentials / ops.sum(exponentials, axis=-1, keepdims=True)


def dot_products(first: Any, second: Any) -> Any:
    """Scalar products of positions: `(B, N, d)`, `(B, M, d)` → `(B, N, M)`."""
    return ops.matmul(first, _transposed(second))


def _self_products(vectors: Any) -> Any:
    """`dot_products` of a map with itself, `(B, N, d)` → `(B, N, N)`, differentiable once.

    The gradient is one product, (U + Uᵀ) S, where that of a product of two maps is two.
    """

    def products(vectors: Any) -> tuple[Any, Callable[[Any], Any]]:
        def gradient(upstream: Any) -> Any:
            return ops.matmul(upstream + _transposed(upstream), vectors)

        return dot_products(vectors, vectors), gradient

    if isinstance(vectors, keras.KerasTensor):
        return dot_products(vectors, vectors)  # a custom gradient cannot be part of a functional model
    return with_gradient(products)(vectors)


def _transposed(matrices: Any) -> Any:
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
    return ops.matmul(_transposed(to_products), queries) + ops.matmul(_transposed(weights), upstream)


def with_gradient(function: Callable[..., tuple[Any, Callable[[Any], Any]]]) -> Callable[..., Any]:
    """A function of tensors with a gradient of its own, on any backend.

    Args:
        function: from tensors to a value, and to the function that makes of the gradient with respect to
            that value those with respect to the tensors.
    """

    def called(*tensors: Any) -> Any:
        value, gradient = function(*tensors)

        def backward(*arguments: Any, upstream: Any = None) -> Any:
            # torch gives the inputs, and `upstream` by name; the other backends `upstream` alone.
            return gradient(arguments[0] if upstream is None else upstream)

        return value, backward

    wrapped: Callable[..., Any] = ops.custom_gradient(called)
    return wrapped


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
    return _block_limit(chunk, [value.shape[1] for value in maps])


def _block_limit(chunk: int | None, positions: Sequence[int | None]) -> int:
    if chunk is not None:
        return chunk
    known = [number for number in positions if number is not None]
    return _AUTOMATIC_LIMIT if max(known, default=0) >= _AUTOMATIC_POSITIONS else 0


def fold_blocks(step: Callable[..., _Total], total: _Total, queries: Any, limit: int) -> _Total:
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

    def body(index: Any, total: _Total) -> _Total:
        begin = _smaller(index * size, positions - size)
        fresh = ops.arange(size) >= index * size - begin
        return step(total, begin, size, ops.expand_dims(ops.cast(fresh, "float32"), -1))

    folded: _Total = ops.fori_loop(0, count, body, total)
    return folded


def take_block(values: Any, begin: Any, size: Any) -> Any:
    """The rows from `begin` on: `(B, N, d)` → `(B, size, d)`."""
    batch, _, channels = ops.shape(values)
    return ops.slice(values, (0, begin, 0), (batch, size, channels))


def add_block(values: Any, begin: Any, block: Any) -> Any:
    """`values`, `(B, N, d)`, with `block` added to the rows from `begin` on."""
    rows = take_block(values, begin, ops.shape(block)[1])
    return ops.slice_update(values, (0, begin, 0), rows + block)


def _pool_in_blocks(queries: Any, keys: Any, scale: float, limit: int) -> Any:
    """phi(q, S), whose gradient computes the weights once more in place of keeping them.

    Args:
        queries: float32 `(B, N, d)`.
        keys: float32 `(B, M, d)`, paper symbol S.
        scale: paper symbol alpha.
        limit: int > 0, queries a block at most.

    Returns:
        float32 `(B, N, d)`, differentiable once.
    """

    def pool(queries: Any, keys: Any) -> tuple[Any, Callable[[Any], Any]]:
        def gradient(upstream: Any) -> tuple[Any, Any]:
            return _gradients(queries, keys, upstream, scale, limit)

        return _pooled(queries, keys, scale, limit), gradient

    return with_gradient(pool)(queries, keys)


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


def compile_with_xla(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled by XLA on the TensorFlow backend, `function` itself on the others.

    JAX users compile the step that calls it; nesting in a compiled TensorFlow function is harmless.
    """
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    compiled: Callable[..., Any] = tf.function(function, jit_compile=True, autograph=False)
    return compiled


def compile_where_it_pays(
    function: Callable[..., Any], jit_compile: bool | str = "auto", chunk: int | None = None
) -> Callable[..., Any]:
    """`function` of maps and other things, compiled by XLA if that is asked for or, with "auto", if it pays.

    It does on GPUs and TPUs. On a CPU the matrix products of TensorFlow itself are faster than XLA's; only in
    blocks of queries is XLA as fast, in less than half of the memory.

    Args:
        function: called with tensors `(B, N, d)` or `(B, T, H, W, d)`.
        jit_compile: True, False or "auto".
        chunk: of `attention_pool`.

    Raises:
        ValueError: `jit_compile` is neither a bool nor "auto".
    """
    if jit_compile not in (True, False, "auto"):
        raise ValueError(f"`jit_compile` should be True, False or 'auto'. Received: {jit_compile!r}.")
    if jit_compile != "auto":
        return compile_with_xla(function) if jit_compile else function
    compiled = compile_with_xla(function)

    def choose(*arguments: Any) -> Any:
        # As late as this, since it has TensorFlow look for devices.
        shapes = (tuple(value.shape) for value in arguments if len(getattr(value, "shape", ())) in (3, 5))
        return (compiled if pays_to_compile(chunk, *shapes) else function)(*arguments)

    return choose


def pays_to_compile(chunk: int | None, *shapes: tuple[int | None, ...]) -> bool:
    """Whether "auto" of `compile_where_it_pays` has XLA compile, for maps of these shapes."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    if any(device.device_type in ("GPU", "TPU") for device in tf.config.get_visible_devices()):
        return True
    return _block_limit(chunk, [_flattened_shape(shape)[1] for shape in shapes]) > 0

"""The attention losses (paper eq. 7-9) for blocks of queries, with their gradient in the same pass."""

from typing import Any

from keras import ops

from kdant_tf.layers.pooling_weights import (
    dot_products,
    gradient_to_keys,
    gradient_to_products,
    pooling_weights,
)
from kdant_tf.layers.query_blocks import add_block, fold_blocks, take_block
from kdant_tf.losses.penalties import elements_of_a_sample, penalize, penalty_slope, reduce_penalties


def blocked_distance(
    student: Any,
    teacher: Any,
    *,
    scale: float,
    limit: int,
    penalty: str,
    delta: float,
    reduction: str,
    both_directions: bool,
) -> Any:
    """~L(R, A), or L_d where `both_directions` is true.

    A block is pooled, penalised and differentiated at once, so that neither weights nor pooled vectors
    are kept. Compilers leave the gradient out where nobody asks for it.

    Args:
        student: float32 `(B, Na, d)`, paper symbol A.
        teacher: float32 `(B, Nr, d)`, paper symbol R. Its gradient is 0.
        scale: paper symbol alpha.
        limit: int > 0, queries a block at most.
        penalty, delta, reduction: see `feature_loss`.
        both_directions: adds ~L(A, R).

    Returns:
        float32 scalar, differentiable once.

    Source: Tran et al. 2019, eq. 7-9. Deviations: "mean" is ours.
    """

    @ops.custom_gradient
    def distance(student: Any, teacher: Any) -> Any:
        total = ops.zeros((), "float32"), ops.zeros_like(student)
        for of_student in (False, True)[: 1 + both_directions]:
            total = _add_direction(
                total, student, teacher, of_student, scale, limit, penalty, delta, reduction
            )
        value, to_student = total

        def gradient(*arguments: Any, upstream: Any = None) -> Any:
            # torch gives the inputs, and `upstream` by name; the other backends `upstream` alone.
            upstream = arguments[0] if upstream is None else upstream
            return upstream * to_student, ops.zeros_like(teacher)

        return value, gradient

    return distance(student, teacher)


def _add_direction(
    total: tuple[Any, Any],
    student: Any,
    teacher: Any,
    of_student: bool,
    scale: float,
    limit: int,
    penalty: str,
    delta: float,
    reduction: str,
) -> tuple[Any, Any]:
    """`total`, a loss and its gradient in A, with ~L(A, R) added where `of_student`, ~L(R, A) elsewhere."""
    queries = student if of_student else teacher
    weight = 1.0 if reduction == "sum" else 1.0 / elements_of_a_sample(queries)
    share = weight / ops.cast(ops.shape(queries)[0], "float32")

    def step(total: tuple[Any, Any], begin: Any, size: Any, fresh: Any) -> tuple[Any, Any]:
        value, to_student = total
        block = take_block(queries, begin, size)
        in_student = pooling_weights(dot_products(block, student), scale)
        in_teacher = pooling_weights(dot_products(block, teacher), scale)
        difference = ops.matmul(in_student, student) - ops.matmul(in_teacher, teacher)
        penalties = fresh * penalize(difference, penalty, delta)
        value = value + weight * reduce_penalties(penalties, "sum")
        upstream = share * fresh * penalty_slope(difference, penalty, delta)
        to_products = gradient_to_products(in_student, student, upstream, scale)
        to_student = to_student + gradient_to_keys(in_student, to_products, block, upstream)
        if of_student:
            through_teacher = gradient_to_products(in_teacher, teacher, -upstream, scale)
            to_block = ops.matmul(to_products, student) + ops.matmul(through_teacher, teacher)
            to_student = add_block(to_student, begin, to_block)
        return value, to_student

    return fold_blocks(step, total, queries, limit)

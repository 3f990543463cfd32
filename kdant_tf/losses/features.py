"""Feature losses: how far the student's map is from the teacher's (paper eq. 7-9, §4.2)."""

from typing import Any

from keras import ops

from kdant_tf.layers.attention_pooling import (
    add_block,
    as_float32_maps,
    attention_pool,
    bidirectional_attention_pool,
    block_limit,
    dot_products,
    flatten_positions,
    fold_blocks,
    gradient_to_keys,
    gradient_to_products,
    pooling_weights,
    resolve_alpha,
    take_block,
)

FEATURE_LOSSES = ("none", "direct", "unidirectional", "bidirectional")


def feature_loss(
    name: str,
    student: Any,
    teacher: Any,
    alpha: float | None = None,
    penalty: str = "huber",
    delta: float = 1.0,
    reduction: str = "mean",
    chunk: int | None = None,
) -> Any:
    """The loss `name` between a student's and a teacher's feature map.

    `none`: 0. `direct`: ‖A − R‖², position by position. `unidirectional`: ~L(R, A), eq. 9.
    `bidirectional`: L_d = ~L(A, R) + ~L(R, A), eq. 7-9. No gradient reaches `teacher`.

    Args:
        name: one of FEATURE_LOSSES.
        student: float `(B, Na, d)` or `(B, T, H, W, d)`, paper symbol A.
        teacher: float `(B, Nr, d)` or `(B, T, H, W, d)`, paper symbol R. Na and Nr may differ but
            for `direct`.
        alpha: float >= 0, or None for 1/sqrt(d).
        penalty: "huber" (§4.2) or "squared" (eq. 8, 9), applied to each channel's difference.
        delta: float > 0, where Huber's penalty turns from 0.5·x² to delta·(|x| − 0.5·delta).
        reduction: "sum" over positions and channels, averaged over the batch (the paper's), or "mean"
            over batch, positions and channels, so that a weight means the same at every size. The
            two directions are added in both.
        chunk: int > 0, computes `unidirectional` and `bidirectional` for blocks of so many queries at
            most, in less memory and with 17 matrix products in place of 14. 0 takes all queries at
            once. None does so where neither map is known to have 1,024 positions or more.

    Returns:
        float32 scalar, differentiable once.

    Raises:
        ValueError: an unknown name, penalty or reduction, a negative alpha or chunk, or maps that do
            not fit (says both sizes).

    Source: Tran et al. 2019, eq. 7-9. Deviations: "mean" is ours.
    """
    _check_choice("name", name, FEATURE_LOSSES)
    _check_choice("penalty", penalty, PENALTIES)
    _check_choice("reduction", reduction, REDUCTIONS)
    if name == "none":
        return ops.zeros((), "float32")
    student, teacher = as_float32_maps(flatten_positions(student), flatten_positions(teacher))
    teacher = ops.stop_gradient(teacher)

    def distance(first: Any, second: Any) -> Any:
        return reduce_penalties(penalize(first - second, penalty, delta), reduction)

    if name == "direct":
        _check_same_positions(student.shape, teacher.shape)
        return distance(student, teacher)
    limit = block_limit(chunk, student, teacher)
    if limit:
        return blocked_distance(
            student,
            teacher,
            scale=resolve_alpha(alpha, student.shape[-1]),
            limit=limit,
            penalty=penalty,
            delta=delta,
            reduction=reduction,
            both_directions=name == "bidirectional",
        )
    if name == "unidirectional":
        return distance(
            attention_pool(teacher, student, alpha, 0), attention_pool(teacher, teacher, alpha, 0)
        )
    pooled = bidirectional_attention_pool(student, teacher, alpha, 0)
    return distance(pooled["a_in_r"], pooled["a_in_a"]) + distance(pooled["r_in_a"], pooled["r_in_r"])


def _check_choice(argument: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"`{argument}` should be one of {', '.join(choices)}. Received: {value!r}.")


def _check_same_positions(student: Any, teacher: Any) -> None:
    if student[1] != teacher[1] and None not in (student[1], teacher[1]):
        raise ValueError(
            f"The direct loss compares maps position by position and needs equal shapes. Received: "
            f"{tuple(student)} and {tuple(teacher)}."
        )


# The attention losses (paper eq. 7-9) for blocks of queries, with their gradient in the same pass.


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


# What a difference between two maps costs: squared (paper eq. 8, 9) or Huber's (§4.2).


PENALTIES = ("huber", "squared")
REDUCTIONS = ("mean", "sum")


def penalize(difference: Any, penalty: str, delta: float) -> Any:
    """x², or 0.5·x² within delta and delta·(|x| − 0.5·delta) beyond, for each element."""
    if penalty == "squared":
        return ops.square(difference)
    size = ops.abs(difference)
    quadratic = ops.minimum(size, delta)
    return 0.5 * ops.square(quadratic) + delta * (size - quadratic)


def penalty_slope(difference: Any, penalty: str, delta: float) -> Any:
    """The derivative of `penalize`."""
    return 2.0 * difference if penalty == "squared" else ops.clip(difference, -delta, delta)


def reduce_penalties(penalties: Any, reduction: str) -> Any:
    """Mean over everything, or sum over positions and channels averaged over the batch.

    Args:
        penalties: float32 `(B, N, d)`.
        reduction: "mean" or "sum".
    """
    # Channels first: XLA adds ten million values up one by one on a CPU, and loses 3e-4 of their sum.
    mean = ops.mean(ops.mean(penalties, axis=-1))
    return mean if reduction == "mean" else mean * elements_of_a_sample(penalties)


def elements_of_a_sample(values: Any) -> Any:
    """N · d of `(B, N, d)`, as float32."""
    _, positions, channels = ops.shape(values)
    return ops.cast(positions, "float32") * ops.cast(channels, "float32")

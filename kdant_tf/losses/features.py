"""Feature losses: how far the student's map is from the teacher's (paper eq. 7-9, §4.2)."""

from typing import Any

from keras import ops

from kdant_tf.layers.attention_pooling import (
    as_float32_maps,
    attention_pool,
    bidirectional_attention_pool,
    flatten_positions,
    resolve_alpha,
)
from kdant_tf.layers.query_blocks import block_limit
from kdant_tf.losses.blocked_distance import blocked_distance
from kdant_tf.losses.penalties import PENALTIES, REDUCTIONS, penalize, reduce_penalties

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

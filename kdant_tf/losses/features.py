"""Feature losses: how far the student's map is from the teacher's (paper eq. 7-9, §4.2)."""

from typing import Any

from keras import ops

from kdant_tf.layers.attention_pooling import (
    attention_pool,
    bidirectional_attention_pool,
    flatten_positions,
)

FEATURE_LOSSES = ("none", "direct", "unidirectional", "bidirectional")
PENALTIES = ("huber", "squared")
REDUCTIONS = ("mean", "sum")


def feature_loss(
    name: str,
    student: Any,
    teacher: Any,
    alpha: float | None = None,
    penalty: str = "huber",
    delta: float = 1.0,
    reduction: str = "mean",
) -> Any:
    """The loss `name` between a student's and a teacher's feature map.

    `none`: 0. `direct`: ‖A − R‖², position by position. `unidirectional`: ~L(R, A), eq. 9.
    `bidirectional`: L_d = ~L(A, R) + ~L(R, A), eq. 7-9. No gradient reaches `teacher`.

    Args:
        name: one of FEATURE_LOSSES.
        student: float `(B, Na, d)` or `(B, T, H, W, d)`, paper symbol A.
        teacher: float `(B, Nr, d)` or `(B, T, H, W, d)`, paper symbol R. Na and Nr may differ but
            for `direct`.
        alpha: float > 0, or None for 1/sqrt(d).
        penalty: "huber" (§4.2) or "squared" (eq. 8, 9), applied to each channel's difference.
        delta: float > 0, where Huber's penalty turns from 0.5·x² to delta·(|x| − 0.5·delta).
        reduction: "sum" over positions and channels, averaged over the batch (the paper's), or "mean"
            over batch, positions and channels, so that a weight means the same at every size. The
            two directions are added in both.

    Returns:
        float32 scalar.

    Raises:
        ValueError: an unknown name, penalty or reduction, or maps that do not fit (says both shapes).

    Source: Tran et al. 2019, eq. 7-9. Deviations: "mean" is ours.
    """
    _check_choice("name", name, FEATURE_LOSSES)
    _check_choice("penalty", penalty, PENALTIES)
    _check_choice("reduction", reduction, REDUCTIONS)
    student = flatten_positions(ops.convert_to_tensor(student))
    teacher = ops.stop_gradient(flatten_positions(ops.convert_to_tensor(teacher)))

    def penalize(first: Any, second: Any) -> Any:
        return _reduce(_penalty(first - second, penalty, delta), reduction)

    if name == "none":
        return ops.zeros((), "float32")
    if name == "direct":
        _check_same_shape(student, teacher)
        return penalize(ops.cast(student, "float32"), ops.cast(teacher, "float32"))
    if name == "unidirectional":
        return penalize(attention_pool(teacher, student, alpha), attention_pool(teacher, teacher, alpha))
    pooled = bidirectional_attention_pool(student, teacher, alpha)
    return penalize(pooled["a_in_r"], pooled["a_in_a"]) + penalize(pooled["r_in_a"], pooled["r_in_r"])


def _penalty(difference: Any, penalty: str, delta: float) -> Any:
    if penalty == "squared":
        return ops.square(difference)
    size = ops.abs(difference)
    quadratic = ops.minimum(size, delta)
    return 0.5 * ops.square(quadratic) + delta * (size - quadratic)


def _reduce(penalties: Any, reduction: str) -> Any:
    """float32 `(B, N, d)` → scalar."""
    if reduction == "mean":
        return ops.mean(penalties)
    return ops.mean(ops.sum(penalties, axis=(1, 2)))


def _check_choice(argument: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"`{argument}` should be one of {', '.join(choices)}. Received: {value!r}.")


def _check_same_shape(student: Any, teacher: Any) -> None:
    if student.shape[1:] != teacher.shape[1:]:
        raise ValueError(
            f"The direct loss compares maps position by position and needs equal shapes. Received: "
            f"{student.shape} and {teacher.shape}."
        )

"""Classification loss: KL from the label where there is one, from the teacher where there is none."""

from typing import Any

from keras import ops


def classification_loss(logits: Any, labels: Any, teacher_probabilities: Any | None = None) -> Any:
    """The classification part of eq. 2 for a batch that may mix labelled and unlabelled samples.

    Args:
        logits: float `(B, classes)`, of the network that learns.
        labels: int `(B,)`, -1 for unlabelled.
        teacher_probabilities: float `(B, classes)`; None where every sample has a label.

    Returns:
        float32 scalar, the mean over the batch.

    Example:
        >>> import keras
        >>> logits, teacher = keras.ops.zeros((2, 4)), keras.ops.array([[0.25] * 4, [0.5, 0.5, 0.0, 0.0]])
        >>> loss = classification_loss(logits, keras.ops.array([1, -1]), teacher)  # -1 has no label
        >>> round(float(loss), 4)  # of log 4, by the label, and log 2, by the teacher
        1.0397

    Source: Tran et al. 2019, eq. 1, 2. Deviations: none.
    """
    if teacher_probabilities is None:
        targets = ops.one_hot(labels, logits.shape[-1], dtype="float32")
    else:
        targets = classification_targets(labels, teacher_probabilities)
    return kl_divergence(targets, logits)


def classification_targets(labels: Any, teacher_probabilities: Any) -> Any:
    """One-hot rows where the label is >= 0, the teacher's probabilities where it is -1 (paper eq. 2).

    Args:
        labels: int `(B,)`, -1 for unlabelled.
        teacher_probabilities: float `(B, classes)`, R(x_t).

    Returns:
        float32 `(B, classes)`, rows that sum to 1; no gradient reaches the teacher.

    Source: Tran et al. 2019, eq. 1, 2. Deviations: none.
    """
    probabilities = ops.stop_gradient(ops.cast(teacher_probabilities, "float32"))
    labels = ops.convert_to_tensor(labels)
    one_hot = ops.one_hot(ops.maximum(labels, 0), probabilities.shape[-1], dtype="float32")
    return ops.where(ops.expand_dims(labels >= 0, -1), one_hot, probabilities)


def kl_divergence(targets: Any, logits: Any) -> Any:
    """KL(target ‖ softmax(logits)), averaged over the batch; 0·log 0 counts as 0.

    With one-hot targets this is the negative log likelihood of the label.

    Args:
        targets: float `(B, classes)`, rows that sum to 1.
        logits: float `(B, classes)`.

    Returns:
        float32 scalar.

    Raises:
        ValueError: shapes differ (says both).

    Source: Tran et al. 2019, eq. 1, 2, §4.2. Deviations: none.
    """
    targets, logits = ops.convert_to_tensor(targets), ops.convert_to_tensor(logits)
    if not _same_shape(targets.shape, logits.shape):
        raise ValueError(
            f"Targets and logits should have the same samples and classes. Received shapes: "
            f"{targets.shape} and {logits.shape}."
        )
    targets = ops.cast(targets, "float32")
    log_probabilities = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    log_targets = ops.log(ops.where(targets > 0, targets, ops.ones_like(targets)))
    return ops.mean(ops.sum(targets * (log_targets - log_probabilities), axis=-1))


def _same_shape(first: Any, second: Any) -> bool:
    """True also where a size is not known yet, as in a traced function."""
    sizes = zip(tuple(first), tuple(second), strict=False)
    return len(first) == len(second) and all(a == b or None in (a, b) for a, b in sizes)

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


def soft_classification_loss(
    logits: Any, labels: Any, teacher_logits: Any, soft_weight: float, temperature: float
) -> Any:
    """As `classification_loss`, but labelled samples learn from the teacher too.

    A labelled sample has (1 − beta)·KL(label ‖ A) + beta·T²·KL(R at T ‖ A at T), its logits divided by T
    before the softmax; an unlabelled one KL(R ‖ A), as in eq. 2.

    Args:
        logits: float `(B, classes)`, of the network that learns.
        labels: int `(B,)`, -1 for unlabelled.
        teacher_logits: float `(B, classes)`; no gradient reaches them.
        soft_weight: from 0 to 1, beta; 0 is eq. 2.
        temperature: float > 0, T.

    Returns:
        float32 scalar, the mean over the batch.

    Example:
        >>> import keras
        >>> logits, teacher = keras.ops.zeros((1, 2)), keras.ops.zeros((1, 2))
        >>> loss = soft_classification_loss(logits, keras.ops.array([1]), teacher, 0.5, 2.0)
        >>> round(float(loss), 4)  # half of log 2, by the label; the teacher agrees
        0.3466

    Source: Hinton, Vinyals and Dean 2015, section 2; Tran et al. 2019, eq. 2. Deviations: unlabelled samples
    have neither beta nor T.
    """
    logits, teacher_logits = (ops.cast(each, "float32") for each in (logits, teacher_logits))
    by_target = kl_of_samples(classification_targets(labels, ops.softmax(teacher_logits)), logits)
    soft = ops.stop_gradient(ops.softmax(teacher_logits / temperature))
    by_teacher = temperature**2 * kl_of_samples(soft, logits / temperature)
    share = ops.where(ops.convert_to_tensor(labels) >= 0, soft_weight, 0.0)
    share = ops.cast(share, "float32")
    return ops.mean((1.0 - share) * by_target + share * by_teacher)


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
    return ops.mean(kl_of_samples(targets, logits))


def kl_of_samples(targets: Any, logits: Any) -> Any:
    """`kl_divergence` of each sample, float32 `(B,)`."""
    targets, logits = ops.convert_to_tensor(targets), ops.convert_to_tensor(logits)
    if not _same_shape(targets.shape, logits.shape):
        raise ValueError(
            f"Targets and logits should have the same samples and classes. Received shapes: "
            f"{targets.shape} and {logits.shape}."
        )
    targets = ops.cast(targets, "float32")
    log_probabilities = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    log_targets = ops.log(ops.where(targets > 0, targets, ops.ones_like(targets)))
    return ops.sum(targets * (log_targets - log_probabilities), axis=-1)


def _same_shape(first: Any, second: Any) -> bool:
    """True also where a size is not known yet, as in a traced function."""
    sizes = zip(tuple(first), tuple(second), strict=False)
    return len(first) == len(second) and all(a == b or None in (a, b) for a, b in sizes)

"""Classification loss: KL from the label where there is one, from the teacher where there is none."""

from collections.abc import Sequence
from typing import Any

from keras import ops

# Of the effective number of samples; Cui et al. tried 0.9 to 0.9999.
_EFFECTIVE_BETA = 0.999


def classification_loss(
    logits: Any,
    labels: Any,
    teacher_probabilities: Any | None = None,
    label_smoothing: float = 0.0,
    label_weights: Any = 1.0,
    partners: tuple[Any, Any] | None = None,
) -> Any:
    """The classification part of eq. 2 for a batch that may mix labelled and unlabelled samples.

    Args:
        logits: float `(B, classes)`, of the network that learns.
        labels: int `(B,)`, -1 for unlabelled.
        teacher_probabilities: float `(B, classes)`; None where every sample has a label, or where those
            without one add nothing.
        label_smoothing, partners: see `label_targets`.
        label_weights: float `(B,)`, of each sample's loss, see `balance_labels`.

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
        targets = label_targets(labels, logits.shape[-1], label_smoothing, partners)
    else:
        targets = classification_targets(labels, teacher_probabilities, label_smoothing, partners)
    return ops.mean(label_weights * kl_of_samples(targets, logits))


def soft_classification_loss(
    logits: Any,
    labels: Any,
    teacher_logits: Any,
    soft_weight: float,
    temperature: float,
    label_smoothing: float = 0.0,
    label_weights: Any = 1.0,
    partners: tuple[Any, Any] | None = None,
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
        label_smoothing, label_weights, partners: of what comes from the labels, not from the teacher; see
            `label_targets` and `balance_labels`.

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
    targets = classification_targets(labels, ops.softmax(teacher_logits), label_smoothing, partners)
    by_target = label_weights * kl_of_samples(targets, logits)
    soft = ops.stop_gradient(ops.softmax(teacher_logits / temperature))
    by_teacher = temperature**2 * kl_of_samples(soft, logits / temperature)
    share = ops.where(ops.convert_to_tensor(labels) >= 0, soft_weight, 0.0)
    share = ops.cast(share, "float32")
    return ops.mean((1.0 - share) * by_target + share * by_teacher)


def class_weights(counts: Sequence[int], balance: str) -> tuple[float, ...]:
    """Weights w_c of classes that have n_c samples each, n in all: proportional to those below.

    - "inverse": 1 / n_c, so that all classes weigh as much.
    - "effective": (1 − beta) / (1 − beta^n_c) with beta = 0.999, the inverse of the effective number of
      samples (Cui et al. 2019, eq. 4): as "inverse" for small classes, alike for those beyond a thousand.

    Scaled so that sum_c n_c·w_c = n, which leaves the size of the loss as it is; 0 for classes without a
    sample.

    Args:
        counts: n_c.
        balance: "inverse" or "effective".

    Example:
        >>> class_weights((30, 10, 0), "inverse")
        (0.6666666666666666, 2.0, 0.0)
    """
    numbers = {"inverse": float, "effective": lambda count: 1 - _EFFECTIVE_BETA**count}
    raw = [1 / numbers[balance](count) if count else 0.0 for count in counts]
    scale = sum(counts) / sum(count * weight for count, weight in zip(counts, raw, strict=True))
    return tuple(scale * weight for weight in raw)


def balance_labels(
    logits: Any, labels: Any, weights: Sequence[float] | None = None, focusing: float = 0.0
) -> Any:
    """Weights of labelled samples' losses: w_y·(1 − p_y)^gamma, y the label, p_y its probability.

    Args:
        logits: float `(B, classes)`.
        labels: int `(B,)`, -1 for unlabelled.
        weights: w, one a class; None for 1.
        focusing: float >= 0, gamma; gradients go through p_y too.

    Returns:
        float32 `(B,)`, 1 where there is no label.

    Source: Lin et al. 2017, eq. 5; Cui et al. 2019, eq. 8. Deviations: none.
    """
    labels = ops.convert_to_tensor(labels)
    known = labels >= 0
    one_hot = _one_hot(labels, logits.shape[-1])
    factor = ops.ones_like(one_hot[:, 0])
    if weights is not None:
        factor = ops.sum(one_hot * ops.convert_to_tensor(weights, "float32"), axis=-1)
    if focusing > 0:
        # The sum of the others' probabilities, which keeps its digits, and its gradient, near 0.
        others = ops.sum((1.0 - one_hot) * ops.softmax(ops.cast(logits, "float32")), axis=-1)
        factor = factor * others**focusing
    return ops.where(known, factor, 1.0)


def label_targets(
    labels: Any, classes: int, label_smoothing: float = 0.0, partners: tuple[Any, Any] | None = None
) -> Any:
    """Rows (1 − epsilon)·one-hot + epsilon / K, K the number of classes; zeros where there is no label.

    Of mixed samples, the rows of both labels in their shares.

    Args:
        labels: int `(B,)`, -1 for unlabelled.
        classes: K.
        label_smoothing: epsilon, from 0 to below 1.
        partners: labels of the samples mixed in, int `(B,)`, -1 where `labels` has it, and the share of the
            sample's own, float32 `(B,)` from 0 to 1; None where none are.

    Returns:
        float32 `(B, K)`, rows that sum to 1 where there is a label.

    Source: Szegedy et al. 2016, section 7; Zhang et al. 2018, mixup, eq. 1. Deviations: none.
    """
    labels = ops.convert_to_tensor(labels)
    rows = _one_hot(labels, classes)
    if partners is not None:
        share = ops.expand_dims(partners[1], -1)
        rows = share * rows + (1.0 - share) * _one_hot(partners[0], classes)
    known = ops.cast(ops.expand_dims(labels >= 0, -1), "float32")
    return known * ((1.0 - label_smoothing) * rows + label_smoothing / classes)


def _one_hot(labels: Any, classes: int) -> Any:
    """Rows of `labels` that are >= 0; those of others mean nothing, and are rows too on any backend."""
    return ops.one_hot(ops.maximum(labels, 0), classes, dtype="float32")


def classification_targets(
    labels: Any,
    teacher_probabilities: Any,
    label_smoothing: float = 0.0,
    partners: tuple[Any, Any] | None = None,
) -> Any:
    """Rows of `label_targets` where the label is >= 0, the teacher's probabilities where it is -1 (eq. 2).

    Args:
        labels: int `(B,)`, -1 for unlabelled.
        teacher_probabilities: float `(B, classes)`, R(x_t).
        label_smoothing, partners: see `label_targets`; the paper's are one-hot rows.

    Returns:
        float32 `(B, classes)`, rows that sum to 1; no gradient reaches the teacher.

    Source: Tran et al. 2019, eq. 1, 2. Deviations: none.
    """
    probabilities = ops.stop_gradient(ops.cast(teacher_probabilities, "float32"))
    labels = ops.convert_to_tensor(labels)
    rows = label_targets(labels, probabilities.shape[-1], label_smoothing, partners)
    return ops.where(ops.expand_dims(labels >= 0, -1), rows, probabilities)


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

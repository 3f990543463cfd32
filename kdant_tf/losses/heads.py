"""Probabilities of several heads, and the loss where a clip has several labels (sigmoid, not softmax)."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from tf_records.heads import Head, column_slices


def head_probabilities(logits: Any, heads: Sequence[Head] = ()) -> Any:
    """Softmax of each head's logits, or sigmoids where a clip may have several of its classes.

    Args:
        logits: float `(B, columns)`, see `tf_records.heads`.
        heads: in the order of the columns; none for one softmax over all.

    Returns:
        float32 `(B, columns)`; those of a head sum to 1, unless it is one of several labels.

    Example:
        >>> import keras
        >>> heads = (Head(name="verb", classes=("take", "put")), Head(name="noun", classes=("cup", "pan")))
        >>> head_probabilities(keras.ops.zeros((1, 4)), heads).numpy().tolist()
        [[0.5, 0.5, 0.5, 0.5]]
    """
    logits = ops.cast(logits, "float32")
    if not heads:
        return ops.softmax(logits)
    slices = column_slices(tuple(heads))
    parts = [(ops.sigmoid if head.several else ops.softmax)(logits[:, slices[head.name]]) for head in heads]
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)


def several_labels_loss(
    logits: Any,
    labels: Any,
    teacher_logits: Any | None = None,
    soft_weight: float = 0.0,
    temperature: float = 1.0,
    partners: tuple[Any, Any] | None = None,
) -> Any:
    """Eq. 2 where a clip may have several labels: binary cross-entropies in place of one over all classes.

    A labelled clip has the sum over classes of KL(label ‖ σ(logit)), an unlabelled one that of
    KL(R's σ ‖ A's σ). With `soft_weight` a labelled one has (1 − beta) of the first and beta·T² of the
    second, both logits divided by T.

    Args:
        logits: float `(B, classes)`, of the network that learns.
        labels: int `(B, classes)`, 1 for a class that is there, 0 for one that is not, -1 for all of an
            unlabelled clip.
        teacher_logits: float `(B, classes)`, no gradient reaches them; None where unlabelled clips add
            nothing.
        soft_weight, temperature: beta and T, see `classification.soft_classification_loss`.
        partners: labels of the clips mixed in, int `(B, classes)`, and the share of the clip's own, `(B,)`.

    Returns:
        float32 scalar, the mean over the batch.

    Example:
        >>> import keras
        >>> labels = keras.ops.array([[1, 1, 0], [-1, -1, -1]])
        >>> round(float(several_labels_loss(keras.ops.zeros((2, 3)), labels)), 4)  # half of 3 log 2
        1.0397

    Source: Tran et al. 2019, eq. 2; Hinton, Vinyals and Dean 2015, section 2. Deviations: a Bernoulli
    distribution for each class in place of one over all of them.
    """
    logits = ops.cast(logits, "float32")
    labels = ops.convert_to_tensor(labels)
    known = ops.cast(ops.max(labels, axis=-1) >= 0, "float32")
    targets = ops.cast(ops.maximum(labels, 0), "float32")
    if partners is not None:
        share = ops.expand_dims(partners[1], -1)
        targets = share * targets + (1.0 - share) * ops.cast(ops.maximum(partners[0], 0), "float32")
    by_label = known * binary_kl(targets, logits)
    if teacher_logits is None:
        return ops.mean(by_label)
    teacher_logits = ops.stop_gradient(ops.cast(teacher_logits, "float32"))
    by_teacher = (1.0 - known) * binary_kl(ops.sigmoid(teacher_logits), logits)
    if soft_weight > 0:
        soft = ops.sigmoid(teacher_logits / temperature)
        softly = known * temperature**2 * binary_kl(soft, logits / temperature)
        by_label = (1.0 - soft_weight) * by_label + soft_weight * softly
    return ops.mean(by_label + by_teacher)


def binary_kl(targets: Any, logits: Any) -> Any:
    """Sum over classes of KL(Bernoulli(target) ‖ Bernoulli(σ(logit))) of each sample, float32 `(B,)`.

    With targets of 0 and 1 it is the binary cross-entropy.

    Args:
        targets: float `(B, classes)`, from 0 to 1.
        logits: float `(B, classes)`.
    """
    targets, logits = ops.cast(targets, "float32"), ops.cast(logits, "float32")
    # softplus(z) - t·z, which loses no digits where σ is near 0 or 1.
    cross_entropy = ops.softplus(logits) - targets * logits
    return ops.sum(cross_entropy + _x_log_x(targets) + _x_log_x(1.0 - targets), axis=-1)


def _x_log_x(x: Any) -> Any:
    """0 where x is 0."""
    return x * ops.log(ops.where(x > 0, x, ops.ones_like(x)))

"""What is compared of two maps where no position is: mean vectors and second moments."""

from typing import Any

from keras import ops

from kdant_tf.layers.attention_pooling import resolve_alpha

# Below this root mean square a vector counts as silent, and is not blown up.
_SILENT = 1e-3
_DEFAULT_SHARPNESS = 10.0


def normalize_vectors(feature_map: Any, normalization: str) -> Any:
    """Vectors of one length, so that a loss does not see how large activations are.

    Args:
        feature_map: float32 `(B, N, d)`.
        normalization: "none", "l2" (x/|x|) or "layer" ((x − mean)/deviation, over channels). The last two
            are scaled to root mean square 1, so that Huber's delta and the loss keep their meaning at every
            width; vectors below 0.001 are left smaller.

    Returns:
        float32 `(B, N, d)`.
    """
    if normalization == "none":
        return feature_map
    if normalization == "layer":
        feature_map = feature_map - ops.mean(feature_map, axis=-1, keepdims=True)
    square = ops.mean(ops.square(feature_map), axis=-1, keepdims=True)
    return feature_map * ops.rsqrt(square + _SILENT**2)


def pooling_scale(alpha: float | None, channels: int, normalization: str) -> float:
    """What scalar products are multiplied by: alpha, or alpha/d where their vectors have the length √d.

    Args:
        alpha: float >= 0; None for the paper's 1/sqrt(d), or for 10 where vectors are normalised, whose
            alpha counts in cosines: e^10 between a vector's twin and one at a right angle.
        channels: paper symbol d.
        normalization: see `normalize_vectors`.
    """
    if normalization == "none":
        return resolve_alpha(alpha, channels)
    return (_DEFAULT_SHARPNESS if alpha is None else alpha) / channels


def jaccard_distance(student: Any, teacher: Any) -> Any:
    """1 − a·r / (|a|² + |r|² − a·r) of the mean vectors of two maps: 0 for equal ones, 1 at right angles.

    Args:
        student, teacher: float32 `(B, N, d)`; the numbers of positions may differ.

    Returns:
        float32 `(B,)`. A common factor of both maps leaves it as it is. Two silent maps have 0.

    Source: Fernando and Herath 2021, the Jaccard vector similarity, one of their three measures; the others
    compare matrices, and are not here. Deviations: 1 − J, of mean vectors, the teacher frozen. Programs of
    others that name the measure compute D = 2·a·r / (|a|² + |r|²), which is Dice's; J = D / (2 − D), so that
    both rank pairs alike and agree at 0 and 1, but J falls twice as fast near 1.
    """
    a, r = ops.mean(student, axis=1), ops.mean(teacher, axis=1)
    # |a|² + |r|² − a·r − a·r is |a − r|², which cannot come out below 0.
    apart = ops.sum(ops.square(a - r), axis=-1)
    return apart / (apart + ops.sum(a * r, axis=-1) + _SILENT**4)


def second_moments(feature_map: Any) -> Any:
    """Sᵀ S / N, how channels occur together, wherever: `(B, N, d)` → `(B, d, d)`.

    The squared distance of two such matrices is the maximum mean discrepancy of the two maps' vectors under
    the kernel (x·y)².

    Source: after Wang et al. 2019 (progressive teacher-student learning), whose students match a teacher's
    features by a mean squared error and a maximum mean discrepancy. Deviations: the discrepancy alone, under
    this kernel, whatever theirs is; of the vectors of one map, not of the steps of a sequence; Huber's
    penalty by default.
    """
    positions = ops.cast(ops.shape(feature_map)[1], "float32")
    return ops.matmul(ops.transpose(feature_map, (0, 2, 1)), feature_map) / positions


def infonce(student: Any, teacher: Any, alpha: float | None) -> Any:
    """−log softmax_b'(alpha · cos(a_b, r_b'))[b]: which sample of the batch is this the earlier part of?

    Args:
        student, teacher: float32 `(B, N, d)`, of which mean vectors are compared. The batch is what one
            device sees at once: its share of a micro-batch. One sample alone has the loss 0.
        alpha: float >= 0, one over the temperature; None for 10.

    Returns:
        float32 `(B,)`.

    Source: van den Oord et al. 2018, eq. 4. Deviations: cosines, not a bilinear form; the teacher's frozen
    vectors are the keys; samples of the same class count as others.
    """
    a, r = (_unit(ops.mean(each, axis=1)) for each in (student, teacher))
    scale = _DEFAULT_SHARPNESS if alpha is None else alpha
    similarities = scale * ops.matmul(a, ops.transpose(r))  # (B, B)
    own = scale * ops.sum(a * r, axis=-1)
    return ops.logsumexp(similarities, axis=-1) - own


def _unit(vectors: Any) -> Any:
    return vectors * ops.rsqrt(ops.sum(ops.square(vectors), axis=-1, keepdims=True) + _SILENT**4)

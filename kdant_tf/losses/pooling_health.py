"""Two numbers that show what a feature loss still sees: whether places matter in pooling, and in the map.

Neither is part of the loss, and no gradient flows through them.
"""

from collections.abc import Sequence
from typing import Any

from keras import ops

from kdant_tf.layers.attention_pooling import (
    as_float32_maps,
    block_limit,
    dot_products,
    flatten_positions,
    fold_blocks,
    pooling_weights,
    take_block,
)
from kdant_tf.layers.locality import LocalPrior, map_positions
from kdant_tf.losses import ATTENTION_LOSS_NAMES, DEFAULT_LOCALITY
from kdant_tf.losses.map_statistics import normalize_vectors, pooling_scale

POOLING_ENTROPY, MAP_VARIATION = "pooling_entropy", "map_variation"
# The rule of `describe_trouble`.
UNIFORM_ENTROPY = 0.99
LOST_VARIATION = 0.01
EPOCHS_IN_A_ROW = 3
# Within float32, and far below any number that is looked for.
_TINY = 1e-30


def pooling_health(
    name: str | None,
    student: Any,
    teacher: Any,
    alpha: float | None = None,
    chunk: int | None = None,
    locality: float = DEFAULT_LOCALITY,
    normalization: str = "none",
) -> dict[str, Any]:
    """What the loss `name` still sees of the places in the student's map.

    "pooling_entropy", of the losses that pool by attention: the entropy of the weights by which the
    teacher's vectors pool the student's map, phi(r_j, A), as a share of the largest, log Na; the mean over
    j and the batch. Where it is 1 all weights are equal, phi is the mean of the map, and the loss sees
    only means. `unidirectional`, `bidirectional` and `local` share that pooling; the prior of `local`
    counts.

    "map_variation": sum over i of |a_i − m|² / sum over i of |a_i|², m the mean of the map's vectors; the
    mean over the batch. Where it is 0 the map is the same everywhere. A map that is 0 everywhere has 0.

    Args:
        name: of the loss; None for one that is not kdant's.
        student, teacher, alpha, chunk, locality, normalization: as for
            `kdant_tf.losses.features.feature_loss`; the maps as it compares them. Where `chunk` asks for
            blocks, the weights of all queries never exist at once here either.

    Returns:
        dict of float32 scalars from 0 to 1; without "pooling_entropy" where nothing is pooled by attention.

    Example:
        >>> import keras
        >>> everywhere_one = keras.ops.ones((2, 4, 3))
        >>> health = pooling_health("bidirectional", everywhere_one, everywhere_one)
        >>> {key: round(float(value), 4) for key, value in health.items()}
        {'pooling_entropy': 1.0, 'map_variation': 0.0}
    """
    student, teacher = ops.stop_gradient(student), ops.stop_gradient(teacher)
    places = (map_positions(student), map_positions(teacher)) if name == "local" else None
    student, teacher = as_float32_maps(flatten_positions(student), flatten_positions(teacher))
    student, teacher = (normalize_vectors(each, normalization) for each in (student, teacher))
    variation = ops.mean(_variation(student))
    if name not in ATTENTION_LOSS_NAMES:
        return {MAP_VARIATION: variation}
    prior = None if places is None else LocalPrior(locality, queries=places[1], keys=places[0])
    scale = pooling_scale(alpha, student.shape[-1], normalization)
    limit = block_limit(chunk, student, teacher)
    entropy = ops.mean(_entropy_share(teacher, student, scale, prior, limit))
    return {POOLING_ENTROPY: entropy, MAP_VARIATION: variation}


def describe_trouble(epochs: Sequence[dict[str, float]]) -> str | None:
    """One sentence on what the feature loss no longer sees and what to do, or None.

    The rule: for three epochs in a row, the last ones, the mean of pooling_entropy is 0.99 or more, or
    that of map_variation is below 0.01.

    Args:
        epochs: what `pooling_health` gave, averaged over each epoch, in order; empty dicts without it.
    """
    last = epochs[-EPOCHS_IN_A_ROW:]
    if len(last) < EPOCHS_IN_A_ROW:
        return None
    sharper = ", a larger --alpha" if POOLING_ENTROPY in last[-1] else ""
    advice = f"Give --feature-normalization l2{sharper} or a smaller --feature-weight."
    if all(each.get(MAP_VARIATION, 1.0) < LOST_VARIATION for each in last):
        return (
            f"The student's map is nearly the same everywhere: {last[-1][MAP_VARIATION]:.2g} of it varies "
            f"over positions (map_variation), below {LOST_VARIATION:g} for {EPOCHS_IN_A_ROW} epochs. {advice}"
        )
    if all(each.get(POOLING_ENTROPY, 0.0) >= UNIFORM_ENTROPY for each in last):
        return (
            f"The feature loss sees little but means: the entropy of its pooling weights is "
            f"{last[-1][POOLING_ENTROPY]:.3f} of the largest (pooling_entropy), {UNIFORM_ENTROPY:g} or more "
            f"for {EPOCHS_IN_A_ROW} epochs. {advice}"
        )
    return None


def _variation(vectors: Any) -> Any:
    """`(B, N, d)` → `(B,)`."""
    # Channels first, as in the losses: XLA adds up one by one on a CPU.
    around_mean = ops.square(vectors - ops.mean(vectors, axis=1, keepdims=True))
    varying = ops.mean(ops.mean(around_mean, axis=-1), axis=-1)
    return varying / ops.maximum(ops.mean(ops.mean(ops.square(vectors), axis=-1), axis=-1), _TINY)


def _entropy_share(queries: Any, keys: Any, scale: float, prior: LocalPrior | None, limit: int) -> Any:
    """Mean entropy of the pooling weights over log M: `(B, N, d)`, `(B, M, d)` → `(B,)`."""
    if limit:

        def step(total: Any, begin: Any, size: Any, fresh: Any) -> Any:
            rows = None if prior is None else prior.rows(begin, size).matrix()
            weights = pooling_weights(dot_products(take_block(queries, begin, size), keys), scale, rows)
            return total + ops.sum(fresh[:, 0] * _entropies(weights), axis=-1)

        total = fold_blocks(step, ops.zeros(ops.shape(queries)[:1], "float32"), queries, limit)
        entropy = total / ops.cast(ops.shape(queries)[1], "float32")
    else:
        whole = None if prior is None else prior.matrix()
        entropy = ops.mean(_entropies(pooling_weights(dot_products(queries, keys), scale, whole)), axis=-1)
    positions = ops.cast(ops.shape(keys)[1], "float32")
    # Of one position the mean is all that can be seen.
    largest = ops.log(ops.maximum(positions, 2.0))
    return ops.where(positions > 1, ops.minimum(entropy / largest, 1.0), ops.ones_like(entropy))


def _entropies(weights: Any) -> Any:
    """−Σ w log w over the last axis; 0·log 0 counts as 0."""
    return -ops.sum(weights * ops.log(ops.maximum(weights, _TINY)), axis=-1)

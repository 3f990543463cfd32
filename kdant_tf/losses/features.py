"""Feature losses: how far the student's map is from the teacher's (paper eq. 7-9, §4.2).

`feature_loss` is the number, FeatureLoss the same for Keras' `compile` and `fit`. Both pool by the functions
under `kdant_tf.layers.attention_pooling.BidirectionalAttentionPooling` and not by the layer itself. The layer
is the pooling alone; here pooling, penalty and their sum are one computation. And
large maps are pooled, penalised and differentiated block by block, 17 matrix products in 2 loops, where the
layer's pooled vectors and their gradient would take 20 in 7, and be kept between them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from kdant_tf.layers.attention_pooling import (
    add_block,
    as_float32_maps,
    attention_pool,
    bidirectional_attention_pool,
    block_limit,
    check_alpha,
    check_chunk,
    compile_where_it_pays,
    dot_products,
    flatten_positions,
    fold_blocks,
    gradient_to_keys,
    gradient_to_products,
    pooling_weights,
    take_block,
    with_gradient,
)
from kdant_tf.layers.locality import LocalPrior, check_locality, map_positions
from kdant_tf.losses import DEFAULT_LOCALITY, FEATURE_LOSS_NAMES, NORMALIZATIONS, PENALTIES, REDUCTIONS
from kdant_tf.losses.map_statistics import (
    infonce,
    jaccard_distance,
    normalize_vectors,
    pooling_scale,
    second_moments,
)


def feature_loss(
    name: str,
    student: Any,
    teacher: Any,
    alpha: float | None = None,
    penalty: str = "huber",
    delta: float = 1.0,
    reduction: str = "mean",
    chunk: int | None = None,
    locality: float = DEFAULT_LOCALITY,
    normalization: str = "none",
) -> Any:
    """The loss `name` between a student's and a teacher's feature map, averaged over the batch.

    `none`: 0. `direct`: ‖A − R‖², position by position. `unidirectional`: ~L(R, A), eq. 9.
    `bidirectional`: L_d = ~L(A, R) + ~L(R, A), eq. 7-9. `local`: L_d whose weights are
    softmax(alpha·q·k − beta·‖p_q − p_k‖²), p the places in the map. `jaccard`, `mmd` and `infonce` compare
    mean vectors or second moments, see `kdant_tf.losses.map_statistics`. No gradient reaches `teacher`.

    Args:
        name: one of `kdant_tf.losses.FEATURE_LOSS_NAMES`.
        student: float `(B, Na, d)` or `(B, T, H, W, d)`, paper symbol A.
        teacher: float `(B, Nr, d)` or `(B, T, H, W, d)`, paper symbol R. Na and Nr may differ but
            for `direct`.
        alpha: float >= 0, or None for 1/sqrt(d); None for 10, in units of the cosine, where vectors are
            normalised and for `infonce`.
        penalty: "huber" (§4.2) or "squared" (eq. 8, 9), applied to each channel's difference; `jaccard`
            and `infonce` have none.
        delta: float > 0, where Huber's penalty turns from `0.5·x²` to `delta·(|x| − 0.5·delta)`.
        reduction: "sum" over positions and channels (the paper's), or "mean" over them, so that a weight
            means the same at every size. The two directions are added in both.
        chunk: int > 0, computes the attention losses for blocks of so many queries at most, in less memory
            and with 17 matrix products in place of 14. 0 takes all queries at once. None does so where
            neither map is known to have 1,024 positions or more.
        locality: float >= 0, beta of `local`: 0 makes it `bidirectional`; a large one, where shapes agree,
            twice `direct`, once for each direction. Places count from 0 to 1 along each axis of the map.
        normalization: of each position's vector, before all else: "none", "l2" or "layer", see
            `kdant_tf.losses.map_statistics.normalize_vectors`.

    Returns:
        float32 scalar, differentiable once.

    Raises:
        ValueError: an unknown name, penalty, reduction or normalization, an alpha, delta, chunk or locality
            out of range, or maps that do not fit (says both sizes).

    Example:
        >>> import keras
        >>> student, teacher = keras.ops.zeros((2, 4, 3)), keras.ops.ones((2, 6, 3))
        >>> float(feature_loss("unidirectional", student, teacher))  # Huber's penalty of 1
        0.5
        >>> float(feature_loss("bidirectional", student, teacher, penalty="squared", reduction="sum"))
        30.0

    Source: Tran et al. 2019, eq. 7-9. Deviations: "mean", normalised vectors and `local` are ours.
    """
    _check_choice("name", name, FEATURE_LOSS_NAMES)
    _check_choice("reduction", reduction, REDUCTIONS)
    _check_penalty(penalty, delta)
    pooling = _Pooling(alpha, chunk, locality, normalization)
    pooling.check()
    if name == "none":
        return ops.zeros((), "float32")
    return ops.mean(_of_samples(name, student, teacher, pooling, _Penalty(penalty, delta, reduction)))


@keras.saving.register_keras_serializable(package="kdant")
class FeatureLoss(keras.losses.Loss):
    """`feature_loss` as a Keras loss: `y_true` is the teacher's map, `y_pred` the student's (paper eq. 7-9).

    Two reductions are kept apart. `map_reduction` is the one of the paper and of `feature_loss`: over the
    positions and channels of each sample. `reduction` is Keras': over the batch, after `sample_weight` was
    multiplied in. With the default of `reduction` the two give what `feature_loss` gives.

    Args:
        name: one of `kdant_tf.losses.FEATURE_LOSS_NAMES`; also the loss's name in Keras.
        alpha: float >= 0, or None for 1/sqrt(d). Paper symbol alpha.
        penalty: "huber" (§4.2) or "squared" (eq. 8, 9).
        delta: float > 0, of Huber's penalty.
        map_reduction: "mean" or "sum" (the paper's).
        chunk, locality, normalization: as for `feature_loss`.
        jit_compile: as for `BidirectionalAttentionPooling`: whether XLA compiles the loss under TensorFlow.
        reduction: Keras', over the batch: "sum_over_batch_size", "mean", "mean_with_sample_weight", or None
            for one value a sample. "sum" is refused: it reads like the paper's.

    Call Args:
        y_true: float `(B, Nr, d)` or `(B, T, H, W, d)`, paper symbol R. No gradient reaches it.
        y_pred: float `(B, Na, d)` or `(B, T, H, W, d)`, paper symbol A.
        sample_weight: float `(B,)`, or None.

    Output:
        float32 scalar, or `(B,)` where `reduction` is None; maps are taken as float32 whatever the policy.

    Raises:
        ValueError: an argument out of range, or maps that do not fit.

    Example:
        >>> import keras
        >>> student = keras.Sequential([keras.Input((4, 8)), keras.layers.Dense(3, "relu")])
        >>> student.compile("sgd", loss=FeatureLoss("bidirectional", alpha=0.5))
        >>> clips, teacher_maps = keras.ops.ones((2, 4, 8)), keras.ops.ones((2, 6, 3))
        >>> history = student.fit(clips, teacher_maps, verbose=0)
        >>> list(history.history)
        ['loss']

    Source: Tran et al. 2019, eq. 7-9. Deviations: map_reduction "mean" is ours.
    """

    def __init__(
        self,
        name: str = "bidirectional",
        alpha: float | None = None,
        penalty: str = "huber",
        delta: float = 1.0,
        map_reduction: str = "mean",
        chunk: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        locality: float = DEFAULT_LOCALITY,
        normalization: str = "none",
        jit_compile: bool | str = "auto",
    ) -> None:
        _check_choice("name", name, FEATURE_LOSS_NAMES)
        _check_choice("map_reduction", map_reduction, REDUCTIONS)
        _check_penalty(penalty, delta)
        _Pooling(alpha, chunk, locality, normalization).check()
        if reduction == "sum":
            raise ValueError(
                "`reduction` is Keras', over the batch, and should not be 'sum'. For the paper's sum over "
                "positions and channels give map_reduction='sum'."
            )
        super().__init__(name=name, reduction=reduction, dtype="float32")
        self.alpha = alpha
        self.penalty = penalty
        self.delta = delta
        self.map_reduction = map_reduction
        self.chunk = chunk
        self.locality = locality
        self.normalization = normalization
        self.jit_compile = jit_compile
        self._of_samples = compile_where_it_pays(_of_samples, jit_compile, chunk)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        if self.name == "none":
            return ops.zeros(ops.shape(y_pred)[:1], "float32")
        penalty = _Penalty(self.penalty, self.delta, self.map_reduction)
        pooling = _Pooling(self.alpha, self.chunk, self.locality, self.normalization)
        return self._of_samples(self.name, y_pred, y_true, pooling, penalty)

    def get_config(self) -> dict[str, Any]:
        own = (
            "alpha",
            "penalty",
            "delta",
            "map_reduction",
            "chunk",
            "locality",
            "normalization",
            "jit_compile",
        )
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


class _Penalty(NamedTuple):
    """What a difference between two maps costs: squared (paper eq. 8, 9) or Huber's (§4.2)."""

    kind: str
    delta: float
    reduction: str

    def of(self, difference: Any) -> Any:
        """x², or 0.5·x² within delta and delta·(|x| − 0.5·delta) beyond, for each element."""
        if self.kind == "squared":
            return ops.square(difference)
        size = ops.abs(difference)
        quadratic = ops.minimum(size, self.delta)
        return 0.5 * ops.square(quadratic) + self.delta * (size - quadratic)

    def slope(self, difference: Any) -> Any:
        """The derivative of `of`."""
        return 2.0 * difference if self.kind == "squared" else ops.clip(difference, -self.delta, self.delta)

    def between(self, first: Any, second: Any) -> Any:
        """What two maps `(B, N, d)` differ by: float32 `(B,)`."""
        mean = _mean_of_samples(self.of(first - second))
        return mean * _elements_of_a_sample(first) if self.reduction == "sum" else mean


class _Pooling(NamedTuple):
    """How vectors are normalised and pooled; see `feature_loss`, whose arguments these are."""

    alpha: float | None
    chunk: int | None
    locality: float
    normalization: str

    def check(self) -> None:
        check_alpha(self.alpha)
        check_chunk(self.chunk)
        check_locality(self.locality)
        _check_choice("normalization", self.normalization, NORMALIZATIONS)


class _Maps(NamedTuple):
    """Both maps, float32 `(B, N, d)`, and for `local` the places of their positions, `(N, 3)`."""

    student: Any
    teacher: Any
    scale: float
    locality: float = 0.0
    student_places: Any = None
    teacher_places: Any = None

    def prior(self, queries: str, keys: str) -> LocalPrior | None:
        """Of one map's positions over the other's; each is "student" or "teacher"."""
        if self.student_places is None:
            return None
        places = {"student": self.student_places, "teacher": self.teacher_places}
        return LocalPrior(self.locality, places[queries], places[keys])

    def pool(self, queries: str, keys: str) -> Any:
        """phi of all vectors of one map in the other, or in itself."""
        query, key = getattr(self, queries), getattr(self, keys)
        prior = self.prior(queries, keys)
        if prior is None:
            return attention_pool(query, key, self.scale, 0)
        return ops.matmul(pooling_weights(dot_products(query, key), self.scale, prior.matrix()), key)


def _of_samples(name: str, student: Any, teacher: Any, pooling: _Pooling, penalty: _Penalty) -> Any:
    """The loss of each sample, float32 `(B,)`; see `feature_loss`, whose arguments these are."""
    places = (map_positions(student), map_positions(teacher)) if name == "local" else (None, None)
    student, teacher = as_float32_maps(flatten_positions(student), flatten_positions(teacher))
    student, teacher = (normalize_vectors(each, pooling.normalization) for each in (student, teacher))
    teacher = ops.stop_gradient(teacher)
    if name == "direct":
        _check_same_positions(student.shape, teacher.shape)
        return penalty.between(student, teacher)
    if name == "jaccard":
        return jaccard_distance(student, teacher)
    if name == "mmd":
        return penalty.between(second_moments(student), second_moments(teacher))
    if name == "infonce":
        return infonce(student, teacher, pooling.alpha)
    scale = pooling_scale(pooling.alpha, student.shape[-1], pooling.normalization)
    return _by_attention(
        name, _Maps(student, teacher, scale, pooling.locality, *places), pooling.chunk, penalty
    )


def _by_attention(name: str, maps: _Maps, chunk: int | None, penalty: _Penalty) -> Any:
    """The attention loss `name` of each sample, `(B,)`."""
    student, teacher = maps.student, maps.teacher
    limit = block_limit(chunk, student, teacher)
    if limit:
        return _in_blocks(name, maps, penalty, limit)
    if name == "unidirectional":
        return penalty.between(maps.pool("teacher", "student"), maps.pool("teacher", "teacher"))
    if name == "local":
        to_student = penalty.between(maps.pool("student", "teacher"), maps.pool("student", "student"))
        return to_student + penalty.between(maps.pool("teacher", "student"), maps.pool("teacher", "teacher"))
    pooled = bidirectional_attention_pool(student, teacher, maps.scale, 0)
    to_student = penalty.between(pooled["a_in_r"], pooled["a_in_a"])
    return to_student + penalty.between(pooled["r_in_a"], pooled["r_in_r"])


def _in_blocks(name: str, maps: _Maps, penalty: _Penalty, limit: int) -> Any:
    """The attention loss `name` of each sample, `(B,)`, in blocks of at most `limit` queries.

    A block is pooled, penalised and differentiated at once, so that neither weights nor pooled vectors
    are kept. Compilers leave the gradient out where nobody asks for it.
    """
    directions = ("teacher",) if name == "unidirectional" else ("teacher", "student")

    def distance(student: Any, teacher: Any) -> tuple[Any, Callable[[Any], Any]]:
        total = ops.zeros(ops.shape(student)[:1], "float32"), ops.zeros_like(student)
        for queries in directions:
            total = _add_direction(
                total, maps._replace(student=student, teacher=teacher), queries, penalty, limit
            )
        value, to_student = total

        def gradient(upstream: Any) -> tuple[Any, Any]:
            # (B,) → (B, 1, 1)
            return ops.expand_dims(upstream, (1, 2)) * to_student, ops.zeros_like(teacher)

        return value, gradient

    return with_gradient(distance)(maps.student, maps.teacher)


def _add_direction(
    total: tuple[Any, Any], maps: _Maps, queries: str, penalty: _Penalty, limit: int
) -> tuple[Any, Any]:
    """`total`, a loss `(B,)` and its gradient in A, with ~L(R, A) added, or ~L(A, R) where A asks."""
    student, teacher, scale = maps.student, maps.teacher, maps.scale
    asking = student if queries == "student" else teacher
    weight = 1.0 if penalty.reduction == "sum" else 1.0 / _elements_of_a_sample(asking)
    priors = [maps.prior(queries, keys) for keys in ("student", "teacher")]

    def step(total: tuple[Any, Any], begin: Any, size: Any, fresh: Any) -> tuple[Any, Any]:
        value, to_student = total
        block = take_block(asking, begin, size)
        to_own, to_other = (None if prior is None else prior.rows(begin, size).matrix() for prior in priors)
        in_student = pooling_weights(dot_products(block, student), scale, to_own)
        in_teacher = pooling_weights(dot_products(block, teacher), scale, to_other)
        difference = ops.matmul(in_student, student) - ops.matmul(in_teacher, teacher)
        penalties = fresh * penalty.of(difference)
        value = value + weight * _elements_of_a_sample(penalties) * _mean_of_samples(penalties)
        upstream = weight * fresh * penalty.slope(difference)
        to_products = gradient_to_products(in_student, student, upstream, scale)
        to_student = to_student + gradient_to_keys(in_student, to_products, block, upstream)
        if queries == "student":
            through_teacher = gradient_to_products(in_teacher, teacher, -upstream, scale)
            to_block = ops.matmul(to_products, student) + ops.matmul(through_teacher, teacher)
            to_student = add_block(to_student, begin, to_block)
        return value, to_student

    return fold_blocks(step, total, asking, limit)


def _mean_of_samples(values: Any) -> Any:
    """`(B, N, d)` → `(B,)`."""
    # Channels first: XLA adds ten million values up one by one on a CPU, and loses 3e-4 of their sum.
    return ops.mean(ops.mean(values, axis=-1), axis=-1)


def _elements_of_a_sample(values: Any) -> Any:
    """N · d of `(B, N, d)`, as float32."""
    _, positions, channels = ops.shape(values)
    return ops.cast(positions, "float32") * ops.cast(channels, "float32")


def _check_choice(argument: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"`{argument}` should be one of {', '.join(choices)}. Received: {value!r}.")


def _check_penalty(penalty: str, delta: float) -> None:
    _check_choice("penalty", penalty, PENALTIES)
    if not delta > 0:
        raise ValueError(f"`delta` should be positive. Received: {delta}.")


def _check_same_positions(student: Any, teacher: Any) -> None:
    if student[1] != teacher[1] and None not in (student[1], teacher[1]):
        raise ValueError(
            f"The direct loss compares maps position by position and needs equal shapes. Received: "
            f"{tuple(student)} and {tuple(teacher)}."
        )

"""The one definition of a training step, for teachers and students."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from kdant_tf.config import TrainConfig
from kdant_tf.layers.attention_pooling import compile_with_xla
from kdant_tf.losses import features as feature_losses
from kdant_tf.losses.classification import classification_loss
from kdant_tf.models.networks import LOGITS, feature_map_name
from kdant_tf.private_apis import layers_within
from tf_records.errors import KdantError

# From `--xla` to what of a step XLA compiles.


STEP, POOLING, NOTHING = "step", "pooling", "nothing"
CHOICES = ("auto", "on", "off")


def choose_xla(choice: str, strategy: tf.distribute.Strategy) -> str:
    """What to compile: STEP, all of the step; POOLING, the feature loss alone; or NOTHING.

    Args:
        choice: "on", STEP; "off", NOTHING; "auto", STEP on the GPUs of one machine and POOLING elsewhere:
            oneDNN computes a CPU's convolutions faster than XLA.
        strategy: where the step runs.

    Raises:
        KdantError: another choice, or "on" for several CPU devices.
    """
    if choice not in CHOICES:
        raise KdantError(f"`--xla` should be one of {', '.join(CHOICES)}. Received: {choice!r}.")
    kinds = {tf.DeviceSpec.from_string(name).device_type for name in strategy.extended.worker_devices}
    if choice == "on" and kinds == {"CPU"} and strategy.num_replicas_in_sync > 1:
        raise KdantError(
            f"`--xla on` compiles for one CPU device, this training has {strategy.num_replicas_in_sync}. "
            f"Give --xla auto, or --devices cpu."
        )
    # Collectives between machines within an XLA computation are not tried.
    several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    whole = kinds == {"GPU"} and not several
    return {"on": STEP, "off": NOTHING, "auto": STEP if whole else POOLING}[choice]


# Of what `Distiller.compute_losses` gives, sums over samples; the rest are means.
COUNTS = ("correct", "labeled")
# In a batch, what the teacher makes of the future clip, where that is known already.
TEACHER_LOGITS = "teacher/logits"
TEACHER_MAP = "teacher/map"


class Distiller(keras.Model):
    """A network that learns from labels, and from a frozen teacher where one is given (paper eq. 2, 3).

    Without a teacher it is plain supervised training, as of the teacher itself.

    Args:
        student: model from a clip to a dict with "logits" and one feature map, paper symbol A.
        teacher: the same for R, or None. It is frozen.
        view: the clip `student` sees, "observed" or "future".
        feature_loss: name of the feature loss, see `kdant_tf.losses.features`.
        feature_weight: paper symbol lambda.
        projection: learn a 1x1x1 convolution from the student's channels to the teacher's, through
            which the feature loss sees the student's map. The student itself is left as it is.
        alpha, penalty, delta, reduction: of the feature loss.
        weight_decay: L2 factor on kernels, added to their gradients.
        clip_norm: largest norm of the whole batch's gradient, over all variables; None for any.
        gradient_accumulation: micro-batches that a batch is split into, one after the other. All are of
            the same size and every loss is a mean over samples, so that their mean is the batch's.
        xla: what is compiled by XLA, see `kdant_tf.training.distiller`.

    Call Args:
        clip: float `(B, T, H, W, C)`.

    Output:
        The student's dict.

    Raises:
        ValueError: a feature loss other than "none" without a teacher, or two maps that the feature
            loss cannot compare (says both).

    Source: Tran et al. 2019, eq. 1-3. Deviations: none.
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model | None = None,
        *,
        view: str = "observed",
        feature_loss: str = "none",
        feature_weight: float = 0.0,
        projection: bool = False,
        alpha: float | None = None,
        penalty: str = "huber",
        delta: float = 1.0,
        reduction: str = "mean",
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
        gradient_accumulation: int = 1,
        xla: str = POOLING,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if teacher is None and feature_loss != "none":
            raise ValueError(f"`feature_loss` should be none without a teacher. Received: {feature_loss}.")
        self.student = student
        self.teacher = teacher
        if teacher is not None:
            teacher.trainable = False
        self.view = view
        self.feature_loss_name = feature_loss
        self.feature_weight = feature_weight
        self.weight_decay = weight_decay
        self.clip_norm = clip_norm
        self.gradient_accumulation = gradient_accumulation
        self.projection: keras.layers.Layer | None = None
        self.xla = xla
        compute = functools.partial(
            feature_losses.feature_loss,
            feature_loss,
            alpha=alpha,
            penalty=penalty,
            delta=delta,
            reduction=reduction,
        )
        self._compute_feature_loss = compile_with_xla(compute) if xla == POOLING else compute
        self._gradients_of = self._compile_gradients()
        if teacher is not None and feature_loss != "none":
            self.maps = (feature_map_name(student), feature_map_name(teacher))
            own, goal = student.output[self.maps[0]].shape, teacher.output[self.maps[1]].shape
            _check_maps(own, goal, feature_loss, projection)
            if projection:
                self.projection = keras.layers.Dense(goal[-1], use_bias=False, name="projection")
                self.projection.build(own)

    def _compile_gradients(self) -> Callable[..., Any]:
        """`_compute_gradients`, as a function of its own where that pays; sums over replicas stay outside."""
        compute = self._compute_gradients
        if any(getattr(layer, "synchronized", False) for layer in layers_within(self.student)):
            return compute  # Synchronised batch norm asks the other replicas within.
        if self.xla == STEP:
            return compile_with_xla(compute)  # On one device the loop compiles the rest as well.
        if self.gradient_accumulation == 1:
            return compute
        # Not inlined, micro-batches are traced and optimised once, and leave nothing in memory.
        return tf.function(compute, autograph=False, experimental_attributes={"_noinline": True})

    def call(self, clip: Any, training: bool = False) -> dict[str, Any]:
        return self.student(clip, training=training)

    def compute_losses(self, batch: dict[str, Any], training: bool = True) -> dict[str, Any]:
        """Losses and counts of one batch, as float32 scalars.

        Args:
            batch: the view's clips, "label" `(B,)`, and where there is a teacher "future" clips or its
                outputs for them, TEACHER_LOGITS and, for a feature loss, TEACHER_MAP.
            training: as for a Keras layer.

        Returns:
            dict: "loss" = "classification_loss" + lambda · "feature_loss", all means over the batch;
            "correct" and "labeled", counts.
        """
        outputs = self.student(batch[self.view], training=training)
        seen = self._teach(batch)
        probabilities = None if seen is None else ops.softmax(ops.cast(seen["logits"], "float32"))
        classification = classification_loss(outputs["logits"], batch["label"], probabilities)
        features = ops.zeros((), "float32")
        if seen is not None and self.feature_loss_name != "none":
            own, goal = outputs[self.maps[0]], seen[self.maps[1]]
            own = own if self.projection is None else self.projection(own)
            features = self._compute_feature_loss(own, goal)
        right = ops.equal(ops.argmax(outputs["logits"], axis=-1), ops.cast(batch["label"], "int64"))
        return {
            "loss": classification + self.feature_weight * features,
            "classification_loss": classification,
            "feature_loss": features,
            "correct": ops.sum(ops.cast(right, "float32")),
            "labeled": ops.sum(ops.cast(batch["label"] >= 0, "float32")),
        }

    def _teach(self, batch: dict[str, Any]) -> dict[str, Any] | None:
        """The teacher's outputs for the future clips, if there is a teacher."""
        if self.teacher is None:
            return None
        if TEACHER_LOGITS not in batch:
            return self.teacher(batch["future"], training=False)
        outputs = {LOGITS: batch[TEACHER_LOGITS]}
        return outputs if TEACHER_MAP not in batch else {**outputs, self.maps[1]: batch[TEACHER_MAP]}

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One update from this replica's share of a batch.

        Returns:
            dict: of `compute_losses`, over all micro-batches, and "gradient_norm", of the whole batch's
            gradient before it was clipped, without the weight decay; "loss_scale" where the loss is
            scaled.
        """
        variables = self.trainable_variables
        losses, gradients = self._sum_gradients(batch)
        gradients = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        scale = loss_scale(self.optimizer)
        norm = tf.linalg.global_norm(gradients) / (1.0 if scale is None else scale)
        if self.clip_norm is not None:
            factor = self.clip_norm / tf.maximum(norm, self.clip_norm)
            gradients = [factor * gradient for gradient in gradients]
        decay = self.weight_decay * (1.0 if scale is None else scale)
        gradients = [
            gradient + decay * variable if variable.path.endswith("/kernel") else gradient
            for gradient, variable in zip(gradients, variables, strict=True)
        ]
        apply_summed(self.optimizer, gradients, variables)
        if scale is None:
            return {**losses, "gradient_norm": norm}
        # A gradient that overflowed is left out by the optimizer, and here.
        norm = tf.where(tf.math.is_finite(norm), norm, 0.0)
        return {**losses, "gradient_norm": norm, "loss_scale": scale}

    def _sum_gradients(self, batch: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        """Losses and gradients of this replica's share, which add up to the batch's over all replicas."""
        losses: dict[str, Any] = {}
        gradients: list[Any] = []
        for part in _split(batch, self.gradient_accumulation):
            # Else TensorFlow would run the micro-batches at once, in the memory of the whole batch.
            with tf.control_dependencies(gradients):
                part = {name: tf.identity(values) for name, values in part.items()}
            part_losses, part_gradients = self._gradients_of(part)
            if gradients:
                part_gradients = [a + b for a, b in zip(gradients, part_gradients, strict=True)]
                part_losses = {name: losses[name] + value for name, value in part_losses.items()}
            losses, gradients = part_losses, part_gradients
        parts = self.gradient_accumulation
        return {name: value if name in COUNTS else value / parts for name, value in losses.items()}, gradients

    def _compute_gradients(self, batch: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        """Losses of one micro-batch, and gradients of its share in the whole batch's loss."""
        shares = tf.distribute.get_strategy().num_replicas_in_sync * self.gradient_accumulation
        with tf.GradientTape() as tape:
            losses = self.compute_losses(batch)
            scaled = self.optimizer.scale_loss(losses["loss"] / shares)
        return losses, tape.gradient(scaled, [variable.value for variable in self.trainable_variables])

    def test_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        return self.compute_losses(batch, training=False)


def _split(batch: dict[str, Any], parts: int) -> list[dict[str, Any]]:
    """`parts` batches of the same size, in order."""
    pieces = {name: tf.split(values, parts) for name, values in batch.items()}
    return [{name: values[i] for name, values in pieces.items()} for i in range(parts)]


def _check_maps(
    student: tuple[int | None, ...], teacher: tuple[int | None, ...], feature_loss: str, projection: bool
) -> None:
    """Refuses two shapes, `(B, …, d)`, that the feature loss cannot compare."""
    if student[-1] != teacher[-1] and not projection:
        raise ValueError(
            f"the student's map should have as many channels as the teacher's. Received: {student[-1]} and "
            f"{teacher[-1]}. Use the teacher's model and width, or --projection."
        )
    if feature_loss == "direct" and student[1:-1] != teacher[1:-1]:
        raise ValueError(
            f"the direct loss compares maps position by position. Received: {student[1:-1]} and "
            f"{teacher[1:-1]} positions. Use --feature-loss bidirectional."
        )


# The optimizer as the step calls it: on gradients that all replicas have agreed on.


class SummedSGD(keras.optimizers.SGD):
    """Keras' SGD, given gradients that are summed over the replicas already.

    Keras sums within `apply`, after it has clipped and after LossScaleOptimizer has looked for infinities,
    so that both would see one replica's gradients alone.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> list[Any]:
        return list(grads_and_vars)


def make_optimizer(config: TrainConfig) -> keras.optimizers.Optimizer:
    """SGD with the momentum of `config`, its loss scaled where gradients are computed in float16."""
    sgd = SummedSGD(config.learning_rate, momentum=config.momentum)
    return keras.optimizers.LossScaleOptimizer(sgd) if config.precision == "mixed_float16" else sgd


def loss_scale(optimizer: keras.optimizers.Optimizer) -> Any:
    """What the gradients have to be divided by, or None where no loss is scaled."""
    scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return tf.identity(optimizer.dynamic_scale.value) if scaled else None


def apply_summed(
    optimizer: keras.optimizers.Optimizer, gradients: Sequence[Any], variables: Sequence[keras.Variable]
) -> None:
    """Updates `variables` by gradients that are summed over the replicas, with any optimizer."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas > 1 and not isinstance(inner, SummedSGD):
        gradients = [gradient / replicas for gradient in gradients]  # it adds them up itself
    optimizer.apply(gradients, variables)


def check_precision(precision: str, strategy: tf.distribute.Strategy) -> None:
    """Refuses to train in mixed precision on a CPU.

    Raises:
        KdantError: says why.
    """
    kinds = {tf.DeviceSpec.from_string(name).device_type for name in strategy.extended.worker_devices}
    if precision != "float32" and kinds != {"GPU"}:
        raise KdantError(
            f"`--precision {precision}` needs a GPU: in 16 bits a CPU gives filter gradients of convolutions "
            f"that are NaN. Leave it out, or give --devices gpu."
        )

"""The one definition of a training step, for teachers and students."""

import functools
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from kdant_tf.layers.compilation import compile_with_xla
from kdant_tf.losses import features as feature_losses
from kdant_tf.losses.classification import classification_loss
from kdant_tf.models.networks import feature_map_name


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
        self.projection: keras.layers.Layer | None = None
        self._compute_feature_loss = compile_with_xla(
            functools.partial(
                feature_losses.feature_loss,
                feature_loss,
                alpha=alpha,
                penalty=penalty,
                delta=delta,
                reduction=reduction,
            )
        )
        if teacher is not None and feature_loss != "none":
            self.maps = (feature_map_name(student), feature_map_name(teacher))
            own, goal = student.output[self.maps[0]].shape, teacher.output[self.maps[1]].shape
            _check_maps(own, goal, feature_loss, projection)
            if projection:
                self.projection = keras.layers.Dense(goal[-1], use_bias=False, name="projection")
                self.projection.build(own)

    def call(self, clip: Any, training: bool = False) -> dict[str, Any]:
        return self.student(clip, training=training)

    def compute_losses(self, batch: dict[str, Any], training: bool = True) -> dict[str, Any]:
        """Losses and counts of one batch, as float32 scalars.

        Args:
            batch: the view's clips, "future" clips where there is a teacher, and "label" `(B,)`.
            training: as for a Keras layer.

        Returns:
            dict: "loss" = "classification_loss" + lambda · "feature_loss", all means over the batch;
            "correct" and "labeled", counts.
        """
        outputs = self.student(batch[self.view], training=training)
        seen = None if self.teacher is None else self.teacher(batch["future"], training=False)
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

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One step of the optimizer on this replica's share of a batch; returns `compute_losses`."""
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        variables = self.trainable_variables
        with tf.GradientTape() as tape:
            losses = self.compute_losses(batch)
            # The optimizer adds the replicas' gradients up.
            scaled = losses["loss"] / replicas
        gradients = tape.gradient(scaled, [variable.value for variable in variables])
        decay = self.weight_decay / replicas
        gradients = [
            gradient + decay * variable if variable.path.endswith("/kernel") else gradient
            for gradient, variable in zip(gradients, variables, strict=True)
        ]
        self.optimizer.apply(gradients, variables)
        return losses

    def test_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        return self.compute_losses(batch, training=False)


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

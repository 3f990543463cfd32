"""The one definition of a training step, for teachers and students."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from kdant_tf.layers.attention_pooling import compile_where_it_pays, compile_with_xla, pays_to_compile
from kdant_tf.losses import ATTENTION_LOSS_NAMES, DEFAULT_LOCALITY
from kdant_tf.losses import features as feature_losses
from kdant_tf.losses.classification import balance_labels, classification_loss, soft_classification_loss
from kdant_tf.losses.heads import several_labels_loss
from kdant_tf.losses.pooling_health import MAP_VARIATION, POOLING_ENTROPY, pooling_health
from kdant_tf.models.networks import LOGITS, feature_map_name
from kdant_tf.private_apis import layers_within
from kdant_tf.training.mixing import OWN_SHARE, PARTNER_LABEL, Mixer
from kdant_tf.training.optimizer import apply_summed, is_kernel, loss_scale
from kdant_tf.training.strategy import AUTO, NOTHING, POOLING, STEP
from tf_records.augment import scale
from tf_records.heads import Head, are_times, column_slices

# How what `Distiller.compute_losses` counts begins, also of each head, as "correct_verb"; the rest are means.
COUNTS = ("correct", "labeled")
# In a batch, what the teacher makes of the future clip, where that is known already.
TEACHER_LOGITS = "teacher/logits"
TEACHER_MAP = "teacher/map"
_JIT_COMPILE: dict[str, bool | str] = {POOLING: True, AUTO: "auto"}
_MEANS = ("loss", "classification_loss", "feature_loss")
# Of the teacher's and the student's map, as `y_true` and `y_pred`; a Keras loss is one.
FeatureLossFunction = Callable[[Any, Any], Any]


@keras.saving.register_keras_serializable(package="kdant")
class Distiller(keras.Model):
    """A network that learns from labels, and from a frozen teacher where one is given (paper eq. 2, 3).

    Without a teacher it is plain supervised training, as of the teacher itself, in which samples without a
    label add nothing to the loss. It works with Keras' own
    `compile`, `fit`, `evaluate`, `save` and callbacks; `kdant distill` runs the same step in a loop of its
    own, which can be resumed and spread over machines.

    Args:
        student: functional model from a clip to a dict with "logits" and one feature map, paper symbol A.
        teacher: the same for R, or None. It is frozen.
        view: the clip `student` sees, "observed" or "future".
        soft_weight, temperature: of the teacher's probabilities on labelled samples, see
            `kdant_tf.losses.classification.soft_classification_loss`; 0 is the paper's eq. 2.
        feature_loss: name of the feature loss, see `kdant_tf.losses.features`; or one of your own, as a Keras
            loss or any function of the teacher's and the student's map, `(y_true, y_pred)`, whose mean is
            taken. It is compiled by XLA only where the whole step is.
        feature_weight: float >= 0, paper symbol lambda.
        projection: learn a 1x1x1 convolution from the student's channels to the teacher's, through
            which the feature loss sees the student's map. The student itself is left as it is.
        alpha, penalty, delta, reduction, locality, normalization: of a named feature loss. `infonce` compares
            with the other samples of this replica's micro-batch.
        label_smoothing: share of a label that is spread evenly over all classes.
        class_weights, focusing: of labelled samples' losses, see
            `kdant_tf.losses.classification.balance_labels`.
        weight_decay: L2 factor on kernels, added to their gradients. A kernel is what inputs are multiplied
            by: any weight of two or more dimensions but biases, embeddings and the scales of normalisation.
        clip_norm: largest norm of the whole batch's gradient, over all variables; None for any.
        mixup, cutmix, seed: of what `update` mixes with what, see `kdant_tf.training.mixing.Mixer`; 0 is off.
        gradient_accumulation: micro-batches that a batch is split into, one after the other. All are of
            the same size and every loss is a mean over samples, so that their mean is the batch's.
        xla: what XLA compiles, "step", "pooling" or "nothing", see
            `kdant_tf.training.strategy.choose_xla`; or "auto", the pooling where that pays, see
            `kdant_tf.layers.attention_pooling.compile_where_it_pays`.
        heads: whose logits, one after the other, are those of `student` and `teacher`: their classification
            losses are added, "label" is `(B, heads)`, and of a head of several labels a clip `(B, classes)`.
            None for one label of one class a clip. Heads for several anticipation times have one label and
            one set of classes, which are the teacher's: each sample trains the head that "time" of the batch
            names, int `(B,)`.

    Call Args:
        inputs: float `(B, T, H, W, C)`, a clip, or a batch as `fit` takes it.

    Output:
        The student's dict.

    Raises:
        ValueError: a network with other outputs, a feature loss other than "none" without a teacher, or
            two maps that the feature loss cannot compare (says both).

    `fit` and `evaluate` take a dataset of batches as `tf_records.Records.dataset` gives them, dicts of
    "observed" and "future" clips and "label" int `(B,)`, -1 where there is none. The history has `loss`,
    `classification_loss`, `feature_loss` and `accuracy`, and with a feature loss `map_variation` and
    `pooling_entropy`, see `kdant_tf.losses.pooling_health`. The metrics of `compile` see the labels and
    logits of the labelled samples.

    Example:
        >>> import keras, numpy as np, tensorflow as tf
        >>> from kdant_tf.training.distiller import Distiller
        >>> def tiny_network():
        ...     clip = keras.Input((2, 8, 8, 3))
        ...     maps = keras.layers.Conv3D(4, 3, padding="same", activation="relu")(clip)
        ...     logits = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling3D()(maps))
        ...     return keras.Model(clip, {"logits": logits, "maps": maps})
        >>> clips = np.random.default_rng(0).uniform(-1, 1, (2, 4, 2, 8, 8, 3)).astype("float32")
        >>> batch = {"observed": clips[0], "future": clips[1], "label": np.array([0, 1, 2, -1])}
        >>> data = tf.data.Dataset.from_tensors(batch)
        >>> distiller = Distiller(tiny_network(), tiny_network(), feature_loss="bidirectional")
        >>> distiller.compile(optimizer="adam")
        >>> history = distiller.fit(data, epochs=2, shuffle=False, verbose=0).history
        >>> sorted(history)
        ['accuracy', 'classification_loss', 'feature_loss', 'loss', 'map_variation', 'pooling_entropy']

    Source: Tran et al. 2019, eq. 1-3. Deviations: none.
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model | None = None,
        *,
        view: str = "observed",
        soft_weight: float = 0.0,
        temperature: float = 1.0,
        feature_loss: str | FeatureLossFunction = "none",
        feature_weight: float = 0.3,
        projection: bool = False,
        alpha: float | None = None,
        penalty: str = "huber",
        delta: float = 1.0,
        reduction: str = "mean",
        locality: float = DEFAULT_LOCALITY,
        normalization: str = "none",
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        focusing: float = 0.0,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        seed: int = 0,
        gradient_accumulation: int = 1,
        xla: str = AUTO,
        heads: Sequence[Head] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        _check_networks(student, teacher, feature_loss, projection)
        self.heads = tuple(heads)
        self._columns = column_slices(self.heads)
        self._several = any(head.several for head in self.heads)
        self._timed = are_times(self.heads)
        self.student = student
        self.teacher = teacher
        if teacher is not None:
            teacher.trainable = False
        self.view = view
        self.soft_weight, self.temperature = soft_weight, temperature
        self.feature_loss = feature_loss
        self.feature_weight = feature_weight
        self.alpha, self.penalty, self.delta, self.reduction = alpha, penalty, delta, reduction
        self.locality, self.normalization = locality, normalization
        self.label_smoothing = label_smoothing
        self.class_weights = None if class_weights is None else tuple(class_weights)
        self.focusing = focusing
        self.weight_decay = weight_decay
        self.clip_norm = clip_norm
        self.mixup, self.cutmix, self.seed = mixup, cutmix, seed
        self._mixer = Mixer(mixup, cutmix, seed)
        self.gradient_accumulation = gradient_accumulation
        self.xla = xla
        # The names of both networks' maps, where a feature loss compares them.
        self.maps: tuple[str, str] | None = None
        self.projection: keras.layers.Layer | None = None
        if teacher is not None and feature_loss != "none":
            self.maps = (feature_map_name(student), feature_map_name(teacher))
            if projection:
                channels = teacher.output[self.maps[1]].shape[-1]
                self.projection = keras.layers.Dense(channels, use_bias=False, name="projection")
                self.projection.build(student.output[self.maps[0]].shape)
        self._measured = self._name_measured()
        self._means = [keras.metrics.Mean(name=name) for name in (*_MEANS, *self._measured, "accuracy")]
        self._compute_feature_loss = self._compile_feature_loss()
        self._compute_health = self._compile_health()
        self._gradients_of = self._compile_gradients()
        self.built = True
        # XLA compiles what `xla` says, not what Keras thinks best.
        self.supports_jit = False

    @property
    def compiled_by_xla(self) -> str:
        """What `xla` comes to: "step", "pooling" or "nothing"."""
        if self.xla != AUTO:
            return self.xla
        if self.teacher is None or self.maps is None or not isinstance(self.feature_loss, str):
            return NOTHING
        outputs = (self.student.output[self.maps[0]], self.teacher.output[self.maps[1]])
        return POOLING if pays_to_compile(None, *(tuple(each.shape) for each in outputs)) else NOTHING

    def call(self, inputs: Any, training: bool = False) -> Any:
        clip = inputs[self.view] if isinstance(inputs, dict) else inputs
        return self.student(clip, training=training)

    def compute_losses(self, batch: dict[str, Any], training: bool = True) -> dict[str, Any]:
        """Losses and counts of one batch, as float32 scalars.

        Args:
            batch: the view's clips, "label" `(B,)`, and where there is a teacher "future" clips or its
                outputs for them, TEACHER_LOGITS and, for a feature loss, TEACHER_MAP. Clips in uint8 are
                scaled to [-1, 1].
            training: as for a Keras layer.

        Returns:
            dict: "loss" = "classification_loss" + lambda · "feature_loss", all means over the batch;
            "correct" and "labeled", counts; with a feature loss what
            `kdant_tf.losses.pooling_health` measures, which is no part of the loss.
        """
        losses, _, maps = self._compute(batch, training)
        return {**losses, **self._measure(maps)}

    def update(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One update from this replica's share of a batch.

        Returns:
            dict: of `compute_losses`, over all micro-batches, and "gradient_norm", of the whole batch's
            gradient before it was clipped, without the weight decay; "loss_scale" where the loss is
            scaled.
        """
        return self._update(batch)[0]

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """`update` for Keras' `fit`: returns the epoch's metrics so far."""
        return self._update_metrics(batch, *self._update(batch))

    def test_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """`compute_losses` for Keras' `evaluate`: returns the metrics so far."""
        losses, logits, maps = self._compute(batch, training=False)
        return self._update_metrics(batch, {**losses, **self._measure(maps)}, logits)

    def compute_metrics(
        self, x: dict[str, Any], y: Any, y_pred: dict[str, Any], sample_weight: Any = None
    ) -> dict[str, Any]:
        """Updates the metrics of `compile` by the labelled samples of a batch; returns all metrics.

        Args:
            x: the batch. Keras has no `y` where it builds metrics before the first step.
            y, sample_weight: not used.
            y_pred: dict with "logits" `(B, classes)`.
        """
        known = x["label"] >= 0
        if self.heads and not self._timed:
            known = tf.reduce_any(known, axis=-1)
        label, logits = tf.boolean_mask(x["label"], known), tf.boolean_mask(y_pred[LOGITS], known)
        return dict(super().compute_metrics(x, label, logits))

    def get_config(self) -> dict[str, Any]:
        names = (
            *(
                "view",
                "soft_weight",
                "temperature",
                "feature_weight",
                "alpha",
                "penalty",
                "delta",
                "reduction",
            ),
            *(
                "locality",
                "normalization",
                "label_smoothing",
                "class_weights",
                "focusing",
                "weight_decay",
                "clip_norm",
                "mixup",
                "cutmix",
                "seed",
                "gradient_accumulation",
                "xla",
            ),
        )
        return {
            **super().get_config(),
            "student": keras.saving.serialize_keras_object(self.student),
            "teacher": keras.saving.serialize_keras_object(self.teacher),
            "feature_loss": keras.saving.serialize_keras_object(self.feature_loss),
            "projection": self.projection is not None,
            "heads": [dataclasses.asdict(head) for head in self.heads],
            **{name: getattr(self, name) for name in names},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Distiller:
        names = ("student", "teacher", "feature_loss")
        objects = {name: keras.saving.deserialize_keras_object(config[name]) for name in names}
        heads = tuple(Head.from_dict(each) for each in config.get("heads", ()))
        return cls(**{**config, **objects, "heads": heads})

    def _compute(
        self, batch: dict[str, Any], training: bool
    ) -> tuple[dict[str, Any], Any, tuple[Any, Any] | None]:
        """Losses and counts of `compute_losses`, the student's logits, and the two maps, where compared."""
        batch = _scale_clips(batch)
        outputs = self.student(batch[self.view], training=training)
        logits, label = outputs[LOGITS], batch["label"]
        if self._timed:
            logits = self._at_time(logits, batch["time"])
        taught = self._teach(batch)
        partners = (batch[PARTNER_LABEL], batch[OWN_SHARE]) if PARTNER_LABEL in batch else None
        classification = self._classification_loss(logits, label, taught, partners)
        features, maps = ops.zeros((), "float32"), None
        if taught is not None and self.maps is not None:
            student_map, teacher_map = outputs[self.maps[0]], taught[self.maps[1]]
            if self.projection is not None:
                student_map = self.projection(student_map)
            maps = (student_map, teacher_map)
            features = self._compute_feature_loss(*maps)
        losses = {
            "loss": classification + self.feature_weight * features,
            "classification_loss": classification,
            "feature_loss": features,
            **self._count(logits, label),
        }
        return losses, logits, maps

    def _measure(self, maps: tuple[Any, Any] | None) -> dict[str, Any]:
        """What `pooling_health` says of the maps. Apart from the loss, whose rounding it must not change."""
        return self._compute_health(*maps) if maps is not None and self._measured else {}

    def _name_measured(self) -> tuple[str, ...]:
        if self.maps is None or len(self.student.output[self.maps[0]].shape) not in (3, 5):
            return ()  # A loss of one's own may compare maps of other ranks.
        by_attention = self.feature_loss in ATTENTION_LOSS_NAMES
        return (POOLING_ENTROPY, MAP_VARIATION) if by_attention else (MAP_VARIATION,)

    def _at_time(self, logits: Any, time: Any) -> Any:
        """The logits of each sample's time: `(B, times · classes)` → `(B, classes)`."""
        classes = len(self.heads[0].classes)
        # (B, times · classes) → (B, times, classes)
        rows = ops.reshape(logits, (-1, len(self.heads), classes))
        chosen = ops.one_hot(time, len(self.heads), dtype=rows.dtype)
        return ops.sum(ops.expand_dims(chosen, -1) * rows, axis=1)

    def _count(self, logits: Any, label: Any) -> dict[str, Any]:
        """How many labels are the likeliest class, and how many there are: of all heads, and of each.

        Of several labels a clip the likeliest class should be one of them.
        """
        if not self.heads or self._timed:
            return _count_correct(ops.argmax(logits, axis=-1), label)
        if self._several:
            first = ops.argmax(logits, axis=-1)
            hit = ops.take_along_axis(label, ops.expand_dims(ops.cast(first, label.dtype), -1), axis=-1)
            return {
                "correct": ops.sum(ops.cast(hit == 1, "float32")),
                "labeled": ops.sum(ops.cast(ops.max(label, axis=-1) >= 0, "float32")),
            }
        own = {
            name: _count_correct(ops.argmax(logits[:, columns], axis=-1), label[:, number])
            for number, (name, columns) in enumerate(self._columns.items())
        }
        totals = {count: sum(each[count] for each in own.values()) for count in COUNTS}
        return totals | {f"{count}_{name}": own[name][count] for name in own for count in COUNTS}

    def _classification_loss(
        self, logits: Any, label: Any, taught: dict[str, Any] | None, partners: tuple[Any, Any] | None
    ) -> Any:
        teacher = None if taught is None else taught[LOGITS]
        if not self.heads or self._timed:
            return self._loss_of_head(logits, label, teacher, partners, self.class_weights)
        if self._several:
            return several_labels_loss(logits, label, teacher, self.soft_weight, self.temperature, partners)
        losses = []
        for number, columns in enumerate(self._columns.values()):
            losses.append(
                self._loss_of_head(
                    logits[:, columns],
                    label[:, number],
                    None if teacher is None else teacher[:, columns],
                    None if partners is None else (partners[0][:, number], partners[1]),
                    None if self.class_weights is None else self.class_weights[columns],
                )
            )
        return sum(losses)

    def _loss_of_head(
        self,
        logits: Any,
        label: Any,
        teacher: Any | None,
        partners: tuple[Any, Any] | None,
        class_weights: Sequence[float] | None,
    ) -> Any:
        weights = balance_labels(logits, label, class_weights, self.focusing)
        of_labels = (self.label_smoothing, weights, partners)
        if teacher is None:
            return classification_loss(logits, label, None, *of_labels)
        if self.soft_weight > 0:
            soft = (teacher, self.soft_weight, self.temperature)
            return soft_classification_loss(logits, label, *soft, *of_labels)
        probabilities = ops.softmax(ops.cast(teacher, "float32"))
        return classification_loss(logits, label, probabilities, *of_labels)

    def _teach(self, batch: dict[str, Any]) -> dict[str, Any] | None:
        """The teacher's outputs for the future clips, if there is a teacher."""
        if self.teacher is None:
            return None
        if TEACHER_LOGITS not in batch:
            return dict(self.teacher(batch["future"], training=False))
        outputs = {LOGITS: batch[TEACHER_LOGITS]}
        if self.maps is not None:
            outputs[self.maps[1]] = batch[TEACHER_MAP]
        return outputs

    def _update(self, batch: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        """What `update` does and returns, and the student's logits before it."""
        variables = self.trainable_variables
        if not self.optimizer.built:
            self.optimizer.build(variables)
        losses, logits, gradients = self._sum_gradients(self._mix(batch))
        gradients = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        scale = loss_scale(self.optimizer)
        norm = tf.linalg.global_norm(gradients) / (1.0 if scale is None else scale)
        if self.clip_norm is not None:
            factor = self.clip_norm / tf.maximum(norm, self.clip_norm)
            gradients = [factor * gradient for gradient in gradients]
        if self.weight_decay > 0:
            decay = self.weight_decay * (1.0 if scale is None else scale)
            gradients = [
                gradient + decay * variable if is_kernel(variable) else gradient
                for gradient, variable in zip(gradients, variables, strict=True)
            ]
        apply_summed(self.optimizer, gradients, variables)
        if scale is None:
            return {**losses, "gradient_norm": norm}, logits
        # A gradient that overflowed is left out by the optimizer, and here.
        norm = tf.where(tf.math.is_finite(norm), norm, 0.0)
        return {**losses, "gradient_norm": norm, "loss_scale": scale}, logits

    def _mix(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch that this update learns from: mixed, where that is asked for."""
        if not self._mixer.active:
            return batch
        if TEACHER_LOGITS in batch:
            raise ValueError("What the teacher makes of whole clips says nothing of mixed ones.")
        views = (self.view,) if self.teacher is None else (self.view, "future")
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return self._mixer.mix(_scale_clips(batch), views, self.optimizer.iterations, replica)

    def _sum_gradients(self, batch: dict[str, Any]) -> tuple[dict[str, Any], Any, list[Any]]:
        """Losses, logits and gradients of this replica's share; gradients add up over all replicas."""
        losses: dict[str, Any] = {}
        gradients: list[Any] = []
        logits = []
        for part in _split(batch, self.gradient_accumulation):
            # Else TensorFlow would run the micro-batches at once, in the memory of the whole batch.
            with tf.control_dependencies(gradients):
                part = {name: tf.identity(values) for name, values in part.items()}
            part_losses, part_logits, part_gradients = self._gradients_of(part)
            if gradients:
                part_gradients = [a + b for a, b in zip(gradients, part_gradients, strict=True)]
                part_losses = {name: losses[name] + value for name, value in part_losses.items()}
            losses, gradients = part_losses, part_gradients
            logits.append(part_logits)
        parts = self.gradient_accumulation
        losses = {name: value if is_count(name) else value / parts for name, value in losses.items()}
        return losses, tf.concat(logits, axis=0), gradients

    def _compute_gradients(self, batch: dict[str, Any]) -> tuple[dict[str, Any], Any, list[Any]]:
        """Losses and logits of one micro-batch, and gradients of its share in the whole batch's loss."""
        shares = tf.distribute.get_strategy().num_replicas_in_sync * self.gradient_accumulation
        with tf.GradientTape() as tape:
            losses, logits, maps = self._compute(batch, training=True)
            scaled = self.optimizer.scale_loss(losses["loss"] / shares)
        gradients = tape.gradient(scaled, [variable.value for variable in self.trainable_variables])
        return {**losses, **self._measure(maps)}, logits, gradients

    def _compile_feature_loss(self) -> Callable[..., Any]:
        own = self.feature_loss
        if not isinstance(own, str):
            return lambda student_map, teacher_map: ops.mean(own(teacher_map, student_map))
        compute = functools.partial(
            feature_losses.feature_loss,
            own,
            alpha=self.alpha,
            penalty=self.penalty,
            delta=self.delta,
            reduction=self.reduction,
            locality=self.locality,
            normalization=self.normalization,
        )
        return compile_where_it_pays(compute, _JIT_COMPILE.get(self.xla, False))

    def _compile_health(self) -> Callable[..., dict[str, Any]]:
        measure = functools.partial(
            pooling_health,
            self.feature_loss if isinstance(self.feature_loss, str) else None,
            alpha=self.alpha,
            locality=self.locality,
            normalization=self.normalization if isinstance(self.feature_loss, str) else "none",
        )
        return compile_where_it_pays(measure, _JIT_COMPILE.get(self.xla, False))

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
        compiled: Callable[..., Any] = tf.function(
            compute, autograph=False, experimental_attributes={"_noinline": True}
        )
        return compiled

    def _update_metrics(self, batch: dict[str, Any], losses: dict[str, Any], logits: Any) -> dict[str, Any]:
        """Adds one batch to Keras' metrics, those of `compile` included; returns all of them."""
        label = batch["label"]
        *means, accuracy = self._means
        for mean in means:
            mean.update_state(losses[mean.name], sample_weight=ops.shape(label)[0])
        labeled = losses["labeled"]
        accuracy.update_state(losses["correct"] / ops.maximum(labeled, 1.0), sample_weight=labeled)
        return self.compute_metrics(batch, label, {LOGITS: logits})


def _scale_clips(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch with float32 clips: those that came as they are stored, in uint8, are scaled here."""
    return {name: scale(value) if value.dtype == tf.uint8 else value for name, value in batch.items()}


def is_count(name: str) -> bool:
    """Whether a value of `Distiller.compute_losses` is a sum over samples."""
    return name.startswith(COUNTS)


def _count_correct(first: Any, label: Any) -> dict[str, Any]:
    correct = ops.equal(first, ops.cast(label, "int64"))
    return {
        "correct": ops.sum(ops.cast(correct, "float32")),
        "labeled": ops.sum(ops.cast(label >= 0, "float32")),
    }


def _split(batch: dict[str, Any], parts: int) -> list[dict[str, Any]]:
    """`parts` batches of the same size, in order."""
    pieces = {name: tf.split(values, parts) for name, values in batch.items()}
    return [{name: values[i] for name, values in pieces.items()} for i in range(parts)]


def _check_networks(
    student: keras.Model,
    teacher: keras.Model | None,
    feature_loss: str | FeatureLossFunction,
    projection: bool,
) -> None:
    """Refuses networks that cannot be trained with `feature_loss`."""
    for role, network in (("student", student), ("teacher", teacher)):
        outputs = getattr(network, "output", None)
        if network is not None and not (isinstance(outputs, dict) and LOGITS in outputs):
            raise ValueError(
                f"`{role}` should be a functional keras.Model with a dict of outputs, {LOGITS!r} and a "
                f"feature map. Received: {network!r} with outputs {outputs!r}."
            )
    if feature_loss == "none":
        return
    if teacher is None:
        raise ValueError(f"`feature_loss` should be none without a teacher. Received: {feature_loss}.")
    if not isinstance(feature_loss, str):
        if not callable(feature_loss):
            raise ValueError(f"`feature_loss` should be a name or a function. Received: {feature_loss!r}.")
        return  # What it can compare it knows itself.
    own, other = (network.output[feature_map_name(network)].shape for network in (student, teacher))
    if own[-1] != other[-1] and not projection:
        raise ValueError(
            f"the student's map should have as many channels as the teacher's. Received: {own[-1]} and "
            f"{other[-1]}. Use the teacher's model and width, or --projection."
        )
    if feature_loss == "direct" and own[1:-1] != other[1:-1]:
        raise ValueError(
            f"the direct loss compares maps position by position. Received: {own[1:-1]} and "
            f"{other[1:-1]} positions. Use --feature-loss bidirectional."
        )

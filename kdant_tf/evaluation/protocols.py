"""How a run is evaluated: which view, which windows, and what comes out."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kdant_tf.config import TEACHER
from kdant_tf.evaluation.metrics import mean_class_accuracy, top_k_accuracy
from kdant_tf.models.networks import load_network
from kdant_tf.runs import Run, record_evaluation
from tf_records.reader import evaluation_batches
from tf_records.records import Records, iterate_batches
from tf_records.schema import FUTURE, OBSERVED

BATCH_SIZE = 16


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What `kdant evaluate` prints; accuracies are fractions."""

    top1: float
    top5: float
    mean_class_accuracy: float
    samples: int
    view: str
    classes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "classes": list(self.classes)}


def evaluate_run(
    run: Run,
    records: Records,
    *,
    view: str | None = None,
    split: str = "test",
    network: keras.Model | None = None,
    on_batch: Callable[[int], None] = lambda clips: None,
) -> Evaluation:
    """Evaluates a run on a split and notes the result in the run folder.

    Args:
        run: a finished run.
        records: opened records with the run's classes, clip length and modality; read in the latter.
        view: "observed" or "future"; None shows a teacher the future and a student the observed
            segment. A teacher on "observed" is the I3D row of Table 1's anticipation half.
        split: "test" or "val".
        network: the run's, where it is loaded already.
        on_batch: called after each batch with its number of clips.

    Raises:
        RunError: the records do not fit the run.
        RecordError: the records have no such split.
    """
    run.check_records(records.manifest, records.folder)
    records = dataclasses.replace(records, modality=run.modality)
    if view is None:
        view = FUTURE if run.role == TEACHER else OBSERVED
    batches = evaluation_batches(
        records,
        split=split,
        view=view,
        batch_size=BATCH_SIZE,
        crop=run.config.crop,
        windows=run.config.windows,
    )
    network = load_network(run) if network is None else network
    samples = records.split(split).records
    probabilities, labels = predict(network, iterate_batches(batches, records, split), samples, on_batch)
    result = Evaluation(
        top1=top_k_accuracy(probabilities, labels, 1),
        top5=top_k_accuracy(probabilities, labels, 5),
        mean_class_accuracy=mean_class_accuracy(probabilities, labels),
        samples=len(labels),
        view=view,
        classes=run.classes,
    )
    record_evaluation(run, view, {**result.to_dict(), "split": split, "windows": run.config.windows})
    return result


def predict(
    network: keras.Model,
    batches: Iterable[Mapping[str, tf.Tensor]],
    samples: int,
    on_batch: Callable[[int], None] = lambda clips: None,
    infer: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Class probabilities of each sample, averaged over its windows (§4.1).

    Args:
        network: model with an output "logits".
        batches: of `evaluation_batches`.
        samples: number of samples in the split.
        on_batch: called after each batch with its number of clips.
        infer: `compile_inference` of the network, where it is kept.

    Returns:
        Probabilities float64 `(samples, classes)` and labels int64 `(samples,)`; zeros and -1 for samples
        that the batches do not show.
    """
    infer = compile_inference(network) if infer is None else infer
    sums = np.zeros((samples, network.output["logits"].shape[-1]))
    labels = np.full(samples, -1, dtype=np.int64)
    for batch in batches:
        index = batch["index"].numpy()
        np.add.at(sums, index, infer(batch["clip"]).numpy())
        labels[index] = batch["label"].numpy()
        on_batch(len(index))
    total = sums.sum(axis=1, keepdims=True)
    return np.divide(sums, total, out=sums, where=total > 0), labels


def compile_inference(network: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """Clips → class probabilities; traced once for as long as the function is kept."""

    @tf.function(reduce_retracing=True, autograph=False)
    def infer(clips: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(network(clips, training=False)["logits"])

    return infer

"""Validation after each epoch."""

import dataclasses

import keras
import numpy as np

from kdant_tf.evaluation.metrics import mean_class_accuracy, negative_log_likelihood, top_k_accuracy
from kdant_tf.evaluation.protocols import BATCH_SIZE, compile_inference, default_view, predict
from kdant_tf.training.assembly import Assembly
from kdant_tf.training.job import Job
from tf_records.reader import evaluation_batches
from tf_records.records import Records, iterate_batches

TRAIN = "train"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ValidationData:
    """What is validated on.

    Args:
        records: and `split`, where the samples are.
        chosen: bool `(records of the split,)`, those to validate on; None for all.
    """

    records: Records
    split: str
    chosen: np.ndarray | None = None


class Validation(keras.callbacks.Callback):
    """Adds `validation_loss`, `validation_accuracy` and `validation_mean_class_accuracy` to an epoch's logs.

    Goes before the callbacks that are to see them. Samples without a label are passed over; windows are
    those of `kdant evaluate`, over all of the segment that such a network is for.
    The loss is the cross-entropy of the probabilities averaged over a sample's windows.

    Args:
        network: in training, from what `data` has to a dict with "logits".
        data: to validate on.
        view: "observed" or "future", what the network sees of each sample.
        crop, windows: as in TrainConfig.
    """

    def __init__(
        self, network: keras.Model, data: ValidationData, *, view: str, crop: int, windows: int
    ) -> None:
        super().__init__()
        self.network = network
        self.data = data
        # Both are traced once, not each epoch.
        self.infer = compile_inference(network)
        self.batches = evaluation_batches(
            data.records,
            split=data.split,
            view=view,
            batch_size=BATCH_SIZE,
            crop=crop,
            windows=windows,
            chosen=data.chosen,
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if logs is not None:
            logs.update(self.validate())

    def validate(self) -> dict[str, float]:
        """The metrics of the network as it is."""
        records, split = self.data.records, self.data.split
        batches = iterate_batches(self.batches, records, split)
        seen = predict(self.network, batches, records.split(split).records, infer=self.infer)
        labeled = seen.labels >= 0
        probabilities, labels = seen.probabilities[labeled], seen.labels[labeled]
        return {
            "validation_loss": negative_log_likelihood(probabilities, labels),
            "validation_accuracy": top_k_accuracy(probabilities, labels, 1),
            "validation_mean_class_accuracy": mean_class_accuracy(probabilities, labels),
        }


def describe_data(data: ValidationData) -> str:
    """What is validated on, and what that costs."""
    split = data.records.split(data.split)
    if data.chosen is not None:
        return f"Held out {int(np.sum(data.chosen))} of {split.records} training samples to validate on."
    warning = ""
    if data.split == "test":
        warning = " They choose the best epoch, so its accuracy on them is no estimate for other videos."
    return f"Validating on the {split.labeled} labelled samples of split {data.split!r}.{warning}"


def validation_of(job: Job, assembly: Assembly) -> Validation | None:
    """What the settings ask for, if they do.

    A network that trains on cached features of the training split sees frames in the others.
    """
    config = job.run.config
    split = config.validation_split
    if split is None and job.held_out is None:
        return None
    if split is None:
        network = assembly.distiller.student
        data = ValidationData(records=assembly.records, split=TRAIN, chosen=job.held_out)
    else:
        network, data = assembly.network, ValidationData(records=job.records, split=split)
    view = default_view(job.run)
    return Validation(network, data, view=view, crop=config.crop, windows=config.windows)

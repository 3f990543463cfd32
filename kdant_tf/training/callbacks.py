"""The callbacks that measure a training and write its run folder, and the files at its end."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kdant_tf.evaluation.evaluate import BATCH_SIZE, default_view, predict
from kdant_tf.evaluation.heads import split_predictions
from kdant_tf.evaluation.metrics import (
    average_precision,
    binary_negative_log_likelihood,
    mean_class_accuracy,
    negative_log_likelihood,
    top_k_accuracy,
)
from kdant_tf.evaluation.predictions import Predictions
from kdant_tf.models.inference import compile_inference
from kdant_tf.models.networks import feature_map_name
from kdant_tf.private_apis import remember_what_is_not_saved
from kdant_tf.runs import (
    BEST_NAME,
    CURVES_NAME,
    HEALTH_METRICS,
    METRICS,
    METRICS_NAME,
    MODEL_NAME,
    PROJECTION_NAME,
    TENSORBOARD_NAME,
    VALIDATION_METRICS,
    VALIDATION_PRECISION,
    best_epoch,
    read_metrics,
)
from kdant_tf.training.assembly import Assembly, plain_batch_norm
from kdant_tf.training.job import Job
from kdant_tf.training.training_warnings import ChanceWatch, PoolingWarning
from kdant_tf.visualization.curves import plot_curves
from kdant_tf.visualization.heat_maps import first_clips, heat_map_pixels, heat_map_rows
from tf_records.files import atomic_path, write_text_atomically
from tf_records.heads import Heads
from tf_records.reader import evaluation_batches
from tf_records.records import Records, iterate_batches
from tf_records.schema import FUTURE, OBSERVED

TRAIN = "train"
# How the metrics of each of several heads begin.
_OF_HEADS = ("accuracy_", "validation_accuracy_", VALIDATION_PRECISION)
# Pictures of heat maps in TensorBoard: so many a training, one more at its end; each of one sample of so many
# classes, which are looked for among so many records.
_PICTURES = 10
_PICTURE_CLASSES = 4
_PICTURE_SEARCH = 256
_EVENT_FILES = "events.out.tfevents.*"


def run_callbacks(
    job: Job, assembly: Assembly, report: Callable[[str], None]
) -> list[keras.callbacks.Callback]:
    """Those of every training, in order: validation first, since the others read its numbers.

    Args:
        job, assembly: of the training.
        report: called with a line on what is validated on.
    """
    config, out = job.run.config, job.run.folder
    validation = make_validation(job, assembly)
    if validation is not None:
        report(_describe_data(validation.data))
    drawer = heat_map_drawer(job, assembly, None if validation is None else validation.data)
    events = TensorBoardEvents(out / TENSORBOARD_NAME, drawer, every=max(1, config.epochs // _PICTURES))
    watch = ChanceWatch(report, epochs=config.epochs, warmup_epochs=config.warmup_epochs)
    written: list[keras.callbacks.Callback] = [MetricsFile(out / METRICS_NAME), events, watch]
    if assembly.distiller.maps is not None:
        written.append(PoolingWarning(report))
    if validation is None:
        return written
    return [validation, BestNetwork(out, lambda folder: save_networks(assembly, folder)), *written]


def make_validation(job: Job, assembly: Assembly) -> Validation | None:
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
    return Validation(network, data, view=view, crop=config.crop, windows=config.windows, heads=job.run.heads)


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
        heads: of the network. The loss is then their sum, the accuracies their means, and each head has a
            `validation_accuracy_…` of its own; of several labels a clip both accuracies are the mean average
            precision.
    """

    def __init__(
        self,
        network: keras.Model,
        data: ValidationData,
        *,
        view: str,
        crop: int,
        windows: int,
        heads: Heads = (),
    ) -> None:
        super().__init__()
        self.network = network
        self.data = data
        # Both are traced once, not each epoch.
        self.heads = heads
        self.infer = compile_inference(network, heads)
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
        """The metrics of the network as it is; NaN where it does not give numbers for every sample."""
        records, split = self.data.records, self.data.split
        batches = iterate_batches(self.batches, records, split)
        samples = records.split(split).records
        predictions = predict(self.network, batches, samples, infer=self.infer, heads=self.heads)
        if not np.isfinite(predictions.probabilities).all():
            return dict.fromkeys(VALIDATION_METRICS, math.nan)
        if self.heads:
            return _validate_heads(predictions, self.heads)
        labeled = predictions.labels >= 0
        probabilities, labels = predictions.probabilities[labeled], predictions.labels[labeled]
        return {
            "validation_loss": negative_log_likelihood(probabilities, labels),
            "validation_accuracy": top_k_accuracy(probabilities, labels, 1),
            "validation_mean_class_accuracy": mean_class_accuracy(probabilities, labels),
        }


def _validate_heads(predictions: Predictions, heads: Heads) -> dict[str, float]:
    if heads[0].several:
        labeled = predictions.labels[:, 0] >= 0
        probabilities, labels = predictions.probabilities[labeled], predictions.labels[labeled]
        precision = float(np.nanmean(average_precision(probabilities, labels)))
        loss = binary_negative_log_likelihood(probabilities, labels)
        measured = dict(zip(VALIDATION_METRICS, (loss, precision, precision), strict=True))
        return {**measured, VALIDATION_PRECISION: precision}
    parts = split_predictions(predictions, heads)
    own = {
        name: [
            measure(each.probabilities, each.labels)
            for measure in (negative_log_likelihood, top_k_accuracy, mean_class_accuracy)
        ]
        for name, each in parts.items()
        if len(each.labels)
    }
    losses, accuracies, of_classes = zip(*own.values(), strict=True)
    means = (sum(losses), float(np.mean(accuracies)), float(np.mean(of_classes)))
    of_heads = {f"validation_accuracy_{name}": values[1] for name, values in own.items()}
    return {**dict(zip(VALIDATION_METRICS, means, strict=True)), **of_heads}


def _describe_data(data: ValidationData) -> str:
    """What is validated on, and what that costs."""
    split = data.records.split(data.split)
    if data.chosen is not None:
        return f"Held out {int(np.sum(data.chosen))} of {split.records} training samples to validate on."
    warning = ""
    if data.split == "test":
        warning = " They choose the best epoch, so its accuracy on them is no estimate for other videos."
    return f"Validating on the {split.labeled} labelled samples of split {data.split!r}.{warning}"


class BestNetwork(keras.callbacks.Callback):
    """Keeps the network of the best epoch so far, and of the best before this one.

    Two, since a training may be resumed from the checkpoint before. Which they are follows from metrics.csv
    and so needs no state of its own. Goes after the validation.

    Args:
        folder: of the run.
        save: writes the network's files into a folder.
    """

    def __init__(self, folder: Path, save: Callable[[Path], None]) -> None:
        super().__init__()
        self.folder = folder
        self.save = save

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self.rows = read_metrics(self.folder / METRICS_NAME)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        before = best_epoch(self.rows[:epoch])
        self.rows = [*self.rows[:epoch], {**(logs or {}), "epoch": epoch + 1}]
        now = best_epoch(self.rows)
        if now == epoch + 1:
            self._write(_epoch_folder(self.folder, now))
        kept = {_epoch_folder(self.folder, best) for best in (before, now) if best is not None}
        for saved in (self.folder / BEST_NAME).glob("*"):
            if saved not in kept:
                shutil.rmtree(saved)

    def _write(self, folder: Path) -> None:
        """The folder appears as a whole."""
        temporary = folder.with_name(f".tmp-{os.getpid()}-{folder.name}")
        temporary.mkdir(parents=True)
        self.save(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)


def best_network(folder: Path) -> Path | None:
    """The folder in a run folder that holds the best epoch's network, if that is known and there."""
    best = best_epoch(read_metrics(folder / METRICS_NAME))
    return None if best is None or not _epoch_folder(folder, best).is_dir() else _epoch_folder(folder, best)


def _epoch_folder(folder: Path, epoch: int) -> Path:
    return folder / BEST_NAME / f"epoch-{epoch:04d}"


class MetricsFile(keras.callbacks.Callback):
    """Writes METRICS of every epoch; HEALTH_METRICS and what validation and heads add where that is known.

    Nothing in it depends on the clock.

    Args:
        path: of the file; earlier rows there are replaced by those of the checkpoint.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.rows: list[dict[str, Any]] = []

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._write()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        of_heads = [name for name in logs if name.startswith(_OF_HEADS)]
        names = (
            *METRICS,
            *(name for name in (*HEALTH_METRICS, *VALIDATION_METRICS) if name in logs),
            *of_heads,
        )
        self.rows = [*self.rows[:epoch], {"epoch": epoch + 1, **{name: logs[name] for name in names}}]
        self._write()

    def get_state(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def set_state(self, state: dict[str, Any]) -> None:
        self.rows = state["rows"]
        self._write()

    def _write(self) -> None:
        names = dict.fromkeys(("epoch", *METRICS)) | dict.fromkeys(name for row in self.rows for name in row)
        text = io.StringIO()
        writer = csv.DictWriter(text, tuple(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text_atomically(self.path, text.getvalue())


class TensorBoardEvents(keras.callbacks.Callback):
    """Writes each of an epoch's logs under its name; the step is the number of finished epochs.

    A resumed training first drops what was written of epochs that it runs again, so that no step stands
    twice.

    Args:
        folder: of the event files.
        draw_heat_maps: gives a picture uint8 `(height, width, 3)`, or None; itself None for no pictures.
        every: epochs between two of them; the last epoch has one as well.
    """

    def __init__(
        self, folder: Path, draw_heat_maps: Callable[[], np.ndarray | None] | None = None, every: int = 1
    ) -> None:
        super().__init__()
        self.folder = folder
        self.draw_heat_maps = draw_heat_maps
        self.every = every
        self.writer: tf.summary.SummaryWriter | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self.writer is None:
            keep_events(self.folder, epoch)
            self.writer = tf.summary.create_file_writer(str(self.folder))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert self.writer is not None
        done = epoch + 1
        with self.writer.as_default(step=done):
            for name, value in (logs or {}).items():
                tf.summary.scalar(name, value)
            due = done % self.every == 0 or done == self.params["epochs"]
            picture = self.draw_heat_maps() if self.draw_heat_maps is not None and due else None
            if picture is not None:
                tf.summary.image("heat_maps", picture[None])
        self.writer.flush()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        if self.writer is not None:
            self.writer.close()


def keep_events(folder: Path, last_step: int) -> None:
    """Puts one file with the events up to `last_step` in the place of a folder's event files."""
    paths = sorted(folder.glob(_EVENT_FILES))
    if not paths:
        return
    kept = [event for path in paths for event in _read_events(path) if event.step <= last_step]
    temporary = folder / f".tmp-{paths[0].name}"
    with tf.io.TFRecordWriter(str(temporary)) as writer:
        for event in kept:
            writer.write(event.SerializeToString())
    temporary.rename(paths[0])
    for path in paths[1:]:
        path.unlink()


def _read_events(path: Path) -> list[tf.compat.v1.Event]:
    """Events of a file, to where it was cut short if it was."""
    events = []
    try:
        for serialized in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            events.append(tf.compat.v1.Event.FromString(serialized))
    except tf.errors.DataLossError:
        pass
    return events


def heat_map_drawer(
    job: Job, assembly: Assembly, data: ValidationData | None
) -> Callable[[], np.ndarray | None] | None:
    """Draws the network in training on the first sample of each of a few classes, and the teacher beside it.

    The samples are of `data`, or else of the training split, without augmentation; never of the test split
    unless that is validated on. None where the networks have no map in space; what is drawn is None where a
    map is not finite.
    """
    student, teacher = assembly.distiller.student, assembly.distiller.teacher
    if not all(_has_positions(network) for network in (student, teacher) if network is not None):
        return None
    data = ValidationData(records=assembly.records, split=TRAIN) if data is None else data

    def choose(view: str) -> dict[int, np.ndarray]:
        return first_clips(
            data.records,
            data.split,
            view,
            job.run.config.crop,
            chosen=data.chosen,
            classes=_PICTURE_CLASSES,
            samples=_PICTURE_SEARCH,
        )

    future = choose(FUTURE)
    if not future:
        return None
    observed = future if teacher is None else choose(OBSERVED)
    titles = [job.run.classes[label] for label in future]
    past, action = (np.stack([*clips.values()]) for clips in (observed, future))
    if teacher is None:
        first, columns = ("future clip", action), {"teacher": (action, student)}
    else:
        first = ("observed clip", past)
        columns = {
            "student": (past, student),
            "teacher": (past, teacher),
            "teacher, future clip": (action, teacher),
        }

    def draw() -> np.ndarray | None:
        with np.errstate(over="ignore", invalid="ignore"):
            rows = heat_map_rows(titles, first, columns)
        magnitudes = [heat_map.magnitude for row in rows.values() for heat_map in row.values()]
        finite = all(np.isfinite(each).all() for each in magnitudes if each is not None)
        return heat_map_pixels(rows) if finite else None

    return draw


def _has_positions(network: keras.Model) -> bool:
    """Whether its map is `(B, T, H, W, d)`."""
    return len(network.output[feature_map_name(network)].shape) == 5


def save_result(assembly: Assembly, out: Path) -> None:
    """The best epoch's networks where epochs were validated, else the last one's."""
    best = best_network(out)
    if best is None:
        save_networks(assembly, out)
        return
    for path in best.iterdir():
        with atomic_path(out / path.name) as temporary:
            shutil.copyfile(path, temporary)


def save_networks(assembly: Assembly, out: Path) -> None:
    """The network, and beside it the projection that it was trained through, where there is one."""
    remember_what_is_not_saved()
    with plain_batch_norm(assembly.batch_norms), atomic_path(out / MODEL_NAME) as temporary:
        assembly.network.save(temporary)
    projection = assembly.distiller.projection
    if projection is not None:
        student_map = keras.layers.Input((projection.kernel.shape[0],))
        with atomic_path(out / PROJECTION_NAME) as temporary:
            keras.Model(student_map, projection(student_map), name="projection").save(temporary)


def plot_run(out: Path) -> None:
    """Draws the curves of the epochs so far, if there are any."""
    rows = read_metrics(out / METRICS_NAME)
    if rows:
        plot_curves({out.name: rows}, out / CURVES_NAME)

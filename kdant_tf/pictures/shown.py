"""A run as pictures show it: its network, what it says, and its feature maps."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import keras
import numpy as np

from kdant_tf.config import STUDENT, TEACHER, TrainConfig
from kdant_tf.evaluation.predictions import Predictions, load_predictions
from kdant_tf.evaluation.protocols import default_view, evaluate_run
from kdant_tf.models.networks import feature_map_name, load_network, load_saved, load_teacher
from kdant_tf.pictures.samples import Sample
from kdant_tf.runs import PREDICTIONS_NAME, PROJECTION_NAME, Run
from tf_records.errors import KdantError, RunError
from tf_records.records import Records


class PictureError(KdantError):
    """A picture that these runs and records do not give."""


class ShownRun:
    """A finished run on the records that are shown.

    Args:
        name: to write beside it.
        run: finished.
        records: opened, that fit the run.
        split: of the records.
        on_batch: told of the clips of each batch, where the run has to be evaluated first.
        network: the run's, where it is loaded already.

    Raises:
        RunError: the records do not fit the run.
    """

    def __init__(
        self,
        name: str,
        run: Run,
        records: Records,
        split: str,
        on_batch: Callable[[int], None] = lambda clips: None,
        network: keras.Model | None = None,
    ) -> None:
        run.check_records(records.manifest, records.folder)
        self.name, self.run, self.records, self.split = name, run, records, split
        self._on_batch = on_batch
        self._network = network
        self._predictions: dict[str, Predictions] = {}
        self._maps: dict[tuple[str, int, str], np.ndarray] = {}

    @property
    def is_teacher(self) -> bool:
        return self.run.role == TEACHER

    @property
    def view(self) -> str:
        """The segment that it was trained to see."""
        return default_view(self.run)

    @property
    def own_records(self) -> Records:
        """The records, to be read in the run's modality."""
        return dataclasses.replace(self.records, modality=self.run.modality)

    @cached_property
    def network(self) -> keras.Model:
        return load_network(self.run) if self._network is None else self._network

    def predictions(self, view: str) -> Predictions:
        """What it says of the split's samples: kept where it was evaluated on these, else evaluated now."""
        if view not in self._predictions:
            kept = load_predictions(self.run.folder / PREDICTIONS_NAME, f"{view}/{self.split}")
            if kept is None or not self._fits(kept):
                evaluate_run(
                    self.run,
                    self.records,
                    view=view,
                    split=self.split,
                    network=self.network,
                    on_batch=self._on_batch,
                )
                kept = load_predictions(self.run.folder / PREDICTIONS_NAME, f"{view}/{self.split}")
                assert kept is not None  # it has just been saved
            self._predictions[view] = kept
        return self._predictions[view]

    def _fits(self, kept: Predictions) -> bool:
        """Whether these are as many samples of each class as the records have."""
        info, classes = self.records.split(self.split), self.run.classes
        counts = [info.count_classes(classes).get(name, 0) for name in classes]
        labels = kept.labels[kept.labels >= 0]
        same = np.bincount(labels, minlength=len(classes)).tolist() == counts
        return same and len(kept.labels) == info.records

    def said(self, sample: Sample, view: str) -> np.ndarray:
        """Its probabilities for a sample: float `(classes,)`.

        Raises:
            RunError: what is kept was said of other samples.
        """
        predictions = self.predictions(view)
        kept = str(predictions.ids[sample.number])
        if kept != sample.id:
            raise RunError(
                f"{self.run.folder / PREDICTIONS_NAME} is of other records: sample {sample.number} is "
                f"{kept!r} there and {sample.id!r} in {self.records.folder}. Evaluate the run on these: "
                f"kdant evaluate {self.run.folder} --records {self.records.folder} --view {view}."
            )
        return predictions.probabilities[sample.number]

    def map_of(self, sample: Sample, view: str) -> np.ndarray:
        """Its feature map of a sample's clip: float `(T, H, W, d)`.

        Raises:
            PictureError: the map has no places in the frame.
        """
        return self.map_for(self.run.config, sample, view)

    def map_for(self, student: TrainConfig, sample: Sample, view: str) -> np.ndarray:
        """The same of the layer that a student of these settings learns from."""
        key = (student.endpoint, sample.number, view)
        if key not in self._maps:
            own = student.endpoint == self.run.config.endpoint
            network = self.network if own else load_teacher(self.run, student)
            self._maps[key] = self._map(network, sample, view)
        return self._maps[key]

    def projected_map(self, sample: Sample, view: str, channels: int) -> np.ndarray:
        """Its map with the teacher's number of channels, through the projection that it was trained with.

        Raises:
            PictureError: other channels and no projection (says both).
        """
        own = self.map_of(sample, view)
        path = self.run.folder / PROJECTION_NAME
        if path.is_file():
            projected = load_saved(path)(own.reshape(-1, own.shape[-1]), training=False)
            own = keras.ops.convert_to_numpy(projected).reshape(*own.shape[:-1], -1)
        if own.shape[-1] != channels:
            raise PictureError(
                f"The map of {self.name} has {own.shape[-1]} channels, the teacher's {channels}: their "
                f"vectors cannot be compared. Distil with --projection."
            )
        return own

    def _map(self, network: keras.Model, sample: Sample, view: str) -> np.ndarray:
        clip = sample.clip(view, self.run.modality, self.run.config.crop)
        outputs = network(clip, training=False)
        found = keras.ops.convert_to_numpy(outputs[feature_map_name(network)])[0]
        if found.ndim != 4:
            raise PictureError(
                f"The feature map of {self.name} has no places in the frame, its shape is {found.shape}: "
                f"nothing can be drawn over a frame."
            )
        return found.astype(np.float32)


def teacher_of(student: ShownRun, teachers: Sequence[ShownRun]) -> ShownRun:
    """The run that a student learned from, as far as the folders' names tell, or the only teacher.

    Raises:
        PictureError: several teachers, none of which it names, or none at all.
    """
    named = student.run.teacher
    if len(teachers) == 1:
        return teachers[0]
    for teacher in teachers:
        if named is not None and Path(named).resolve() == teacher.run.folder.resolve():
            return teacher
    if teachers:
        raise PictureError(f"None of the given teachers is that of {student.name}, {named}. Give that one.")
    raise PictureError(f"No teacher was given. Add that of {student.name} to the runs: {named}.")


def split_roles(shown: Sequence[ShownRun]) -> tuple[list[ShownRun], list[ShownRun]]:
    """Teachers and students, each in the order given."""
    return [each for each in shown if each.is_teacher], [each for each in shown if each.run.role == STUDENT]

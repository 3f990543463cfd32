"""What pictures are drawn from: a run with its predictions and feature maps, and samples' pairs of clips."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf

from kdant_tf.config import STUDENT, TEACHER, TrainConfig
from kdant_tf.evaluation.evaluate import check_fit, default_view, evaluate_run, read_inputs
from kdant_tf.evaluation.heads import evaluate_heads
from kdant_tf.evaluation.predictions import DIVERGED, Predictions, load_predictions
from kdant_tf.models.i3d_stem import load_with_stem
from kdant_tf.models.networks import feature_map_name, load_saved, load_teacher
from kdant_tf.runs import PREDICTIONS_NAME, PROJECTION_NAME, Run, manifest_sha256, result_name, weights_sha256
from kdant_tf.visualization.grad_cam import NoGradientError, grad_cam
from tf_records import schema
from tf_records.augment import CROP_FRACTION, clip_indices, crop_centrally, window_starts
from tf_records.contact_sheet import colour_flow
from tf_records.errors import KdantError, NotKeptError, RecordError, RunError
from tf_records.heads import are_times, column_slices
from tf_records.reader import decode_clip, observed_start, parse
from tf_records.records import Records, naming_damage
from tf_records.schema import FUTURE, OBSERVED

FIRST_CLASSES = 8
# That a network sees together: eight I3D clips of 16x224 would take some gigabytes.
_CLIPS_AT_ONCE = 4
_T = TypeVar("_T")
_STARTS = {OBSERVED: schema.OBSERVED_START_S, FUTURE: schema.FUTURE_START_S}
_TIMES = {key: tf.io.FixedLenFeature((), tf.float32) for key in (*_STARTS.values(), schema.FRAME_RATE)}


class PictureError(KdantError):
    """A picture that cannot be drawn from these runs and records."""


class RunView:
    """A finished run, its predictions and its feature maps on one split of some records.

    Args:
        name: to write beside it.
        run: finished.
        records: opened, that fit the run.
        split: of the records.
        on_batch: called with the number of clips of each batch, where the run has to be evaluated first.
        network: the run's, where it is loaded already.
        insist: take records of another offset, frame rate or flow than the run was trained on, which the
            title then says.

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
        *,
        insist: bool = False,
    ) -> None:
        (run,), records = read_inputs([run], records, split)
        differences = check_fit([run], records, insist=insist)
        if are_times(run.heads):
            raise RunError(
                f"Run {run.folder} names what comes at several times, and these pictures are of one. "
                f"`kdant evaluate` has a column for each."
            )
        if any(head.several for head in run.heads):
            raise RunError(
                f"Run {run.folder} gives several labels a clip, and these pictures are of one. "
                f"`kdant evaluate --per-class` tells the precision of each class."
            )
        self.title = f"{name}, not as trained" if differences else name
        self._insist = insist
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
        """The segment that it was trained on."""
        return default_view(self.run)

    @property
    def own_records(self) -> Records:
        """The records, to be read in the run's modality."""
        return dataclasses.replace(self.records, modality=self.run.modality)

    @cached_property
    def network(self) -> keras.Model:
        return load_with_stem(self.run, self._network)

    @property
    def classes(self) -> tuple[str, ...]:
        """That pictures are about: of several heads, those of the last one."""
        return self.run.heads[-1].classes if self.run.heads else self.run.classes

    def predictions(self, view: str) -> Predictions:
        """Of the split's samples: those kept of this network on these records, else it is evaluated now."""
        if view not in self._predictions:
            records = manifest_sha256(self.records.folder)
            what = f"{view}, {self.run.heads[-1].name}" if self.run.heads else view
            name = f"{result_name(self.run, what, self.split, records)}/{self.split}"
            kept = load_predictions(self.run.folder / PREDICTIONS_NAME, name)
            if kept is None or not self._is_current(kept):
                kept = self._evaluate(view)
            self._predictions[view] = kept
        return self._predictions[view]

    def _evaluate(self, view: str) -> Predictions:
        evaluate: Callable[..., Any] = evaluate_heads if self.run.heads else evaluate_run
        try:
            result = evaluate(
                self.run,
                self.records,
                view=view,
                split=self.split,
                network=self.network,
                insist=self._insist,
                on_batch=self._on_batch,
            )
        except NotKeptError as error:  # Pictures can be drawn of them all the same.
            result = error.result
        kept: Predictions = (result[self.run.heads[-1].name] if self.run.heads else result).predictions
        return kept

    def _is_current(self, kept: Predictions) -> bool:
        """Whether these are of the run's network, on these records."""
        network, records = weights_sha256(self.run.model_path), manifest_sha256(self.records.folder)
        return (kept.weights_sha256, kept.records_sha256) == (network, records)

    def probabilities(self, pair: ClipPair, view: str) -> np.ndarray:
        """Of a sample's classes: float `(classes,)`.

        Raises:
            RunError: the predictions that were kept are of other samples.
        """
        predictions = self.predictions(view)
        kept = str(predictions.ids[pair.number])
        if kept != pair.id:
            raise RunError(
                f"{self.run.folder / PREDICTIONS_NAME} is of other records: sample {pair.number} is "
                f"{kept!r} there and {pair.id!r} in {self.records.folder}. Evaluate the run on these: "
                f"kdant evaluate {quote(str(self.run.folder))} --records {quote(str(self.records.folder))} "
                f"--view {view}."
            )
        probabilities: np.ndarray = predictions.probabilities[pair.number]
        return probabilities

    def map_of(self, pair: ClipPair, view: str) -> np.ndarray:
        """Its feature map of a sample's clip: float `(T, H, W, d)`.

        Raises:
            PictureError: the map has no places in the frame.
        """
        return self.map_for(self.run.config, pair, view)

    def map_for(self, student: TrainConfig, pair: ClipPair, view: str) -> np.ndarray:
        """The same of the layer that a student of these settings learns from."""
        key = (student.endpoint, pair.number, view)
        if key not in self._maps:
            own = student.endpoint == self.run.config.endpoint
            network = self.network if own else load_with_stem(self.run, load_teacher(self.run, student))
            (self._maps[key],) = self._map(network, [pair], view)
        return self._maps[key]

    def keep_maps(self, pairs: Sequence[ClipPair], view: str) -> None:
        """Computes several samples' maps at once, which `map_of` then has.

        Raises:
            PictureError: see `map_of`.
        """
        for some in _several(pairs):
            found = self._map(self.network, some, view)
            for pair, feature_map in zip(some, found, strict=True):
                self._maps[self.run.config.endpoint, pair.number, view] = feature_map

    def projected_map(self, pair: ClipPair, view: str, channels: int) -> np.ndarray:
        """Its map with the teacher's number of channels, through the projection that it was trained with.

        Raises:
            PictureError: other channels and no projection (says both).
        """
        own = self.map_of(pair, view)
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

    def class_activations(
        self, pairs: Sequence[ClipPair], view: str, class_indices: Sequence[int]
    ) -> list[np.ndarray]:
        """Grad-CAM of a class on each sample's clip: float32 `(T, H, W)`.

        Raises:
            PictureError: the map has no places in the frame, or the logits are not made of it.
        """
        self.map_of(pairs[0], view)
        first = column_slices(self.run.heads)[self.run.heads[-1].name].start if self.run.heads else 0
        found: list[np.ndarray] = []
        columns = [first + index for index in class_indices]
        try:
            for some, asked in zip(_several(pairs), _several(columns), strict=True):
                found += list(grad_cam(self.network, self._clips(some, view), asked))
        except NoGradientError as error:
            raise PictureError(f"No Grad-CAM of {self.name}: {error}.") from error
        return found

    def _clips(self, pairs: Sequence[ClipPair], view: str) -> np.ndarray:
        crop, stem = self.run.crop, self.run.stem
        if crop is None or (stem and stem.map_side(crop) != stem.map_side(self.run.config.crop)):
            raise PictureError(
                f"{self.name} sees the middle of larger maps of features, and no square of the frame. Maps "
                f"are drawn over frames for runs seeing all of a square's features: extract-features --crop."
            )
        return np.concatenate([pair.clip(view, self.run.modality, crop) for pair in pairs])

    def _map(self, network: keras.Model, pairs: Sequence[ClipPair], view: str) -> np.ndarray:
        outputs = network(self._clips(pairs, view), training=False)
        found: np.ndarray = keras.ops.convert_to_numpy(outputs[feature_map_name(network)])
        if found.ndim != 5:
            raise PictureError(
                f"The feature map of {self.name} has no places in the frame, its shape is "
                f"{found.shape[1:]}: nothing can be drawn over a frame."
            )
        for pair, feature_map in zip(pairs, found, strict=True):
            if not np.isfinite(feature_map).all():
                raise RunError(
                    f"The feature map of {self.name} is not finite for sample {pair.id}. {DIVERGED}"
                )
        return found.astype(np.float32)


def _several(items: Sequence[_T]) -> list[Sequence[_T]]:
    """The items in order, as many together as a network sees at once."""
    return [items[first : first + _CLIPS_AT_ONCE] for first in range(0, len(items), _CLIPS_AT_ONCE)]


def teacher_of(student: RunView, teachers: Sequence[RunView]) -> RunView:
    """The run that a student learned from, by its folder's name, or the only teacher.

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


def split_roles(runs: Sequence[RunView]) -> tuple[list[RunView], list[RunView]]:
    """Teachers and students, each in the order given."""
    return [each for each in runs if each.is_teacher], [each for each in runs if each.run.role == STUDENT]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipPair:
    """A pair of clips of one record, as far apart as those that training compares, where its video allows.

    Args:
        number: of the record in its split.
        id: of the sample.
        label: index of its class.
        stored: modality → view → clip as it is stored, uint8 `(T, H, W, C)`.
        times_s: view → when each frame of the clip occurs in the video, seconds, float `(T,)`.
    """

    number: int
    id: str
    label: int
    stored: dict[str, dict[str, np.ndarray]]
    times_s: dict[str, np.ndarray]

    def clip(self, view: str, modality: str, crop: int) -> np.ndarray:
        """What a network sees of a view: float32 `(1, T, crop, crop, C)` in [-1, 1]."""
        clip: np.ndarray = crop_centrally(tf.constant(self.stored[modality][view]), crop)[None].numpy()
        return clip

    def frames(self, view: str) -> np.ndarray:
        """The same square as it is stored, to look at: RGB `(T, S, S, 3)` in [0, 1]; flow has hues."""
        modality = schema.RGB if schema.RGB in self.stored else schema.FLOW
        stored = self.stored[modality][view]
        pixels = crop_centrally(tf.constant(stored), _square(stored)).numpy()
        if modality == schema.RGB:
            frames: np.ndarray = np.clip((pixels + 1) / 2, 0, 1)
            return frames
        return np.stack([np.asarray(colour_flow(frame[..., 0], frame[..., 1])) / 255 for frame in pixels])


def choose_samples(
    predictions: Predictions, *, count: int | None = None, seed: int = 0, ids: Sequence[str] = ()
) -> list[int]:
    """Numbers of the records to draw.

    Args:
        predictions: of the split.
        count: draw so many, one of each class in turn; None is the first of each class, at most
            FIRST_CLASSES.
        seed: of the draw.
        ids: take these, in this order.

    Raises:
        RecordError: an id that no sample has.
    """
    if ids:
        numbers = {str(name): number for number, name in enumerate(predictions.ids)}
        if unknown := [name for name in ids if name not in numbers]:
            raise RecordError(_describe_unknown(unknown[0], list(numbers)))
        return [numbers[name] for name in ids]
    classes = np.unique(predictions.labels)
    groups = [np.flatnonzero(predictions.labels == label) for label in classes]
    if count is None:
        return [int(group[0]) for group in groups[:FIRST_CLASSES]]
    rng = np.random.default_rng(seed)
    turns = [rng.permutation(group) for group in groups]
    order = rng.permutation(len(turns))
    longest = max(len(group) for group in groups)
    drawn = [int(turns[i][turn]) for turn in range(longest) for i in order if turn < len(turns[i])]
    return sorted(drawn[:count], key=lambda number: (predictions.labels[number], number))


def read_clip_pairs(records: Records, split: str, numbers: Sequence[int]) -> list[ClipPair]:
    """The records of these numbers, in the order given.

    Raises:
        RecordError: records of features, which have no frames, or a damaged shard.
    """
    if records.manifest.features is not None:
        raise RecordError(
            f"{records.folder} holds features, over which no map can be drawn. Give the records of frames "
            f"that they were made of."
        )
    wanted = frozenset(numbers)
    found = {}
    with naming_damage(records, split):
        for number, serialized in enumerate(tf.data.TFRecordDataset(records.paths(split))):
            if number in wanted:
                found[number] = _read_clip_pair(records, number, serialized)
            if len(found) == len(wanted):
                break
    return [found[number] for number in numbers]


def _read_clip_pair(records: Records, number: int, serialized: tf.Tensor) -> ClipPair:
    stored: dict[str, dict[str, np.ndarray]] = {}
    for modality in records.manifest.modalities:
        opened = dataclasses.replace(records, modality=modality)
        context, segments = parse(opened, serialized, (OBSERVED, FUTURE))
        lengths = {view: int(tf.shape(segments[view])[0]) for view in segments}
        starts, times_s = _place_clips(records, serialized, lengths)
        stored[modality] = {
            view: decode_clip(opened, segments[view], starts[view]).numpy() for view in segments
        }
    return ClipPair(
        number=number,
        id=context[schema.CLIP_ID].numpy().decode(),
        label=_shown_label(context[schema.LABEL_INDEX].numpy()),
        stored=stored,
        times_s=times_s,
    )


def _shown_label(label: np.ndarray) -> int:
    """Of several heads the last one's, as `RunView.classes` are."""
    return int(label[-1] if label.ndim else label)


def _place_clips(
    records: Records, serialized: tf.Tensor, lengths: dict[str, int]
) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """View → where its clip begins in its segment, and the times of its frames.

    The observed clip is the middle window, or the one clip that the protocol lets a student see; the future
    one begins the records' offset later, as far as its segment allows.
    """
    context, _ = tf.io.parse_single_sequence_example(serialized, context_features=_TIMES)
    fps, clip_frames = float(context[schema.FRAME_RATE]), records.clip_entries
    first = {view: round(float(context[key]) * fps) for view, key in _STARTS.items()}
    if records.manifest.longest_anticipation_s is None:
        observed = int(window_starts(lengths[OBSERVED], clip_frames, 1)[0])
    else:
        observed = int(observed_start(records, serialized, tf.constant(lengths[OBSERVED]), None))
    wanted = first[OBSERVED] + observed + records.manifest.clip.offset_at(fps) - first[FUTURE]
    starts = {OBSERVED: observed, FUTURE: min(max(wanted, 0), max(lengths[FUTURE] - clip_frames, 0))}
    return starts, {
        view: (first[view] + clip_indices(lengths[view], starts[view], clip_frames).numpy()) / fps
        for view in starts
    }


def _square(stored: np.ndarray) -> int:
    """Pixels of a crop that is cut without scaling."""
    shorter: int = min(stored.shape[1:3])
    return (shorter * CROP_FRACTION.numerator + CROP_FRACTION.denominator // 2) // CROP_FRACTION.denominator


def _describe_unknown(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"Such ids are there: {known[0]!r}."
    return f"There is no sample with the id {name!r}. {hint} `kdant evaluate` keeps all in predictions.npz."

"""One training with its inputs opened and checked, before any network is built."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import tensorflow as tf

from kdant_tf.config import (
    COUNTED_BALANCES,
    DEFAULT_EXECUTION,
    STUDENT,
    TEACHER,
    ConfigError,
    Execution,
    TrainConfig,
)
from kdant_tf.models.i3d import ENDPOINTS, endpoint_channels
from kdant_tf.models.i3d_stem import ENDPOINT
from kdant_tf.models.networks import check_network_settings
from kdant_tf.runs import (
    BEST_NAME,
    CHECKPOINTS_NAME,
    CURVES_NAME,
    EVALUATION_NAME,
    METRICS_NAME,
    MODEL_NAME,
    PREDICTIONS_NAME,
    PROJECTION_NAME,
    TEACHER_CACHE_NAME,
    TENSORBOARD_NAME,
    Run,
    load_run,
    manifest_sha256,
    weights_sha256,
)
from tf_records.augment import Augmentation
from tf_records.errors import RecordError, RunError
from tf_records.heads import Heads, columns, time_heads
from tf_records.manifest import Manifest
from tf_records.records import Records
from tf_records.remote_path import RecordPath
from tf_records.schema import CHANNELS, EITHER, FLOW, FUTURE, OBSERVED, PER_FRAME, FeatureInfo
from tf_records.sources.jhmdb import source_videos

# Makes the draw of videos independent of that of labels, which has the same seed.
_VIDEO_DRAW = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a training needs.

    Args:
        run: its folder and settings, as config.json will have them.
        records: opened.
        labels: in place of the recorded ones, where only a share of them is used.
        held_out: marks the training records that are validated on instead, where there are any.
        samples: training pairs an epoch.
        teacher: finished, for students.
        class_counts: labelled training pairs of each class, where `class_balance` asks for them.
    """

    run: Run
    records: Records
    labels: np.ndarray | None
    held_out: np.ndarray | None
    samples: int
    teacher: Run | None
    class_counts: tuple[int, ...] | None = None

    @property
    def views(self) -> tuple[str, ...]:
        """Clips to read; the first is the one that the trained network sees."""
        if self.teacher is not None:
            return (OBSERVED, FUTURE)
        view = self.run.config.teacher_view
        return (EITHER if view == "both" else view,)

    @property
    def augmentation(self) -> Augmentation:
        """What is drawn for each pair beside its start, crop and flip."""
        return _augmentation(self.run.config)

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, C) of the clips, also of those that features were made of."""
        crop = self.run.config.crop
        return (self.run.clip.clip_frames, crop, crop, CHANNELS[self.run.modality])

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, C) of what the networks see: clips, or the maps of features."""
        features = self.run.features
        if features is None:
            return self.clip_shape
        side = features.map_side(self.run.config.crop)
        frames, channels = features.shape[0], features.shape[-1]
        assert frames is not None  # Only height and width may differ.
        assert channels is not None
        return (frames, side, side, channels)


def prepare_job(
    records: Records,
    out: Path,
    config: TrainConfig,
    teacher: Run | None,
    execution: Execution = DEFAULT_EXECUTION,
) -> Job:
    """Checks everything that can be checked before the first network is built.

    Raises:
        KdantError: records, teacher and settings do not fit together (says how).
    """
    role = TEACHER if teacher is None else STUDENT
    _check_records(records, config, role)
    if teacher is not None:
        _check_teacher(teacher, records)
    chosen = choose_labels(records, config)
    samples = chosen.labeled if teacher is None else chosen.samples
    _check_samples(samples, config, records.folder, role)
    manifest = records.manifest
    heads = manifest.heads
    if manifest.times_s and teacher is not None:
        heads = time_heads(manifest.times_s, manifest.classes)
    run = Run(
        folder=out,
        role=role,
        config=config,
        classes=columns(heads) if heads else manifest.classes,
        heads=heads,
        clip=manifest.clip,
        modality=records.modality,
        short_side=manifest.short_side,
        records_sha256=manifest_sha256(records.folder),
        teacher=None if teacher is None else str(teacher.folder),
        teacher_sha256=None if teacher is None else weights_sha256(teacher.model_path),
        features=manifest.features,
        left_out=tuple(shard.file for shard in records.left_out),
        dataset=manifest.dataset,
        fps=manifest.fps,
        flow=manifest.flow if records.modality == FLOW else None,
        execution=execution,
    )
    return Job(
        run=run,
        records=records,
        labels=chosen.labels,
        held_out=chosen.held_out,
        samples=samples,
        teacher=teacher,
        class_counts=chosen.count_classes(len(manifest.classes), manifest.heads),
    )


def _check_records(records: Records, config: TrainConfig, role: str) -> None:
    """Refuses records that these settings cannot be trained on."""
    manifest = records.manifest
    records.split("train")
    if len(manifest.classes) < 2:
        raise RecordError(
            f"Training needs at least two classes; {records.folder} has {len(manifest.classes)}. "
            f"Label more rows."
        )
    check_network_settings(config, manifest.clip.clip_frames, records.modality)
    if manifest.features is not None:
        _check_features(manifest, records.folder, config)
    elif config.model == "features3d":
        raise ConfigError(
            f"Setting `model` is features3d, which learns from features, and {records.folder} has frames. "
            f"Make them with kdant extract-features."
        )
    _check_colours(config, records)
    _check_observed_share(config, records, role)
    _check_heads(config, manifest)
    _check_times(config, manifest, role)
    if config.validation_split is not None:
        _check_validation_split(records, config.validation_split)


def _check_samples(samples: int, config: TrainConfig, folder: RecordPath, role: str) -> None:
    """Refuses fewer samples than a batch."""
    if role == TEACHER and samples == 0:
        raise RecordError(
            f"A teacher learns from labels alone, and none of {folder} is left with --label-fraction "
            f"{config.label_fraction:g}. Raise it, or label more rows."
        )
    if samples < config.batch_size:
        raise RecordError(
            f"Batch size {config.batch_size} is larger than the {samples} training samples in "
            f"{folder}. Lower --batch-size."
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainingLabels:
    """What a training uses of the training split, in record order.

    Args:
        labels: int64 `(records,)` in place of the recorded ones, or None for these.
        held_out: bool `(records,)`, samples to validate on, or None.
        samples, labeled: that are left to train on, and those of them with a label.
        trained: int64 `(labeled,)`, the labels that are left, where records were read for them.
    """

    labels: np.ndarray | None
    held_out: np.ndarray | None
    samples: int
    labeled: int
    trained: np.ndarray | None = None

    def count_classes(self, classes: int, heads: Heads = ()) -> tuple[int, ...] | None:
        """Labels that are left of each of so many classes, or of the heads' columns, if that is known."""
        if self.trained is None:
            return None
        if not heads:
            return tuple(map(int, np.bincount(self.trained, minlength=classes)))
        if heads[0].several:
            return tuple(map(int, self.trained.sum(axis=0)))
        counts: list[int] = []
        for number, head in enumerate(heads):
            own = self.trained[:, number]
            counts += np.bincount(own[own >= 0], minlength=len(head.classes)).tolist()
        return tuple(counts)


def choose_labels(records: Records, config: TrainConfig) -> TrainingLabels:
    """Holds videos out, and of the labels that remain drops all but `label_fraction` (§4.4).

    Records are read only where one of both is asked for, or the numbers of the classes' labels.

    Raises:
        RecordError: too few videos to hold any out.
    """
    split = records.split("train")
    counted = config.class_balance in COUNTED_BALANCES
    if config.label_fraction == 1 and config.validation_fraction == 0 and not counted:
        return TrainingLabels(labels=None, held_out=None, samples=split.records, labeled=split.labeled)
    labels, videos = records.labels_and_videos("train")
    held_out = None
    kept = np.ones(len(labels), dtype=bool)
    if config.validation_fraction > 0:
        held_out = hold_out(labels, source_videos(videos), config.validation_fraction, config.label_seed)
        kept = ~held_out
    if config.label_fraction < 1:
        labels = reduce_labels(labels, kept, config.label_fraction, config.label_seed)
    return TrainingLabels(
        labels=labels if config.label_fraction < 1 else None,
        held_out=held_out,
        samples=int(np.sum(kept)),
        labeled=int(np.sum(kept & are_labeled(labels))),
        trained=labels[kept & are_labeled(labels)],
    )


def are_labeled(labels: np.ndarray) -> np.ndarray:
    """Which records have any label: bool `(records,)`, of labels `(records,)`, or of heads `(records, n)`."""
    labeled: np.ndarray = np.any(labels.reshape(len(labels), -1) >= 0, axis=1)
    return labeled


def hold_out(labels: np.ndarray, videos: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Marks every sample of a seeded share of the videos that have labels: bool `(records,)`.

    At least one video is held out. The draw depends on the videos' names alone, not on the records' order.

    Args:
        labels: int `(records,)`, -1 where there is none.
        videos: that the records' files were cut from, str `(records,)`: clips of one video are too much
            alike to train on some and judge by the others.
        fraction: of those videos, in (0, 1).
        seed: of the draw.

    Raises:
        RecordError: no labelled video would be left to train on.
    """
    names = np.unique(videos[are_labeled(labels)])
    count = max(1, round(fraction * len(names)))
    if count >= len(names):
        raise RecordError(
            f"`validation_fraction` should leave videos to train on. Received: {fraction}, which holds out "
            f"{count} of the {len(names)} videos with labels. Lower it, or give --validation-split."
        )
    drawn = np.random.default_rng((seed, _VIDEO_DRAW)).permutation(len(names))[:count]
    return np.isin(videos, names[drawn])


def reduce_labels(labels: np.ndarray, kept: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """The labels, with all but a seeded `fraction` of those that are `kept` replaced by -1."""
    labels = labels.copy()
    labeled = np.flatnonzero(kept & are_labeled(labels))
    order = np.random.default_rng(seed).permutation(labeled)
    labels[order[round(fraction * len(labeled)) :]] = -1
    return labels


def check_same_run(before: Run, now: Run) -> None:
    """Lets a run be resumed only as it was begun, but for the number of epochs and where its teacher lies.

    The cosine schedule, whose every rate depends on the number of epochs, holds that too.

    Raises:
        RunError: other settings, records or teacher (names each).
    """
    old, new = dataclasses.asdict(before), dataclasses.asdict(now)
    settings = {name: (old["config"][name], new["config"][name]) for name in new["config"]}
    if now.config.schedule != "cosine":
        del settings["epochs"]
    same = ["role", "classes", "modality", "records_sha256", "left_out"]
    if before.teacher_sha256 is None:
        same.append("teacher")  # All that a run of an earlier version knows of it.
    fields = {name: (old[name], new[name]) for name in same}
    changed = [f"{name} {a!r} → {b!r}" for name, (a, b) in {**settings, **fields}.items() if a != b]
    if before.teacher_sha256 not in (None, now.teacher_sha256):
        changed.append(f"the weights of teacher {now.teacher}, which are not those it was begun with")
    if changed:
        raise RunError(
            f"Run {now.folder} was begun with other settings: {'; '.join(changed)}. Resume it as it was "
            f"begun, or give another --out."
        )


def resumable_run(folder: Path) -> Run | None:
    """The run begun in `folder`, or None where the folder is empty."""
    begun = any(not path.name.startswith(".") for path in folder.iterdir())
    return load_run(folder, finished=False) if begun else None


def remove_run(folder: Path) -> None:
    """Removes what an earlier training left in `folder`, and nothing else."""
    for name in (CHECKPOINTS_NAME, BEST_NAME, TENSORBOARD_NAME, TEACHER_CACHE_NAME):
        if (folder / name).is_dir():
            tf.io.gfile.rmtree(str(folder / name))
    for name in (
        METRICS_NAME,
        CURVES_NAME,
        EVALUATION_NAME,
        PREDICTIONS_NAME,
        MODEL_NAME,
        PROJECTION_NAME,
    ):
        (folder / name).unlink(missing_ok=True)


def _check_heads(config: TrainConfig, manifest: Manifest) -> None:
    """Refuses what means nothing where a clip has several labels."""
    if not any(head.several for head in manifest.heads):
        return
    default = TrainConfig()
    for name in ("class_balance", "label_smoothing"):
        if getattr(config, name) != getattr(default, name):
            raise ConfigError(
                f"Setting `{name}` is for one label a clip, and the clips of these records have several. "
                f"Received: {getattr(config, name)!r}. Leave it out."
            )


def _check_times(config: TrainConfig, manifest: Manifest, role: str) -> None:
    """Refuses what means nothing where pairs have several anticipation times."""
    if not manifest.times_s:
        return
    if role == TEACHER and config.teacher_view != FUTURE:
        raise ConfigError(
            f"Setting `teacher_view` should be {FUTURE} on records of several anticipation times: only "
            f"students have a head for each. Received: {config.teacher_view!r}."
        )
    default = TrainConfig()
    for name in ("mixup", "cutmix", "validation_split", "validation_fraction") if role == STUDENT else ():
        if getattr(config, name) != getattr(default, name):
            raise ConfigError(
                f"Setting `{name}` is for students of one anticipation time. Received: "
                f"{getattr(config, name)!r}. Leave it out."
            )


def _check_teacher(teacher: Run, records: Records) -> None:
    teacher.check_records(records.manifest, records.folder)
    if teacher.modality != records.modality:
        raise RunError(
            f"Teacher {teacher.folder} sees {teacher.modality}, the student would see "
            f"{records.modality}. Leave `modality` out, or give another teacher."
        )


def _check_validation_split(records: Records, split: str) -> None:
    if records.split(split).labeled == 0:
        raise RecordError(
            f"No sample of split {split!r} in {records.folder} has a label to validate on. Give another "
            f"--validation-split, or --validation-fraction."
        )


def _augmentation(config: TrainConfig) -> Augmentation:
    return Augmentation(
        brightness=config.jitter_brightness,
        contrast=config.jitter_contrast,
        saturation=config.jitter_saturation,
        hue=config.jitter_hue,
        observed_share=config.observed_share is not None,
    )


def _check_observed_share(config: TrainConfig, records: Records, role: str) -> None:
    """Refuses `observed_share` where records do not hold the videos, or nothing is observed."""
    if config.observed_share is None:
        return
    if role == TEACHER and config.teacher_view != OBSERVED:
        raise ConfigError(
            f"Setting `observed_share` is for networks that anticipate: for students, or beside "
            f"`teacher_view` observed. Received: {config.teacher_view!r}."
        )
    manifest = records.manifest
    whole = "observed_fraction" in manifest.options and manifest.clip.anticipation_s is None
    if not whole or manifest.features is not None:
        raise RecordError(
            f"Setting `observed_share` needs records of frames whose training pairs reach from the first "
            f"frame of a video to its last, as JHMDB's with --offset-frames do. {records.folder} has others; "
            f"leave it out."
        )


def _check_colours(config: TrainConfig, records: Records) -> None:
    """Refuses a change of colours where there are none, or not in every epoch."""
    if not _augmentation(config).changes_colours:
        return
    if records.manifest.features is not None or config.model == "frame-mlp":
        seen = "features, which are computed once"
    elif records.modality == FLOW:
        seen = "optical flow"
    else:
        return
    raise ConfigError(
        f"Settings `jitter_…` change the colours of RGB frames, and {config.model} learns from {seen}, on "
        f"{records.folder}. Leave them out."
    )


def _check_features(manifest: Manifest, folder: RecordPath, config: TrainConfig) -> None:
    """Refuses features that the network of `config` cannot learn from."""
    features = manifest.features
    assert features is not None
    if features.per == PER_FRAME:
        raise RecordError(
            f"{folder} has features in place of frames, a cache of frame-mlp. Give the record folder that it "
            f"lies in."
        )
    head = "i3d" if features.network == "i3d" else "features3d"
    if config.model in ("tsn", "frame-mlp") or (config.model == "i3d" != head):
        raise ConfigError(
            f"Setting `model` should be {head} on {folder}, which has features of {features.network}. "
            f"Received: {config.model!r}."
        )
    if config.model == "i3d":
        _check_head(features, config)
    side = features.map_side(manifest.short_side if features.crop is None else features.crop)
    if features.map_side(config.crop) > side:
        raise ConfigError(
            f"Setting `crop` should be at most {features.stride * side} on {folder}, whose maps have {side} "
            f"positions on the shorter side. Received: {config.crop}."
        )


def _check_head(features: FeatureInfo, config: TrainConfig) -> None:
    later = ENDPOINTS[ENDPOINTS.index(ENDPOINT) + 1 :]
    if config.endpoint not in later:
        raise ConfigError(
            f"Setting `endpoint` should be one of {', '.join(later)}, after the features. Received: "
            f"{config.endpoint!r}."
        )
    if features.shape[-1] != endpoint_channels(ENDPOINT, config.width):
        raise ConfigError(
            f"Setting `width` should be that of the features' I3D, {features.width}, whose maps have "
            f"{features.shape[-1]} channels. Received: {config.width}."
        )

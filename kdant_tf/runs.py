"""The run folder: what a training leaves behind, and how later commands find it. No TensorFlow here.

`Run` is config.json: what was trained, on which records, with which settings and versions. metrics.csv has a
row an epoch, evaluation.json what `kdant evaluate` found.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdant_tf.archive import local_run
from kdant_tf.config import DEFAULT_EXECUTION, TEACHER, Execution, TrainConfig, config_from_dict
from kdant_tf.settings import settings_of
from kdant_tf.version import __version__, unreadable_advice
from tf_records.errors import KdantError, RunError
from tf_records.files import hash_file, json_text, parse_json_text, write_text_atomically
from tf_records.heads import Heads, are_times, describe_heads, heads_from
from tf_records.manifest import MANIFEST_NAME, Manifest
from tf_records.remote_path import RecordPath, record_path
from tf_records.schema import OBSERVED, PER_CLIP, ClipSpec, FeatureInfo, FlowInfo

CONFIG_NAME = "config.json"
MODEL_NAME = "model.keras"
PROJECTION_NAME = "projection.keras"
METRICS_NAME = "metrics.csv"
CURVES_NAME = "curves.png"
EVALUATION_NAME = "evaluation.json"
PREDICTIONS_NAME = "predictions.npz"
CHECKPOINTS_NAME = "checkpoints"
BEST_NAME = "best"
TENSORBOARD_NAME = "tensorboard"
TEACHER_CACHE_NAME = "teacher-cache"
# In a version that `kdant export` wrote, which has a config.json too.
EXPORT_NAME = "saved_model.pb"
METRICS = ("learning_rate", "loss", "classification_loss", "feature_loss", "accuracy")
# Columns more, with a feature loss: see `kdant_tf.losses.pooling_health`.
HEALTH_METRICS = ("pooling_entropy", "map_variation")
# Columns more, where an epoch is validated.
VALIDATION_METRICS = ("validation_loss", "validation_accuracy", "validation_mean_class_accuracy")
# With several labels a clip, which has no one accuracy; the two above are then this too.
VALIDATION_PRECISION = "validation_mean_average_precision"
_PACKAGES = ("tensorflow", "keras", "numpy", "av")
_CHECKOUT = Path(__file__).resolve().parents[1]
_GIT_SECONDS = 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What config.json says of a run.

    Args:
        folder: of the run.
        role: "teacher" or "student".
        config: resolved settings.
        classes: class names in index order.
        clip: length and offset of the clips it was trained on.
        modality: of the clips it sees, "rgb" or "flow".
        short_side: pixels, of the frames it was trained on.
        records_sha256: of the manifest of the records it was trained on.
        teacher: folder of the teacher, for students: where it lay last.
        teacher_sha256: of its weights, which say who it is; None in runs of before it was noted.
        features: that it was trained on in place of frames.
        left_out: damaged shards of these records that it was trained without.
        dataset: that the records are of; None in older runs.
        fps: frames per second of these clips; None where the records have several rates, and in
            older runs.
        flow: how the flow in its clips was computed; None without flow, and in older runs.
        execution: how it ran, or ran last.
        network_sha256: of the weights that its training ended with, see `weights_sha256`; None until it ends,
            and in older runs.
        heads: of its network, whose columns `classes` are, where it has several or several labels a clip;
            see `tf_records.heads`.
        stem: that makes the features which it was trained on, while it is used on frames; see `on_frames`.
    """

    folder: Path
    role: str
    config: TrainConfig
    classes: tuple[str, ...]
    clip: ClipSpec
    modality: str
    short_side: int
    records_sha256: str
    teacher: str | None = None
    teacher_sha256: str | None = None
    features: FeatureInfo | None = None
    left_out: tuple[str, ...] = ()
    dataset: str | None = None
    fps: float | None = None
    flow: FlowInfo | None = None
    execution: Execution = DEFAULT_EXECUTION
    network_sha256: str | None = None
    heads: Heads = ()
    stem: FeatureInfo | None = None

    @property
    def model_path(self) -> Path:
        return self.folder / MODEL_NAME

    @property
    def crop(self) -> int | None:
        """Pixels of the central square of a frame that is seen; None for whole frames."""
        return self.config.crop if self.stem is None else self.stem.crop

    @property
    def has_other_network(self) -> bool:
        """Whether model.keras is known to be another network than the training of this folder ended with."""
        known, model = self.network_sha256, self.model_path
        return known is not None and model.is_file() and weights_sha256(model) != known

    @property
    def anticipates(self) -> bool:
        """Whether it was trained to name what comes, not what it sees."""
        return self.role != TEACHER or self.config.teacher_view == OBSERVED

    @property
    def offset_s(self) -> float | None:
        """Seconds from the first frame of a clip to the first frame of what is named; None without `fps`."""
        if not self.anticipates:
            return 0.0
        return None if self.fps is None else self.clip.offset_at(self.fps) / self.fps

    def to_json(self) -> str:
        """All fields but folder and stem, with what it was made with: versions, commit, command."""
        unused = {"folder", "stem"} if self.heads else {"folder", "heads", "stem"}
        fields = {name: value for name, value in dataclasses.asdict(self).items() if name not in unused}
        return json_text({**fields, **describe_provenance()}, indent=1) + "\n"

    def save(self) -> None:
        """Writes config.json."""
        write_text_atomically(self.folder / CONFIG_NAME, self.to_json())

    def on_frames(self) -> Run:
        """The same run with the stem of its features in front of its network, so that it sees frames.

        A run on frames, or on features of each frame whose network is not known, stays as it is.
        """
        if self.features is None or self.features.per != PER_CLIP:
            return self
        return dataclasses.replace(self, features=None, stem=self.features)

    def differences(self, manifest: Manifest, *, offset: bool = True) -> tuple[str, ...]:
        """In what network and records differ from the training's so that accuracies do not compare, in words.

        What is not known of the run or of the records is passed over.

        Args:
            manifest: of the records.
            offset: compare the offsets too, where the run anticipates.
        """
        found = [f"its {MODEL_NAME} is not the network that its training left"] * self.has_other_network
        own, given = (
            clip.distance if manifest.fps is None else clip.offset_at(manifest.fps)
            for clip in (self.clip, manifest.clip)
        )
        if offset and self.anticipates and own != given:
            found.append(f"their clips have {manifest.clip.distance}, the run's {self.clip.distance}")
        if self.fps is not None and manifest.fps is not None and self.fps != manifest.fps:
            found.append(f"they have {manifest.fps:g} frames per second, the run's {self.fps:g}")
        if self.flow is not None and manifest.flow is not None and not self.flow.fits(manifest.flow):
            found.append(f"they have flow of {manifest.flow}, the run's {self.flow}")
        return tuple(found)

    def check_records(self, manifest: Manifest, folder: RecordPath, *, insist: bool = False) -> None:
        """Refuses records that this run's network cannot be used on, or not with comparable numbers.

        Args:
            insist: take flow of another algorithm or bound.

        Raises:
            RunError: other classes, clip length, modality or frame size, flow of another algorithm or
                bound, frames for features, or features of another stem (says both).
        """
        if are_times(self.heads):
            self._check_times(manifest, folder)
        elif manifest.heads != self.heads:
            heads, others = _describe_heads(self.heads), _describe_heads(manifest.heads)
            raise RunError(
                f"Run {self.folder} has {heads}, records {folder} have labels for {others}"
                f"{', of other names' if heads == others else ''}. Use records "
                f"with the run's heads, or train another run."
            )
        classes = self.heads[0].classes if are_times(self.heads) else self.classes
        if manifest.classes != classes:
            raise RunError(
                f"Run {self.folder} knows other classes than records {folder}. It knows: "
                f"{', '.join(classes)}. Received: {', '.join(manifest.classes)}. Use the records it "
                f"was trained on, or train another run."
            )
        if self.modality not in manifest.modalities:
            raise RunError(
                f"Run {self.folder} wants modality {self.modality}, records {folder} have modality "
                f"{manifest.modality}. Build records that fit."
            )
        for what, own, other in (
            ("clips of {} frames", self.clip.clip_frames, manifest.clip.clip_frames),
            ("frames with a short side of {} pixels", self.short_side, manifest.short_side),
        ):
            if own != other:
                raise RunError(
                    f"Run {self.folder} wants {what.format(own)}, records {folder} have "
                    f"{what.format(other)}. Build records that fit."
                )
        if not insist:
            self._check_flow(manifest.flow, folder)
        self._check_features(manifest.features, folder)

    def _check_times(self, manifest: Manifest, folder: RecordPath) -> None:
        if manifest.heads:
            raise RunError(
                f"Run {self.folder} names one class at several times, records {folder} have labels for the "
                f"heads {describe_heads(manifest.heads)}. Use the records it was trained on."
            )

    def _check_flow(self, given: FlowInfo | None, folder: RecordPath) -> None:
        if self.flow is not None and given is not None and not self.flow.fits(given):
            raise RunError(
                f"Run {self.folder} was trained on flow of {self.flow}; records {folder} have {given}. "
                f"Build records with the run's --flow-algorithm and --flow-bound."
            )

    def _check_features(self, given: FeatureInfo | None, folder: RecordPath) -> None:
        own = self.features
        if own is None and given is not None:
            raise RunError(
                f"Run {self.folder} sees frames, records {folder} have features: {given.words}. Use the "
                f"records of frames that they were made of."
            )
        if own is not None and given is None:
            raise RunError(
                f"Run {self.folder} sees features, {own.words}, records {folder} have frames. Make features "
                f"of them first: kdant extract-features {folder} --init {own.source}{own.stem_options}."
            )
        if own is not None and given is not None and not own.fits(given):
            other = ", other weights" if own.weights_sha256 != given.weights_sha256 else ""
            raise RunError(
                f"Run {self.folder} sees features, {own.words}, records {folder} have {given.words}{other}. "
                f"Use features of the same stem."
            )


def _describe_heads(heads: Heads) -> str:
    return f"the heads {describe_heads(heads)}" if heads else "one head"


def load_run(folder: str | os.PathLike[str], *, finished: bool = True) -> Run:
    """Reads a run folder's config.json.

    Args:
        folder: of the run, or the address of an archive of it, see `kdant_tf.archive.local_run`.
        finished: insist on a trained model as well.

    Raises:
        RunError: no such folder, no or an unreadable config.json, or no model.

    Example:
        run = load_run("runs/student")
        run.config.feature_loss, run.classes
    """
    path = local_run(folder)
    if not path.is_dir():
        raise RunError(f"Run folder {path} does not exist. Train one: kdant train-teacher or kdant distill.")
    if not (path / CONFIG_NAME).is_file():
        raise RunError(
            f"Folder {path} has no {CONFIG_NAME}, so it is no run folder. Give the --out of a training."
        )
    try:
        run = run_from(path, parse_json_text((path / CONFIG_NAME).read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError, KdantError) as error:
        version = _version_of(path / CONFIG_NAME)
        advice = unreadable_advice(version, "Train the run again.")
        # What a newer one wrote is not damaged: its new names say nothing to the reader.
        reason = "" if "update" in advice else f": {str(error).rstrip('.')}"
        raise RunError(f"{path / CONFIG_NAME} cannot be read{reason}. {advice}") from error
    if finished and not run.model_path.is_file():
        raise RunError(
            f"Run folder {path} has no {MODEL_NAME}: its training has not finished. "
            f"Finish it: add --resume to the command that began it."
        )
    return run


def _version_of(path: Path) -> object:
    """The kdant that wrote a config.json, None where it does not say."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["versions"]["kdant"]
    except (ValueError, KeyError, TypeError):
        return None


def run_from(folder: Path, fields: Mapping[str, Any]) -> Run:
    """The run that a config.json describes."""
    fields = {name: value for name, value in fields.items() if name not in ("git", "command", "versions")}
    features = fields.get("features")
    return Run(
        **{
            **fields,
            "folder": folder,
            "config": config_from_dict(fields["config"]),
            "classes": tuple(fields["classes"]),
            "clip": ClipSpec(**fields["clip"]),
            "features": None if features is None else FeatureInfo.from_dict(features),
            "flow": flow_from(fields.get("flow")),
            "left_out": tuple(fields.get("left_out", ())),
            "execution": Execution(**fields.get("execution", {})),
            "heads": heads_from(fields.get("heads")),
        }
    )


def flow_from(fields: dict[str, Any] | None) -> FlowInfo | None:
    """What a config.json says of flow, None where it says nothing."""
    return None if fields is None else FlowInfo(**fields)


def inherited_settings(teacher: Run) -> dict[str, Any]:
    """What a student takes over from its teacher unless told otherwise."""
    names = [name for name, info in settings_of(TrainConfig).items() if info.inherited]
    return {**{name: getattr(teacher.config, name) for name in names}, "modality": teacher.modality}


def weights_sha256(model: str | Path) -> str:
    """Identifies a network by its weights, whenever and however often it was saved.

    Args:
        model: file that Keras saved; of any other the whole file is hashed.
    """
    path = Path(model)
    status = path.stat()
    return _hash_weights(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache
def _hash_weights(path: Path, mtime_ns: int, size: int) -> str:
    """Of a file of this date and size, which tell whether it was hashed before."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except (zipfile.BadZipFile, KeyError):
        return hash_file(path)
    return digest.hexdigest()


def manifest_sha256(records: str | RecordPath) -> str:
    """Identifies a record folder by its manifest's bytes."""
    return hashlib.sha256((record_path(records) / MANIFEST_NAME).read_bytes()).hexdigest()


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """Rows of a metrics.csv, one an epoch; empty where there is no file.

    Epochs of before HEALTH_METRICS were measured, of a run that an earlier version began, lack these.

    Raises:
        RunError: the file cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file, strict=True)
            if missing := {"epoch", *METRICS} - set(rows.fieldnames or ()):
                raise ValueError(f"it has no column {min(missing)}")
            return [
                {
                    name: int(value) if name == "epoch" else float(value)
                    for name, value in row.items()
                    if value != "" or name not in HEALTH_METRICS
                }
                for row in rows
            ]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise RunError(f"{path} cannot be read: {error}. Train the run again with --overwrite.") from error


def best_epoch(rows: Sequence[Mapping[str, float]]) -> int | None:
    """The epoch, counted from 1, of the highest validation accuracy; ties: lower loss, then the earlier.

    None where nothing was validated, or no epoch's network gave numbers.
    """
    validated = [
        row
        for row in rows
        if not any(math.isnan(row.get(name, math.nan)) for name in ("validation_accuracy", "validation_loss"))
    ]
    if not validated:
        return None
    best = min(validated, key=lambda row: (-row["validation_accuracy"], row["validation_loss"], row["epoch"]))
    return int(best["epoch"])


def result_name(run: Run, what: str, split: str, records_sha256: str) -> str:
    """Under which a run's results are kept, such as "observed", "observed, val" or "share, records 1a2b3c4d".

    Args:
        run: that was evaluated.
        what: the view, with "fused" where streams were added, or the curve.
        split: named where it is not the test split.
        records_sha256: of the records' manifest; named where they are not those of the training.
    """
    other = bool(records_sha256) and records_sha256 != run.records_sha256
    return ", ".join(
        [what, *([] if split == "test" else [split]), *([f"records {records_sha256[:8]}"] if other else [])]
    )


def read_evaluation(folder: str | Path) -> dict[str, dict[str, Any]]:
    """What a run's evaluation.json has, by `result_name`; empty where the run was not evaluated.

    Raises:
        RunError: it cannot be read.
    """
    path = Path(folder) / EVALUATION_NAME
    if not path.is_file():
        return {}
    try:
        results = parse_json_text(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}. Delete it and evaluate again.") from error
    if not all(isinstance(result, dict) for result in results.values()):
        raise RunError(f"{path} cannot be read: it holds no results. Delete it and evaluate again.")
    return results


@contextlib.contextmanager
def changing_results(folder: Path) -> Iterator[None]:
    """Lets others that change a run's evaluation.json or predictions.npz wait until the block has ended."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # Some network drives lock no folders.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def record_evaluation(run: Run, name: str, result: dict[str, Any]) -> None:
    """Adds `result` to the run's evaluation.json, with the network it was made with; see `result_name`."""
    if "weights_sha256" not in result and run.model_path.is_file():
        result = {**result, "weights_sha256": weights_sha256(run.model_path)}
    with changing_results(run.folder):
        results = {**read_evaluation(run.folder), name: result}
        write_text_atomically(run.folder / EVALUATION_NAME, json_text(results, indent=1) + "\n")


def stale_results(folder: str | Path) -> tuple[str, ...]:
    """Names of a run's results that are not of its network, because it was trained further since.

    Older versions of kdant did not note the network; what was written before it counts as stale.

    Raises:
        RunError: evaluation.json cannot be read.
    """
    results, model = read_evaluation(folder), Path(folder) / MODEL_NAME
    if not results or not model.is_file():
        return ()
    network = weights_sha256(model)
    older = (Path(folder) / EVALUATION_NAME).stat().st_mtime_ns < model.stat().st_mtime_ns
    return tuple(
        name
        for name, result in results.items()
        if (_is_of_other_weights(result, network) if "weights_sha256" in result else older)
    )


def _is_of_other_weights(result: Mapping[str, Any], network: str) -> bool:
    """Of fused streams one such network is enough; those that do not lie there any more are passed over."""
    fusion = result.get("fusion", {})
    streams = zip(fusion.get("runs", ()), fusion.get("weights_sha256", ()), strict=False)
    return result["weights_sha256"] != network or any(
        weights_sha256(model) != digest
        for run, digest in streams
        if (model := Path(run) / MODEL_NAME).is_file()
    )


def describe_provenance() -> dict[str, Any]:
    """For config.json: "versions", "git" and "command"."""
    return {
        "versions": _versions(),
        "git": describe_checkout(_CHECKOUT),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def describe_checkout(folder: str | Path) -> dict[str, Any] | None:
    """The commit of a git checkout, and whether its files differ from it; None of any other folder.

    A folder within a checkout, such as an environment with kdant installed, is none itself.
    """
    folder = Path(folder)
    if not (folder / ".git").exists():
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain")
    return None if commit is None or changes is None else {"commit": commit, "dirty": changes != ""}


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says, or None where it is not installed or fails."""
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_GIT_SECONDS)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _versions() -> dict[str, str]:
    installed = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"kdant": __version__, "python": platform.python_version(), **installed}

"""What a study is: the runs to train, and the table that their results make. No TensorFlow here."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kdant_tf.config import STUDENT, TrainConfig
from tf_records.remote_path import RecordPath
from tf_records.schema import OBSERVED


class Place(NamedTuple):
    """Where each network of a study is trained once."""

    split: str
    seed: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One split's records, and the seeds to train with on them.

    Args:
        split: its name, such as "1".
        records: stream ("rgb" or "flow") → record folder.
        seeds: each int >= 0.
        frames: the same samples as frames, where `records` are of features.
    """

    split: str
    records: Mapping[str, RecordPath]
    seeds: tuple[int, ...]
    frames: RecordPath | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What is trained at every place, once a stream.

    Args:
        name: ends the names of its runs.
        role: "teacher" or "student".
        settings: of TrainConfig, above preset, scale and configuration file.
        teacher: name of the network that a student learns from.
        views: of the test split to evaluate on, "future" or "observed"; none leaves it unseen.
        preset: for this network, where the user gives none; None is the study's.
        frames: sees records of frames, where a study's others are of features.
    """

    name: str
    role: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    teacher: str | None = None
    views: tuple[str, ...] = (OBSERVED,)
    preset: str | None = None
    frames: bool = False

    @property
    def table(self) -> str:
        """Of a preset; what anticipates is trained with a student's settings, also from labels alone."""
        return STUDENT if self.settings.get("teacher_view") == OBSERVED else self.role


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """One training and its evaluation, in the run folder `runs/NAME` of the study.

    Args:
        name: of its run folder, see `run_name`.
        role: "teacher" or "student".
        config: all settings.
        records: to train and evaluate on.
        teacher: name of the run that a student learns from; it comes earlier in the study.
        views: of the test split to evaluate on.
    """

    name: str
    role: str
    config: TrainConfig
    records: RecordPath
    teacher: str | None
    views: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the table.

    Args:
        name: by which `--rows` chooses it.
        title: in the table.
        network: whose predictions it is about; None for a row that only the literature has.
        view: that the predictions are of.
        reference: name of the row that it is compared with, sample by sample.
        published: column → accuracy that the paper prints, a fraction.
        published_difference: column → the paper's difference from `reference`, where it prints that alone.
    """

    name: str
    title: str
    network: str | None = None
    view: str = OBSERVED
    reference: str | None = None
    published: Mapping[str, float] = dataclasses.field(default_factory=dict)
    published_difference: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of the paper's table: top-k accuracy of the summed logits of one or more streams."""

    name: str
    streams: tuple[str, ...]
    k: int = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Runs in the order they are trained in, and the table that they make, where it is one of the paper's.

    Args:
        name: such as "table1".
        title: of the table.
        scale: in words, written on every output.
        runs: a student's teacher before the student.
        source: of the published figures.
        places: that the table averages over.
        rows, columns: of the table.
        draw_seeds: intervals of differences are over seeds too, not over videos alone.
    """

    name: str
    title: str
    scale: str
    runs: tuple[RunSpec, ...]
    source: str = ""
    places: tuple[Place, ...] = ()
    rows: tuple[Row, ...] = ()
    columns: tuple[Column, ...] = ()
    draw_seeds: bool = False


def run_name(stream: str, place: Place, network: str) -> str:
    """Such as "rgb-split1-seed0-direct"; a split that is no number has its own name in full."""
    split = f"split{place.split}" if place.split.isdecimal() else place.split
    return f"{stream}-{split}-seed{place.seed}-{network}"


def run_folder(study_folder: Path, name: str) -> Path:
    """Of a study's run."""
    return study_folder / "runs" / name

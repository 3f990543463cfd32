"""From networks and records to the runs of a study. No TensorFlow here."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kdant_tf.config import STUDENT, TrainConfig, resolve_config
from tf_records.errors import KdantError
from tf_records.manifest import load_manifest
from tf_records.remote_path import RecordPath
from tf_records.schema import OBSERVED

# Sizes that a study can be made in, and the words for them. No TensorFlow here.


PAPER = "paper"
TINY = "tiny"
# "small" has the size of the preset jhmdb-small, for two CPU cores; "tiny" only shows that everything works.
SCALES: Mapping[str, Mapping[str, Any]] = types.MappingProxyType(
    {
        PAPER: {},
        "small": {"crop": 112, "width": 0.25, "epochs": 40, "decay_epochs": (30,), "batch_size": 8},
        TINY: {
            "crop": 32,
            "width": 0.0625,
            "epochs": 1,
            "decay_epochs": (),
            "batch_size": 2,
            "windows": 1,
            "batch_norm_momentum": 0.5,
        },
    }
)
_OF_STEM = ("crop", "width")


def scale_settings(scale: str, config: TrainConfig, *, features: bool) -> dict[str, Any]:
    """The settings that a scale changes.

    Pretrained I3D weights fit the full width only, so a narrower I3D begins at random; and so does
    everything of scale "tiny", which is to need no download. Records of features bind crop and width,
    which are their stem's.

    Args:
        scale: a key of SCALES.
        config: without the scale.
        features: whether the records hold features in place of frames.
    """
    settings = dict(SCALES[scale])
    if features:
        return {name: value for name, value in settings.items() if name not in _OF_STEM}
    if scale == TINY or (settings.get("width", 1.0) != 1.0 and config.model == "i3d"):
        settings["init"] = "random"
    return settings


def describe_scale(scale: str, configs: Sequence[TrainConfig]) -> str:
    """Such as "small (crop 112, width 0.25, 40 epochs)": the name, and what the runs really have."""
    crops, widths, epochs = (
        " or ".join(f"{value:g}" for value in dict.fromkeys(getattr(config, name) for config in configs))
        for name in ("crop", "width", "epochs")
    )
    return f"{scale} (crop {crops}, width {widths}, {epochs} epochs)"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """Where a study's settings come from: preset < scale < configuration file < the network's own.

    Args:
        preset: that the user asks for; None is the network's, or else `presets[stream]`.
        presets: stream → the study's own preset.
        scale: a key of SCALES.
        file: TOML file of the user.
        label_fraction: share of the training labels to use.
    """

    preset: str | None = None
    presets: Mapping[str, str] = dataclasses.field(default_factory=dict)
    scale: str = PAPER
    file: Path | None = None
    label_fraction: float = 1.0

    def config_of(self, network: Network, stream: str, seed: int, *, features: bool) -> TrainConfig:
        """All settings of a run. Each seed also draws its own labels, where only a share of them is used.

        Raises:
            ConfigError: settings that cannot be.
        """
        preset = self.preset or network.preset or self.presets.get(stream)
        own = {
            "modality": stream,
            "seed": seed,
            "label_seed": seed,
            **({} if self.label_fraction == 1 else {"label_fraction": self.label_fraction}),
            **network.settings,
        }
        bare = resolve_config(network.table, preset=preset, options=own)
        scaled = dataclasses.asdict(bare) | scale_settings(self.scale, bare, features=features)
        return resolve_config(network.table, inherited=scaled, file=self.file, options=own)

    def describe(self, runs: Sequence[RunSpec]) -> str:
        """The scale in words, such as "small (crop 112, width 0.25, 40 epochs)"."""
        parts = [
            self._describe_name(),
            *([] if self.file is None else [f"with {self.file.name}"]),
            *([] if self.label_fraction == 1 else [f"{100 * self.label_fraction:g} % of the labels"]),
        ]
        return describe_scale(", ".join(parts), [run.config for run in runs])

    def _describe_name(self) -> str:
        if self.preset is None:
            return self.scale
        return f"preset {self.preset}" if self.scale == PAPER else f"{self.scale} of preset {self.preset}"


def plan_runs(networks: Sequence[Network], sources: Sequence[Source], base: Base) -> tuple[RunSpec, ...]:
    """Every network at every place, once a stream; seed by seed, so that what is finished can be compared.

    Raises:
        KdantError: records that cannot be read, or settings that cannot be.
    """
    return tuple(
        _spec(network, place, stream, source, base)
        for place, source in _places(sources)
        for stream in source.records
        for network in networks
    )


def places_of(sources: Sequence[Source]) -> tuple[Place, ...]:
    """All places, first seeds first."""
    return tuple(place for place, _ in _places(sources))


def _places(sources: Sequence[Source]) -> Iterator[tuple[Place, Source]]:
    for number in range(max(len(source.seeds) for source in sources)):
        for source in sources:
            if number < len(source.seeds):
                yield Place(source.split, source.seeds[number]), source


def _spec(network: Network, place: Place, stream: str, source: Source, base: Base) -> RunSpec:
    records = source.records[stream]
    if network.frames and source.frames is not None:
        records = source.frames
    features = load_manifest(records).features is not None
    return RunSpec(
        name=run_name(stream, place, network.name),
        role=network.role,
        config=base.config_of(network, stream, place.seed, features=features),
        records=records,
        teacher=None if network.teacher is None else run_name(stream, place, network.teacher),
        views=network.views,
    )


def read_sources(
    records: Sequence[RecordPath],
    flow_records: Sequence[RecordPath] = (),
    *,
    seeds: Sequence[tuple[int, ...]],
    splits: Sequence[str] = (),
    streams: Sequence[str] = ("rgb", "flow"),
) -> tuple[Source, ...]:
    """Sorts record folders by split and stream.

    A folder's split is the one of JHMDB that its manifest names, else its position among the folders.

    Args:
        records: one folder a split, of RGB, flow or both.
        flow_records: one folder a split, of flow.
        seeds: for each of `records`, or once for all of them.
        splits: to keep; empty for all.
        streams: to keep.

    Raises:
        KdantError: folders that cannot be read, or do not fit together (says how).
    """
    if len(seeds) not in (1, len(records)):
        raise KdantError(
            f"--seeds should be given once, or once for each --records. Received: {len(seeds)} for "
            f"{len(records)} record folders."
        )
    found: dict[str, dict[str, RecordPath]] = {}
    seeds_of = {}
    for number, folder in enumerate(records):
        split = _split_name(folder, number)
        if split in found:
            raise KdantError(f"Two of --records are of split {split}. Give one folder for each split.")
        found[split] = {stream: folder for stream in load_manifest(folder).modalities if stream in streams}
        seeds_of[split] = seeds[number % len(seeds)]
    for number, folder in enumerate(flow_records):
        split = _split_name(folder, number)
        _add_flow(found, split, folder)
    kept = _keep_splits(found, splits)
    return tuple(Source(split=split, records=kept[split], seeds=seeds_of[split]) for split in kept)


def _split_name(folder: RecordPath, number: int) -> str:
    return str(load_manifest(folder).options.get("split", number + 1))


def _add_flow(found: dict[str, dict[str, RecordPath]], split: str, folder: RecordPath) -> None:
    if split not in found:
        raise KdantError(
            f"--flow-records {folder} is of split {split}, of which there is no --records. Give both of each "
            f"split."
        )
    if "flow" not in load_manifest(folder).modalities:
        raise KdantError(
            f"--flow-records {folder} holds no optical flow. Build it: kdant build-records … --modality flow."
        )
    found[split]["flow"] = folder


def _keep_splits(
    found: dict[str, dict[str, RecordPath]], splits: Sequence[str]
) -> dict[str, dict[str, RecordPath]]:
    if missing := [split for split in splits if split not in found]:
        raise KdantError(
            f"There are no records of split {', '.join(missing)}. Received records of {', '.join(found)}. "
            f"Build the others, and give each folder with --records."
        )
    kept = {split: streams for split, streams in found.items() if not splits or split in splits}
    if len({tuple(streams) for streams in kept.values()}) > 1 or not all(kept.values()):
        listed = "; ".join(f"{split}: {', '.join(streams) or 'nothing'}" for split, streams in kept.items())
        raise KdantError(f"Every split should have the same streams. Received: {listed}.")
    return kept


# What a study is: the runs to train, and the table that their results make. No TensorFlow here.


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


# Which rows of a table are wanted. No TensorFlow here.


def choose_rows(rows: Sequence[Row], names: Sequence[str]) -> tuple[Row, ...]:
    """The rows of these names, in the table's order; all of them where no name is given.

    Raises:
        KdantError: a name that no row has (says which there are).
    """
    known = [row.name for row in rows]
    if unknown := [name for name in names if name not in known]:
        raise KdantError(f"There is no row {unknown[0]!r} in this table. Rows: {', '.join(known)}.")
    return tuple(row for row in rows if not names or row.name in names)

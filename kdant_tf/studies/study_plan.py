"""A study: the runs to train, with their settings and records, and the table that their results make.

A table of the paper (`paper_tables`), the drift study (`drift`) and the sweep (`sweep`) say which networks
and rows they have; `plan_runs` makes runs of them, `read_sources` sorts the records by split and stream.
No TensorFlow here.
"""

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

PAPER = "paper"
TINY = "tiny"
# Sizes that a study can be made in, and the settings that they change. "small" has the size of the preset
# jhmdb-small, for two CPU cores; "tiny" only shows that everything works.
SCALES: Mapping[str, Mapping[str, Any]] = types.MappingProxyType(
    {
        PAPER: {},
        "small": {"crop": 112, "width": 0.25, "epochs": 40, "decay_epochs": (30,), "batch_size": 8},
        TINY: {
            "crop": 32,
            "width": 0.0625,
            "epochs": 1,
            "decay_epochs": (),
            "warmup_epochs": 0,
            "batch_size": 2,
            "windows": 1,
            "batch_norm_momentum": 0.5,
        },
    }
)
# Of the stem; records of features are made with one stem, and fit no other.
_STEM_SETTINGS = ("crop", "width")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Runs in the order they are trained in, and the table that they make, where it is one of the paper's.

    Args:
        name: such as "table1".
        title: of the table.
        scale: in words, written on every output.
        runs: a student's teacher before the student.
        source: of the published figures; "" without any.
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
    rows: tuple[TableRow, ...] = ()
    columns: tuple[TableColumn, ...] = ()
    draw_seeds: bool = False


class Place(NamedTuple):
    """Where each network of a study is trained once."""

    split: str
    seed: int


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
class TableRow:
    """A row of a study's table.

    Args:
        name: by which `--rows` chooses it.
        title: in the table.
        network: whose predictions it is about; None for a row that only the literature has.
        view: that the predictions are of.
        reference: name of the row that it is compared with, sample by sample.
        published: column → accuracy that the paper prints, a share of 1.
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
class TableColumn:
    """A column of a study's table: top-k accuracy of the summed logits of one or more streams."""

    name: str
    streams: tuple[str, ...]
    k: int = 1


def run_name(stream: str, place: Place, network: str) -> str:
    """Such as "rgb-split1-seed0-direct"; a split that is no number has its own name in full."""
    split = f"split{place.split}" if place.split.isdecimal() else place.split
    return f"{stream}-{split}-seed{place.seed}-{network}"


def run_folder(study_folder: Path, name: str) -> Path:
    """Of a study's run."""
    return study_folder / "runs" / name


def choose_rows(rows: Sequence[TableRow], names: Sequence[str]) -> tuple[TableRow, ...]:
    """The rows of these names, in the table's order; all of them where no name is given.

    Raises:
        KdantError: a name that no row has (says which there are).
    """
    known = [row.name for row in rows]
    if unknown := [name for name in names if name not in known]:
        raise KdantError(f"There is no row {unknown[0]!r} in this table. Rows: {', '.join(known)}.")
    return tuple(row for row in rows if not names or row.name in names)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What is trained at every place, once a stream.

    Args:
        name: ends the names of its runs.
        role: "teacher" or "student".
        settings: of TrainConfig, above preset, scale and configuration file.
        teacher: name of the network that a student learns from.
        views: of the test split to evaluate on, "future" or "observed"; () evaluates on none.
        preset: for this network, where the user gives none; None is the study's.
        frames: it takes records of frames, where a study's others take features.
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


def choose_networks(networks: Sequence[Network], rows: Sequence[TableRow]) -> list[Network]:
    """The networks that the rows are about, and the teachers that these learn from."""
    wanted = {row.network for row in rows}
    wanted |= {network.teacher for network in networks if network.name in wanted}
    return [network for network in networks if network.name in wanted]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RecordSource:
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
class StudySettings:
    """The settings of a study's runs: preset < scale < configuration file < the network's own.

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

    def resolve(self, network: Network, stream: str, seed: int, *, features: bool) -> TrainConfig:
        """All settings of a run. Each seed also draws its own labels, where only a share of them is used.

        Args:
            network: to be trained.
            stream: "rgb" or "flow".
            seed: of the run.
            features: whether its records hold features in place of frames.

        Raises:
            ConfigError: invalid settings.
        """
        own = {
            "modality": stream,
            "seed": seed,
            "label_seed": seed,
            **({} if self.label_fraction == 1 else {"label_fraction": self.label_fraction}),
            **network.settings,
        }
        preset = self.preset or network.preset or self.presets.get(stream)
        unscaled = resolve_config(network.table, preset=preset, options=own)
        scaled = dataclasses.asdict(unscaled) | self._scale_settings(unscaled, features=features)
        return resolve_config(network.table, inherited=scaled, file=self.file, options=own)

    def _scale_settings(self, config: TrainConfig, *, features: bool) -> dict[str, Any]:
        """The settings that the scale changes.

        Pretrained I3D weights fit the full width only, so a narrower I3D begins at random; and so does
        everything of scale "tiny", which is to need no download.
        """
        settings = dict(SCALES[self.scale])
        if features:
            return {name: value for name, value in settings.items() if name not in _STEM_SETTINGS}
        if self.scale == TINY or (settings.get("width", 1.0) != 1.0 and config.model == "i3d"):
            settings["init"] = "random"
        return settings

    def describe(self, runs: Sequence[RunSpec]) -> str:
        """The scale in words, such as "small (crop 112, width 0.25, 40 epochs)"."""
        scale = self.scale
        if self.preset is not None:
            scale = f"preset {self.preset}" if scale == PAPER else f"{scale} of preset {self.preset}"
        parts = [
            scale,
            *([] if self.file is None else [f"with {self.file.name}"]),
            *([] if self.label_fraction == 1 else [f"{100 * self.label_fraction:g} % of the labels"]),
        ]
        return describe_scale(", ".join(parts), runs)


def describe_scale(name: str, runs: Sequence[RunSpec]) -> str:
    """Such as "small (crop 112, width 0.25, 40 epochs)": `name`, and the sizes that the runs have."""
    crops, widths, epochs = (
        " or ".join(f"{value:g}" for value in dict.fromkeys(getattr(run.config, field) for run in runs))
        for field in ("crop", "width", "epochs")
    )
    return f"{name} (crop {crops}, width {widths}, {epochs} epochs)"


def plan_runs(
    networks: Sequence[Network], sources: Sequence[RecordSource], settings: StudySettings
) -> tuple[RunSpec, ...]:
    """Every network at every place, once a stream; seed by seed, so that what is finished can be compared.

    Raises:
        KdantError: records that cannot be read, or invalid settings.
    """
    return tuple(
        _plan_run(network, place, stream, source, settings)
        for place, source in _sources_by_place(sources)
        for stream in source.records
        for network in networks
    )


def places_of(sources: Sequence[RecordSource]) -> tuple[Place, ...]:
    """All places, first seeds first."""
    return tuple(place for place, _ in _sources_by_place(sources))


def _sources_by_place(sources: Sequence[RecordSource]) -> Iterator[tuple[Place, RecordSource]]:
    for number in range(max(len(source.seeds) for source in sources)):
        for source in sources:
            if number < len(source.seeds):
                yield Place(source.split, source.seeds[number]), source


def _plan_run(
    network: Network, place: Place, stream: str, source: RecordSource, settings: StudySettings
) -> RunSpec:
    records = source.records[stream]
    if network.frames and source.frames is not None:
        records = source.frames
    features = load_manifest(records).features is not None
    return RunSpec(
        name=run_name(stream, place, network.name),
        role=network.role,
        config=settings.resolve(network, stream, place.seed, features=features),
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
) -> tuple[RecordSource, ...]:
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
    folders: dict[str, dict[str, RecordPath]] = {}
    seeds_of = {}
    for number, folder in enumerate(records):
        split = _split_name(folder, number)
        if split in folders:
            raise KdantError(f"Two of --records are of split {split}. Give one folder for each split.")
        folders[split] = {stream: folder for stream in load_manifest(folder).modalities if stream in streams}
        seeds_of[split] = seeds[number % len(seeds)]
    for number, folder in enumerate(flow_records):
        _add_flow(folders, _split_name(folder, number), folder)
    kept = _keep_splits(folders, splits)
    return tuple(RecordSource(split=split, records=kept[split], seeds=seeds_of[split]) for split in kept)


def _split_name(folder: RecordPath, number: int) -> str:
    return str(load_manifest(folder).options.get("split", number + 1))


def _add_flow(folders: dict[str, dict[str, RecordPath]], split: str, folder: RecordPath) -> None:
    if split not in folders:
        raise KdantError(
            f"--flow-records {folder} is of split {split}, of which there is no --records. Give both of each "
            f"split."
        )
    if "flow" not in load_manifest(folder).modalities:
        raise KdantError(
            f"--flow-records {folder} holds no optical flow. Build it: kdant build-records … --modality flow."
        )
    folders[split]["flow"] = folder


def _keep_splits(
    folders: dict[str, dict[str, RecordPath]], splits: Sequence[str]
) -> dict[str, dict[str, RecordPath]]:
    if missing := [split for split in splits if split not in folders]:
        raise KdantError(
            f"There are no records of split {', '.join(missing)}. Received records of {', '.join(folders)}. "
            f"Build the others, and give each folder with --records."
        )
    kept = {split: streams for split, streams in folders.items() if not splits or split in splits}
    if len({tuple(streams) for streams in kept.values()}) > 1 or not all(kept.values()):
        listed = "; ".join(f"{split}: {', '.join(streams) or 'nothing'}" for split, streams in kept.items())
        raise KdantError(f"Every split should have the same streams. Received: {listed}.")
    return kept

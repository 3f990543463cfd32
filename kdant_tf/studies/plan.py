"""From networks and records to the runs of a study. No TensorFlow here."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from kdant_tf.config import TrainConfig, resolve_config
from kdant_tf.studies.scales import PAPER, describe_scale, scale_settings
from kdant_tf.studies.study import Network, Place, RunSpec, Source, run_name
from tf_records.errors import KdantError
from tf_records.manifest import load_manifest
from tf_records.remote_path import RecordPath


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

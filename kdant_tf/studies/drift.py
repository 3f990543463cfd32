"""The drift study: what each feature loss gains when things move between the clips.

Rendered videos, in which the telling object stands elsewhere once the action begins, as far away as asked:
few have a label, many have none. The paper says that L_direct suffers from such drift and L_d does not
(§3.2); its own data sets are too small to show it. No TensorFlow here.
"""

import dataclasses
import json
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdant_tf.config import STUDENT, TEACHER
from kdant_tf.losses import PAPER_LOSS_NAMES
from kdant_tf.studies.results import ResultCell, ResultTable, summarize
from kdant_tf.studies.study_folder import count_cores
from kdant_tf.studies.study_plan import (
    PAPER,
    Network,
    RecordSource,
    Study,
    StudySettings,
    TableColumn,
    TableRow,
    choose_networks,
    choose_rows,
    describe_scale,
    places_of,
    plan_runs,
)
from kdant_tf.visualization.style import GREY, MARKERS, OKABE_ITO, save
from tf_records.errors import KdantError
from tf_records.manifest import MANIFEST_NAME
from tf_records.plan import BuildOptions
from tf_records.schema import FUTURE, OBSERVED, ClipSpec
from tf_records.sources.synthetic import HEIGHT, OFFSET_FRAMES, SPEC_NAME, SyntheticSpec, read_synthetic
from tf_records.writer import build_records

PICTURE_NAME = "drift.png"
# The preset's own size has this name in place of the paper's, which has no such study.
STUDY = "study"
# Scale → what is rendered. Chosen so that `none` is far from 100 % and from chance; CONTRIBUTING says how.
VIDEOS: Mapping[str, SyntheticSpec] = types.MappingProxyType(
    {
        STUDY: SyntheticSpec(train=80, unlabeled=240, test=1000, hint=0.1),
        "tiny": SyntheticSpec(train=4, unlabeled=4, test=8),
    }
)
_PRESETS = {"rgb": "drift"}
_NONE = "none"
# The paper's, and the pooling that also asks how far away a position is.
_LOSSES = (*PAPER_LOSS_NAMES, "local")
_NETWORKS = (
    Network(name="teacher", role=TEACHER, views=(FUTURE, OBSERVED)),
    *(
        Network(name=loss, role=STUDENT, settings={"feature_loss": loss}, teacher="teacher")
        for loss in _LOSSES
    ),
)
_ROWS = (
    TableRow(name="recognition", title="teacher, future clip", network="teacher", view=FUTURE),
    TableRow(name="teacher", title="teacher, observed clip", network="teacher"),
    *(
        TableRow(name=loss, title=f"student {loss}", network=loss, reference=None if loss == _NONE else _NONE)
        for loss in _LOSSES
    ),
)
_LOOKS = {
    "direct": ("direct: position by position", OKABE_ITO[1], MARKERS[1]),
    "unidirectional": ("unidirectional: L̃(R, A)", OKABE_ITO[2], MARKERS[2]),
    "bidirectional": ("bidirectional: L_d", OKABE_ITO[0], MARKERS[0]),
    "local": ("local: L_d with a prior on distance", OKABE_ITO[3], MARKERS[3]),
}
# Points of neighbouring losses stand side by side, so that no bar hides another; a share of the width.
_STEP = 0.008
# Beside the smallest and the largest drift.
_MARGIN = 0.05


def check_request(row_names: Sequence[str], scale: str, config_file: Path | None) -> None:
    """Refuses, before anything is rendered, what `plan_drift` would refuse after it.

    Raises:
        KdantError: unknown rows or invalid settings.
    """
    choose_rows(_ROWS, row_names)
    for network in _NETWORKS:
        _study_settings(scale, config_file).resolve(network, "rgb", 0, features=False)


def _study_settings(scale: str, config_file: Path | None) -> StudySettings:
    return StudySettings(presets=_PRESETS, scale=PAPER if scale == STUDY else scale, file=config_file)


def prepare_records(
    study_folder: Path,
    drifts: Sequence[float],
    scale: str,
    *,
    build: bool = True,
    report: Callable[[str], None] = lambda line: None,
) -> dict[float, Path]:
    """Renders the videos of each drift and builds their records, where that has not been done.

    Args:
        study_folder: of the study; holds "videos" and "records".
        drifts: each from 0 to MAX_DRIFT.
        scale: a key of VIDEOS.
        build: False only says where records should lie.
        report: told in a line what takes long.

    Returns:
        drift → its record folder.

    Raises:
        KdantError: there are videos of another study, or records that cannot be built.
    """
    folders = {}
    for number, drift in enumerate(drifts):
        videos = study_folder / "videos" / drift_name(drift)
        folders[drift] = study_folder / "records" / drift_name(drift)
        spec = dataclasses.replace(VIDEOS[scale], drift=drift)
        _check_videos(videos, spec)
        if build and not (folders[drift] / MANIFEST_NAME).is_file():
            count = spec.train + spec.unlabeled + spec.test
            report(f"Rendering {count} videos of drift {drift:g} ({number + 1} of {len(drifts)}).")
            _build(videos, folders[drift], spec)
    return folders


def _check_videos(videos: Path, spec: SyntheticSpec) -> None:
    path = videos / SPEC_NAME
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != dataclasses.asdict(spec):
        raise KdantError(
            f"The videos in {videos} are not those of this study, as its scale was another. Give the same "
            f"--scale as then, or another --out."
        )


def _build(videos: Path, records: Path, spec: SyntheticSpec) -> None:
    annotations = read_synthetic(videos, spec)
    clip = ClipSpec(clip_frames=8, offset_frames=OFFSET_FRAMES)
    records.parent.mkdir(exist_ok=True)
    options = BuildOptions(clip=clip, short_side=HEIGHT)
    build_records(annotations, records, options, workers=count_cores(), resume=True)


def plan_drift(
    records: Mapping[float, Path],
    seeds: tuple[int, ...],
    scale: str,
    row_names: Sequence[str] = (),
    config_file: Path | None = None,
) -> Study:
    """A teacher and five students for each drift and seed; `none`, which gains are over, always is one.

    Args:
        records: drift → its record folder.
        seeds: of weights, order, crops and dropout; videos and labels are the same for all.
        scale: STUDY, or "tiny".
        row_names: only these rows; empty for all.
        config_file: TOML file with settings, above the preset `drift` and the scale.

    Raises:
        KdantError: records that cannot be read, unknown rows or invalid settings.
    """
    rows = choose_rows(_ROWS, [*row_names, _NONE] if row_names else ())
    sources = [
        RecordSource(split=drift_name(drift), records={"rgb": folder}, seeds=seeds)
        for drift, folder in records.items()
    ]
    settings = _study_settings(scale, config_file)
    runs = plan_runs(choose_networks(_NETWORKS, rows), sources, settings)
    size = scale if config_file is None else f"{scale}, with {config_file.name}"
    return Study(
        name="drift",
        title="Drift study: what a feature loss gains when things move between the clips",
        scale=describe_scale(size, runs),
        places=places_of(sources),
        runs=runs,
        rows=rows,
        columns=tuple(TableColumn(name=f"drift {drift:g}", streams=("rgb",)) for drift in records),
        draw_seeds=True,
    )


def drift_name(drift: float) -> str:
    """Such as "drift0.2", in the names of folders and runs."""
    return f"drift{drift:g}"


def drift_of(column: TableColumn) -> float:
    """The number in a column's name."""
    return float(column.name.removeprefix("drift "))


def summarize_drift(study: Study, folder: Path) -> ResultTable:
    """The table of what is finished, each drift a column of its own places.

    Raises:
        RunError: predictions that cannot be read, or are of different samples.
    """
    cells: dict[tuple[str, str], ResultCell] = {}
    missing: list[str] = []
    for column in study.columns:
        places = tuple(place for place in study.places if place.split == drift_name(drift_of(column)))
        table = summarize(dataclasses.replace(study, places=places, columns=(column,)), folder)
        cells |= table.cells
        missing += table.missing
    return ResultTable(study=study, cells=cells, missing=tuple(missing))


def plot_drift(table: ResultTable, path: Path) -> None:
    """Gain over `none` in percentage points with 95 % intervals, a line a loss, and `none` itself below.

    Args:
        table: of `summarize_drift`.
        path: PNG to write.
    """
    figure = Figure(figsize=(8, 6.4), layout="constrained")
    gains, level = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
    for number, name in enumerate(_LOOKS):
        _draw_gain(gains, table, name, shift=(number - (len(_LOOKS) - 1) / 2) * _STEP)
    gains.axhline(0, color="black", linewidth=1)
    gains.set(
        title="Gain over the student without a feature loss, 95 % intervals", ylabel="percentage points"
    )
    if gains.lines[:-1]:
        figure.legend(*gains.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=9.5)
    _draw_level(level, table)
    for axis in (gains, level):
        axis.grid(alpha=0.3)
    figure.supxlabel(f"Scale {table.study.scale}", x=1, ha="right", fontsize=8, color=GREY)
    save(figure, path)


def _draw_gain(axis: Axes, table: ResultTable, name: str, shift: float) -> None:
    points = [
        (drift_of(column) + shift, found.difference)
        for column in table.study.columns
        if (found := table.cells.get((name, column.name))) is not None and found.difference is not None
    ]
    if not points:
        return
    label, color, marker = _LOOKS[name]
    values = [100 * gain.value for _, gain in points]
    bars = (
        [100 * (gain.value - gain.low) for _, gain in points],
        [100 * (gain.high - gain.value) for _, gain in points],
    )
    drifts = [drift for drift, _ in points]
    axis.errorbar(drifts, values, yerr=bars, label=label, color=color, marker=marker, markersize=7, capsize=4)


def _draw_level(axis: Axes, table: ResultTable) -> None:
    """Accuracy of `none`, so that one sees from where the gains are."""
    points = [
        (drift_of(column), found.ours)
        for column in table.study.columns
        if (found := table.cells.get((_NONE, column.name))) is not None and found.ours is not None
    ]
    drifts = [drift for drift, _ in points]
    values = [100 * average.mean for _, average in points]
    spread = [100 * (average.sd if average.sd is not None else 0.0) for _, average in points]
    axis.errorbar(drifts, values, yerr=spread, color=GREY, marker="D", markersize=5, capsize=4)
    axis.set(
        title="Without a feature loss: accuracy ± standard deviation over seeds",
        xlabel="drift between the clips, share of the frame's width",
        ylabel="%",
        ylim=(0, 100),
    )
    columns = [drift_of(column) for column in table.study.columns]
    axis.set_xticks(columns)
    axis.set_xlim(min(columns) - _MARGIN, max(columns) + _MARGIN)

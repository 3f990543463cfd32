"""The drift study: what each feature loss gains when things move between the clips. No TensorFlow here.

Rendered videos, in which the telling object stands elsewhere once the action begins, as far away as asked:
few have a label, many have none. The paper says that L_direct suffers from such drift and L_d does not
(§3.2); its own data sets are too small to show it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from kdant_tf.config import FEATURE_LOSS_NAMES, STUDENT, TEACHER, resolve_config
from kdant_tf.studies.plan import Base, places_of, plan_runs
from kdant_tf.studies.rows import choose_rows
from kdant_tf.studies.scales import PAPER, describe_scale
from kdant_tf.studies.study import Column, Network, Row, Source, Study
from kdant_tf.studies.summary import Cell, ResultTable, summarize
from tf_records.schema import FUTURE, OBSERVED

PRESETS = {"rgb": "drift"}
# The preset's own size has this name in place of the paper's, which has no such study.
STUDY = "study"
NONE = "none"
_TEACHER = Network(name="teacher", role=TEACHER, views=(FUTURE, OBSERVED))
DRIFT_ROWS = (
    Row(name="recognition", title="teacher, future clip", network="teacher", view=FUTURE),
    Row(name="teacher", title="teacher, observed clip", network="teacher"),
    *(
        Row(name=loss, title=f"student {loss}", network=loss, reference=None if loss == NONE else NONE)
        for loss in FEATURE_LOSS_NAMES
    ),
)


def check_request(row_names: Sequence[str], config_file: Path | None) -> None:
    """Refuses, before anything is rendered, what `plan_drift` would refuse after it.

    Raises:
        KdantError: rows or settings that cannot be.
    """
    choose_rows(DRIFT_ROWS, row_names)
    for role in (TEACHER, STUDENT):
        resolve_config(role, preset=PRESETS["rgb"], file=config_file)


def plan_drift(
    records: Mapping[float, Path],
    seeds: tuple[int, ...],
    scale: str,
    row_names: Sequence[str] = (),
    config_file: Path | None = None,
) -> Study:
    """A teacher and four students for each drift and seed; `none`, which gains are over, always is one.

    Args:
        records: drift → its record folder.
        seeds: of weights, order, crops and dropout; videos and labels are the same for all.
        scale: STUDY, or "tiny".
        row_names: only these rows; empty for all.
        config_file: TOML file with settings, above the preset `drift` and the scale.

    Raises:
        KdantError: records, rows or settings that cannot be.
    """
    rows = choose_rows(DRIFT_ROWS, [*row_names, NONE] if row_names else ())
    networks = (
        _TEACHER,
        *(
            Network(name=loss, role=STUDENT, settings={"feature_loss": loss}, teacher="teacher")
            for loss in FEATURE_LOSS_NAMES
            if loss in {row.network for row in rows}
        ),
    )
    sources = [
        Source(split=drift_name(drift), records={"rgb": folder}, seeds=seeds)
        for drift, folder in records.items()
    ]
    base = Base(presets=PRESETS, scale=PAPER if scale == STUDY else scale, file=config_file)
    runs = plan_runs(networks, sources, base)
    size = scale if config_file is None else f"{scale}, with {config_file.name}"
    return Study(
        name="drift",
        title="Drift study: what a feature loss gains when things move between the clips",
        scale=describe_scale(size, [run.config for run in runs]),
        places=places_of(sources),
        runs=runs,
        rows=rows,
        columns=tuple(Column(name=f"drift {drift:g}", streams=("rgb",)) for drift in records),
        draw_seeds=True,
    )


def drift_name(drift: float) -> str:
    """Such as "drift0.2", in the names of folders and runs."""
    return f"drift{drift:g}"


def drift_of(column: Column) -> float:
    """The number in a column's name."""
    return float(column.name.removeprefix("drift "))


def summarize_drift(study: Study, folder: Path) -> ResultTable:
    """The table of what is finished, each drift a column of its own places.

    Raises:
        RunError: predictions that cannot be read, or are of different samples.
    """
    cells: dict[tuple[str, str], Cell] = {}
    missing: list[str] = []
    for column in study.columns:
        places = tuple(place for place in study.places if place.split == drift_name(drift_of(column)))
        table = summarize(dataclasses.replace(study, places=places, columns=(column,)), folder)
        cells |= table.cells
        missing += table.missing
    return ResultTable(study=study, cells=cells, missing=tuple(missing))

"""From a study's run folders to its table; trains nothing. No TensorFlow here."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from kdant_tf.evaluation.predictions import Predictions, fuse, load_predictions
from kdant_tf.evaluation.statistics import Interval
from kdant_tf.runs import PREDICTIONS_NAME
from kdant_tf.studies.aggregate import Average, PlacedSamples, average, paired_difference
from kdant_tf.studies.run_state import TEST
from kdant_tf.studies.study import Column, Place, Row, Study, run_folder, run_name


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One row's accuracy in one column; shares of 1.

    Args:
        ours: over the places whose runs are there; None without any, or of a row of the literature.
        values: at each of these places.
        difference: from the row's reference, sample by sample, where both are there.
        difference_average: of that difference at each place, for its spread over seeds.
        published, published_difference: by the paper, where it has them.
    """

    ours: Average | None
    values: dict[Place, float]
    difference: Interval | None
    difference_average: Average | None
    published: float | None
    published_difference: float | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        fields = dataclasses.asdict(self)
        at = [{"split": place.split, "seed": place.seed, "value": v} for place, v in self.values.items()]
        return {**fields, "values": at}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ResultTable:
    """A study's table. `cells` are by names of row and column, `missing` names runs that were not there."""

    study: Study
    cells: dict[tuple[str, str], Cell]
    missing: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: a list of rows, each with its columns."""
        study = self.study
        rows = [
            {
                "name": row.name,
                "title": row.title,
                "reference": row.reference,
                "columns": {
                    column.name: self.cells[row.name, column.name].to_dict() for column in study.columns
                },
            }
            for row in study.rows
        ]
        return {
            "study": study.name,
            "title": study.title,
            "scale": study.scale,
            "published_source": study.source,
            "rows": rows,
            "missing": list(self.missing),
        }


def summarize(study: Study, folder: Path) -> ResultTable:
    """The table of what is finished in a study's folder.

    Raises:
        RunError: predictions that cannot be read, or are of different samples.
    """
    reader = _Reader(folder)
    rows = {row.name: row for row in study.rows}
    cells = {
        (row.name, column.name): _cell(reader, study, row, rows.get(row.reference or ""), column)
        for row in study.rows
        for column in study.columns
    }
    return ResultTable(study=study, cells=cells, missing=tuple(dict.fromkeys(reader.missing)))


class _Reader:
    """Predictions of a study's runs, each read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept: dict[tuple[str, str], Predictions | None] = {}
        self.missing: list[str] = []

    def read(self, row: Row, column: Column, place: Place) -> Predictions | None:
        """Of a row's network on its view, streams added; None where a run is not finished."""
        assert row.network is not None
        names = [run_name(stream, place, row.network) for stream in column.streams]
        found = [self._read_run(name, row.view) for name in names]
        self.missing += [name for name, seen in zip(names, found, strict=True) if seen is None]
        streams = [seen for seen in found if seen is not None]
        if len(streams) < len(names):
            return None
        return streams[0] if len(streams) == 1 else fuse(streams, [1.0] * len(streams))

    def _read_run(self, name: str, view: str) -> Predictions | None:
        if (name, view) not in self.kept:
            path = run_folder(self.folder, name) / PREDICTIONS_NAME
            self.kept[name, view] = load_predictions(path, f"{view}/{TEST}")
        return self.kept[name, view]


def _cell(reader: _Reader, study: Study, row: Row, reference: Row | None, column: Column) -> Cell:
    right: dict[Place, PlacedSamples] = {}
    gained: dict[Place, PlacedSamples] = {}
    for place in study.places if row.network is not None else ():
        seen = reader.read(row, column, place)
        if seen is None:
            continue
        right[place] = PlacedSamples(values=seen.right(column.k), videos=seen.videos)
        before = None if reference is None else reader.read(reference, column, place)
        if before is not None:
            gained[place] = _gain(before, seen, column.k)
    values = _means(right)
    return Cell(
        ours=average(values) if values else None,
        values=values,
        difference=paired_difference(gained, draw_seeds=study.draw_seeds) if gained else None,
        difference_average=average(_means(gained)) if gained else None,
        published=row.published.get(column.name),
        published_difference=row.published_difference.get(column.name),
    )


def _gain(before: Predictions, seen: Predictions, k: int) -> PlacedSamples:
    fuse([before, seen], [1.0, 1.0])  # refuses other samples
    values = seen.right(k).astype(np.float64) - before.right(k).astype(np.float64)
    return PlacedSamples(values=values, videos=seen.videos)


def _means(samples: dict[Place, PlacedSamples]) -> dict[Place, float]:
    return {place: float(np.mean(each.values)) for place, each in samples.items()}

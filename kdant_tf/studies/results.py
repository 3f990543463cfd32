"""From a study's run folders to its table: means over places, paired differences, CSV, JSON and LaTeX.

It trains nothing. No TensorFlow here.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import SEPARATING_LINE, tabulate

from kdant_tf.evaluation.metrics import RESAMPLES, Interval
from kdant_tf.evaluation.predictions import Predictions, fuse
from kdant_tf.studies.study_folder import read_predictions
from kdant_tf.studies.study_plan import Place, Study, TableColumn, TableRow, run_folder, run_name
from tf_records.files import json_text, write_text_atomically

_CSV_COLUMNS = (
    *("study", "scale", "row", "title", "column", "runs", "mean", "sd", "sd_over"),
    *("reference", "difference", "difference_low", "difference_high", "difference_sd"),
    *("published", "published_difference"),
)
_TEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
}
_SPECIAL = re.compile("|".join(re.escape(character) for character in _TEX))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ResultTable:
    """A study's table. `cells` are by names of row and column, `missing` names runs that were not there."""

    study: Study
    cells: dict[tuple[str, str], ResultCell]
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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ResultCell:
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
class Average:
    """Over places.

    Args:
        mean: of the splits' means over their seeds, so that a split counts once however many seeds it has.
        sd: standard deviation over `sd_over`; None of a single value.
        sd_over: "seeds": of one split's values around their mean, pooled over splits; "splits": of the
            splits' values, where each has a single seed.
        places: how many.
    """

    mean: float
    sd: float | None
    sd_over: str
    places: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SampleValues:
    """A value of each test sample, at one place.

    Args:
        values: float or bool `(N,)`.
        videos: str `(N,)`.
    """

    values: np.ndarray
    videos: np.ndarray


def summarize(study: Study, folder: Path) -> ResultTable:
    """The table of what is finished in a study's folder.

    Raises:
        RunError: predictions that cannot be read, or are of different samples.
    """
    reader = _Reader(folder)
    rows = {row.name: row for row in study.rows}
    cells = {
        (row.name, column.name): _make_cell(reader, study, row, rows.get(row.reference or ""), column)
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

    def read(self, row: TableRow, column: TableColumn, place: Place) -> Predictions | None:
        """Of a row's network on its view, streams added; None where a run is not finished."""
        assert row.network is not None
        names = [run_name(stream, place, row.network) for stream in column.streams]
        predictions = {name: self._read_run(name, row.view) for name in names}
        self.missing += [name for name, each in predictions.items() if each is None]
        streams = [each for each in predictions.values() if each is not None]
        if len(streams) < len(names):
            return None
        return streams[0] if len(streams) == 1 else fuse(streams, [1.0] * len(streams))

    def _read_run(self, name: str, view: str) -> Predictions | None:
        if (name, view) not in self.kept:
            self.kept[name, view] = read_predictions(run_folder(self.folder, name), view)
        return self.kept[name, view]


def _make_cell(
    reader: _Reader, study: Study, row: TableRow, reference: TableRow | None, column: TableColumn
) -> ResultCell:
    correct: dict[Place, SampleValues] = {}
    gained: dict[Place, SampleValues] = {}
    for place in study.places if row.network is not None else ():
        own = reader.read(row, column, place)
        if own is None:
            continue
        correct[place] = SampleValues(values=own.correct(column.k), videos=own.sources)
        other = None if reference is None else reader.read(reference, column, place)
        if other is not None:
            gained[place] = _gain(other, own, column.k)
    values = _means(correct)
    return ResultCell(
        ours=average(values) if values else None,
        values=values,
        difference=paired_difference(gained, draw_seeds=study.draw_seeds) if gained else None,
        difference_average=average(_means(gained)) if gained else None,
        published=row.published.get(column.name),
        published_difference=row.published_difference.get(column.name),
    )


def _gain(first: Predictions, second: Predictions, k: int) -> SampleValues:
    """What the second has right minus what the first has."""
    fuse([first, second], [1.0, 1.0])  # refuses other samples
    values = second.correct(k).astype(np.float64) - first.correct(k).astype(np.float64)
    return SampleValues(values=values, videos=second.sources)


def _means(samples: dict[Place, SampleValues]) -> dict[Place, float]:
    return {place: float(np.mean(each.values)) for place, each in samples.items()}


def average(values: Mapping[Place, float]) -> Average:
    """Mean and spread of one number a place; at least one."""
    splits = _by_split(values)
    means = [float(np.mean(each)) for each in splits]
    freedom = sum(len(each) - 1 for each in splits)
    if freedom > 0:
        squares = sum(float(np.sum((each - np.mean(each)) ** 2)) for each in splits)
        sd, over = (squares / freedom) ** 0.5, "seeds"
    else:
        sd, over = (float(np.std(means, ddof=1)) if len(means) > 1 else None), "splits"
    return Average(
        mean=float(np.mean(means)), sd=sd, sd_over=over if sd is not None else "", places=len(values)
    )


def paired_difference(
    gained: Mapping[Place, SampleValues],
    *,
    draw_seeds: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean of a per-sample difference, with a 95 % interval from a bootstrap over videos, or seeds too.

    Within a split a sample's difference is averaged over seeds first, and a split counts once, so that the
    value is the difference of two `average` means. Videos are drawn with all their samples, in all
    splits that test on them. The interval is about other test videos, for these trainings: how much other
    seeds would change it is what the standard deviation over seeds tells, or `draw_seeds`.

    Args:
        gained: at each place, what the second network has right minus what the first has, in -1, 0, 1; the
            samples of a split are the same at all its places.
        draw_seeds: draw seeds too, in each split one fewer than it has, so that the draws' variance is that
            of a mean over seeds (Rao and Wu 1988); where a split has a single seed, it stays.
        resamples: int >= 1.
        seed: of the draws.
    """
    splits = [
        [samples for place, samples in gained.items() if place.split == split]
        for split in dict.fromkeys(place.split for place in gained)
    ]
    names = np.unique(np.concatenate([seeds[0].videos for seeds in splits]))
    # For each split, what each seed gains on each video; the weights of a split's samples add up to 1.
    tables = [np.stack([_sum_videos(each.values, each.videos, names) for each in seeds]) for seeds in splits]
    masses = np.sum([_sum_videos(np.ones(len(s[0].videos)), s[0].videos, names) for s in splits], axis=0)
    whole = np.sum([table.mean(axis=0) for table in tables], axis=0)
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(resamples):
        sums = np.sum([_draw_seeds(rng, table) for table in tables], axis=0) if draw_seeds else whole
        drawn = rng.integers(len(names), size=len(names))
        means.append(sums[drawn].sum() / masses[drawn].sum())
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(value=float(whole.sum() / masses.sum()), low=float(low), high=float(high))


def _sum_videos(values: np.ndarray, videos: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Float `(len(names),)`: each video's share of the samples' mean."""
    weights = values.astype(np.float64) / len(values)
    return np.bincount(np.searchsorted(names, videos), weights=weights, minlength=len(names))


def _draw_seeds(rng: np.random.Generator, table: np.ndarray) -> np.ndarray:
    """Mean over some seeds, drawn with repetitions, of `(seeds, videos)`."""
    seeds = len(table)
    mean: np.ndarray = table[rng.integers(seeds, size=max(1, seeds - 1))].mean(axis=0)
    return mean


def _by_split(values: Mapping[Place, float]) -> Sequence[np.ndarray]:
    splits = dict.fromkeys(place.split for place in values)
    return [np.array([value for place, value in values.items() if place.split == name]) for name in splits]


def write_table(folder: Path, table: ResultTable, about: Mapping[str, Any]) -> list[Path]:
    """Writes `NAME.csv`, `NAME.json` and `NAME.tex` of the study; returns their paths.

    Args:
        folder: of the study.
        table: its results.
        about: further fields of the JSON, such as versions and hardware.
    """
    name = table.study.name
    texts = {
        f"{name}.csv": to_csv(table),
        f"{name}.json": json_text({**table.to_dict(), **about}, indent=1) + "\n",
        f"{name}.tex": to_tex(table),
    }
    for file, text in texts.items():
        write_text_atomically(folder / file, text)
    return [folder / file for file in texts]


def to_csv(table: ResultTable) -> str:
    """A line for each row and column, shares of 1."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    study = table.study
    for row in study.rows:
        for column in study.columns:
            head = {
                "study": study.name,
                "scale": study.scale,
                "row": row.name,
                "title": row.title,
                "column": column.name,
                "reference": row.reference,
            }
            writer.writerow({**head, **_csv_fields(table.cells[row.name, column.name])})
    return text.getvalue()


def _csv_fields(cell: ResultCell) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "published": cell.published,
        "published_difference": cell.published_difference,
    }
    if cell.ours is not None:
        fields |= {
            "runs": cell.ours.places,
            "mean": cell.ours.mean,
            "sd": cell.ours.sd,
            "sd_over": cell.ours.sd_over,
        }
    if cell.difference is not None and cell.difference_average is not None:
        fields |= {
            "difference": cell.difference.value,
            "difference_low": cell.difference.low,
            "difference_high": cell.difference.high,
            "difference_sd": cell.difference_average.sd,
        }
    return fields


def to_tex(table: ResultTable) -> str:
    """A LaTeX table that needs no package, a line for each row and column; percent."""
    study = table.study
    head = ["Method", "", "Ours", "Difference", *(["Paper"] if study.source else [])]
    lines: list[Any] = []
    for row in study.rows:
        for column in study.columns:
            cell = table.cells[row.name, column.name]
            numbers = (describe_ours(cell), describe_difference(cell), describe_published(cell))
            lines.append([escape_tex(text) for text in (row.title, column.name, *numbers)[: len(head)]])
        lines.append(SEPARATING_LINE)
    align = ("left", "left", *["right"] * (len(head) - 2))
    # Escaped above: tabulate's own escaping does not know "±", nor the caption.
    tabular = tabulate(lines[:-1], head, tablefmt="latex_raw", colalign=align, disable_numparse=True)
    title = escape_tex(caption(table))
    return "\n".join([r"\begin{table}", r"\centering", rf"\caption{{{title}}}", tabular, r"\end{table}", ""])


def escape_tex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return _SPECIAL.sub(lambda found: _TEX[found.group()], text)


def caption(table: ResultTable) -> str:
    """Title, scale, and what the numbers are."""
    study = table.study
    spread = spread_over(table)
    over = f" ± standard deviation over {spread}" if spread else ""
    paper = f"; paper: {study.source}" if study.source else ""
    against = ""
    if references := references_of(study):
        units = "videos and seeds" if study.draw_seeds else "videos"
        against = f" Differences: from {' or '.join(references)}, 95 % intervals over {units}."
    return f"{study.title}. Scale {study.scale}. Accuracy in %, mean{over}{paper}.{against}"


def spread_over(table: ResultTable) -> str:
    """What the table's standard deviations are over, such as "seeds" or "seeds or splits"; "" without any."""
    return " or ".join(sorted({cell.ours.sd_over for cell in table.cells.values() if cell.ours} - {""}))


def references_of(study: Study) -> list[str]:
    """Names of the rows that others are compared with."""
    return list(dict.fromkeys(row.reference for row in study.rows if row.reference is not None))


def describe_average(average: Average) -> str:
    """Such as "51.2 ± 3.1", in percent."""
    mean = f"{100 * average.mean:.1f}"
    return mean if average.sd is None else f"{mean} ± {100 * average.sd:.1f}"


def describe_ours(cell: ResultCell) -> str:
    """The same of a cell's own average, "" without one."""
    return "" if cell.ours is None else describe_average(cell.ours)


def describe_difference(cell: ResultCell) -> str:
    """Such as "+1.2 [-3.1, +5.0]", in percentage points."""
    if cell.difference is None:
        return ""
    ends = (cell.difference.value, cell.difference.low, cell.difference.high)
    value, low, high = (round(100 * each, 1) + 0.0 for each in ends)  # adding 0 makes -0 positive
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def describe_published(cell: ResultCell) -> str:
    """Such as "70.2", in percent, or "(+1.4)" where the paper has a difference alone."""
    if cell.published is not None:
        return f"{100 * cell.published:.1f}"
    return "" if cell.published_difference is None else f"({100 * cell.published_difference:+.1f})"

"""The tables of a page: results of networks, their settings, and those that a study wrote.

No TensorFlow here.
"""

import csv
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kdant_tf.evaluation.metrics import CurvePoint, compare_paired
from kdant_tf.evaluation.predictions import (
    EvaluatedRun,
    Predictions,
    describe_differences,
    flatten_settings,
    read_config,
)
from kdant_tf.report.page import Picture, Table, TableCell, draw_inline, interval_cell
from kdant_tf.runs import Run
from kdant_tf.visualization.confusion import Bar, plot_results
from kdant_tf.visualization.curves import AGAINST
from tf_records.errors import RunError
from tf_records.files import parse_json_text

_ACCURACIES = {"top1": "top-1", "top5": "top-5", "mean_class_accuracy": "mean class accuracy"}
# Of a study's CSV; the caption has them.
_COLUMNS_ASIDE = ("study", "scale")
_EMPTY = TableCell(text="")
_PRECISION = "mean_average_precision"


def result_table(networks: Sequence[EvaluatedRun]) -> Table:
    """A row a network and segment: accuracies with their intervals, recall, likelihood, calibration."""
    differing = [f"{each.title}: {words}." for each in networks if (words := describe_differences(each))]
    several = any(each.several for each in networks)
    return Table(
        caption="Accuracy on the samples of each network",
        columns=(
            *("network", "sees", "split", *_ACCURACIES.values(), "mean top-5 recall"),
            *("negative log likelihood", "calibration error", "samples", "videos", "chance"),
            *(("mean average precision",) if several else ()),
        ),
        rows=[
            _result_row(each)
            + (
                [_with_interval(each.result.get(_PRECISION), each.result.get(f"{_PRECISION}_interval"))]
                if several
                else []
            )
            for each in networks
        ],
        note=" ".join(["In brackets: intervals of 95 %, bootstrapped over videos.", *differing]),
    )


def _result_row(each: EvaluatedRun) -> list[TableCell]:
    result = each.result
    nll, videos = result.get("negative_log_likelihood"), result.get("videos")
    return [
        TableCell(text=each.name),
        TableCell(text=each.view),
        TableCell(text=str(result["split"])),
        *(_with_interval(result.get(name), result.get(f"{name}_interval")) for name in _ACCURACIES),
        _percent(result.get("mean_top5_recall")),
        _EMPTY if nll is None else TableCell(text=f"{nll:.3f}", key=nll),
        _percent(result.get("expected_calibration_error")),
        TableCell(text=str(result["samples"]), key=result["samples"]),
        _EMPTY if videos is None else TableCell(text=str(videos), key=videos),
        _EMPTY if each.several else _percent(1 / len(each.classes)),
    ]


def difference_table(networks: Sequence[EvaluatedRun]) -> Table | None:
    """Each network against one that had no feature loss, or the first, on the same samples."""
    named = [each for each in networks if not each.several]
    with_predictions = [(each, each.predictions) for each in named if each.predictions is not None]
    plain = [pair for pair in with_predictions if _is_plain(pair[0])]
    if not with_predictions:
        return None
    reference, before = (plain or with_predictions)[0]
    rows = [
        _difference_row(each, before, after)
        for each, after in with_predictions
        if each is not reference and _same_samples(before, after)
    ]
    if not rows:
        return None
    return Table(
        caption=f"Difference in top-1 accuracy from {reference.title}",
        columns=("network", "points", "p", "only this one right", "only the other right"),
        rows=rows,
        note="Sample by sample, in percentage points, with intervals of 95 % bootstrapped over videos; "
        "p is of an exact sign-flip test over videos, two-sided (McNemar's where each has one sample).",
    )


def _is_plain(each: EvaluatedRun) -> bool:
    return each.run.role == "student" and each.run.config.feature_loss == "none"


def _same_samples(one: Predictions, other: Predictions) -> bool:
    return np.array_equal(one.ids, other.ids) and np.array_equal(one.labels, other.labels)


def _difference_row(each: EvaluatedRun, before: Predictions, after: Predictions) -> list[TableCell]:
    paired = compare_paired(before.correct(), after.correct(), after.sources)
    difference = paired.difference
    return [
        TableCell(text=each.title),
        interval_cell(difference.value, difference.low, difference.high),
        TableCell(text=f"{paired.p_value:.3g}", key=paired.p_value),
        TableCell(text=str(paired.only_second), key=paired.only_second),
        TableCell(text=str(paired.only_first), key=paired.only_first),
    ]


def class_table(networks: Sequence[EvaluatedRun]) -> Table | None:
    """A row a class with samples, a column a network; of networks of the same classes as the first."""
    known = [each for each in networks if "per_class" in each.result]
    known = [each for each in known if (each.classes, each.several) == (known[0].classes, known[0].several)]
    if not known:
        return None
    measure = "average_precision" if known[0].several else "top1"
    rows = []
    for number, name in enumerate(known[0].classes):
        entries = [each.result["per_class"][number] for each in known]
        samples = max(entry["samples"] for entry in entries)
        if samples:
            cells = [_percent(entry[measure]) for entry in entries]
            rows.append([TableCell(text=name), TableCell(text=str(samples), key=samples), *cells])
    return Table(
        caption=f"{'Average precision' if known[0].several else 'Top-1 accuracy'} of each class",
        columns=("class", "samples", *(each.title for each in known)),
        rows=rows,
    )


def curve_table(name: str, curves: Mapping[str, Sequence[CurvePoint]]) -> Table:
    """Accuracy against the share of the video, or the anticipation time.

    Args:
        name: a key of AGAINST.
        curves: network → points.
    """
    cells = {
        network: {
            point.x: _with_interval(point.top1.value, (point.top1.low, point.top1.high)) for point in points
        }
        for network, points in curves.items()
    }
    places = sorted({x for curve in cells.values() for x in curve})
    rows = [
        [TableCell(text=f"{x:g}", key=x), *(curve.get(x, _EMPTY) for curve in cells.values())] for x in places
    ]
    return Table(caption=f"Top-1 accuracy by {AGAINST[name]}", columns=(AGAINST[name], *curves), rows=rows)


def _percent(share: float | None) -> TableCell:
    return _EMPTY if share is None else TableCell(text=f"{100 * share:.1f} %", key=share)


def _with_interval(share: float | None, interval: Any) -> TableCell:
    if share is None or interval is None:
        return _percent(share)
    low, high = interval
    return TableCell(text=f"{100 * share:.1f} % ({100 * low:.1f} to {100 * high:.1f})", key=share)


def setting_tables(runs: Mapping[str, Run]) -> list[Table]:
    """All of the runs' config.json.

    Args:
        runs: name on the page → run.
    """
    fields = {name: flatten_settings(read_config(run), leave_out=("classes",)) for name, run in runs.items()}
    for name, run in runs.items():
        fields[name]["classes"] = f"{len(run.classes)}: {', '.join(run.classes)}"
    names = list(dict.fromkeys(key for each in fields.values() for key in each))
    shared = [key for key in names if len({each.get(key) for each in fields.values()}) == 1]
    differing = [key for key in names if key not in shared]
    first = next(iter(fields.values()))
    title = "All settings" if len(runs) == 1 else "Settings that these runs share"
    tables = [field_table(title, {key: first[key] for key in shared})]
    if differing:
        rows = [
            [TableCell(text=name), *(TableCell(text=each.get(key, "")) for key in differing)]
            for name, each in fields.items()
        ]
        table = Table(caption="Settings that differ", columns=("run", *differing), rows=rows)
        tables.insert(0, table)
    return tables


def field_table(caption: str, fields: Mapping[str, str]) -> Table:
    """Names and values."""
    rows = [[TableCell(text=name), TableCell(text=value)] for name, value in fields.items()]
    return Table(caption=caption, columns=("setting", "value"), rows=rows)


def study_blocks(folder: Path, names: Mapping[str, Any]) -> list[Table | Picture]:
    """The tables of a study's folder that were written; those of the paper with bars above them.

    Args:
        folder: of the study.
        names: of its tables → what study.json says of each.

    Raises:
        RunError: a table cannot be read.
    """
    blocks: list[Table | Picture] = []
    for name in names:
        path = folder / f"{name}.json"
        if not path.is_file():
            continue
        try:
            fields = parse_json_text(path.read_text(encoding="utf-8"))
            if fields.get("published_source"):
                blocks += _result_pictures(fields)
            blocks.append(_result_table(fields) if "rows" in fields else _plain_table(path, fields))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"{path} cannot be read: {error}. Write it again: kdant reproduce {name} … --summarize."
            ) from error
    return blocks


def about_tables(names: Mapping[str, Any]) -> list[Table]:
    """Scale, hardware, versions and commit of each table."""
    return [
        field_table(f"How {name} was made", flatten_settings(about, leave_out=("runs",)))
        for name, about in names.items()
    ]


def _result_pictures(fields: Mapping[str, Any]) -> list[Picture]:
    """One, of the columns in which there is something."""
    columns: dict[str, list[Bar]] = {}
    for row in fields["rows"]:
        for name, cell in row["columns"].items():
            values = [each["value"] for each in cell["values"]]
            bar = Bar(title=row["title"], values=values, published=cell["published"])
            columns.setdefault(name, []).append(bar)
    filled = {
        name: bars for name, bars in columns.items() if any(bar.values or bar.published for bar in bars)
    }
    if not filled:
        return []
    picture = draw_inline(
        partial(plot_results, filled),
        alt=f"{fields['title']}: a bar for each method. The table below has the numbers.",
        caption=f"{fields['title']}: our trainings, and what was published.",
    )
    return [picture]


def _result_table(fields: Mapping[str, Any]) -> Table:
    """One of the paper's tables: ours, the difference and the paper's figure, for each of its columns."""
    titles = {row["name"]: row["title"] for row in fields["rows"]}
    columns = list(dict.fromkeys(name for row in fields["rows"] for name in row["columns"]))
    heads = [f"{name}{part}" for name in columns for part in ("", ", runs", ", difference", ", paper")]
    rows = [
        [
            TableCell(text=row["title"]),
            *(cell for name in columns for cell in _result_cells(row["columns"][name])),
        ]
        for row in fields["rows"]
    ]
    filled = [number for number in range(1 + len(heads)) if any(row[number].text for row in rows)]
    references = dict.fromkeys(
        titles[row["reference"]] for row in fields["rows"] if row["reference"] in titles
    )
    missing = len(fields.get("missing", []))
    notes = [
        "Accuracy in %, mean ± standard deviation.",
        f"Difference from {' or '.join(references)}: on the same samples, in points, with 95 % intervals."
        if references
        else "",
        f"Paper: {fields['published_source']}." if fields["published_source"] else "",
        f"{missing} runs are not finished and left out." if missing else "",
    ]
    return Table(
        caption=f"{fields['title']}. Scale {fields['scale']}",
        columns=[("method", *heads)[number] for number in filled],
        rows=[[row[number] for number in filled] for row in rows],
        note=" ".join(note for note in notes if note),
    )


def _result_cells(cell: Mapping[str, Any]) -> list[TableCell]:
    ours, difference = cell["ours"], cell["difference"]
    mean = runs = gained = _EMPTY
    if ours is not None:
        spread = "" if ours["sd"] is None else f" ± {100 * ours['sd']:.1f}"
        mean = TableCell(text=f"{100 * ours['mean']:.1f}{spread}", key=ours["mean"])
        runs = TableCell(text=str(ours["places"]), key=ours["places"])
    if difference is not None:
        gained = interval_cell(difference["value"], difference["low"], difference["high"])
    return [mean, runs, gained, _published(cell)]


def _published(cell: Mapping[str, Any]) -> TableCell:
    share, gain = cell["published"], cell["published_difference"]
    if share is not None:
        return TableCell(text=f"{100 * share:.1f}", key=share)
    return _EMPTY if gain is None else TableCell(text=f"{100 * gain:+.1f} difference")


def _plain_table(path: Path, fields: Mapping[str, Any]) -> Table:
    """Any other table, by its CSV."""
    with path.with_suffix(".csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    kept = [number for number, name in enumerate(lines[0]) if name not in _COLUMNS_ASIDE]
    rows = [[_read_cell(line[number]) for number in kept] for line in lines[1:]]
    return Table(
        caption=f"{fields.get('title', path.stem)}. Scale {fields.get('scale', 'not stated')}",
        columns=[lines[0][number].replace("_", " ") for number in kept],
        rows=rows,
        note="Accuracies are shares of 1.",
    )


def _read_cell(text: str) -> TableCell:
    try:
        number = float(text)
    except ValueError:
        return TableCell(text=text)
    return TableCell(text=f"{number:.4g}", key=number)

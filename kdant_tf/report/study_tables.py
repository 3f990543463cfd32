"""A study's tables and their bars, from the files that `kdant reproduce` wrote. No TensorFlow here."""

import csv
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kdant_tf.pictures.results import Bar, plot_results
from kdant_tf.report.content import Cell, Picture, Table, interval_cell
from kdant_tf.report.inline import draw_inline
from kdant_tf.report.setting_tables import field_table, flatten
from tf_records.errors import RunError

_TEXT = {"study", "scale"}


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
            fields = json.loads(path.read_text(encoding="utf-8"))
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
        field_table(f"How {name} was made", flatten(about, leave_out=("runs",)))
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
    shown = {name: bars for name, bars in columns.items() if any(bar.values or bar.published for bar in bars)}
    if not shown:
        return []
    picture = draw_inline(
        partial(plot_results, shown),
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
            Cell(text=row["title"]),
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


def _result_cells(cell: Mapping[str, Any]) -> list[Cell]:
    ours, difference = cell["ours"], cell["difference"]
    mean = runs = gained = Cell(text="")
    if ours is not None:
        spread = "" if ours["sd"] is None else f" ± {100 * ours['sd']:.1f}"
        mean = Cell(text=f"{100 * ours['mean']:.1f}{spread}", key=ours["mean"])
        runs = Cell(text=str(ours["places"]), key=ours["places"])
    if difference is not None:
        gained = interval_cell(difference["value"], difference["low"], difference["high"])
    return [mean, runs, gained, _published(cell)]


def _published(cell: Mapping[str, Any]) -> Cell:
    share, gain = cell["published"], cell["published_difference"]
    if share is not None:
        return Cell(text=f"{100 * share:.1f}", key=share)
    return Cell(text="") if gain is None else Cell(text=f"{100 * gain:+.1f} difference")


def _plain_table(path: Path, fields: Mapping[str, Any]) -> Table:
    """Any other table, by its CSV."""
    with path.with_suffix(".csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    kept = [number for number, name in enumerate(lines[0]) if name not in _TEXT]
    rows = [[_read_cell(line[number]) for number in kept] for line in lines[1:]]
    return Table(
        caption=f"{fields.get('title', path.stem)}. Scale {fields.get('scale', 'not stated')}",
        columns=[lines[0][number].replace("_", " ") for number in kept],
        rows=rows,
        note="Accuracies are shares of 1.",
    )


def _read_cell(text: str) -> Cell:
    try:
        number = float(text)
    except ValueError:
        return Cell(text=text)
    return Cell(text=f"{number:.4g}", key=number)

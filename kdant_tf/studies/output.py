"""A study's table as CSV, JSON and LaTeX. No TensorFlow here."""

import csv
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdant_tf.studies.aggregate import Average
from kdant_tf.studies.summary import Cell, ResultTable
from tf_records.files import write_text_atomically

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
        f"{name}.json": json.dumps({**table.to_dict(), **about}, indent=1, ensure_ascii=False) + "\n",
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


def _csv_fields(cell: Cell) -> dict[str, Any]:
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
    heads = ["Method", "", "Ours", "Difference", *(["Paper"] if study.source else [])]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_tex(caption(table))}}}",
        rf"\begin{{tabular}}{{ll{'r' * (len(heads) - 2)}}}",
        r"\hline",
        " & ".join(heads) + r" \\",
    ]
    for row in study.rows:
        lines.append(r"\hline")
        for column in study.columns:
            cell = table.cells[row.name, column.name]
            numbers = (describe_average(cell), describe_difference(cell), describe_published(cell))
            cells = (row.title, column.name, *numbers)[: len(heads)]
            lines.append(" & ".join(map(escape_tex, cells)) + r" \\")
    return "\n".join([*lines, r"\hline", r"\end{tabular}", r"\end{table}"]) + "\n"


def escape_tex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return _SPECIAL.sub(lambda found: _TEX[found.group()], text)


def caption(table: ResultTable) -> str:
    """Title, scale, and what the numbers are."""
    study = table.study
    spread = " or ".join(sorted({cell.ours.sd_over for cell in table.cells.values() if cell.ours} - {""}))
    over = f" ± standard deviation over {spread}" if spread else ""
    paper = f"; paper: {study.source}" if study.source else ""
    references = list(dict.fromkeys(row.reference for row in study.rows if row.reference is not None))
    against = (
        f" Differences: from {' or '.join(references)}, 95 % intervals over videos." if references else ""
    )
    return f"{study.title}. Scale {study.scale}. Accuracy in %, mean{over}{paper}.{against}"


def describe_average(cell: Cell) -> str:
    """Such as "51.2 ± 3.1", in percent."""
    return "" if cell.ours is None else describe_spread(cell.ours)


def describe_spread(average: Average) -> str:
    """The same of a mean itself."""
    mean = f"{100 * average.mean:.1f}"
    return mean if average.sd is None else f"{mean} ± {100 * average.sd:.1f}"


def describe_difference(cell: Cell) -> str:
    """Such as "+1.2 [-3.1, +5.0]", in percentage points."""
    if cell.difference is None:
        return ""
    ends = (cell.difference.value, cell.difference.low, cell.difference.high)
    value, low, high = (round(100 * each, 1) + 0.0 for each in ends)  # adding 0 makes -0 positive
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def describe_published(cell: Cell) -> str:
    """Such as "70.2", in percent, or "(+1.4)" where the paper has a difference alone."""
    if cell.published is not None:
        return f"{100 * cell.published:.1f}"
    return "" if cell.published_difference is None else f"({100 * cell.published_difference:+.1f})"

"""What runs were made with, as tables: what they share, and what tells them apart. No TensorFlow here."""

from collections.abc import Mapping, Sequence
from typing import Any

from kdant_tf.report.content import Cell, Table
from kdant_tf.report.evaluated import read_config
from kdant_tf.runs import Run

_LATER = ("classes",)


def setting_tables(runs: Mapping[str, Run]) -> list[Table]:
    """All of the runs' config.json.

    Args:
        runs: name on the page → run.
    """
    fields = {name: flatten(read_config(run), leave_out=_LATER) for name, run in runs.items()}
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
            [Cell(text=name), *(Cell(text=each.get(key, "")) for key in differing)]
            for name, each in fields.items()
        ]
        table = Table(caption="Settings that differ", columns=("run", *differing), rows=rows)
        tables.insert(0, table)
    return tables


def field_table(caption: str, fields: Mapping[str, str]) -> Table:
    """Names and values."""
    rows = [[Cell(text=name), Cell(text=value)] for name, value in fields.items()]
    return Table(caption=caption, columns=("setting", "value"), rows=rows)


def flatten(fields: Mapping[str, Any], *, leave_out: Sequence[str] = (), prefix: str = "") -> dict[str, str]:
    """Nested JSON as one level of text: "execution: xla" → "auto"; TrainConfig's fields go by themselves."""
    flat: dict[str, str] = {}
    for name, value in fields.items():
        if name in leave_out:
            continue
        if isinstance(value, Mapping):
            inner = "" if name == "config" else f"{prefix}{name}: "
            flat |= flatten(value, prefix=inner)
        else:
            flat[f"{prefix}{name}"] = _describe(value)
    return flat


def _describe(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_describe, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)

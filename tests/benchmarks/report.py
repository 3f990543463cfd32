"""What the benchmarks say: the machine, and a table of rows."""

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tensorflow as tf
from measure import Row
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kdant_tf.version import __version__

_COLUMNS = (
    "",
    "pixels",
    "median ms",
    "minimum ms",
    "against",
    "median ms",
    "ratio",
    "of minima",
    "of CPU",
    "target",
)


def describe_machine() -> dict[str, Any]:
    """Hardware and versions; the load tells whether others were using the machine."""
    return {
        "cpu": _cpu_model(),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "devices": [device.device_type for device in tf.config.get_visible_devices()],
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS"),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": importlib.metadata.version("keras"),
        "kdant": __version__,
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def print_report(machine: dict[str, Any], rows: Iterable[Row], console: Console) -> None:
    """The table, under a line on the machine."""
    console.print(
        Text(
            f"{machine['cpu']}, {machine['cores']} cores, TensorFlow {machine['tensorflow']}, "
            f"Keras {machine['keras']}, load {machine['load_before']:.2f} before",
            style="italic",
        )
    )
    table = Table()
    for column in _COLUMNS:
        left = column in ("", "against", "target")
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in _cells(row)))
    console.print(table)
    console.print(
        "Targets are for two CPU cores with nothing else running; beside other work go by the ratio of CPU "
        "time. Nothing fails on them."
    )


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        "" if row.pixels is None else str(row.pixels),
        f"{1000 * row.times.median:.0f}",
        f"{1000 * row.times.minimum:.0f}",
        row.against,
        f"{1000 * row.against_times.median:.0f}",
        f"{row.ratio:.2f}",
        f"{row.ratio_of_minima:.2f}",
        "" if row.cpu_ratio is None else f"{row.cpu_ratio:.2f}",
        row.verdict,
    )


def _cpu_model() -> str:
    """The name in /proc/cpuinfo, or what `platform` knows."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())

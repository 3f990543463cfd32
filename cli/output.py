"""What commands print: one JSON object or rich tables on stdout, progress of what is counted on stderr."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from tf_records.files import json_text

from .command import printable

if TYPE_CHECKING:
    from tf_records.writer import ShardResult

# Lines that a build prints at most where stderr is no terminal.
_BUILD_LINES = 20


def print_json(value: Mapping[str, Any]) -> None:
    """Prints one JSON object on one line; a number that is not finite is null, see `json_text`.

    Where stdout's encoding lacks a character, all but ASCII is written as JSON's escapes.
    """
    text = json_text(value)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(json.loads(text))
    click.echo(text)


def print_table(
    title: str,
    columns: Iterable[str],
    rows: Iterable[Iterable[Any]],
    *,
    left: int = 1,
    show_lines: bool = False,
) -> None:
    """Prints a table whose first `left` columns hold text, the others numbers."""
    table = Table(show_lines=show_lines)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    _print_titled(title, table)


def print_fields(title: str, fields: Mapping[str, str]) -> None:
    """Prints names and values; long values fold, they are never cut."""
    table = Table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields.items():
        table.add_row(name, Text(printable(value)))
    _print_titled(title, table)


def _print_titled(title: str, table: Table) -> None:
    """The title stands above the table, not in it, where it would be wrapped to the table's width."""
    console = Console()
    if title:
        console.print(Text(printable(title), style="italic"))
    console.print(table)


def warn_of_other_network(*folders: Path | None) -> None:
    """Says on stderr which runs are known to have another model.keras than their training left.

    Args:
        folders: of runs; exports, of which this is not known, and None are passed over.
    """
    from kdant_tf.runs import MODEL_NAME, load_run

    for folder in folders:
        if folder is not None and (folder / MODEL_NAME).is_file() and load_run(folder).has_other_network:
            click.echo(
                f"Warning: run {printable(str(folder))} has another {MODEL_NAME} than its training left; its "
                f"settings and metrics are not this network's.",
                err=True,
            )


def percent(share: float) -> str:
    """ "12.3 %", and "none" of NaN: a share of no samples."""
    return "none" if math.isnan(share) else f"{100 * share:.1f} %"


def clock(seconds: float) -> str:
    """ "1:02:03"."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


class CountProgress:
    """A bar for a known number of things; use as a context manager. Silent where stderr is no terminal."""

    def __init__(self, what: str, total: int | None) -> None:
        self.console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.progress.add_task(what, total=total, note="")

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def advance(self, count: int) -> None:
        """Counts so many more."""
        self.progress.advance(self.task, count)

    def say(self, line: str) -> None:
        """Writes a line above the bar, or alone."""
        self.console.out(printable(line), highlight=False)


class BuildProgress(CountProgress):
    """Samples done, videos a second, time left, samples skipped; some twenty lines when piped.

    Args:
        samples: of the whole build.
    """

    def __init__(self, samples: int) -> None:
        super().__init__("building records", samples)
        self.samples = samples
        self.began_s = time.monotonic()
        self.done = self.videos = self.skipped = self.frames_decoded = 0
        self.features_task: TaskID | None = None

    def add_shard(self, result: ShardResult) -> None:
        """Counts a shard that is written."""
        before = self.done
        self.done += result.shard.records + len(result.skipped)
        self.videos += result.videos
        self.skipped += len(result.skipped)
        self.frames_decoded += result.frames_decoded
        elapsed_s = max(time.monotonic() - self.began_s, 1e-3)
        note = f"{self.videos / elapsed_s:.1f} videos/s, {self.skipped} skipped"
        self.progress.update(self.task, completed=self.done, note=note)
        lines = [count * _BUILD_LINES // self.samples for count in (before, self.done)]
        if not self.console.is_terminal and lines[0] < lines[1]:
            left_s = elapsed_s / self.done * (self.samples - self.done)
            line = f"building records: {self.done}/{self.samples} samples, {note}, {clock(left_s)} left"
            self.console.out(line, highlight=False)

    def add_features(self, records: int) -> None:
        """Counts records whose features were made, after the building."""
        if self.features_task is None:
            self.features_task = self.progress.add_task("extracting features", total=self.samples, note="")
        self.progress.advance(self.features_task, records)


def describe_memory() -> str:
    """ "2.1 GB", which this process holds of the machine, and "GPU 3.2 GB" of the fullest GPU."""
    import psutil

    held = psutil.Process().memory_info().rss
    gpu = gpu_bytes()
    return f"{held / 1e9:.1f} GB" + ("" if gpu is None else f", GPU {gpu / 1e9:.1f} GB")


def gpu_bytes() -> int | None:
    """What TensorFlow has given out on the GPU that has most; None without one."""
    import tensorflow as tf

    names = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices("GPU")]
    return max((tf.config.experimental.get_memory_info(name)["current"] for name in names), default=None)

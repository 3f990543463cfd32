"""A study's tables on stdout, and its progress on stderr."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kdant_tf.studies.results import (
    ResultTable,
    describe_average,
    describe_difference,
    describe_ours,
    describe_published,
    references_of,
    spread_over,
)
from kdant_tf.studies.study_folder import StudyFile
from kdant_tf.studies.study_plan import RunSpec, Study
from kdant_tf.studies.sweep import SweptSetting, pick_best, sweep_to_dict

from .output import clock, percent, print_json, print_table

_MOST_OUTCOMES = 8
_NUMBERS = ("loss", "accuracy", "validation_accuracy")


def print_result_table(table: ResultTable, as_json: bool) -> None:
    """A line for each row and column, in percent."""
    if as_json:
        print_json(table.to_dict())
        return
    study = table.study
    references = references_of(study)
    lines = []
    for row in study.rows:
        for column in study.columns:
            cell = table.cells[row.name, column.name]
            runs = "" if cell.ours is None else cell.ours.places
            numbers = (describe_ours(cell), describe_difference(cell), describe_published(cell))
            lines.append((row.title, column.name, runs, *numbers))
    against = f"from {references[0]}" if len(references) == 1 else "difference"
    head = ("network", "", "n", "ours, %", against, "paper")
    print_table(f"{study.title}\nScale {study.scale}; {study.source}", head, lines, left=2)
    if spread := spread_over(table):
        click.echo(f"± standard deviation over {spread}.")
    if any(cell.difference for cell in table.cells.values()):
        click.echo(
            f"Differences are from {' or '.join(references)} on the same test samples, averaged over seeds, "
            f"with 95 % intervals over videos."
        )
    _name_missing(table)


def print_drift_table(table: ResultTable, as_json: bool) -> None:
    """A table whose columns are drifts: accuracies, and below them what each row gains, in percent."""
    if as_json:
        print_json(table.to_dict())
        return
    study = table.study
    names = [column.name for column in study.columns]
    counts = sorted({cell.ours.places for cell in table.cells.values() if cell.ours is not None})
    runs = " or ".join(map(str, counts)) if counts else "no"
    head = f"{study.title}\nScale {study.scale}; {runs} seeds"
    levels = [
        (row.title, *(describe_ours(table.cells[row.name, name]) for name in names)) for row in study.rows
    ]
    print_table(f"{head}\nAccuracy, % ± standard deviation over seeds", ("network", *names), levels)
    gains = [
        (row.name, *(_on_two_lines(describe_difference(table.cells[row.name, name])) for name in names))
        for row in study.rows
        if row.reference is not None
    ]
    title = "Gain over none on the same test videos, points, 95 % intervals over videos and seeds"
    print_table(title, ("feature loss", *names), gains)
    _name_missing(table)


def _on_two_lines(difference: str) -> str:
    """The interval below, so that four of them fit into 80 characters."""
    return difference.replace(" [", "\n[")


def _name_missing(table: ResultTable) -> None:
    if table.missing:
        click.echo(f"Not finished, so not in the table: {', '.join(table.missing)}", err=True)


def print_sweep(study: Study, swept: Sequence[SweptSetting], as_json: bool) -> None:
    """What validation says of each setting of a sweep, and which is best."""
    if as_json:
        print_json(sweep_to_dict(study, swept))
        return
    lines = []
    for each in swept:
        setting = each.setting
        point = ("", "")
        if setting.feature_weight is not None:
            point = (f"{setting.feature_weight:g}", setting.alpha_words)
        numbers: tuple[Any, ...] = ("", "", "", "")
        if each.accuracy is not None and each.best_accuracy is not None:
            best = f"{100 * each.best_accuracy:.1f}"
            numbers = (each.accuracy.places, describe_average(each.accuracy), f"{each.loss:.3f}", best)
        further = (", ".join(setting.further),) if any(one.setting.further for one in swept) else ()
        lines.append((setting.feature_loss, *point, *further, *numbers))
    further = ("further",) if any(one.setting.further for one in swept) else ()
    head = ("feature loss", "weight", "alpha", *further, "runs", "top-1, %", "loss", "best epoch")
    print_table(f"{study.title}\nScale {study.scale}", head, lines)
    for loss, setting in pick_best(swept).items():
        weight = setting.feature_weight
        points = [] if weight is None else [f"feature weight {weight:g}, alpha {setting.alpha_words}"]
        click.echo(f"Best for {loss}: {', '.join([*points, *setting.further])}")


class StudyProgress:
    """An Observer; use as a context manager.

    Args:
        title: of the study.
        file: keeps the seconds that each run took.
        jobs: how many run at once.
        console: to print on; stderr if None.
    """

    def __init__(self, title: str, file: StudyFile, jobs: int, console: Console | None = None) -> None:
        self.title = title
        self.file = file
        self.jobs = jobs
        self.console = console or Console(stderr=True)
        self.live = Live(console=self.console, auto_refresh=False, transient=True)
        self.began_s = time.monotonic()
        self.total = 0
        self.waiting: dict[str, RunSpec] = {}
        self.running: dict[str, _Running] = {}
        self.outcomes: list[tuple[str, str]] = []
        self.finished_runs = 0
        self.epoch_seconds: dict[str, tuple[float, int]] = {}

    def __enter__(self) -> StudyProgress:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def planned(self, finished: Sequence[RunSpec], waiting: Sequence[RunSpec]) -> None:
        self.total = len(finished) + len(waiting)
        self.finished_runs = len(finished)
        self.waiting = {spec.name: spec for spec in waiting}
        for spec in finished:
            self._count(spec, self.file.seconds.get(spec.name, 0.0))
        if finished:
            self._say(f"{len(finished)} of {self.total} runs were finished before.")

    def started(self, spec: RunSpec) -> None:
        del self.waiting[spec.name]
        self.running[spec.name] = _Running(spec)

    def reported(self, spec: RunSpec, fields: Mapping[str, Any]) -> None:
        self.running[spec.name].take(fields)

    def ended(self, spec: RunSpec, seconds: float) -> None:
        self.file.add_seconds(spec.name, seconds)

    def finished(self, spec: RunSpec) -> None:
        run = self.running.pop(spec.name)
        self.finished_runs += 1
        seconds = self.file.seconds[spec.name]
        self._count(spec, seconds)
        self._end(spec.name, ", ".join((*run.results(), clock(seconds))))

    def failed(self, spec: RunSpec, reason: str) -> None:
        self.waiting.pop(spec.name, None)
        self.running.pop(spec.name, None)
        self._end(spec.name, f"FAILED: {reason}")

    def ticked(self) -> None:
        if self.console.is_terminal:
            self.live.update(self._render(), refresh=True)

    def left_s(self) -> float | None:
        """Seconds left, from what an epoch of such runs has taken; None before any is known."""
        runs = [(spec, spec.config.epochs) for spec in self.waiting.values()]
        runs += [(run.spec, run.spec.config.epochs - run.epoch) for run in self.running.values()]
        left = [self._epoch_s(spec) for spec, _ in runs]
        if any(seconds is None for seconds in left):
            return None
        total = sum((seconds or 0.0) * epochs for seconds, (_, epochs) in zip(left, runs, strict=True))
        return total / self.jobs

    def _count(self, spec: RunSpec, seconds: float) -> None:
        """Seconds of a finished run; 0 where they were not kept."""
        for kind in _kinds(spec) if seconds else ():
            before, epochs = self.epoch_seconds.get(kind, (0.0, 0))
            self.epoch_seconds[kind] = (before + seconds, epochs + spec.config.epochs)

    def _epoch_s(self, spec: RunSpec) -> float | None:
        for kind in _kinds(spec):
            if kind in self.epoch_seconds:
                seconds, epochs = self.epoch_seconds[kind]
                return seconds / epochs
        return None

    def _end(self, name: str, what: str) -> None:
        self.outcomes.append((name, what))
        left_s = self.left_s()
        left = "" if not left_s else f"; about {clock(left_s)} left"
        self._say(f"{self.finished_runs}/{self.total} runs: {name}: {what}{left}")

    def _say(self, line: str) -> None:
        if not self.console.is_terminal:
            self.console.out(line, highlight=False)

    def _render(self) -> RenderableType:
        table = Table("run", "epoch", "loss", "training top-1", "test top-1, time")
        for name, what in self.outcomes[-_MOST_OUTCOMES:]:
            table.add_row(Text(name), "", "", "", Text(what))
        for name, run in self.running.items():
            table.add_row(Text(name), *run.describe(), style="bold")
        left_s = self.left_s()
        left = "" if left_s is None else f", about {clock(left_s)} left"
        done = f"{self.finished_runs} of {self.total} runs, {len(self.waiting)} waiting"
        elapsed = clock(time.monotonic() - self.began_s)
        return Group(Text(self.title, style="italic"), table, Text(f"{done}; {elapsed} so far{left}"))


class _Running:
    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.epoch = 0
        self.numbers: dict[str, float] = {}
        self.top1: dict[str, float] = {}

    def take(self, fields: Mapping[str, Any]) -> None:
        self.epoch = fields.get("epoch", self.epoch)
        self.top1 = fields.get("top1", self.top1)
        self.numbers |= {name: fields[name] for name in _NUMBERS if name in fields}

    def results(self) -> list[str]:
        """Of validation in the last epoch, and on the test split."""
        results = [f"{view} top-1 {percent(share)}" for view, share in self.top1.items()]
        if "validation_accuracy" in self.numbers:
            results.insert(0, f"validation top-1 {percent(self.numbers['validation_accuracy'])}")
        return results

    def describe(self) -> tuple[str, str, str, str]:
        epochs = f"{self.epoch}/{self.spec.config.epochs}"
        if not self.numbers:
            return epochs, "", "", ""
        return epochs, f"{self.numbers['loss']:.3f}", percent(self.numbers["accuracy"]), ""


def _kinds(spec: RunSpec) -> tuple[str, str, str]:
    """From the most alike on: its networks, stream and loss; its role; any."""
    config = spec.config
    return (f"{spec.role}, {config.model}, {config.modality}, {config.feature_loss}", spec.role, "any")

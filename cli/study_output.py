"""A study's table on stdout."""

from collections.abc import Sequence
from typing import Any

import click

from kdant_tf.studies.output import describe_average, describe_difference, describe_published, describe_spread

from .output import print_json, print_table


def print_result_table(table: Any, as_json: bool) -> None:
    """A ResultTable: a line for each row and column, in percent."""
    if as_json:
        print_json(table.to_dict())
        return
    study = table.study
    references = list(dict.fromkeys(row.reference for row in study.rows if row.reference is not None))
    against = f"from {references[0]}" if len(references) == 1 else "difference"
    lines = []
    for row in study.rows:
        for column in study.columns:
            cell = table.cells[row.name, column.name]
            runs = "" if cell.ours is None else cell.ours.places
            difference = describe_difference(cell)
            lines.append(
                (
                    row.title,
                    column.name,
                    runs,
                    describe_average(cell),
                    difference,
                    describe_published(cell),
                )
            )
    head = ("network", "", "n", "ours, %", against, "paper")
    print_table(f"{study.title}\nScale {study.scale}; {study.source}", head, lines, left=2)
    if spread := {cell.ours.sd_over for cell in table.cells.values() if cell.ours} - {""}:
        click.echo(f"± standard deviation over {' or '.join(sorted(spread))}.")
    if any(cell.difference for cell in table.cells.values()):
        click.echo(
            f"Differences are from {' or '.join(references)} on the same test samples, averaged over seeds, "
            f"with 95 % intervals over videos."
        )
    _name_missing(table)


def print_drift_table(table: Any, as_json: bool) -> None:
    """A ResultTable whose columns are drifts: accuracies, and below them what each row gains, in percent."""
    if as_json:
        print_json(table.to_dict())
        return
    study = table.study
    names = [column.name for column in study.columns]
    counts = sorted({cell.ours.places for cell in table.cells.values() if cell.ours is not None})
    runs = " or ".join(map(str, counts)) if counts else "no"
    head = f"{study.title}\nScale {study.scale}; {runs} seeds"
    levels = [
        (row.title, *(describe_average(table.cells[row.name, name]) for name in names)) for row in study.rows
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
    """The interval below, without its brackets, so that four of them fit into 80 characters."""
    return difference.replace(" (", "\n").removesuffix(")")


def _name_missing(table: Any) -> None:
    if table.missing:
        click.echo(f"Not finished, so not in the table: {', '.join(table.missing)}", err=True)


def print_sweep(study: Any, swept: Sequence[Any], as_json: bool) -> None:
    """What validation says of each setting of a sweep, and which is best."""
    from kdant_tf.studies.sweep import pick_best, sweep_to_dict

    if as_json:
        print_json(sweep_to_dict(study, swept))
        return
    lines = []
    for each in swept:
        setting, seen = each.setting, each.accuracy
        weight = "" if setting.feature_weight is None else f"{setting.feature_weight:g}"
        alpha = "" if setting.feature_weight is None else setting.alpha_words
        numbers = ("", "", "", "")
        if seen is not None:
            best = f"{100 * each.best_accuracy:.1f}"
            numbers = (seen.places, describe_spread(seen), f"{each.loss:.3f}", best)
        lines.append((setting.feature_loss, weight, alpha, *numbers))
    head = ("feature loss", "weight", "alpha", "runs", "top-1, %", "loss", "best epoch")
    print_table(f"{study.title}\nScale {study.scale}", head, lines)
    for loss, setting in pick_best(swept).items():
        click.echo(f"Best for {loss}: feature weight {setting.feature_weight:g}, alpha {setting.alpha_words}")

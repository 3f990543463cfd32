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
    head = ("network", "", "runs", "ours, %", against, "paper, %")
    print_table(f"{study.title}\nScale {study.scale}; {study.source}", head, lines, left=2)
    if spread := {cell.ours.sd_over for cell in table.cells.values() if cell.ours} - {""}:
        click.echo(f"± standard deviation over {' or '.join(sorted(spread))}.")
    if any(cell.difference for cell in table.cells.values()):
        click.echo(
            f"Differences are from {' or '.join(references)} on the same test samples, averaged over seeds, "
            f"with 95 % intervals over videos."
        )
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
    head = ("feature loss", "weight", "alpha", "runs", "validation top-1, %", "loss", "best epoch, %")
    print_table(f"{study.title}\nScale {study.scale}", head, lines)
    for loss, setting in pick_best(swept).items():
        click.echo(f"Best for {loss}: feature weight {setting.feature_weight:g}, alpha {setting.alpha_words}")

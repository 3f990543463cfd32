"""A study's table on stdout."""

from typing import Any

import click

from kdant_tf.studies.output import describe_average, describe_difference, describe_share

from .output import print_json, print_table


def print_result_table(table: Any, as_json: bool) -> None:
    """A ResultTable: a line for each row and column, in percent."""
    if as_json:
        print_json(table.to_dict())
        return
    study = table.study
    references = {row.reference for row in study.rows} - {None}
    against = f"from {references.pop()}" if len(references) == 1 else "difference"
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
                    describe_share(cell.published),
                )
            )
    head = ("network", "", "runs", "ours, %", against, "paper, %")
    print_table(f"{study.title}\nScale {study.scale}; {study.source}", head, lines, left=2)
    if spread := {cell.ours.sd_over for cell in table.cells.values() if cell.ours} - {""}:
        click.echo(
            f"± standard deviation over {' or '.join(sorted(spread))}; differences on the same test "
            "samples, averaged over seeds, with 95 % intervals over videos."
        )
    if table.missing:
        click.echo(f"Not finished, so not in the table: {', '.join(table.missing)}", err=True)

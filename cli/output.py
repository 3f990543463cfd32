"""Results on stdout: one JSON object, or rich tables."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_json(value: Mapping[str, Any]) -> None:
    click.echo(json.dumps(value, ensure_ascii=False))


def print_table(
    title: str,
    columns: Iterable[str],
    rows: Iterable[Iterable[Any]],
    *,
    left: int = 1,
    show_lines: bool = False,
) -> None:
    """The first `left` columns hold text, the others numbers."""
    table = Table(show_lines=show_lines)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    _print_titled(title, table)


def print_fields(title: str, fields: Mapping[str, str]) -> None:
    """A table of names and values; long values fold, they are never cut."""
    table = Table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields.items():
        table.add_row(name, Text(value))
    _print_titled(title, table)


def _print_titled(title: str, table: Table) -> None:
    """The title stands above the table, not in it, where it would be wrapped to the table's width."""
    console = Console()
    if title:
        console.print(Text(title, style="italic"))
    console.print(table)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"

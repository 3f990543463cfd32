"""Anticipations on stdout, one after the other: JSON lines, plain lines, or a table that moves on."""

import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kdant_tf.anticipation.anticipate import Anticipation

from .output import percent

# Times that the table on a terminal holds.
_ROWS = 10
_BAR = 10

Likeliest = list[tuple[str, float]]


class Show(Protocol):
    """Shows one anticipation, of which `likeliest` is to be seen."""

    def __call__(self, anticipation: Anticipation, likeliest: Likeliest) -> None: ...


def to_line(name: str, anticipation: Anticipation, likeliest: Likeliest) -> dict[str, Any]:
    """One JSON line."""
    return {
        "source": name,
        "time_s": round(anticipation.time_s, 4),
        "expected_s": round(anticipation.expected_s, 4),
        "expected": [{"class": each, "probability": round(value, 6)} for each, value in likeliest],
        **({"dropped": anticipation.dropped} if anticipation.dropped else {}),
    }


@contextmanager
def choose_show(name: str, json_lines: bool) -> Iterator[Show]:
    """How anticipations on the source of this name are shown, for as long as the context lasts."""
    console = Console()
    if json_lines:

        def show_json(anticipation: Anticipation, likeliest: Likeliest) -> None:
            click.echo(json.dumps(to_line(name, anticipation, likeliest), ensure_ascii=False))

        yield show_json
    elif console.is_terminal:
        with Live(console=console, auto_refresh=False) as screen:
            rows: deque[tuple[Anticipation, Likeliest]] = deque(maxlen=_ROWS)

            def show_row(anticipation: Anticipation, likeliest: Likeliest) -> None:
                rows.append((anticipation, likeliest))
                screen.update(_draw_table(name, rows), refresh=True)

            yield show_row
    else:
        titles = iter([f"{name}: last frame seen → when what is expected begins"])

        def show_line(anticipation: Anticipation, likeliest: Likeliest) -> None:
            for title in titles:
                click.echo(title)
            words = "  ".join(f"{each} {percent(value)}" for each, value in likeliest)
            click.echo(f"{anticipation.time_s:9.2f} s  →{anticipation.expected_s:9.2f} s  {words or '-'}")

        yield show_line


def _draw_table(name: str, rows: deque[tuple[Anticipation, Likeliest]]) -> Table:
    table = Table(title=Text(name), title_justify="left", title_style="italic")
    for column in ("seen", "expected"):
        table.add_column(column, justify="right", no_wrap=True, min_width=9)
    table.add_column("", no_wrap=True)
    for number, (anticipation, likeliest) in enumerate(rows):
        words = Text()
        if likeliest:
            full = round(_BAR * likeliest[0][1])
            words.append("█" * full + "░" * (_BAR - full), style="cyan")
        for class_name, value in likeliest:
            words.append(f"  {class_name} {percent(value)}")
        table.add_row(
            f"{anticipation.time_s:.2f} s",
            f"{anticipation.expected_s:.2f} s",
            words if likeliest else "-",
            style="bold" if number == len(rows) - 1 else "dim",
        )
    return table

"""Anticipations on stdout: JSON lines, plain lines, or a table that moves on; notes on stderr."""

import json
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import click
import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kdant_tf.anticipation.anticipate import Anticipation, anticipate, find_fps
from kdant_tf.anticipation.latencies import Latencies
from kdant_tf.anticipation.overlay_panel import BARS, Panel
from kdant_tf.anticipation.overlay_video import OverlayVideo
from kdant_tf.anticipation.source import Source, TimedFrame, open_source
from kdant_tf.serving.model import AnticipationModel
from tf_records.schema import FlowInfo

from .output import percent, print_fields

# Times that the table on a terminal holds.
_ROWS = 10
_BAR = 10

Likeliest = list[tuple[str, float]]


class Show(Protocol):
    """Shows one anticipation, of which `likeliest` is to be seen."""

    def __call__(self, anticipation: Anticipation, likeliest: Likeliest) -> None: ...


def warm_up(model: AnticipationModel) -> None:
    """A first answer takes seconds, which no stream should wait for."""
    side = model.short_side
    model.probabilities(np.zeros((1, model.clip_frames, side, side, model.channels), np.uint8))


def show_anticipations(
    text: str,
    model: AnticipationModel,
    *,
    live: bool,
    rate: float | None,
    stride_s: float,
    flow: FlowInfo | None,
    top: int,
    threshold: float,
    json_lines: bool,
    latency: bool,
    overlay: Path | None,
) -> None:
    """Goes through one source and prints what the model expects.

    Raises:
        VideoError: see `open_source` and `anticipate`.
    """
    with closing(open_source(text, live=live, rate=model.fps if rate is None else rate)) as source:
        fps = find_fps(source, model)
        if model.fps is None:
            click.echo(
                f"The model knows no frame rate, so that of {source.name} is taken: {fps:.4g}. Another one: "
                f"--fps.",
                err=True,
            )
        latencies = Latencies(model.ahead_at(fps))
        with (
            _choose_show(source, json_lines) as show,
            _open_overlay(overlay, source, model, stride_s) as film,
        ):
            try:
                for each in anticipate(source, model, stride_s=stride_s, flow=flow, on_frame=film.draw):
                    latencies.add(each.latency_s, each.dropped)
                    show(each, each.likeliest(model.classes, top, threshold))
                    film.expect(each.expected_s, each.likeliest(model.classes, BARS, threshold))
            except KeyboardInterrupt:
                # There is no other end to a camera.
                if not source.live:
                    raise
            finally:
                for complaint in source.complaints():
                    click.echo(f"{source.name}: {complaint}", err=True)
        if latencies.answers:
            _print_end(source, latencies, json_lines, latency)
        if overlay is not None:
            click.echo(f"Drew {overlay}", err=True)


class _NoFilm:
    """Where nothing is drawn."""

    def draw(self, timed: TimedFrame) -> None:
        """Takes a frame."""

    def expect(self, from_s: float, likeliest: Likeliest) -> None:
        """Takes what is expected."""


@contextmanager
def _open_overlay(
    path: Path | None, source: Source, model: AnticipationModel, stride_s: float
) -> Iterator[OverlayVideo | _NoFilm]:
    if path is None:
        yield _NoFilm()
        return
    panel = Panel(model.classes, ahead_s=model.ahead_at(find_fps(source, model)), stride_s=stride_s)
    with OverlayVideo(path, source, panel) as film:
        yield film


def to_line(name: str, anticipation: Anticipation, likeliest: Likeliest) -> dict[str, Any]:
    """One JSON line."""
    return {
        "source": name,
        "time_s": round(anticipation.time_s, 4),
        "expected_s": round(anticipation.expected_s, 4),
        "expected": [{"class": name, "probability": round(value, 6)} for name, value in likeliest],
        **({"dropped": anticipation.dropped} if anticipation.dropped else {}),
    }


@contextmanager
def _choose_show(source: Source, json_lines: bool) -> Iterator[Show]:
    console = Console()
    if json_lines:

        def show_json(anticipation: Anticipation, likeliest: Likeliest) -> None:
            click.echo(json.dumps(to_line(source.name, anticipation, likeliest), ensure_ascii=False))

        yield show_json
    elif console.is_terminal:
        with Live(console=console, auto_refresh=False) as screen:
            rows: deque[tuple[Anticipation, Likeliest]] = deque(maxlen=_ROWS)

            def show_row(anticipation: Anticipation, likeliest: Likeliest) -> None:
                rows.append((anticipation, likeliest))
                screen.update(_draw_table(source.name, rows), refresh=True)

            yield show_row
    else:

        def show_line(anticipation: Anticipation, likeliest: Likeliest) -> None:
            words = "  ".join(f"{name} {percent(value)}" for name, value in likeliest)
            click.echo(f"{anticipation.time_s:9.2f} s  →{anticipation.expected_s:9.2f} s  {words or '-'}")

        click.echo(f"{source.name}: last frame seen → when what is expected begins")
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


def _print_end(source: Source, latencies: Latencies, json_lines: bool, latency: bool) -> None:
    windows = latencies.answers + latencies.dropped
    if latencies.dropped:
        click.echo(
            f"{source.name}: {latencies.dropped} of {windows} clips were dropped to keep up "
            f"({percent(latencies.dropped / windows)}).",
            err=True,
        )
    if latency and json_lines:
        click.echo(json.dumps({"source": source.name, "latency": latencies.summary()}))
    elif latency:
        _print_latency(source.name, latencies)


def _print_latency(name: str, latencies: Latencies) -> None:
    ahead_s = latencies.ahead_s
    fields = {
        "anticipation time": f"{ahead_s:.3f} s" if ahead_s > 0 else "none: clip and action overlap",
        "answers": f"{latencies.answers}, and {latencies.dropped} dropped",
    }
    for name_of, share in (("median", 50), ("90 % within", 90), ("99 % within", 99)):
        part = latencies.share(share)
        words = "" if part is None else f", {percent(part)} of the anticipation time"
        fields[f"latency, {name_of}"] = f"{1000 * latencies.percentile_s(share):.1f} ms{words}"
    if ahead_s > 0:
        fields["later than the action"] = f"{latencies.late} ({percent(latencies.late / latencies.answers)})"
    print_fields(f"From the last frame of a clip of {name} to the answer", fields)

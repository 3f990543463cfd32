"""kdant predict"""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import click
import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kdant_tf.anticipation.anticipate import Anticipation, Latencies, anticipate, find_fps
from kdant_tf.anticipation.overlay import BARS, OverlayVideo, Panel
from kdant_tf.anticipation.sources import Source, TimedFrame, open_source
from kdant_tf.serving.model import AnticipationModel
from tf_records.errors import KdantError
from tf_records.schema import FlowInfo
from tf_records.start_tensorflow import start_tensorflow

from .command import FOLDER, KdantCommand, add_options
from .output import percent, print_fields

# Options of commands that can ask a server in place of loading a model.


def _parse_server(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, int] | None:
    from kdant_tf.serving.server import parse_address

    try:
        return None if value is None else parse_address(value)
    except KdantError as error:
        raise click.BadParameter(str(error), ctx, param) from error


server_options = add_options(
    click.option(
        "--server",
        callback=_parse_server,
        metavar="HOST:PORT",
        help="Ask a TensorFlow Serving. The model is then the exported folder that it serves, or a copy of "
        "its config.json, which tells classes and clips; no network is loaded.",
    ),
    click.option("--model-name", default="kdant", show_default=True, help="That the server has it under."),
    click.option("--grpc", is_flag=True, help="Speak gRPC (extra serving) with the server, not REST."),
    click.option("--tls", is_flag=True, help="Speak TLS with the server, or with what stands before it."),
    click.option(
        "--ca-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="PEM file of the authorities that may vouch for the server, with --tls. Default: those that the "
        "system trusts, or over gRPC its own list.",
    ),
    click.option(
        "--timeout-s",
        type=click.FloatRange(0, min_open=True),
        default=30.0,
        show_default=True,
        help="Seconds that an answer of the server may take.",
    ),
)


def make_server(server: tuple[str, int] | None, *, grpc: bool, tls: bool, **options: Any) -> Any:
    """The `kdant_tf.serving.server.Server` that the options name, or None."""
    if server is None:
        if grpc or tls:
            raise click.UsageError(f"--{'grpc' if grpc else 'tls'} goes with --server HOST:PORT.")
        return None
    if options["ca_file"] is not None and not tls:
        raise click.UsageError("--ca-file goes with --tls.")
    from kdant_tf.serving.server import Server

    host, port = server
    return Server(host=host, port=port, tls=tls, **options)


def open_model(folder: Path, *, grpc: bool, **options: Any) -> Any:
    """The AnticipationModel of `folder`, or the one that a server has of it.

    Args:
        folder: of a run or an export.
        grpc, options: the values of `server_options`.
    """
    server = make_server(grpc=grpc, **options)
    if server is None or grpc:
        start_tensorflow()
    if server is None:
        from kdant_tf.serving.model import load_model

        return load_model(folder)
    from kdant_tf.serving.client import connect

    return connect(server, folder, grpc=grpc)


@click.command("predict", cls=KdantCommand)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--model", "folder", required=True, type=FOLDER, help="Run folder, or one written by export.")
@click.option(
    "--stride-s",
    type=click.FloatRange(0, 3600, min_open=True),
    default=0.25,
    show_default=True,
    help="Seconds from one clip to the next.",
)
@click.option(
    "--top", type=click.IntRange(1), default=3, show_default=True, help="Actions shown of each time."
)
@click.option(
    "--threshold", type=click.FloatRange(0, 1), default=0.0, help="Leave less probable actions out."
)
@click.option("--json-lines", is_flag=True, help="Print one JSON object a clip.")
@click.option(
    "--overlay",
    type=FOLDER,
    help="Also write a copy of the video with the likeliest actions drawn over it: FILE.mp4, .mov or .mkv.",
)
@click.option("--live", is_flag=True, help="stdin does not wait: drop clips rather than fall behind.")
@click.option("--latency", is_flag=True, help="Report what share of the anticipation time computing takes.")
@click.option(
    "--fps",
    type=click.FloatRange(0, 1000, min_open=True),
    help="Frames per second of the model's clips; default: those it was trained on, or else the source's.",
)
@click.option(
    "--source-fps",
    type=click.FloatRange(0, 1000, min_open=True),
    help="Frames per second of a source that states none, such as a folder; default: the model's.",
)
@click.option(
    "--reconnect-s",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    help="Seconds that an rtsp:// stream or a camera may be away before it is given up; 0: not at all.",
)
@click.option(
    "--flow-algorithm",
    type=click.Choice(["tvl1", "dis", "farneback"]),
    help="For a model of optical flow; default: as its records were made.",
)
@server_options
def predict(
    sources: tuple[str, ...],
    folder: Path,
    stride_s: float,
    top: int,
    threshold: float,
    json_lines: bool,
    overlay: Path | None,
    live: bool,
    latency: bool,
    fps: float | None,
    source_fps: float | None,
    reconnect_s: float,
    flow_algorithm: str | None,
    **where: Any,
) -> None:
    """Say what is about to happen, time by time, in videos and streams.

    SOURCE is a video file, a folder of numbered pictures, - for a stream on stdin, the number of a camera, or
    an rtsp:// URL; several are gone through one after the other. A window of the length of the model's clips
    slides over it; for each time it is said what is expected when the model's offset has passed.
    """
    from kdant_tf.anticipation.sources import check_source

    for text in sources:
        check_source(text, live=live)
    if overlay is not None:
        _check_overlay(overlay, sources, live)
    model = open_model(folder, **where)

    if fps is not None:
        model = dataclasses.replace(model, fps=fps)
    wishes = Wishes(
        live=live,
        source_fps=source_fps,
        reconnect_s=reconnect_s,
        stride_s=stride_s,
        flow=_choose_flow(model, flow_algorithm),
        top=top,
        threshold=threshold,
        json_lines=json_lines,
        latency=latency,
        overlay=overlay,
    )
    warm_up(model)
    _go_through_all(sources, lambda text: show_anticipations(text, model, wishes))


def _go_through_all(sources: tuple[str, ...], go_through: Callable[[str], None]) -> None:
    """One source that fails does not keep the others from being gone through."""
    failed = 0
    for text in sources:
        try:
            go_through(text)
        except KdantError as error:
            if len(sources) == 1:
                raise
            failed += 1
            click.echo(f"Error: {error}", err=True)
    if failed:
        raise KdantError(f"{failed} of {len(sources)} sources could not be gone through, see above.")


def _check_overlay(overlay: Path, sources: tuple[str, ...], live: bool) -> None:
    from kdant_tf.anticipation.overlay import check_overlay
    from kdant_tf.anticipation.sources import is_live

    if len(sources) > 1 or live or is_live(sources[0]):
        raise click.UsageError("--overlay is for one source, which waits for its frames to be read.")
    check_overlay(overlay, sources[0])


def _choose_flow(model: Any, algorithm: str | None) -> Any:
    """How flow is computed, for a model that sees it."""
    from tf_records.flow import describe_flow

    if "flow" not in model.modality:
        return None
    if algorithm is not None:
        return describe_flow(algorithm) if model.flow is None else describe_flow(algorithm, model.flow.bound)
    if model.flow is None:  # Of an older run.
        raise KdantError(
            f"Model {model.name} sees optical flow. Say how that of its records was computed, which kdant "
            f"inspect tells: --flow-algorithm tvl1, dis or farneback."
        )
    # With the OpenCV that is here.
    return dataclasses.replace(model.flow, opencv=describe_flow(model.flow.algorithm).opencv)


# One source gone through: what the model expects on stdout, notes on stderr, maybe a video drawn over.


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What `kdant predict` was asked for, by the names of its options; `flow` is how flow is computed."""

    live: bool
    source_fps: float | None
    reconnect_s: float
    stride_s: float
    flow: FlowInfo | None
    top: int
    threshold: float
    json_lines: bool
    latency: bool
    overlay: Path | None


def warm_up(model: AnticipationModel) -> None:
    """A first answer takes seconds, which no stream should wait for."""
    side = model.short_side
    model.probabilities(np.zeros((1, model.clip_frames, side, side, model.channels), np.uint8))


def show_anticipations(text: str, model: AnticipationModel, wishes: Wishes) -> None:
    """Goes through one source and prints what the model expects.

    Raises:
        VideoError: see `open_source` and `anticipate`.
    """
    rate = model.fps if wishes.source_fps is None else wishes.source_fps
    opened = open_source(
        text,
        live=wishes.live,
        rate=rate,
        reconnect_s=wishes.reconnect_s,
        report=lambda line: click.echo(line, err=True),
    )
    with closing(opened) as source:
        fps = find_fps(source, model)
        if model.fps is None:
            click.echo(
                f"The model knows no frame rate, so that of {source.name} is taken: {fps:.4g}. Another one: "
                f"--fps.",
                err=True,
            )
        latencies = Latencies(model.ahead_at(fps))
        try:
            _go_through(source, model, wishes, latencies)
        except KeyboardInterrupt:
            # There is no other end to a camera.
            if not source.live:
                raise
        finally:
            for complaint in source.complaints():
                click.echo(f"{source.name}: {complaint}", err=True)
        if latencies.answers:
            _print_end(source, latencies, wishes.json_lines, wishes.latency)


def _go_through(source: Source, model: AnticipationModel, wishes: Wishes, latencies: Latencies) -> None:
    with (
        choose_show(source.name, wishes.json_lines) as show,
        _open_overlay(wishes.overlay, source, model, wishes.stride_s) as film,
    ):
        for each in anticipate(source, model, stride_s=wishes.stride_s, flow=wishes.flow, on_frame=film.draw):
            latencies.add(each.latency_s, each.dropped)
            show(each, each.likeliest(model.classes, wishes.top, wishes.threshold))
            film.expect(each.expected_s, each.likeliest(model.classes, BARS, wishes.threshold))
    if wishes.overlay is not None:
        click.echo(f"Drew {wishes.overlay}", err=True)


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


# Anticipations on stdout, one after the other: JSON lines, plain lines, or a table that moves on.


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

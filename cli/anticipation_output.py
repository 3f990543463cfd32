"""One source gone through: what the model expects on stdout, notes on stderr, maybe a video drawn over."""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click
import numpy as np

from kdant_tf.anticipation.anticipate import anticipate, find_fps
from kdant_tf.anticipation.latencies import Latencies
from kdant_tf.anticipation.overlay_panel import BARS, Panel
from kdant_tf.anticipation.overlay_video import OverlayVideo
from kdant_tf.anticipation.source import Source, TimedFrame, open_source
from kdant_tf.serving.model import AnticipationModel
from tf_records.schema import FlowInfo

from .anticipation_shows import Likeliest, choose_show
from .output import percent, print_fields


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

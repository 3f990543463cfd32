"""kdant predict"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tf_records.errors import KdantError
from tf_records.flow import ALGORITHMS
from tf_records.heads import are_times

from .command import FOLDER, RUN, KdantCommand, engine_options, make_engine, printable
from .output import percent, print_fields, print_json
from .server import open_model, server_options

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from kdant_tf.anticipation.anticipate import Anticipation, Latencies
    from kdant_tf.anticipation.live_page import LivePage
    from kdant_tf.anticipation.overlay import OverlayVideo
    from kdant_tf.anticipation.sources import FrameSource
    from kdant_tf.serving.model import AnticipationModel

    Likeliest = list[tuple[str, float]]
    # Of each head, "" where there is one.
    Printer = Callable[[Anticipation, dict[str, Likeliest]], None]

# Times that the table on a terminal holds.
_ROWS = 10
# Characters of the likeliest class's bar.
_BAR = 10


@click.command("predict", cls=KdantCommand, short_help="Say what is about to happen in videos and streams.")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "--model", "folder", required=True, type=RUN, help="Run folder or archive, or a folder written by export."
)
@click.option(
    "--stride-s",
    type=click.FloatRange(0, 3600, min_open=True),
    default=0.25,
    show_default=True,
    help="Seconds from one clip to the next.",
)
@click.option(
    "--top", type=click.IntRange(1), default=3, show_default=True, help="Actions named at each time."
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
    type=click.Choice(list(ALGORITHMS)),
    help="For a model of optical flow; default: as its records were made.",
)
@click.option("--web", is_flag=True, help="Also show it in the browser: a page at the address printed.")
@click.option("--host", help="With --web: address to listen at; default: 127.0.0.1, this machine alone.")
@click.option("--port", type=click.IntRange(0, 65535), help="With --web: 0 for a free one; default: 8000.")
@engine_options
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
    web: bool,
    host: str | None,
    port: int | None,
    engine: str,
    precision: str,
    **server: Any,
) -> None:
    """Say what is about to happen, time by time, in videos and streams.

    SOURCE is a video file, a folder of numbered pictures, - for a stream on stdin, the number of a camera, or
    an rtsp:// URL; several are gone through one after the other. A window of the length of the model's clips
    slides over it; for each time it is said what is expected when the model's offset has passed.
    """
    from kdant_tf.anticipation.anticipate import fit_model
    from kdant_tf.anticipation.sources import STDIN, check_source

    made = make_engine(engine, precision)
    if overlay is not None:
        _check_overlay(overlay, sources, live, web)
    alone = len(sources) == 1
    readable = _try_each(sources, lambda source: check_source(source, live=live), alone=alone)
    if not readable:
        raise KdantError("None of the sources can be read, see above.")
    done = readable
    with _open_page(web, host, port) as page:
        model = fit_model(open_model(folder, engine=made, **server), fps=fps, flow_algorithm=flow_algorithm)
        model.warm_up()
        options = _Options(
            live=live,
            source_fps=source_fps,
            reconnect_s=reconnect_s,
            stride_s=stride_s,
            top=top,
            threshold=threshold,
            json_lines=json_lines,
            latency=latency,
            overlay=overlay,
            page=page,
        )
        go_through = partial(_predict_source, model=model, options=options)
        done = _try_each(readable, go_through, alone=alone)
        while page is not None and page.wait_for_replay(possible=STDIN not in sources):
            done = _try_each(readable, go_through, alone=alone)
    if len(done) < len(sources):
        raise KdantError(
            f"{len(sources) - len(done)} of {len(sources)} sources could not be gone through, see above."
        )


@contextmanager
def _open_page(web: bool, host: str | None, port: int | None) -> Iterator[LivePage | None]:
    """A page in the browser if it is asked for; Ctrl-C is then the way to end."""
    if not web:
        if host is not None or port is not None:
            raise click.UsageError(f"--{'port' if host is None else 'host'} goes with --web.")
        yield None
        return
    from kdant_tf.anticipation.live_page import LivePage

    with (
        suppress(KeyboardInterrupt),
        LivePage(host=host or "127.0.0.1", port=8000 if port is None else port) as page,
    ):
        _print_note(f"Open {page.url} in a browser. Ctrl-C ends it.")
        yield page


def _try_each(sources: Sequence[str], function: Callable[[str], None], *, alone: bool) -> list[str]:
    """The sources that `function` does; unless it is `alone`, one that fails does not keep the others."""
    done = []
    for source in sources:
        try:
            function(source)
        except KdantError as error:
            if alone:
                raise
            _print_note(f"Error: {error}")
        else:
            done.append(source)
    return done


def _check_overlay(overlay: Path, sources: tuple[str, ...], live: bool, web: bool) -> None:
    from kdant_tf.anticipation.overlay import check_overlay
    from kdant_tf.anticipation.sources import is_live

    if len(sources) > 1 or live or is_live(sources[0]) or web:
        raise click.UsageError(
            "--overlay is for one source, which waits for its frames to be read, so not with --web."
        )
    check_overlay(overlay, sources[0])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """The options of `kdant predict` that each source is gone through with."""

    live: bool
    source_fps: float | None
    reconnect_s: float
    stride_s: float
    top: int
    threshold: float
    json_lines: bool
    latency: bool
    overlay: Path | None
    page: LivePage | None


def _predict_source(text: str, model: AnticipationModel, options: _Options) -> None:
    """What the model expects of one source on stdout, notes on stderr, maybe a video drawn over.

    Raises:
        VideoError: see `open_source` and `anticipate`.
    """
    from kdant_tf.anticipation.anticipate import Latencies, find_fps
    from kdant_tf.anticipation.sources import open_source

    page, interrupted = options.page, False
    opened = open_source(
        text,
        live=options.live,
        rate=model.fps if options.source_fps is None else options.source_fps,
        reconnect_s=options.reconnect_s,
        report=partial(_report, page=page),
    )
    with closing(opened):
        source = _play(opened, model, options)
        fps = find_fps(source, model)
        if model.fps is None:
            _print_note(
                f"The model knows no frame rate, so that of {source.name} is taken: {fps:.4g}. Another one: "
                f"--fps."
            )
        # The page tells of the head that it shows, which of several times is the last.
        latencies = Latencies((model if page is None else _shown_of(model)).ahead_at(fps))
        try:
            _print_anticipations(source, model, options, latencies)
        except KeyboardInterrupt:
            # There is no other end to a camera.
            if not source.live:
                raise
            interrupted = True
        finally:
            for problem in source.problems():
                _print_note(f"{source.name}: {problem}")
        if latencies.answers:
            _print_latencies(source.name, latencies, options)
    if interrupted and page is not None:
        raise KeyboardInterrupt


def _play(source: FrameSource, model: AnticipationModel, options: _Options) -> FrameSource:
    """The source, or where there is a page, one that is shown there."""
    if options.page is None:
        return source
    from kdant_tf.anticipation.live_page import PlayedSource

    played = PlayedSource(source, options.page)
    options.page.begin(played, _shown_of(model), stride_s=options.stride_s)
    return played


def _shown_of(model: AnticipationModel) -> AnticipationModel:
    """What overlay and page show: of several heads, the last one's classes, at its time."""
    if len(model.heads) < 2:
        return model
    last, clip = model.heads[-1], model.clip
    if last.ahead_s is not None:
        clip = dataclasses.replace(clip, anticipation_s=last.ahead_s)
    return dataclasses.replace(model, classes=last.classes, clip=clip, heads=())


def _report(line: str, page: LivePage | None) -> None:
    _print_note(line)
    if page is not None:
        page.note(line)


def _print_note(line: str) -> None:
    click.echo(line, err=True)


def _print_anticipations(
    source: FrameSource, model: AnticipationModel, options: _Options, latencies: Latencies
) -> None:
    from kdant_tf.anticipation.anticipate import anticipate

    with (
        _choose_printer(source.name, options.json_lines) as print_anticipation,
        _open_overlay(source, model, options) as overlay,
    ):
        draw = {} if overlay is None else {"on_frame": overlay.draw}
        for each in anticipate(source, model, stride_s=options.stride_s, **draw):
            latencies.add(each.latency_s, each.dropped)
            answers = each.answers()
            print_anticipation(
                each, {name: answer.top(options.top, options.threshold) for name, answer in answers.items()}
            )
            # The last of several heads: an action says more than its verb.
            shown = [*answers.values()][-1]
            if options.page is not None:
                likeliest = {head: answer.top(1, options.threshold) for head, answer in answers.items()}
                others = dict([*likeliest.items()][:-1])
                options.page.expect(shown, shown.top(threshold=options.threshold), latencies, others)
            if overlay is not None:
                overlay.expect(shown.expected_s, shown.top(threshold=options.threshold))
    if overlay is not None:
        _print_note(f"Drew {options.overlay}")


@contextmanager
def _open_overlay(
    source: FrameSource, model: AnticipationModel, options: _Options
) -> Iterator[OverlayVideo | None]:
    if options.overlay is None:
        yield None
        return
    from kdant_tf.anticipation.anticipate import find_fps
    from kdant_tf.anticipation.overlay import OverlayPanel, OverlayVideo

    ahead_s = model.ahead_at(find_fps(source, model))
    panel = OverlayPanel(_shown_of(model).classes, ahead_s=ahead_s, stride_s=options.stride_s)
    with OverlayVideo(options.overlay, source, panel) as overlay:
        yield overlay


def _print_latencies(name: str, latencies: Latencies, options: _Options) -> None:
    if latencies.dropped:
        windows = latencies.answers + latencies.dropped
        _print_note(
            f"{name}: {latencies.dropped} of {windows} clips were dropped to keep up "
            f"({percent(latencies.dropped / windows)})."
        )
    if options.latency and options.json_lines:
        print_json({"source": name, "latency": latencies.summary()})
    elif options.latency:
        _print_latency_table(name, latencies)


def _print_latency_table(name: str, latencies: Latencies) -> None:
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


@contextmanager
def _choose_printer(name: str, json_lines: bool) -> Iterator[Printer]:
    """Prints anticipations on the source of this name: JSON lines, plain lines, or a table that moves on."""
    from rich.console import Console

    console = Console()
    if json_lines:
        yield lambda anticipation, likeliest: print_json(_to_fields(name, anticipation, likeliest))
    elif console.is_terminal:
        with _live_table(name, console) as print_row:
            yield print_row
    else:
        yield _plain_printer(name)


def _to_fields(name: str, anticipation: Anticipation, answers: dict[str, Likeliest]) -> dict[str, Any]:
    """Of a JSON line."""
    expected = {
        head: [{"class": each, "probability": round(value, 6)} for each, value in likeliest]
        for head, likeliest in answers.items()
    }
    return {
        "source": name,
        "time_s": round(anticipation.time_s, 4),
        "expected_s": round(anticipation.expected_s, 4),
        "expected": expected.get("", expected),
        **_times_of(anticipation),
        **({"dropped": anticipation.dropped} if anticipation.dropped else {}),
    }


def _times_of(anticipation: Anticipation) -> dict[str, Any]:
    """Of heads for several times, when what each names begins."""
    if not are_times(anticipation.heads):
        return {}
    answers = anticipation.answers()
    return {"expected_at_s": {head: round(answer.expected_s, 4) for head, answer in answers.items()}}


def _plain_printer(name: str) -> Printer:
    """A title before the first line, and a line for each."""
    titles = iter([f"{name}: last frame seen → when what is expected begins"])

    def print_line(anticipation: Anticipation, answers: dict[str, Likeliest]) -> None:
        for title in titles:
            click.echo(printable(title))
        if are_times(anticipation.heads):  # A time line: what comes when.
            when = {head: each.expected_s for head, each in anticipation.answers().items()}
            line = "  ".join(
                f"→{when[head]:8.2f} s  {_describe_answer('', likeliest)}"
                for head, likeliest in answers.items()
            )
            click.echo(f"{anticipation.time_s:9.2f} s  {line}")
            return
        words = " | ".join(_describe_answer(head, likeliest) for head, likeliest in answers.items())
        click.echo(f"{anticipation.time_s:9.2f} s  →{anticipation.expected_s:9.2f} s  {words}")

    return print_line


def _describe_answer(head: str, likeliest: Likeliest) -> str:
    """Such as "take 61.0 %  put 12.3 %", after "verb: " where there are several heads."""
    words = "  ".join(f"{printable(each)} {percent(value)}" for each, value in likeliest)
    return f"{f'{head}: ' if head else ''}{words or '-'}"


@contextmanager
def _live_table(name: str, console: Console) -> Iterator[Printer]:
    """The last anticipations in a table on a terminal."""
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as screen:
        rows: deque[tuple[Anticipation, dict[str, Likeliest]]] = deque(maxlen=_ROWS)

        def print_row(anticipation: Anticipation, answers: dict[str, Likeliest]) -> None:
            rows.append((anticipation, answers))
            screen.update(_draw_table(name, rows), refresh=True)

        yield print_row


def _draw_table(name: str, rows: deque[tuple[Anticipation, dict[str, Likeliest]]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(name), title_justify="left", title_style="italic")
    for column in ("seen", "expected"):
        table.add_column(column, justify="right", no_wrap=True, min_width=9)
    table.add_column("", no_wrap=True)
    for number, (anticipation, answers) in enumerate(rows):
        words = Text("\n").join(_draw_answer(head, likeliest) for head, likeliest in answers.items())
        table.add_row(
            f"{anticipation.time_s:.2f} s",
            f"{anticipation.expected_s:.2f} s",
            words,
            style="bold" if number == len(rows) - 1 else "dim",
        )
    return table


def _draw_answer(head: str, likeliest: Likeliest) -> Text:
    from rich.text import Text

    if not likeliest:
        return Text(f"{head} -" if head else "-")
    full = round(_BAR * likeliest[0][1])
    words = Text().append("█" * full + "░" * (_BAR - full), style="cyan").append(f"  {head}:" if head else "")
    for class_name, value in likeliest:
        words.append(f"  {printable(class_name)} {percent(value)}")
    return words

"""kdant benchmark"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdant_tf.models.inference import DEFAULT, ENGINES, FLOAT32, PRECISIONS, TENSORFLOW, Engine
from tf_records.start_tensorflow import start_tensorflow

from .command import RUN, CommaList, KdantCommand, NameList, json_option, make_engine
from .output import percent, print_json, print_table, warn_of_other_network
from .server import make_server, server_options

if TYPE_CHECKING:
    from kdant_tf.serving.benchmark import CallTimes, ThreadTimes, TimedModel
    from kdant_tf.serving.server import Server


def _parse_size(part: str) -> int:
    if int(part) < 1:
        raise ValueError(part)
    return int(part)


def _parse_frame(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, int]:
    width, _, height = value.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise click.BadParameter(f"should be WIDTHxHEIGHT. Received: {value!r}.", ctx, param)
    return int(width), int(height)


@click.command("benchmark", cls=KdantCommand, short_help="Measure how long a model takes to answer.")
@click.argument("models", nargs=-1, required=True, type=RUN, metavar="MODEL...")
@click.option(
    "--batch-sizes",
    default="1,4",
    show_default=True,
    type=CommaList(_parse_size, "numbers of clips such as 1,4", name="clips"),
    help="Clips a call, each in turn.",
)
@click.option(
    "--frame",
    default="320x240",
    show_default=True,
    callback=_parse_frame,
    help="Pixels of the frames that are sent.",
)
@click.option("--repeats", type=click.IntRange(1), default=20, show_default=True, help="Calls of each kind.")
@click.option(
    "--threads",
    type=click.IntRange(2),
    help="Also ask from so many threads at a time, and compare their answers with those of one.",
)
@click.option(
    "--engine",
    "engines",
    type=NameList(ENGINES),
    default=TENSORFLOW,
    show_default=True,
    help="What computes a run's answers, tensorflow or openvino (extra openvino); both, with a comma between "
    "them, in turns.",
)
@click.option(
    "--precision",
    "precisions",
    type=NameList(PRECISIONS),
    default=FLOAT32,
    show_default=True,
    help="In which they are computed: auto, float32 or bfloat16; several in turns.",
)
@server_options
@json_option
def benchmark(
    models: tuple[Path, ...],
    batch_sizes: tuple[int, ...],
    frame: tuple[int, int],
    repeats: int,
    threads: int | None,
    engines: tuple[str, ...],
    precisions: tuple[str, ...],
    as_json: bool,
    **server_settings: Any,
) -> None:
    """Measure how long a model takes to answer, and what takes the time.

    MODEL is a run folder or one written by export. Several are timed in turns on the same clips and compared
    with the first, such as a run and its export, or a run by both engines.
    """
    if len(set(models)) < len(models):
        raise click.UsageError("The same MODEL was given twice.")
    server = make_server(**server_settings)
    if server is not None and len(models) > 1:
        raise click.UsageError("--server goes with one MODEL, the one that it serves.")
    made = [
        make_engine(*each) for each in itertools.product(dict.fromkeys(engines), dict.fromkeys(precisions))
    ]
    if server is not None and made != [DEFAULT]:
        raise click.UsageError("--engine and --precision go with a run, --server with what it has loaded.")
    timed = _open_models(models, made, server, server_settings["grpc"])
    from kdant_tf.serving.benchmark import time_calls, time_threads

    from .output import CountProgress

    width, height = frame
    size: dict[str, Any] = {"width": width, "height": height}
    calls, together = [], []
    with CountProgress("timing rounds", None) as progress:
        for batch_size in batch_sizes:
            calls += time_calls(
                timed,
                batch_size=batch_size,
                repeats=repeats,
                on_round=lambda: progress.advance(1),
                **size,
            )
        if threads is not None:
            together = [time_threads(each, threads=threads, repeats=repeats, **size) for each in timed]
    print_times(calls, together, f"frames of {width} x {height}", as_json)


def _open_models(
    models: Sequence[Path], engines: Sequence[Engine], server: Server | None, grpc: bool
) -> list[TimedModel]:
    if server is not None:
        if grpc:
            start_tensorflow()
        from kdant_tf.serving.benchmark import open_served

        return [open_served(server, models[0], grpc=grpc)]
    warn_of_other_network(*models)
    start_tensorflow()
    from kdant_tf.serving.benchmark import open_local

    return [open_local(folder, engine) for folder in models for engine in engines]


def print_times(rows: Sequence[CallTimes], threads: Sequence[ThreadTimes], clips: str, as_json: bool) -> None:
    """Times on stdout, as tables or one JSON object; `clips` says in words what they were measured with."""
    from kdant_tf.studies.study_folder import describe_hardware

    hardware = describe_hardware()
    if as_json:
        times = {"rows": [row.to_dict() for row in rows], "threads": [dataclasses.asdict(r) for r in threads]}
        print_json({"hardware": hardware, "clips": clips, **times})
        return
    click.echo(f"{hardware['cpu']}, {hardware['cores']} cores; {clips}")
    models = list(dict.fromkeys(row.model for row in rows))
    for model in models:
        own = [row for row in rows if row.model == model]
        _print_model(f"{model}, compared with {models[0]}" if model != models[0] else model, own)
    if threads:
        _print_threads(threads)


def _print_model(title: str, rows: Sequence[CallTimes]) -> None:
    compared = any(row.ratio is not None for row in rows)
    columns = ["signature", "clips", "p50 ms", "p90 ms", "p99 ms", "clips/s"]
    cells = [
        [
            row.signature,
            row.batch_size,
            *(f"{1000 * row.percentile_s(share):.1f}" for share in (50, 90, 99)),
            f"{row.clips_per_second:.1f}",
            *([f"{row.ratio:.2f}" if row.ratio is not None else ""] if compared else []),
        ]
        for row in rows
    ]
    print_table(title, columns + (["of first"] if compared else []), cells)
    fullest_first = sorted(rows, key=lambda row: -len(row.shares))
    parts = list(dict.fromkeys(part for row in fullest_first for part in row.shares))
    if parts:
        shares = [
            [
                row.signature,
                row.batch_size,
                *(percent(row.shares[part]) if part in row.shares else "" for part in parts),
            ]
            for row in rows
            if row.shares
        ]
        print_table("Shares of the median", ["signature", "clips", *parts], shares)


def _print_threads(results: Sequence[ThreadTimes]) -> None:
    print_table(
        "Clips a second, one clip a call",
        ("model", "1 thread", f"{results[0].threads} threads", "answers differ by"),
        [
            (each.model, f"{each.alone:.1f}", f"{each.together:.1f}", f"{each.largest_difference:.1g}")
            for each in results
        ],
    )

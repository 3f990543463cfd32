"""kdant benchmark"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tf_records.quiet import start_tensorflow

from .command import KdantCommand
from .options import FOLDER, json_option
from .server_options import make_server, server_options


def _parse_sizes(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in value.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise click.BadParameter(f"should be numbers of clips such as 1,4. Received: {value!r}.", ctx, param)
    return sizes


def _parse_frame(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, int]:
    width, _, height = value.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise click.BadParameter(f"should be WIDTHxHEIGHT. Received: {value!r}.", ctx, param)
    return int(width), int(height)


@click.command("benchmark", cls=KdantCommand)
@click.argument("models", nargs=-1, required=True, type=FOLDER, metavar="MODEL...")
@click.option(
    "--batch-sizes",
    default="1,4",
    show_default=True,
    callback=_parse_sizes,
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
    "--constants",
    is_flag=True,
    help="Also time each export with its weights as constants of the graph, which TensorFlow folds.",
)
@server_options
@json_option
def benchmark(
    models: tuple[Path, ...],
    batch_sizes: tuple[int, ...],
    frame: tuple[int, int],
    repeats: int,
    threads: int | None,
    constants: bool,
    as_json: bool,
    **where: Any,
) -> None:
    """Measure how long a model takes to answer, and what takes the time.

    MODEL is a run folder or one written by export. Several are timed in turns on the same clips and compared
    with the first, such as a run and its export.
    """
    if len(set(models)) < len(models):
        raise click.UsageError("The same MODEL was given twice.")
    server = make_server(**where)
    if server is not None and (len(models) > 1 or constants):
        raise click.UsageError(
            "--server goes with one MODEL, the one that it serves, and without --constants."
        )
    subjects = _open_subjects(models, server, where["grpc"], constants)
    from kdant_tf.serving.benchmark import time_calls, time_threads

    from .bars import CountProgress

    width, height = frame
    size: dict[str, Any] = {"width": width, "height": height}
    rows, results = [], []
    with CountProgress("timing rounds", None) as progress:
        for batch_size in batch_sizes:
            rows += time_calls(
                subjects,
                batch_size=batch_size,
                repeats=repeats,
                on_round=lambda: progress.advance(1),
                **size,
            )
        if threads is not None:
            results = [time_threads(each, threads=threads, repeats=repeats, **size) for each in subjects]
    from .benchmark_output import print_times

    print_times(rows, results, f"frames of {width} x {height}", as_json)


def _open_subjects(models: Sequence[Path], server: Any, grpc: bool, constants: bool) -> list[Any]:
    if server is not None:
        if grpc:
            start_tensorflow()
        from kdant_tf.serving.served_subject import open_served

        return [open_served(server, models[0], grpc=grpc)]
    start_tensorflow()
    from kdant_tf.serving.local_subject import open_local
    from kdant_tf.serving.model import find_version

    subjects = []
    for folder in models:
        subjects.append(open_local(folder))
        if constants and find_version(folder) is not None:
            subjects.append(open_local(folder, constants=True))
    return subjects

"""kdant reproduce"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from tf_records.remote_path import RecordPath

from .command import KdantCommand, add_options, split_names
from .options import FOLDER, RECORD_FOLDER, json_option


def _parse_seeds(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[int, ...], ...]:
    return tuple(_parse_one(ctx, param, value) for value in values or ("0,1,2",))


def _parse_one(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        seeds = tuple(int(part) for part in value.split(","))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise click.BadParameter(
            f"should be different whole numbers >= 0, such as 0,1,2. Received: {value!r}.", ctx, param
        )
    return seeds


# Of every study; each is an argument of `run_table` or `open_sources`.
study_options = add_options(
    click.option(
        "--records",
        required=True,
        multiple=True,
        type=RECORD_FOLDER,
        help="Folder made by build-records, for both streams if it holds rgb,flow; repeat it for each of "
        "JHMDB's splits.",
    ),
    click.option(
        "--flow-records",
        multiple=True,
        type=RECORD_FOLDER,
        help="Folder of optical flow, where --records holds none; repeat it for each split.",
    ),
    click.option("--out", required=True, type=FOLDER, help="Folder of the study, made if need be."),
    click.option(
        "--seeds",
        multiple=True,
        callback=_parse_seeds,
        help="Such as 0,1,2 (default). Once for all splits, or once for each --records, in their order.",
    ),
    click.option("--splits", callback=split_names, help="Only these splits of --records: 1,2,3."),
    click.option(
        "--streams", callback=split_names, help="rgb, flow or rgb,flow; default: what the records hold."
    ),
    click.option(
        "--scale",
        type=click.Choice(["paper", "small", "tiny"]),
        default="paper",
        show_default=True,
        help="small: crop 112, a quarter of I3D's channels, 40 epochs, from scratch, for CPUs; tiny only "
        "shows that everything works.",
    ),
    click.option("--preset", help="Settings in place of the paper's, below --scale."),
    click.option(
        "--config", "config_file", type=FOLDER, help="TOML file with settings, above preset and scale."
    ),
    click.option(
        "--label-fraction",
        type=float,
        default=1.0,
        show_default=True,
        help="Share of the training labels to use; each seed draws its own.",
    ),
    click.option(
        "--jobs",
        type=click.IntRange(1),
        help="Runs at once. Default: one for each GPU, which they are dealt out to, or 1.",
    ),
    click.option("--devices", default="auto", show_default=True, help="Of each run: auto, cpu, gpu …"),
    click.option("--resume", is_flag=True, help="Go on with what was begun in --out."),
    click.option(
        "--summarize", is_flag=True, help="Train nothing: only make the tables of what is finished in --out."
    ),
    json_option,
)
rows_option = click.option(
    "--rows", "row_names", callback=split_names, help="Only these rows, such as none,bidirectional."
)


@click.group("reproduce")
def reproduce() -> None:
    """Train and evaluate every row of one of the paper's tables, over seeds and splits.

    \b
    JHMDB, a record folder for each split:
      kdant build-records --source jhmdb --input JHMDB --split 1 --out jhmdb-1     (also 2 and 3)
      kdant reproduce table1 --records jhmdb-1 --records jhmdb-2 --records jhmdb-3 --out STUDY

    Each run is an ordinary run folder in STUDY/runs. What was interrupted goes on with the same command and
    --resume; finished runs are left as they are.
    """


@reproduce.command("table1", cls=KdantCommand)
@study_options
@rows_option
def table1(**options: Any) -> None:
    """Table 1: recognition and anticipation on JHMDB, RGB, Flow and Both (§4.2)."""
    from kdant_tf.studies.table1 import PRESETS, plan_table1

    run_table(plan_table1, PRESETS, **options)


@reproduce.command("table2", cls=KdantCommand)
@study_options
@rows_option
def table2(**options: Any) -> None:
    """Table 2: the student with the bidirectional loss beside the literature on JHMDB.

    Its runs are some of table1's: give table1's STUDY with --resume, and nothing is trained twice.
    """
    from kdant_tf.studies.table1 import PRESETS, plan_table2

    run_table(plan_table2, PRESETS, **options)


def run_table(
    plan: Callable[..., Any],
    presets: dict[str, str],
    *,
    records: Sequence[RecordPath],
    flow_records: Sequence[RecordPath],
    seeds: Sequence[tuple[int, ...]],
    splits: Sequence[str],
    streams: Sequence[str],
    row_names: Sequence[str],
    preset: str | None,
    scale: str,
    config_file: Path | None,
    label_fraction: float,
    **ways: Any,
) -> None:
    """Plans a study whose result is one of the paper's tables, runs it and prints it.

    Args:
        plan: (sources, base, names of rows) → Study.
        presets: stream → the study's own preset.
        ways: of `run_study`.
    """
    from kdant_tf.studies.plan import Base, read_sources

    sources = read_sources(
        records, flow_records, seeds=seeds, splits=splits, streams=streams or ("rgb", "flow")
    )
    base = Base(preset=preset, presets=presets, scale=scale, file=config_file, label_fraction=label_fraction)
    run_study(plan(sources, base, row_names), **ways)


def run_study(
    study: Any, *, out: Path, jobs: int | None, devices: str, resume: bool, summarize: bool, as_json: bool
) -> None:
    """Runs what is not finished of a Study, writes its table and prints it; exits with 1 if a run failed."""
    from kdant_tf.studies.output import write_table
    from kdant_tf.studies.study_folder import StudyFile
    from kdant_tf.studies.summary import summarize as make_table
    from tf_records.errors import KdantError
    from tf_records.files import claim_folder, lock_folder

    from .study_output import print_result_table

    if summarize and not out.is_dir():
        raise KdantError(
            f"Folder {out} does not exist, so there is nothing to summarize. Give a study's --out."
        )
    claim_folder(out, resume=resume or summarize)
    with lock_folder(out, "study"):
        file = StudyFile(out)
        about = file.describe(study.name, study.scale, study.runs)
        failures = {} if summarize else _train(study, file, out, jobs, devices)
        table = make_table(study, out)
        paths = write_table(out, table, about)
    print_result_table(table, as_json)
    click.echo(f"Also in {', '.join(map(str, paths))}", err=True)
    if failures:
        first, reason = next(iter(failures.items()))
        raise KdantError(
            f"{len(failures)} of {len(study.runs)} runs failed, the first is {first}: {reason.rstrip('.')}. "
            f"More is in {out / 'logs'}; the same command with --resume tries them again."
        )


def _train(study: Any, file: Any, out: Path, jobs: int | None, devices: str) -> dict[str, str]:
    from kdant_tf.studies.hardware import visible_gpus
    from kdant_tf.studies.runner import Runner
    from kdant_tf.training.stop_signals import StoppedError, StopSignals

    from .study_progress import StudyProgress

    gpus = [] if devices.startswith("cpu") else visible_gpus()
    jobs = max(1, len(gpus)) if jobs is None else jobs
    stop = StopSignals(lambda line: click.echo(line, err=True))
    with StudyProgress(f"{study.title}, scale {study.scale}", file, jobs) as progress, stop:
        runner = Runner(out, study.runs, jobs=jobs, gpus=gpus, observer=progress, devices=devices)
        failures = runner.run(lambda: stop.received is not None)
    if stop.received is not None:
        raise StoppedError(
            f"Stopped by {stop.received}: {len(runner.done)} of {len(study.runs)} runs are finished. Go on "
            f"with the same command and --resume."
        )
    return failures

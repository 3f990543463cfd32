"""What the studies of `kdant reproduce` share: their options, and running one start to end."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from tf_records.errors import KdantError
from tf_records.remote_path import RecordPath

from .command import add_options, split_names
from .options import FOLDER, RECORD_FOLDER, json_option


def _parse_seeds(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[int, ...], ...]:
    return tuple(parse_seeds(ctx, param, value) for value in values or ("0,1,2",))


def parse_seeds(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    """Callback for comma-separated seeds."""
    try:
        seeds = tuple(int(part) for part in value.split(","))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise click.BadParameter(
            f"should be different whole numbers >= 0, such as 0,1,2. Received: {value!r}.", ctx, param
        )
    return seeds


# Of every study; each but --json is an argument of `plan_inputs` or `run_study`.
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
        "--streams",
        type=click.Choice(["rgb", "flow", "rgb,flow"]),
        default="rgb,flow",
        show_default=True,
        help="Of those that the records hold.",
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


def plan_inputs(
    presets: Mapping[str, str],
    *,
    records: Sequence[RecordPath],
    flow_records: Sequence[RecordPath],
    seeds: Sequence[tuple[int, ...]],
    splits: Sequence[str],
    streams: str,
    preset: str | None,
    scale: str,
    config_file: Path | None,
    label_fraction: float,
    **ways: Any,
) -> tuple[Any, Any, dict[str, Any]]:
    """The sources and the Base of a study, and the remaining options, which are for `run_study`.

    Args:
        presets: stream → the study's own preset.
    """
    from kdant_tf.studies.plan import Base, read_sources

    sources = read_sources(records, flow_records, seeds=seeds, splits=splits, streams=streams.split(","))
    base = Base(preset=preset, presets=presets, scale=scale, file=config_file, label_fraction=label_fraction)
    return sources, base, ways


def run_study(
    study: Any,
    conclude: Callable[[dict[str, Any]], Sequence[Path]],
    *,
    out: Path,
    jobs: int | None,
    devices: str,
    resume: bool,
    summarize: bool,
) -> None:
    """Runs what is not finished of a Study; exits with 1 if a run failed, but concludes before.

    Args:
        study: whose runs are to be finished.
        conclude: prints what came out and writes it into `out`; is given what study.json says of the study.
        out, jobs, devices, resume, summarize: as the options.
    """
    from kdant_tf.studies.run_state import is_trained
    from kdant_tf.studies.study_folder import StudyFile
    from tf_records.files import claim_folder, lock_folder

    if summarize and not out.is_dir():
        raise KdantError(
            f"Folder {out} does not exist, so there is nothing to summarize. Give a study's --out."
        )
    claim_folder(out, resume=resume or summarize)
    if summarize:
        for spec in study.runs:
            is_trained(spec, out)  # refuses runs of other settings than the table would name
    # A summary may be made beside the process that trains, and on another machine than it trained on.
    with nullcontext() if summarize else lock_folder(out, "study"):
        file = StudyFile(out)
        about = file.described(study.name) if summarize else None
        about = about or file.describe(study.name, study.scale, study.runs)
        failures = {} if summarize else _train(study, file, out, jobs, devices)
        paths = conclude(about)
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

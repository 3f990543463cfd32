"""kdant reproduce: the paper's tables, the drift study and the sweep."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdant_tf.losses import FEATURE_LOSS_NAMES, NORMALIZATIONS
from tf_records.errors import KdantError
from tf_records.remote_path import RecordPath

from .command import (
    FOLDER,
    NAMES,
    NUMBERS,
    RECORD_FOLDER,
    SEEDS,
    CommaList,
    KdantCommand,
    KdantGroup,
    NameList,
    add_options,
    is_distinct,
    json_option,
    parse_not_negative,
)

# Writes printed results into the study's folder, given what study.json says of the study; returns the paths.
Write = Callable[[dict[str, Any]], Sequence[Path]]

if TYPE_CHECKING:
    from kdant_tf.studies.study_folder import StudyFile
    from kdant_tf.studies.study_plan import RecordSource, Study, StudySettings

# Of every study; each but --json is an argument of `run_study`.
_run_options = add_options(
    click.option("--out", required=True, type=FOLDER, help="Folder of the study, made if need be."),
    click.option(
        "--jobs",
        type=click.IntRange(1),
        help="Runs at once. Default: one for each GPU, which they are dealt out to, or 1.",
    ),
    click.option("--devices", default="auto", show_default=True, help="Of each run: auto, cpu, gpu …"),
    click.option("--resume", is_flag=True, help="Go on with what was begun in --out."),
    click.option(
        "--summarize", is_flag=True, help="Train nothing: only make the table of what is finished in --out."
    ),
    json_option,
)
# Of the studies of a user's own records; each is an argument of `plan_inputs`.
_input_options = add_options(
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
    click.option(
        "--seeds",
        multiple=True,
        type=SEEDS,
        default=["0,1,2"],
        show_default=True,
        help="Once for all splits, or once for each --records, in their order.",
    ),
    click.option("--splits", type=NAMES, default=(), help="Only these splits of --records: 1,2,3."),
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
)
_rows_option = click.option(
    "--rows", "row_names", type=NAMES, default=(), help="Only these rows, such as none,bidirectional."
)


@click.group(
    "reproduce", cls=KdantGroup, short_help="Train and evaluate the rows of one of the paper's tables."
)
def reproduce() -> None:
    """Train and evaluate every row of one of the paper's tables, over seeds and splits.

    \b
    JHMDB, a record folder for each split:
      kdant build-records --source jhmdb --input JHMDB --split 1 --out jhmdb-1
      (and so on with 2 and 3)
      kdant reproduce table1 --records jhmdb-1 --records jhmdb-2 \\
        --records jhmdb-3 --out STUDY

    Each run is an ordinary run folder in STUDY/runs. What was interrupted goes on with the same command and
    --resume; finished runs are left as they are.
    """


@reproduce.command("table1", cls=KdantCommand, short_help="Table 1: RGB, Flow and Both on JHMDB (§4.2).")
@_input_options
@_rows_option
@_run_options
def table1(**options: Any) -> None:
    """Table 1: recognition and anticipation on JHMDB, RGB, Flow and Both (§4.2)."""
    from kdant_tf.studies.paper_tables import TABLE1_PRESETS, plan_table1

    run_table(plan_table1, TABLE1_PRESETS, **options)


@reproduce.command("table2", cls=KdantCommand, short_help="Table 2: beside the literature on JHMDB.")
@_input_options
@_rows_option
@_run_options
def table2(**options: Any) -> None:
    """Table 2: the student with the bidirectional loss beside the literature on JHMDB.

    Its runs are some of table1's: give table1's STUDY with --resume, and nothing is trained twice.
    """
    from kdant_tf.studies.paper_tables import TABLE1_PRESETS, plan_table2

    run_table(plan_table2, TABLE1_PRESETS, **options)


@reproduce.command("table3", cls=KdantCommand, short_help="Table 3: EPIC-KITCHENS-55 (§4.3).")
@_input_options
@_rows_option
@click.option(
    "--frame-records",
    multiple=True,
    type=RECORD_FOLDER,
    help="The frames, for TSN-RGB, where --records holds features.",
)
@_run_options
def table3(frame_records: tuple[RecordPath, ...], **options: Any) -> None:
    """Table 3: TSN-RGB, I3D and distilled I3D on EPIC-KITCHENS-55 (§4.3).

    \b
      kdant build-records --source epic55 --input EPIC \\
        --unlabeled-per-label 1.138 --out epic-frames
      kdant extract-features epic-frames --init kinetics --out epic
      kdant reproduce table3 --records epic \\
        --frame-records epic-frames --out STUDY

    The distilled I3D learns from the unlabelled pairs too, the others from the labels alone.
    """
    from kdant_tf.studies.paper_tables import TABLE3_PRESETS, plan_table3

    run_table(functools.partial(plan_table3, frame_records=frame_records), TABLE3_PRESETS, **options)


@reproduce.command(
    "figure4", cls=KdantCommand, short_help="Figure 4: THUMOS14, with all or half of the labels (§4.4)."
)
@_input_options
@_rows_option
@_run_options
def figure4(**options: Any) -> None:
    """Figure 4: ResNet-152 + MLP and I3D on THUMOS14, with all or half of the labels (§4.4).

    \b
      kdant build-records --source thumos14 --input THUMOS14 --out thumos
      kdant reproduce figure4 --records thumos --out STUDY
    """
    from kdant_tf.studies.paper_tables import plan_figure4

    run_table(plan_figure4, {}, **options)


@reproduce.command(
    "losses", cls=KdantCommand, short_help="Which loss helps, from pretrained features, on your records."
)
@_input_options
@_rows_option
@click.option(
    "--reference",
    type=click.Choice(["none", "labels"]),
    default="none",
    show_default=True,
    help="What students differ from in the table: the student without a feature loss, or the network that "
    "learns from labels alone.",
)
@_run_options
def losses(reference: str, **options: Any) -> None:
    """Which loss helps: every way to learn from the teacher, side by side.

    \b
      kdant build-records --source jhmdb --input JHMDB --clip-frames 4 \\
        --short-side 224 --out frames
      kdant extract-features frames --model mobilenet_v2 --init imagenet \\
        --endpoint block_16_project_BN --crop 224 --out features
      kdant reproduce losses --records features --out STUDY

    Intervals of the differences are over videos and seeds. With --label-fraction the
    other pairs are unlabelled: `labels` leaves them out, students learn from the teacher's probabilities on
    them.
    """
    from kdant_tf.studies.loss_study import LOSS_PRESETS, plan_losses

    run_table(functools.partial(plan_losses, reference=reference), LOSS_PRESETS, **options)


def _are_drifts(drifts: Sequence[float]) -> bool:
    from tf_records.sources.synthetic import MAX_DRIFT

    return is_distinct(drifts) and max(drifts) <= MAX_DRIFT


@reproduce.command(
    "drift", cls=KdantCommand, short_help="What each feature loss gains as things move (§3.2)."
)
@click.option(
    "--drifts",
    default="0,0.6",
    show_default=True,
    type=CommaList(parse_not_negative, "different numbers from 0 to 0.6, such as 0,0.3", _are_drifts),
    help="How far the telling object moves between the clips, shares of the frame's width up to 0.6.",
)
@click.option(
    "--seeds",
    default="0,1,2,3,4,5,6,7",
    show_default=True,
    type=SEEDS,
    help="Of weights, order, crops and dropout; the videos are the same for all.",
)
@click.option(
    "--scale",
    type=click.Choice(["study", "tiny"]),
    default="study",
    show_default=True,
    help="tiny only shows that everything works.",
)
@click.option(
    "--config", "config_file", type=FOLDER, help="TOML file with settings, above the preset drift and scale."
)
@click.option(
    "--rows",
    "row_names",
    type=NAMES,
    default=(),
    help="Only these rows, such as direct,bidirectional; none is always there to compare with.",
)
@_run_options
def drift(
    out: Path,
    drifts: Sequence[float],
    seeds: tuple[int, ...],
    scale: str,
    config_file: Path | None,
    row_names: Sequence[str],
    resume: bool,
    summarize: bool,
    as_json: bool,
    **run_options: Any,
) -> None:
    """What each feature loss gains over none, against how far things move between the clips (§3.2).

    Renders videos, few of them labelled, whose telling object stands elsewhere once the action begins, builds
    their records, trains a teacher and five students for each drift and seed, and draws drift.png.
    """
    from kdant_tf.studies.drift import check_request, plan_drift, prepare_records, summarize_drift
    from kdant_tf.studies.study_folder import STUDY_NAME
    from tf_records.files import claim_folder, lock_folder

    drifts = sorted(drifts)
    check_request(row_names, scale, config_file)
    if summarize and not (out / STUDY_NAME).is_file():
        raise KdantError(f"Folder {out} holds no study to summarize. Give a study's --out.")
    if not summarize:
        claim_folder(out, resume=resume)
        with lock_folder(out, "study"):
            prepare_records(out, drifts, scale, report=lambda line: click.echo(line, err=True))
    records = prepare_records(out, drifts, scale, build=False)
    study = plan_drift(records, seeds, scale, row_names, config_file)

    def conclude() -> Write:
        from kdant_tf.studies.drift import PICTURE_NAME, plot_drift
        from kdant_tf.studies.results import write_table

        from .study_output import print_drift_table

        table = summarize_drift(study, out)
        print_drift_table(table, as_json)

        def write(description: dict[str, Any]) -> Sequence[Path]:
            plot_drift(table, out / PICTURE_NAME)
            return [*write_table(out, table, description), out / PICTURE_NAME]

        return write

    # It was claimed above, and holds the records by now.
    run_study(study, conclude, out=out, resume=True, summarize=summarize, **run_options)


def _parse_alpha(part: str) -> float | None:
    return None if part == "default" else parse_not_negative(part)


@reproduce.command(
    "sweep", cls=KdantCommand, short_help="Settings of the losses, tried on training videos alone."
)
@_input_options
@click.option(
    "--feature-weights",
    "weights",
    type=NUMBERS,
    default="0.1,0.3,1,3,10",
    show_default=True,
    help="The paper's lambda.",
)
@click.option(
    "--alphas",
    type=CommaList(_parse_alpha, "numbers >= 0 or default, such as default,0.1"),
    default="default",
    show_default=True,
    help="Of the attention pooling, such as default,0.1; default is 1/sqrt(channels).",
)
@click.option(
    "--feature-losses",
    type=NameList(FEATURE_LOSS_NAMES),
    default="bidirectional",
    show_default=True,
    help="To sweep, such as direct,bidirectional.",
)
@click.option(
    "--feature-normalizations",
    "normalizations",
    type=NameList(NORMALIZATIONS),
    default=(),
    help="Of each position's vector, such as none,l2. Default: as the settings have it.",
)
@click.option(
    "--localities",
    type=NUMBERS,
    default=(),
    help="Of the loss local, such as 2,8. Default: as the settings have it.",
)
@click.option(
    "--soft-weights",
    type=NUMBERS,
    default=(),
    help="Of the teacher's probabilities on labelled pairs, such as 0,0.5. Default: as the settings have it.",
)
@click.option(
    "--temperatures",
    type=NUMBERS,
    default=(),
    help="Of these probabilities, such as 1,4. Default: as the settings have it.",
)
@click.option(
    "--validation-fraction",
    default=0.25,
    show_default=True,
    type=float,
    help="Share of the training videos that settings are judged on; each seed draws its own.",
)
@_run_options
def sweep(
    weights: Sequence[float],
    alphas: Sequence[float | None],
    feature_losses: Sequence[str],
    normalizations: Sequence[str],
    localities: Sequence[float],
    soft_weights: Sequence[float],
    temperatures: Sequence[float],
    validation_fraction: float,
    out: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Try settings of feature loss and soft labels on training videos; the test split is never looked at.

    They are judged by the accuracy on held-out training videos over the last quarter of the epochs,
    averaged over seeds. Every combination is tried, and `none`, which has no feature loss.
    """
    from kdant_tf.studies.paper_tables import TABLE1_PRESETS
    from kdant_tf.studies.sweep import make_grid, plan_sweep, summarize_sweep, write_sweep

    if not 0 < validation_fraction < 1:
        raise click.UsageError(
            f"--validation-fraction should lie between 0 and 1. Received: {validation_fraction}."
        )
    sources, settings, run_options = plan_inputs(TABLE1_PRESETS, out, **options)
    grid = make_grid(
        feature_losses,
        weights,
        alphas,
        normalizations=normalizations,
        localities=localities,
        soft_weights=soft_weights,
        temperatures=temperatures,
    )
    study = plan_sweep(sources, settings, grid, validation_fraction)

    def conclude() -> Write:
        from .study_output import print_sweep

        swept = summarize_sweep(study, grid, out)
        print_sweep(study, swept, as_json)
        return functools.partial(write_sweep, out, study, swept)

    run_study(study, conclude, out=out, **run_options)


def run_table(
    plan: Callable[..., Study],
    presets: Mapping[str, str],
    *,
    out: Path,
    row_names: Sequence[str],
    as_json: bool,
    **options: Any,
) -> None:
    """Plans a study whose result is one of the paper's tables, runs it, prints the table and writes it.

    Args:
        plan: (sources, settings, names of rows) → Study.
        presets: stream → the study's own preset.
        out, row_names, as_json, options: as on the command line.
    """
    sources, settings, run_options = plan_inputs(presets, out, **options)
    study = plan(sources, settings, row_names)

    def conclude() -> Write:
        from kdant_tf.studies.results import summarize, write_table

        from .study_output import print_result_table

        table = summarize(study, out)
        print_result_table(table, as_json)
        return functools.partial(write_table, out, table)

    run_study(study, conclude, out=out, **run_options)


def plan_inputs(
    presets: Mapping[str, str],
    out: Path,
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
    **run_options: Any,
) -> tuple[tuple[RecordSource, ...], StudySettings, dict[str, Any]]:
    """A study's records and settings, and the remaining options, which are for `run_study`.

    Args:
        presets: stream → the study's own preset.
        out: folder of the study, which should lie apart from the records.
        records, flow_records, seeds, splits, streams, preset, scale, config_file, label_fraction: as on the
            command line.
        run_options: returned as they are.
    """
    from kdant_tf.studies.study_plan import StudySettings, read_sources
    from tf_records.files import check_apart

    check_apart(out, *records, *flow_records)
    sources = read_sources(records, flow_records, seeds=seeds, splits=splits, streams=streams.split(","))
    settings = StudySettings(
        preset=preset, presets=presets, scale=scale, file=config_file, label_fraction=label_fraction
    )
    return sources, settings, run_options


def run_study(
    study: Study,
    conclude: Callable[[], Write],
    *,
    out: Path,
    jobs: int | None,
    devices: str,
    resume: bool,
    summarize: bool,
) -> None:
    """Runs what is not finished of a study, and concludes; raises if a run failed.

    Args:
        study: whose runs are to be finished.
        conclude: prints the results, and returns what writes them into `out`.
        out, jobs, devices, resume, summarize: as on the command line.

    Raises:
        KdantError: a run failed (says which, and why), the study was stopped, or the results, which are
            printed by then, cannot be written.
    """
    from kdant_tf.studies.study_folder import StudyFile
    from tf_records.files import claim_folder, lock_folder

    if summarize:
        _check_summarized(study, out)
    else:
        claim_folder(out, resume=resume)
    # A summary may be made beside the process that trains, and on another machine than it trained on.
    with nullcontext() if summarize else lock_folder(out, "study"):
        file = StudyFile(out)
        describe = functools.partial(file.save_description, study.name, study.scale, study.runs)
        description = file.load_description(study.name) if summarize else describe()
        failures = {} if summarize else _train(study, file, out, jobs, devices)
        write = conclude()
        try:
            paths = write(describe() if description is None else description)
        except OSError as error:
            raise KdantError(
                f"The results were printed but cannot be kept in {out}: {error.strerror or error}. Make that "
                f"folder writable, with room in it, and give the same command with --summarize."
            ) from error
    click.echo(f"Also in {', '.join(map(str, paths))}", err=True)
    if failures:
        first, reason = next(iter(failures.items()))
        raise KdantError(
            f"{len(failures)} of {len(study.runs)} runs failed, the first is {first}: {reason.rstrip('.')}. "
            f"More is in {out / 'logs'}; the same command with --resume tries them again."
        )


def _check_summarized(study: Study, out: Path) -> None:
    """Refuses a folder that is none, and runs of other settings than the table would name."""
    from kdant_tf.studies.study_folder import is_trained

    if not out.is_dir():
        raise KdantError(
            f"Folder {out} does not exist, so there is nothing to summarize. Give a study's --out."
        )
    for spec in study.runs:
        is_trained(spec, out)


def _train(study: Study, file: StudyFile, out: Path, jobs: int | None, devices: str) -> dict[str, str]:
    from kdant_tf.studies.runner import Runner
    from kdant_tf.studies.study_folder import visible_gpus
    from tf_records.errors import StoppedError
    from tf_records.files import StopSignals

    from .study_output import StudyProgress

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

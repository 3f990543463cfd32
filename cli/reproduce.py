"""kdant reproduce"""

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from tf_records.remote_path import RecordPath

from .command import KdantCommand, split_names
from .options import RECORD_FOLDER
from .reproduce_drift import drift
from .studies import plan_inputs, run_study, study_options

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


@reproduce.command("table3", cls=KdantCommand)
@study_options
@rows_option
@click.option(
    "--frame-records",
    multiple=True,
    type=RECORD_FOLDER,
    help="The frames, for TSN-RGB, where --records holds features.",
)
def table3(frame_records: tuple[RecordPath, ...], **options: Any) -> None:
    """Table 3: TSN-RGB, I3D and distilled I3D on EPIC-KITCHENS-55 (§4.3).

    \b
      kdant build-records --source epic55 --input EPIC --unlabeled-per-label 1.138 --out epic-frames
      kdant extract-features epic-frames --init kinetics --out epic
      kdant reproduce table3 --records epic --frame-records epic-frames --out STUDY

    The distilled I3D learns from the unlabelled pairs too, the others from the labels alone.
    """
    from kdant_tf.studies.table3 import PRESETS, plan_table3

    run_table(functools.partial(plan_table3, frame_records=frame_records), PRESETS, **options)


@reproduce.command("figure4", cls=KdantCommand)
@study_options
@rows_option
def figure4(**options: Any) -> None:
    """Figure 4: ResNet-152 + MLP and I3D on THUMOS14, with all or half of the labels (§4.4).

    \b
      kdant build-records --source thumos14 --input THUMOS14 --out thumos
      kdant reproduce figure4 --records thumos --out STUDY
    """
    from kdant_tf.studies.figure4 import plan_figure4

    run_table(plan_figure4, {}, **options)


def _parse_numbers(ctx: click.Context, param: click.Parameter, value: str) -> tuple[float | None, ...]:
    """`1,3,10`; None for "default"."""
    try:
        numbers = tuple(None if part.strip() == "default" else float(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    allowed = all(number is None or (number >= 0 and math.isfinite(number)) for number in numbers)
    if not numbers or not allowed or (param.name == "weights" and None in numbers):
        raise click.BadParameter(f"should be numbers >= 0, such as 1,3,10. Received: {value!r}.", ctx, param)
    return numbers


@reproduce.command("sweep", cls=KdantCommand)
@study_options
@click.option(
    "--feature-weights",
    "weights",
    default="0.1,0.3,1,3,10",
    show_default=True,
    callback=_parse_numbers,
    help="The paper's lambda.",
)
@click.option(
    "--alphas",
    default="default",
    show_default=True,
    callback=_parse_numbers,
    help="Of the attention pooling, such as default,0.1; default is 1/sqrt(channels).",
)
@click.option(
    "--feature-losses",
    default="bidirectional",
    show_default=True,
    callback=split_names,
    help="To sweep, such as direct,bidirectional.",
)
@click.option(
    "--validation-fraction",
    default=0.25,
    show_default=True,
    type=float,
    help="Share of the training videos that settings are judged on; each seed draws its own.",
)
def sweep(
    weights: Sequence[float],
    alphas: Sequence[float | None],
    feature_losses: Sequence[str],
    validation_fraction: float,
    out: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Try feature weights and alphas on training videos alone; the test split is never looked at.

    Settings are judged by the accuracy on held-out training videos over the last quarter of the epochs,
    averaged over seeds. `none`, which has neither, is tried too.
    """
    from kdant_tf.config import FEATURE_LOSS_NAMES
    from kdant_tf.studies import sweep as sweeping
    from kdant_tf.studies.table1 import PRESETS

    if unknown := [loss for loss in feature_losses if loss not in FEATURE_LOSS_NAMES]:
        raise click.UsageError(
            f"--feature-losses should be of {', '.join(FEATURE_LOSS_NAMES)}. Received: {unknown[0]!r}."
        )
    if not 0 < validation_fraction < 1:
        raise click.UsageError(
            f"--validation-fraction should lie between 0 and 1. Received: {validation_fraction}."
        )
    sources, base, ways = plan_inputs(PRESETS, **options)
    grid = sweeping.make_grid(feature_losses, weights, alphas)
    study = sweeping.plan_sweep(sources, base, grid, validation_fraction)

    def conclude(about: dict[str, Any]) -> Sequence[Path]:
        from .study_output import print_sweep

        swept = sweeping.summarize_sweep(study, grid, out)
        print_sweep(study, swept, as_json)
        return sweeping.write_sweep(out, study, swept, about)

    run_study(study, conclude, out=out, **ways)


reproduce.add_command(drift)


def run_table(
    plan: Callable[..., Any],
    presets: dict[str, str],
    *,
    out: Path,
    row_names: Sequence[str],
    as_json: bool,
    **options: Any,
) -> None:
    """Plans a study whose result is one of the paper's tables, runs it, writes the table and prints it.

    Args:
        plan: (sources, base, names of rows) → Study.
        presets: stream → the study's own preset.
    """
    sources, base, ways = plan_inputs(presets, **options)
    study = plan(sources, base, row_names)

    def conclude(about: dict[str, Any]) -> Sequence[Path]:
        from kdant_tf.studies.output import write_table
        from kdant_tf.studies.summary import summarize

        from .study_output import print_result_table

        table = summarize(study, out)
        print_result_table(table, as_json)
        return write_table(out, table, about)

    run_study(study, conclude, out=out, **ways)

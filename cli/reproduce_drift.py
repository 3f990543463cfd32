"""kdant reproduce drift"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tf_records.errors import KdantError

from .command import KdantCommand, split_names
from .options import FOLDER, json_option
from .studies import parse_seeds, run_study


def _parse_drifts(ctx: click.Context, param: click.Parameter, value: str) -> tuple[float, ...]:
    from tf_records.sources.synthetic import MAX_DRIFT

    try:
        drifts = tuple(float(part) for part in value.split(","))
    except ValueError:
        drifts = ()
    if not drifts or not all(0 <= drift <= MAX_DRIFT for drift in drifts) or len(set(drifts)) < len(drifts):
        raise click.BadParameter(
            f"should be different numbers from 0 to {MAX_DRIFT}, such as 0,0.3. Received: {value!r}.",
            ctx,
            param,
        )
    return tuple(sorted(drifts))


@click.command("drift", cls=KdantCommand)
@click.option("--out", required=True, type=FOLDER, help="Folder of the study, made if need be.")
@click.option(
    "--drifts",
    default="0,0.2,0.4,0.6",
    show_default=True,
    callback=_parse_drifts,
    help="How far the telling object moves between the clips, shares of the frame's width up to 0.6.",
)
@click.option(
    "--seeds",
    default="0,1,2,3,4",
    show_default=True,
    callback=parse_seeds,
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
    callback=split_names,
    help="Only these rows, such as direct,bidirectional; none is always there to compare with.",
)
@click.option("--jobs", type=click.IntRange(1), help="Runs at once. Default: one for each GPU, or 1.")
@click.option("--devices", default="auto", show_default=True, help="Of each run: auto, cpu, gpu …")
@click.option("--resume", is_flag=True, help="Go on with what was begun in --out.")
@click.option("--summarize", is_flag=True, help="Train nothing: only make the table of what is finished.")
@json_option
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
    **ways: Any,
) -> None:
    """What each feature loss gains over none, against how far things move between the clips (§3.2).

    Renders videos, few of them labelled, whose telling object stands elsewhere once the action begins, builds
    their records, trains a teacher and four students for each drift and seed, and draws drift.png.
    """
    from kdant_tf.studies.drift import check_request, plan_drift, summarize_drift
    from kdant_tf.studies.drift_records import prepare_records
    from kdant_tf.studies.study_folder import STUDY_NAME
    from tf_records.files import claim_folder, lock_folder

    check_request(row_names, config_file)
    if summarize and not (out / STUDY_NAME).is_file():
        raise KdantError(f"Folder {out} holds no study to summarize. Give a study's --out.")
    if not summarize:
        claim_folder(out, resume=resume)
        with lock_folder(out, "study"):
            prepare_records(out, drifts, scale, report=lambda line: click.echo(line, err=True))
    records = prepare_records(out, drifts, scale, build=False)
    study = plan_drift(records, seeds, scale, row_names, config_file)

    def conclude(about: dict[str, Any]) -> Sequence[Path]:
        from kdant_tf.studies.drift_plot import PICTURE_NAME, plot_drift
        from kdant_tf.studies.output import write_table

        from .study_output import print_drift_table

        table = summarize_drift(study, out)
        print_drift_table(table, as_json)
        plot_drift(table, out / PICTURE_NAME)
        return [*write_table(out, table, about), out / PICTURE_NAME]

    # It was claimed above, and holds the records by now.
    run_study(study, conclude, out=out, resume=True, summarize=summarize, **ways)

"""kdant visualize"""

from pathlib import Path
from typing import Any

import click

from kdant_tf.visualization import PICTURES, PROJECTIONS
from tf_records.remote_path import RecordPath
from tf_records.start_tensorflow import start_tensorflow

from .command import FOLDER, NAMES, RUN, KdantCommand, NameList, insist_option, json_option, records_option


@click.command("visualize", cls=KdantCommand, short_help="Draw where networks look and what they confuse.")
@click.argument("runs", type=RUN, nargs=-1, required=True, metavar="RUN...")
@records_option
@click.option("--out", required=True, type=FOLDER, help="Folder for the pictures.")
@click.option("--overwrite", is_flag=True, help="Replace pictures in --out.")
@click.option(
    "--pictures",
    type=NameList(PICTURES),
    default=(),
    help=f"Only these: {', '.join(PICTURES)}. Default: all that can be drawn.",
)
@click.option("--split", type=click.Choice(["test", "val"]), default="test", help="Of the records.")
@click.option("--ids", type=NAMES, default=(), help="Samples to show in heat-maps, grad-cam and drift.")
@click.option(
    "--samples",
    type=click.IntRange(1, 50),
    help="Or draw so many, of each class in turn. Default: the first of each class, up to 8.",
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="Of that draw, and of t-SNE."
)
@click.option(
    "--targets",
    default=3,
    show_default=True,
    type=click.IntRange(1, 4),
    help="The teacher's strongest vectors that drift follows.",
)
@click.option(
    "--projection",
    type=click.Choice(PROJECTIONS),
    default="pca",
    show_default=True,
    help="Of the pooled features; tsne needs the extra plots.",
)
@click.option(
    "--class",
    "class_name",
    metavar="NAME",
    help="Class that grad-cam looks for. Default: each sample's own.",
)
@insist_option
@json_option
def visualize(
    runs: tuple[Path, ...],
    records: RecordPath,
    out: Path,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Draw where networks look, what they confuse, and how sure they are.

    RUN... are teachers and students in any number. A run that was not evaluated on the records is
    evaluated first.
    """
    if options["ids"] and options["samples"] is not None:
        raise click.UsageError("--ids names the samples to show, --samples draws them. Choose one.")
    if options["class_name"] is not None and "grad-cam" not in (options["pictures"] or PICTURES):
        raise click.UsageError("--class goes with --pictures grad-cam.")
    from kdant_tf.runs import load_run

    loaded = [load_run(folder) for folder in runs]
    start_tensorflow()
    from kdant_tf.visualization.visualize import PictureOptions
    from kdant_tf.visualization.visualize import visualize as draw
    from tf_records.records import Records

    from .output import CountProgress, print_json, print_table

    opened = Records.open(records, split=options["split"])
    with CountProgress("evaluating windows", None) as progress:
        drawn, omitted = draw(
            loaded, opened, out, PictureOptions(**options), overwrite=overwrite, on_batch=progress.advance
        )
    differences = {str(run.folder): run.differences(opened.manifest) for run in loaded}
    differences = {folder: words for folder, words in differences.items() if words}
    for folder, words in differences.items():
        click.echo(f"{folder} is not as it was trained: {'; '.join(words)}.", err=True)
    for each in omitted:
        click.echo(f"Left out {each.kind}: {each.reason}", err=True)
    if as_json:
        files = [{"path": str(each.path), "picture": each.kind, "of": each.of} for each in drawn]
        left_out = [{"picture": each.kind, "reason": each.reason} for each in omitted]
        print_json(
            {"files": files, "left_out": left_out, **({"differences": differences} if differences else {})}
        )
        return
    rows = [(each.kind, "" if each.of is None else each.of, each.path.name) for each in drawn]
    print_table(f"{len(drawn)} pictures in {out}", ("picture", "of", "file"), rows, left=3)

"""kdant build-records"""

from pathlib import Path
from typing import Any

import click

from tf_records.quiet import start_tensorflow

from .command import KdantCommand, split_names
from .options import FOLDER, folder_options, json_option


@click.command("build-records", cls=KdantCommand)
@click.option(
    "--source", required=True, type=click.Choice(["jhmdb", "csv", "synthetic"]), help="Kind of --input."
)
@click.option(
    "--input",
    "input_path",
    required=True,
    type=FOLDER,
    help="jhmdb: folder with the class folders and splits/. csv: file with the columns "
    "video,start_s,end_s,label,split. synthetic: folder of videos, rendered if it has none yet.",
)
@click.option("--out", type=FOLDER, help="Record folder to make; not needed with --dry-run.")
@click.option("--split", default=1, show_default=True, help="JHMDB's split: 1, 2 or 3.")
@click.option("--classes", callback=split_names, help="Only these classes: a,b,c.")
@click.option("--clip-frames", default=8, show_default=True, help="Frames a clip.")
@click.option(
    "--offset-frames", default=15, show_default=True, help="From one clip's first frame to the other's."
)
@click.option(
    "--short-side", default=256, show_default=True, help="Pixels of the shorter side of stored frames."
)
@click.option("--jpeg-quality", default=95, show_default=True)
@click.option("--shards", type=int, help="Shards a split; default: one every 64 samples.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Processes.")
@click.option("--strict", is_flag=True, help="Exit with 1 if a video had to be skipped.")
@click.option("--dry-run", is_flag=True, help="Check the annotations and count; decode and write nothing.")
@folder_options
@json_option
@click.pass_context
def build_records(ctx: click.Context, **options: Any) -> None:
    """Turn videos and annotations into TFRecord shards of paired clips.

    A video that cannot be decoded is skipped, and named here and in the manifest.
    """
    from tf_records.plan import BuildOptions, dry_run_summary
    from tf_records.schema import ClipSpec

    if options["out"] is None and not options["dry_run"]:
        raise click.UsageError("Missing option '--out'.")
    build_options = BuildOptions(
        clip=ClipSpec(clip_frames=options["clip_frames"], offset_frames=options["offset_frames"]),
        short_side=options["short_side"],
        jpeg_quality=options["jpeg_quality"],
        shards=options["shards"],
    )
    annotations = _read_source(options["source"], options["input_path"], options["split"], options["classes"])
    if options["dry_run"]:
        summary = dry_run_summary(annotations, build_options)
    else:
        summary = _build(annotations, build_options, options).summary()
    for item in summary["skipped"]:
        click.echo(f"Skipped {item['video']}: {item['reason']}", err=True)
    for what, names in annotations.absent.items():
        if names:
            click.echo(f"Absent {what}, {len(names)}: {', '.join(names)}", err=True)
    _print(summary, options["out"], options["as_json"])
    if options["strict"] and summary["skipped"]:
        click.echo(f"Error: {len(summary['skipped'])} inputs were skipped, and --strict was given.", err=True)
        ctx.exit(1)


def _read_source(source: str, path: Path, split: int, classes: tuple[str, ...]) -> Any:
    if source == "jhmdb":
        from tf_records.sources.jhmdb import read_jhmdb

        return read_jhmdb(path, split, classes)
    if source == "csv":
        from tf_records.sources.csv_manifest import read_csv

        return read_csv(path, classes)
    from tf_records.sources.synthetic import read_synthetic

    return read_synthetic(path, classes=classes)


def _build(annotations: Any, build_options: Any, options: dict[str, Any]) -> Any:
    start_tensorflow()
    from tf_records.writer import build_records as build

    from .progress import CountProgress

    with CountProgress("building records", len(annotations.samples)) as progress:
        return build(
            annotations,
            options["out"],
            build_options,
            workers=options["workers"],
            resume=options["resume"],
            overwrite=options["overwrite"],
            on_shard=lambda result: progress.advance(result.shard.records + len(result.skipped)),
        )


def _print(summary: dict[str, Any], out: Path | None, as_json: bool) -> None:
    from .output import print_json, print_table

    if as_json:
        print_json(summary)
        return
    rows = [
        (name, split["labeled"], split["unlabeled"], split["shards"], f"{split['bytes'] / 1e6:.1f}")
        for name, split in summary["splits"].items()
    ]
    title = f"{len(summary['classes'])} classes: {', '.join(summary['classes'])}"
    print_table(title, ("split", "labelled", "unlabelled", "shards", "MB"), rows)
    if out is not None:
        click.echo(f"Next: kdant train-teacher --records {out} --out teacher")

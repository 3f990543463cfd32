"""kdant inspect: what a record folder holds, what of it is damaged, and how it looks."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from tf_records.heads import describe_heads
from tf_records.remote_path import RecordPath
from tf_records.start_tensorflow import start_tensorflow

from .command import FOLDER, RECORD_FOLDER, KdantCommand, json_option

if TYPE_CHECKING:
    from tf_records.manifest import Damage, Manifest, SplitInfo
    from tf_records.schema import FeatureInfo

# Rows of the table of classes; --json has them all.
_CLASSES = 40


@click.command(
    "inspect", cls=KdantCommand, short_help="Show what a record folder holds, and whether it is whole."
)
@click.argument("records", type=RECORD_FOLDER)
@click.option(
    "--verify", is_flag=True, help="Also check every byte and every record, and name what is damaged."
)
@click.option(
    "--contact-sheet",
    type=FOLDER,
    show_default="none",
    help="Also draw observed and future frames of some records: FILE.png.",
)
@click.option(
    "--samples", default=8, show_default=True, type=click.IntRange(1, 200), help="Rows of the contact sheet."
)
@click.option("--seed", default=0, show_default=True, help="Of the choice of these records.")
@json_option
@click.pass_context
def inspect(
    ctx: click.Context,
    records: RecordPath,
    verify: bool,
    contact_sheet: Path | None,
    samples: int,
    seed: int,
    as_json: bool,
) -> None:
    """Show what a record folder holds, and whether it is whole."""
    from tf_records.manifest import load_manifest

    from .output import print_json

    for name in ("samples", "seed"):
        given = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and contact_sheet is None:
            raise click.UsageError(f"--{name} is for --contact-sheet FILE.png.")
    manifest = load_manifest(records)
    damages = _verify(records, manifest) if verify else []
    if as_json:
        found = {"damaged": [dataclasses.asdict(damage) for damage in damages]} if verify else {}
        print_json({**manifest.summary(), **found})
    elif not damages:
        _print(records, manifest, verify)
    if contact_sheet is not None and not damages:
        start_tensorflow()
        from tf_records.contact_sheet import draw_contact_sheet

        draw_contact_sheet(records, manifest, contact_sheet, samples=samples, seed=seed)
        click.echo(f"Drew {contact_sheet}", err=True)
    if damages:
        for damage in damages:
            click.echo(str(damage), err=True)
        shards = dict.fromkeys(damage.shard for damage in damages)
        click.echo(
            f"Error: {len(shards)} of {len(manifest.shards)} shards in {records} are damaged: "
            f"{', '.join(shards)}. {_advice(manifest, shards)}",
            err=True,
        )
        ctx.exit(1)


def _advice(manifest: Manifest, damaged: Collection[str]) -> str:
    """What to do about damaged shards."""
    advice = "Rebuild them: the same build-records command and --resume"
    if manifest.features is not None:
        advice = "Make all records again with --overwrite"
    training = {
        shard.file for name, split in manifest.splits.items() if name == "train" for shard in split.shards
    }
    return f"{advice}, or train without them: --skip-damaged." if training >= set(damaged) else f"{advice}."


def _verify(records: RecordPath, manifest: Manifest) -> list[Damage]:
    """Everything that is damaged."""
    start_tensorflow()
    from tf_records.verify import find_damage

    from .output import CountProgress

    with CountProgress("verifying shards", len(manifest.shards)) as progress:
        return list(find_damage(records, manifest.shards, manifest, lambda shard: progress.advance(1)))


def _print(records: RecordPath, manifest: Manifest, verified: bool) -> None:
    from .output import print_fields, print_table

    clip = manifest.clip
    print_fields(
        f"{records}",
        {
            "data set": f"{manifest.dataset} {manifest.options or ''}".strip(),
            "clips": f"{clip.clip_frames} frames, {clip.distance}, {manifest.fps or 'mixed'} fps",
            "frames": f"{manifest.modality}, short side {manifest.short_side}, JPEG {manifest.jpeg_quality}",
            **({} if manifest.flow is None else {"flow": str(manifest.flow)}),
            **({"heads": describe_heads(manifest.heads)} if manifest.heads else {}),
            **(
                {"times": ", ".join(f"{time_s:g} s" for time_s in manifest.times_s)}
                if manifest.times_s
                else {}
            ),
            **_describe_features(manifest.features),
            "skipped": ", ".join(dict.fromkeys(item.video for item in manifest.skipped)) or "none",
            **({"no end stated": ", ".join(manifest.open_ended)} if manifest.open_ended else {}),
            "checked": "every byte and record"
            if verified
            else "the manifest alone; --verify checks every byte",
        },
    )
    print_table("", ("split", *manifest.splits), _split_rows(manifest.splits.values()))
    _print_classes(manifest)


def _split_rows(splits: Collection[SplitInfo]) -> list[tuple[str, ...]]:
    """A row a quantity, a column a split: so many quantities would not fit beside each other."""
    return [
        ("samples", *(str(split.records) for split in splits)),
        ("labelled", *(str(split.labeled) for split in splits)),
        ("unlabelled", *(str(split.unlabeled) for split in splits)),
        ("offset shortened", *(str(split.shortened_offset) for split in splits)),
        ("shorter than a clip", *(str(split.repeated) for split in splits)),
        ("seconds of video", *(f"{split.seconds:.1f}" for split in splits)),
        ("shards", *(str(len(split.shards)) for split in splits)),
        ("MB", *(f"{sum(shard.bytes for shard in split.shards) / 1e6:.1f}" for split in splits)),
    ]


def _describe_features(features: FeatureInfo | None) -> dict[str, str]:
    """What stands in place of the frames, if anything does."""
    if features is None:
        return {}
    windows = "" if features.windows is None else f", at most {features.windows} a segment"
    return {"features": f"{features.words}; float16 {features.shape_words} a {features.per}{windows}"}


def _print_classes(manifest: Manifest) -> None:
    """Labelled samples of each class, in index order; of very many classes the most frequent ones."""
    from .output import print_table

    counts = [split.count_classes(manifest.classes) for split in manifest.splits.values()]
    rows = {name: [count.get(name, 0) for count in counts] for name in manifest.classes}
    names, title = list(rows), f"{len(rows)} classes"
    if len(rows) > _CLASSES:
        names = sorted(rows, key=lambda name: sum(rows[name]), reverse=True)[:_CLASSES]
        title += f", the {_CLASSES} most frequent; --json has all"
    print_table(title, ("class", *manifest.splits), [(name, *rows[name]) for name in names])

"""kdant inspect"""

from pathlib import Path
from typing import Any

import click

from tf_records.quiet import start_tensorflow

from .command import KdantCommand
from .options import FOLDER, json_option


@click.command("inspect", cls=KdantCommand)
@click.argument("records", type=FOLDER)
@click.option("--verify", is_flag=True, help="Also compare every byte with the manifest's checksums.")
@json_option
def inspect(records: Path, verify: bool, as_json: bool) -> None:
    """Show what a record folder holds, and whether it is whole."""
    from .output import print_fields, print_json, print_table

    if verify:
        start_tensorflow()
        from tf_records.reader import Records
        from tf_records.verify import verify_records

        opened = Records.open(records)
        verify_records(opened)
        manifest = opened.manifest
    else:
        from tf_records.schema import load_manifest

        manifest = load_manifest(records)
    summary = manifest.summary()
    if as_json:
        print_json(summary)
        return
    clip = manifest.clip
    print_fields(
        f"{records}",
        {
            "data set": f"{manifest.dataset} {manifest.options or ''}".strip(),
            "clips": f"{clip.clip_frames} frames, {clip.distance}, {manifest.fps or 'mixed'} fps",
            "frames": f"{manifest.modality}, short side {manifest.short_side}, JPEG {manifest.jpeg_quality}",
            "flow": str(manifest.flow or "none"),
            **_describe_features(manifest.features),
            "classes": ", ".join(manifest.classes),
            "skipped": ", ".join(dict.fromkeys(item.video for item in manifest.skipped)) or "none",
            "checked": "every byte" if verify else "the manifest alone; --verify checks every byte",
        },
    )
    columns = ("split", "labelled", "unlabelled", "offset shortened", "repeated", "shards", "MB")
    rows = [
        (
            name,
            split.labeled,
            split.unlabeled,
            split.shortened_offset,
            split.repeated,
            len(split.shards),
            f"{sum(shard.bytes for shard in split.shards) / 1e6:.1f}",
        )
        for name, split in manifest.splits.items()
    ]
    print_table("", columns, rows)


def _describe_features(features: Any) -> dict[str, str]:
    """What stands in place of the frames, if anything does."""
    if features is None:
        return {}
    windows = "" if features.windows is None else f", at most {features.windows} a segment"
    return {"features": f"{features.words}; float16 {features.shape_words} a {features.per}{windows}"}

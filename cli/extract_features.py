"""kdant extract-features: a frozen network over a record folder, once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kdant_tf.config import FRAME_STEMS, SMALLEST_CROP
from tf_records.remote_path import RecordPath
from tf_records.start_tensorflow import start_tensorflow

from .command import RECORD_FOLDER, KdantCommand, command_line, folder_options, json_option

if TYPE_CHECKING:
    from tf_records.manifest import Manifest


@click.command(
    "extract-features",
    cls=KdantCommand,
    short_help="Keep the maps of a frozen network in place of frames.",
)
@click.argument("records", type=RECORD_FOLDER)
@click.option(
    "--init",
    required=True,
    help="Whose stem: kinetics, the path of a DeepMind checkpoint, of the run folder or .keras file of an "
    "I3D, or random (width 1; to try things out). Of an image network: imagenet, a Keras .h5 file, the run "
    "folder or .keras file of a tsn, or random.",
)
@click.option(
    "--model",
    default="i3d",
    show_default=True,
    type=click.Choice(["i3d", *FRAME_STEMS]),
    help="Network that makes the features; image networks see each frame alone.",
)
@click.option(
    "--endpoint",
    show_default="MaxPool3d_4a_3x3 of i3d",
    help="Its layer whose map is kept, such as block_13_expand_relu or out_relu of mobilenet_v2.",
)
@click.option("--out", required=True, type=RECORD_FOLDER, help="Record folder to make.")
@click.option(
    "--modality",
    type=click.Choice(["rgb", "flow"]),
    show_default="rgb, where records hold both",
    help="What the stem sees.",
)
@click.option(
    "--windows",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Clips of each segment, evenly spaced, at most. More give training fresh views of long segments and "
    "evaluation more to average over; disk use grows with them.",
)
@click.option(
    "--crop",
    type=click.IntRange(SMALLEST_CROP),
    show_default="whole frames, of whose maps training draws squares (§4.3)",
    help="Cut the central square of so many pixels first, as evaluation on frames does.",
)
@click.option("--batch-size", default=4, show_default=True, type=click.IntRange(1), help="Clips at a time.")
@click.option(
    "--devices",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "cpu", "gpu"]),
    help="auto takes a GPU where there is one.",
)
@folder_options
@json_option
def extract_features(records: RecordPath, out: RecordPath, init: str, as_json: bool, **options: Any) -> None:
    """Keep the maps of a frozen stem, computed once (§4.3).

    The stem is I3D up to MaxPool3d_4a_3x3, whose maps the rest of I3D is trained on, or an image network
    up to --endpoint, for --model features3d. Maps are float16, of whole clips.
    """
    start_tensorflow()
    from kdant_tf.training.feature_extraction import extract_features as extract
    from tf_records.manifest import load_manifest

    from .output import CountProgress

    say_if_random(init)
    splits = load_manifest(records).splits.values()
    with CountProgress("extracting features", sum(split.records for split in splits)) as progress:
        manifest = extract(records, out, init, on_record=progress.advance, **options)
    _print(manifest, out, as_json)


def say_if_random(init: str) -> None:
    """On stderr, that features of random weights are for trying out."""
    if init == "random":
        click.echo("Features of random weights, for trying out: nothing to be learned from.", err=True)


def _print(manifest: Manifest, out: RecordPath, as_json: bool) -> None:
    from .output import print_fields, print_json

    if as_json:
        print_json(manifest.summary())
        return
    features = manifest.features
    assert features is not None
    records = sum(split.records for split in manifest.splits.values())
    size = sum(shard.bytes for split in manifest.splits.values() for shard in split.shards)
    print_fields(
        f"{out}",
        {
            "features": features.words,
            "shape": f"float16 {features.shape_words}, at most {features.windows} a segment",
            "records": f"{records}, {size / 1e6:.1f} MB, {size / max(1, records) / 1e6:.2f} MB each",
            "next": command_line(*_train(features.network), "--records", out, "--out", "teacher"),
        },
    )


def _train(network: str) -> tuple[str, ...]:
    return ("train-teacher",) if network == "i3d" else ("train-teacher", "--model", "features3d")

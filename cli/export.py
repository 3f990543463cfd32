"""kdant export"""

from pathlib import Path

import click

from .command import KdantCommand
from .options import FOLDER


@click.command("export", cls=KdantCommand)
@click.argument("run", type=FOLDER)
@click.option("--out", required=True, type=FOLDER, help="Folder that gets the version folder 1.")
def export(run: Path, out: Path) -> None:
    """Write a SavedModel for TensorFlow Serving, preprocessing included."""
    from kdant_tf.runs import load_run

    loaded = load_run(run)
    from kdant_tf.serving.export import export_run

    from .output import print_fields

    version = export_run(loaded, out)
    print_fields(
        f"Exported {run}",
        {
            "folder": str(version),
            "signature": f"serving_default: uint8 clips (B, {loaded.clip.clip_frames}, H, W, 3) → probabilities",
            "classes": ", ".join(loaded.classes),
        },
    )

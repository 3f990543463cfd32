"""kdant export"""

from pathlib import Path

import click

from tf_records.quiet import start_tensorflow

from .command import KdantCommand
from .options import FOLDER


@click.command("export", cls=KdantCommand)
@click.argument("run", type=FOLDER)
@click.option("--out", required=True, type=FOLDER, help="Folder that gets the version folder 1.")
def export(run: Path, out: Path) -> None:
    """Write a SavedModel for TensorFlow Serving, preprocessing included."""
    from kdant_tf.runs import load_run

    loaded = load_run(run)
    start_tensorflow()
    from kdant_tf.serving.export import export_run

    from .output import print_fields

    version = export_run(loaded, out)
    print_fields(
        f"Exported {run}",
        {
            "folder": str(version),
            "signature": "serving_default",
            "input": f"clips: uint8 (B, {loaded.clip.clip_frames}, H, W, 3), RGB, any size",
            "output": f"probabilities: float32 (B, {len(loaded.classes)})",
            "classes": ", ".join(loaded.classes),
        },
    )

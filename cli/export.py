"""kdant export"""

from pathlib import Path

import click

from tf_records.quiet import start_tensorflow

from .command import KdantCommand
from .options import FOLDER

_INPUTS = {"rgb": "3), RGB", "flow": "2), u and v of flow as in records"}


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
    frames, channels = loaded.clip.clip_frames, _INPUTS[loaded.modality]
    print_fields(
        f"Exported {run}",
        {
            "folder": str(version),
            "signature": "serving_default",
            "input": f"clips: uint8 (B, {frames}, H, W, {channels}, any size",
            "output": f"probabilities: float32 (B, {len(loaded.classes)})",
            "classes": ", ".join(loaded.classes),
        },
    )

"""kdant export"""

from pathlib import Path
from typing import Any

import click

from tf_records.quiet import start_tensorflow

from .command import KdantCommand
from .options import FOLDER, json_option, weights_option


@click.command("export", cls=KdantCommand)
@click.argument("run", type=FOLDER)
@click.option("--out", required=True, type=FOLDER, help="Folder that gets the version folder.")
@click.option(
    "--version",
    type=click.IntRange(min=1),
    help="Number of the version; default: one more than the highest in --out.",
)
@click.option(
    "--with",
    "other",
    type=FOLDER,
    help="A run of the other modality, RGB or flow, whose logits are added as evaluate --with does.",
)
@weights_option("Of RUN's logits and of those of --with, such as 1,1.5; default: equal.")
@click.option(
    "--stem",
    help="Where the weights lie that made the features of a run trained on features, if they were moved: "
    "kinetics, a checkpoint, a run folder or a .keras file.",
)
@json_option
def export(
    run: Path,
    out: Path,
    version: int | None,
    other: Path | None,
    fusion_weights: tuple[float, ...],
    stem: str | None,
    as_json: bool,
) -> None:
    """Write a SavedModel for TensorFlow Serving, preprocessing included."""
    if fusion_weights and (other is None or len(fusion_weights) != 2):
        raise click.UsageError(
            f"--fusion-weights should be two numbers, beside --with. Received: {len(fusion_weights)}"
            f"{'' if other else ' without --with'}."
        )
    from kdant_tf.runs import load_run

    loaded, added = load_run(run), None if other is None else load_run(other)
    start_tensorflow()
    from kdant_tf.serving.export import export_run

    exported = export_run(
        loaded, out, version=version, other=added, weights=fusion_weights or (1.0, 1.0), stem=stem
    )
    _print_exported(f"Exported {run}", exported, as_json)


def _print_exported(title: str, exported: Any, as_json: bool) -> None:
    from .output import print_fields, print_json

    config = exported.config
    if as_json:
        print_json({"folder": str(exported.folder), **config})
        return
    signatures = {
        f"signature {name}": f"{_describe(signature['inputs'])} → {_describe(signature['outputs'])}"
        for name, signature in config["signatures"].items()
    }
    print_fields(
        title,
        {
            "folder": str(exported.folder),
            **signatures,
            "offset": _describe_offset(config),
            "classes": ", ".join(config["classes"]),
        },
    )


def _describe(tensors: dict[str, Any]) -> str:
    """Such as "clips: uint8 (?, 8, ?, ?, 3)"."""
    return ", ".join(
        f"{name}: {tensor['dtype']} ({', '.join('?' if n is None else str(n) for n in tensor['shape'])})"
        for name, tensor in tensors.items()
    )


def _describe_offset(config: dict[str, Any]) -> str:
    if not config["anticipates"]:
        return "none: it names what it sees"
    if config["offset_s"] is None:
        return "in seconds unknown: the run knows no frame rate"
    return f"{config['offset_s']:g} s from the first frame of a clip to the first of what is expected"

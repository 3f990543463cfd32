"""kdant export"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from kdant_tf.archive import RUN_ARCHIVE
from kdant_tf.models.inference import FLOAT32
from kdant_tf.serving.formats import FORMATS, INT8, PRECISIONS, SAVED_MODEL, check_precision
from tf_records.errors import KdantError
from tf_records.remote_path import RecordPath
from tf_records.start_tensorflow import start_tensorflow

from .command import FOLDER, RECORD_FOLDER, RUN, KdantCommand, json_option, weights_option
from .output import percent, warn_of_other_network

if TYPE_CHECKING:
    from kdant_tf.serving.export import Exported, Parity
    from kdant_tf.serving.run_archive import PackedRun


@click.command("export", cls=KdantCommand, short_help="Write a network for servers and other runtimes.")
@click.argument("run", type=RUN)
@click.option(
    "--out",
    required=True,
    type=FOLDER,
    help="Folder that gets the version folder; of a run-archive, also NAME.zip.",
)
@click.option(
    "--format",
    type=click.Choice([*FORMATS, RUN_ARCHIVE]),
    default=SAVED_MODEL,
    show_default=True,
    help="Of the network's file: savedmodel for TensorFlow Serving; openvino, onnx and litert need the "
    "extra of the same name. run-archive is the run as one file, for others to evaluate, predict and go on "
    "with.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default=FLOAT32,
    show_default=True,
    help="bfloat16 (savedmodel, openvino): computed in 16 bits where the processor can; float16 (all but "
    "savedmodel): half the size; int8 (openvino, onnx): computed in 8 bits. What it costs is measured on "
    "--records.",
)
@click.option(
    "--calibration",
    type=RECORD_FOLDER,
    help="For --precision int8: records of frames, by whose training clips ranges of values are found.",
)
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
@click.option(
    "--records",
    type=RECORD_FOLDER,
    help="Records of frames, on clips of which the export is compared with the run; default: drawn clips.",
)
@click.option(
    "--fold-batch-norm",
    is_flag=True,
    help="Fold batch normalisation into the convolutions before it, which saves operations.",
)
@click.option(
    "--batching",
    is_flag=True,
    help="Also write batching_params.pbtxt, by which TensorFlow Serving joins waiting requests.",
)
@json_option
def export(
    run: Path,
    out: Path,
    format: str,
    precision: str,
    calibration: RecordPath | None,
    version: int | None,
    other: Path | None,
    fusion_weights: tuple[float, ...],
    stem: str | None,
    records: RecordPath | None,
    fold_batch_norm: bool,
    batching: bool,
    as_json: bool,
) -> None:
    """Write a network for TensorFlow Serving or another runtime, preprocessing included.

    Before it gets its name it is loaded, and compared with the run on a few clips. Versions count up.
    """
    if format == RUN_ARCHIVE:
        _pack(run, out, as_json)
        return
    if fusion_weights and (other is None or len(fusion_weights) != 2):
        raise click.UsageError(
            f"--fusion-weights should be two numbers, beside --with. Received: {len(fusion_weights)}"
            f"{'' if other else ' without --with'}."
        )
    if format != SAVED_MODEL and (fold_batch_norm or batching):
        raise click.UsageError(
            f"--{'fold-batch-norm' if fold_batch_norm else 'batching'} is for --format {SAVED_MODEL}. "
            f"Received: --format {format}."
        )
    try:
        check_precision(format, precision)
    except KdantError as error:
        raise click.UsageError(str(error)) from error
    if (precision == INT8) != (calibration is not None):
        raise click.UsageError(
            f"--precision {INT8} and --calibration RECORDS go together. Received: --precision {precision}."
        )
    from kdant_tf.runs import load_run

    loaded, added = load_run(run), None if other is None else load_run(other)
    warn_of_other_network(run, other)
    start_tensorflow()
    from kdant_tf.serving.export import export_run

    exported = export_run(
        loaded,
        out,
        version=version,
        other=added,
        weights=fusion_weights,
        stem=stem,
        records=records,
        fold_batch_norm=fold_batch_norm,
        batching=batching,
        format=format,
        precision=precision,
        calibration=calibration,
    )
    if as_json:
        _print_json(exported)
    else:
        _print_exported(f"Exported {run}", exported, batching)


def _pack(run: Path, out: Path, as_json: bool) -> None:
    context = click.get_current_context()
    own = ("run", "out", "format", "as_json")
    for param in context.command.params:
        name = str(param.name)
        if name not in own and context.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{param.opts[0]} is not for --format {RUN_ARCHIVE}.")
    start_tensorflow()
    from kdant_tf.serving.run_archive import pack_run

    packed = pack_run(run, out)
    if as_json:
        _print_packed_json(packed)
        return
    from .output import print_fields

    stem = packed.missing_stem
    print_fields(
        f"Packed {run}",
        {
            "archive": str(packed.path),
            "size": f"{packed.bytes / 1e6:.1f} MB",
            "files": ", ".join(packed.files),
            "sha256": packed.sha256,
            "use": f"as RUN, --teacher, --init or --model, also from https: ADDRESS#sha256={packed.sha256}",
            **({"not in it": f"the stem of its features, {stem}; give it to others too"} if stem else {}),
        },
    )


def _print_packed_json(packed: PackedRun) -> None:
    import dataclasses

    from .output import print_json

    print_json({**dataclasses.asdict(packed), "path": str(packed.path)})


def _print_json(exported: Exported) -> None:
    import dataclasses

    from .output import print_json

    fields = dataclasses.asdict(exported)
    print_json({**fields.pop("config"), **fields, "folder": str(exported.folder)})


def _print_exported(title: str, exported: Exported, batching: bool) -> None:
    from kdant_tf.serving.export import BATCHING_FLAGS

    from .output import print_fields

    config, parity = exported.config, exported.parity
    signatures = {
        name: f"{_describe(signature['inputs'])} → {', '.join(signature['outputs'])}; "
        f"{parity.latency_ms[name]:.1f} ms a clip"
        for name, signature in config["signatures"].items()
    }
    print_fields(
        title,
        {
            "folder": str(exported.folder),
            "format": f"{config['format']}, {config['precision']}",
            "size": f"{exported.bytes / 1e6:.1f} MB",
            **signatures,
            "offset": _describe_offset(config),
            "classes": ", ".join(config["classes"]),
            "differs from the run": _describe_parity(parity),
            "warm-up": "a request of each signature" if exported.no_warm_up is None else exported.no_warm_up,
            **({"batching": f"start the server with {BATCHING_FLAGS}"} if batching else {}),
        },
    )


def _describe_parity(parity: Parity) -> str:
    """Such as "by at most 2e-07 in a probability, 1e-06 in a logit; tried: 4 clips of records"."""
    logits = "" if parity.logit_difference is None else f", {parity.logit_difference:.1g} in a logit"
    named = f"{percent(parity.same_top1)} named alike"
    right = (
        f", {percent(parity.accuracy)} rightly against {percent(parity.run_accuracy)}"
        if parity.accuracy is not None and parity.run_accuracy is not None
        else ""
    )
    return (
        f"by at most {parity.difference:.1g} in a probability{logits}; tried: {parity.clips} {parity.source}"
        f", {named}{right}"
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

"""From runs to a version folder that TensorFlow Serving loads."""

import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from kdant_tf.runs import CONFIG_NAME, MODEL_NAME, Run
from kdant_tf.serving.description import LABELS_NAME, describe_export, labels_text
from kdant_tf.serving.signatures import add_signatures
from kdant_tf.serving.streams import Stream, open_streams
from tf_records.errors import KdantError
from tf_records.files import claim_folder, lock_folder, remove_folder

_TEMPORARY = ".tmp-"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """An exported model.

    Args:
        folder: of this version.
        config: what its config.json says.
    """

    folder: Path
    config: dict[str, Any]


def export_run(
    run: Run,
    out: Path,
    *,
    version: int | None = None,
    other: Run | None = None,
    weights: Sequence[float] = (1.0, 1.0),
    stem: str | None = None,
    network: keras.Model | None = None,
) -> Exported:
    """Writes `out`/`version`, a SavedModel with everything before the network inside.

    Its signatures are those of `kdant_tf.serving.signatures`. Frames of any size are cut and scaled as in
    evaluation; those of a run that was trained on features of whole frames are scaled to the short side of
    its records. Flow comes in the 8 bits of records, `tf_records.flow.flow_to_bytes`.

    Args:
        run: a finished run.
        out: folder, made if need be.
        version: number of the version; None is one more than the highest that is there.
        other: a run of the other modality, whose logits are added.
        weights: of the logits of both, as in evaluation.
        stem: where the weights lie that made the features of runs trained on features, if not where they
            were.
        network: of `run`, where it is loaded already.

    Raises:
        KdantError: the version exists, or `out` cannot be written.
        RunError: runs or stem that do not fit together.
    """
    runs = [run] if other is None else [run, other]
    if (out / MODEL_NAME).exists():
        raise KdantError(
            f"{out} is a run folder. Export to another folder: kdant export {run.folder} --out DIR."
        )
    _check_is_free(out, version)
    streams = open_streams(runs, weights[: len(runs)], stem=stem, network=network)
    claim_folder(out, resume=True)
    with lock_folder(out, "export"), _temporary_folder(out) as temporary:
        config = _write(streams, temporary)
        target = out / str(_next_version(out) if version is None else version)
        _check_is_free(out, version)
        temporary.rename(target)
    return Exported(folder=target, config=config)


def _write(streams: Sequence[Stream], folder: Path) -> dict[str, Any]:
    """Writes the SavedModel and what lies beside it; returns config.json's content."""
    archive = keras.export.ExportArchive()
    for stream in streams:
        archive.track(stream.network)
        if stream.stem is not None:
            archive.track(stream.stem)
    signatures = add_signatures(archive, streams)
    archive.write_out(str(folder), verbose=False)
    runs = [stream.run for stream in streams]
    config = describe_export(runs, [stream.weight for stream in streams], signatures, folded=False)
    text = json.dumps(config, indent=1, ensure_ascii=False) + "\n"
    (folder / CONFIG_NAME).write_text(text, encoding="utf-8")
    (folder / LABELS_NAME).write_text(labels_text(runs[0].classes), encoding="utf-8")
    return config


@contextmanager
def _temporary_folder(out: Path) -> Iterator[Path]:
    """A folder in `out` under a name that a server does not take for a version; removed unless renamed."""
    for left in out.glob(f"{_TEMPORARY}*"):
        remove_folder(left)
    temporary = out / f"{_TEMPORARY}version"
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _next_version(out: Path) -> int:
    return 1 + max((int(path.name) for path in out.iterdir() if path.name.isdecimal()), default=0)


def _check_is_free(out: Path, version: int | None) -> None:
    if version is not None and (out / str(version)).exists():
        raise KdantError(
            f"{out / str(version)} exists, and versions are never replaced. Leave --version out, or give "
            f"{_next_version(out)}."
        )

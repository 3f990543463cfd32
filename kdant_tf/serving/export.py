"""From runs to a version folder that TensorFlow Serving loads."""

import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kdant_tf.models.weights import first_line
from kdant_tf.runs import CONFIG_NAME, MODEL_NAME, Run, manifest_sha256
from kdant_tf.serving.batching import BATCHING_NAME, BATCHING_TEXT
from kdant_tf.serving.description import LABELS_NAME, describe_export, labels_text
from kdant_tf.serving.model import SAVED_MODEL_NAME
from kdant_tf.serving.model_card import CARD_NAME, write_card
from kdant_tf.serving.parity import Parity, check_parity
from kdant_tf.serving.samples import draw_samples, read_samples
from kdant_tf.serving.signatures import add_signatures
from kdant_tf.serving.streams import Stream, open_streams
from kdant_tf.serving.warm_up import write_warm_up
from tf_records.errors import KdantError
from tf_records.files import claim_folder, lock_folder, remove_folder
from tf_records.records import Records

_TEMPORARY = ".tmp-"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """How runs are exported.

    Args:
        version: number of the version; None is one more than the highest that is there.
        weights: of the logits of a pair, as in evaluation.
        stem: where the weights lie that made the features of runs trained on features, if not where they
            were.
        fold_batch_norm: fold batch normalisation into the layers before it.
        batching: write parameters for a server that joins requests.
    """

    version: int | None = None
    weights: Sequence[float] = ()
    stem: str | None = None
    fold_batch_norm: bool = False
    batching: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """An exported model.

    Args:
        folder: of this version.
        config: what its config.json says.
        bytes: of all its files.
        parity: with the run.
        no_warm_up: why there are no requests for warming up, or None where they were written.
    """

    folder: Path
    config: dict[str, Any]
    bytes: int
    parity: Parity
    no_warm_up: str | None


def export_run(
    run: Run,
    out: Path,
    options: ExportOptions = ExportOptions(),
    *,
    other: Run | None = None,
    records: Records | None = None,
    network: keras.Model | None = None,
) -> Exported:
    """Writes a version into `out`: a SavedModel with everything before the network inside.

    Its signatures are those of `kdant_tf.serving.signatures`. Frames of any size are cut and scaled as in
    evaluation; those of a run that was trained on features of whole frames are scaled to the short side of
    its records. Flow comes in the 8 bits of records, `tf_records.flow.flow_to_bytes`. Before the version gets
    its name, it is loaded and compared with the run.

    Args:
        run: a finished run.
        out: folder, made if need be.
        options: how.
        other: a run of the other modality, whose logits are added.
        records: of frames, whose first clips are compared; None for drawn ones.
        network: of `run`, where it is loaded already.

    Raises:
        KdantError: the version exists, or `out` cannot be written.
        RunError: runs, stem or records that do not fit together, or a SavedModel that says something else
            than the run.
    """
    _check_is_no_model(out)
    _check_is_free(out, options.version)
    runs = [_with_rate(each, records) for each in (run, other) if each is not None]
    streams = open_streams(runs, options.weights, stem=options.stem, network=network)
    samples = draw_samples(streams) if records is None else read_samples(streams, records)
    source = "drawn clips" if records is None else f"clips of {records.folder}"
    claim_folder(out, resume=True)
    with lock_folder(out, "export"), _temporary_folder(out) as temporary:
        config = _write_model(streams, temporary, options)
        no_warm_up = write_warm_up(temporary, samples[0].requests(streams))
        parity = check_parity(temporary, streams, samples, source)
        _check_is_free(out, options.version)
        version = _next_version(out) if options.version is None else options.version
        folder = temporary.rename(out / str(version))
    return Exported(folder=folder, config=config, bytes=_size(folder), parity=parity, no_warm_up=no_warm_up)


def _with_rate(run: Run, records: Records | None) -> Run:
    """A run of before frame rates were noted learns its own from the records that it was trained on."""
    made_of = run.records_sha256 if run.features is None else run.features.records_sha256
    if records is None or run.dataset is not None or manifest_sha256(records.folder) != made_of:
        return run
    return dataclasses.replace(run, dataset=records.manifest.dataset, fps=records.manifest.fps)


def _write_model(streams: Sequence[Stream], folder: Path, options: ExportOptions) -> dict[str, Any]:
    """Writes the SavedModel and what lies beside it; returns config.json's content."""
    served = [stream.folded() for stream in streams] if options.fold_batch_norm else streams
    archive = keras.export.ExportArchive()
    for stream in served:
        archive.track(stream.network)
        if stream.stem is not None:
            archive.track(stream.stem)
    signatures = add_signatures(archive, served)
    try:
        archive.write_out(str(folder), verbose=False)
    except (OSError, tf.errors.OpError) as error:
        raise KdantError(
            f"The SavedModel cannot be written to {folder.parent}: {first_line(error)}. Make room there, or "
            f"give another --out."
        ) from error
    config = describe_export(streams, signatures, folded=options.fold_batch_norm)
    texts = {
        CONFIG_NAME: json.dumps(config, indent=1, ensure_ascii=False) + "\n",
        LABELS_NAME: labels_text(config["classes"]),
        CARD_NAME: write_card(streams, config),
        **({BATCHING_NAME: BATCHING_TEXT} if options.batching else {}),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
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


def _check_is_no_model(out: Path) -> None:
    for name, kind in ((MODEL_NAME, "a run folder"), (SAVED_MODEL_NAME, "a version of an export")):
        if (out / name).exists():
            raise KdantError(f"{out} is {kind}. Give a folder for versions as --out, such as served.")


def _check_is_free(out: Path, version: int | None) -> None:
    if version is not None and (out / str(version)).exists():
        raise KdantError(
            f"{out / str(version)} exists, and versions are never replaced. Leave --version out, or give "
            f"{_next_version(out)}."
        )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

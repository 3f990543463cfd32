"""From records of frames, or from videos, to records of features of a frozen stem (paper §4.3)."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import tensorflow as tf

from kdant_tf.models.i3d_stem import I3D, Stem, load_stem
from kdant_tf.models.weights import weights_paths
from kdant_tf.runs import manifest_sha256
from kdant_tf.training.strategy import make_strategy
from tf_records.errors import KdantError, RecordError
from tf_records.features import finished_features, write_clip_features
from tf_records.files import check_apart, claim_folder, lock_folder, remove_folder
from tf_records.manifest import MANIFEST_NAME, Manifest
from tf_records.plan import BuildOptions
from tf_records.records import Records
from tf_records.remote_path import RecordPath, record_path
from tf_records.schema import FRAMES_FOLDER, PER_CLIP, ClipSpec, FeatureInfo
from tf_records.sources.sample import Annotations
from tf_records.writer import ShardResult, ShardWriter, build_records, finished_manifest, remove_records

BATCH_SIZE = 4


def extract_features(
    records: str | os.PathLike[str],
    out: str | os.PathLike[str],
    init: str,
    *,
    model: str = I3D,
    endpoint: str | None = None,
    modality: str | None = None,
    windows: int = 1,
    crop: int | None = None,
    batch_size: int = BATCH_SIZE,
    devices: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    on_record: Callable[[int], None] = lambda count: None,
) -> Manifest:
    """Runs a frozen stem over the clips of a record folder, once.

    Args:
        records: folder of records of frames.
        out: folder of the features, made if need be; not empty only with `resume` or `overwrite`.
        init: whose stem, see `kdant_tf.models.i3d_stem.load_stem`.
        model, endpoint: whose layer the maps are of, see `load_stem`.
        modality: "rgb" or "flow", where the records hold both; None is RGB then.
        windows: clips of each segment, evenly spaced, at most; both segments of a training pair have the
            same.
        crop: pixels of the central square to cut first, as evaluation on frames does; None for whole
            frames.
        batch_size: clips at a time.
        devices: "auto", "cpu" or "gpu"; one device is used.
        resume: keep the finished shards of an interrupted extraction.
        overwrite: replace the records in `out`.
        on_record: called with each number of records done.

    Raises:
        KdantError: records, weights, devices and `out` do not fit together (says how).
    """
    opened, out = Records.open(records, modality=modality), record_path(out)
    manifest = opened.manifest
    if manifest.features is not None:
        raise RecordError(f"{opened.folder} has features already. Give the records of frames.")
    if manifest.longest_anticipation_s is not None:
        raise RecordError(
            f"{opened.folder} keeps frames for several anticipation times, features are of one. Build "
            f"records without --longest-anticipation-s."
        )
    check_apart(out, opened.folder, *weights_paths(init))
    device = _choose_device(devices)
    stem = _load_stem(init, device, opened.modality, manifest.clip, model, endpoint)
    _check_sides(stem, manifest.short_side, crop)
    with _claimed(out, resume=resume, overwrite=overwrite):
        info = _describe(stem, windows=windows, crop=crop, records_sha256=manifest_sha256(opened.folder))
        return _extract(opened, out, stem, info, device, batch_size, on_record)


def build_features(
    annotations: Annotations,
    out: str | os.PathLike[str],
    options: BuildOptions,
    init: str,
    *,
    workers: int = 1,
    write_shards: ShardWriter | None = None,
    devices: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    on_shard: Callable[[ShardResult], None] = lambda result: None,
    on_record: Callable[[int], None] = lambda count: None,
) -> Manifest:
    """Builds records from videos and puts features in place of their frames.

    The frames lie in a folder within `out` until the features are whole. The weights are read before the
    first video is.

    Args:
        annotations, options, workers, write_shards, on_shard: see `tf_records.writer.build_records`.
        out: folder, made if need be; not empty only with `resume` or `overwrite`.
        init, devices, on_record: see `extract_features`, whose other arguments keep their defaults.
        resume: go on with what an interrupted build left in `out`.
        overwrite: replace the records in `out`.

    Raises:
        KdantError: see both.
    """
    out, device = record_path(out), _choose_device(devices)
    check_apart(out, *weights_paths(init))
    stem = _load_stem(init, device, options.modality, options.clip)
    with _claimed(out, resume=resume, overwrite=overwrite):
        frames = out / FRAMES_FOLDER
        if (out / MANIFEST_NAME).exists():
            finished = finished_manifest(out, annotations, options)
            sha256 = None if finished.features is None else finished.features.records_sha256
            info = _describe(stem, windows=1, crop=None, records_sha256=sha256)
            finished_features(out, info, options.modality)
        else:
            build_records(
                annotations,
                frames,
                options,
                workers=workers,
                write_shards=write_shards,
                resume=True,
                on_shard=on_shard,
            )
            info = _describe(stem, windows=1, crop=None, records_sha256=manifest_sha256(frames))
            finished = _extract(Records.open(frames), out, stem, info, device, BATCH_SIZE, on_record)
        remove_folder(frames)
        return finished


@contextmanager
def _claimed(out: RecordPath, *, resume: bool, overwrite: bool) -> Iterator[None]:
    """Has `out` to itself, emptied if asked to, and says what to do where it cannot be written."""
    claim_folder(out, resume=resume, overwrite=overwrite)
    try:
        with lock_folder(out):
            if overwrite:
                remove_records(out)
            try:
                yield
            finally:
                frames = out / FRAMES_FOLDER
                if frames.is_dir() and not any(frames.iterdir()):
                    remove_folder(frames)
    except OSError as error:
        raise KdantError(
            f"Features cannot be written to {out}: {error.strerror or error}. The finished shards are kept: "
            f"make room there and go on with the same command and --resume."
        ) from error


def _extract(
    records: Records,
    out: RecordPath,
    stem: Stem,
    info: FeatureInfo,
    device: str,
    batch_size: int,
    on_record: Callable[[int], None],
) -> Manifest:
    def compute(clips: tf.Tensor) -> tf.Tensor:
        # The network alone: records are read on the CPU.
        with tf.device(device):
            return stem.network(clips, training=False)

    try:
        return write_clip_features(records, out, compute, info, batch_size=batch_size, on_record=on_record)
    except tf.errors.ResourceExhaustedError as error:
        raise KdantError(
            f"{batch_size} clips at a time do not fit the memory of {device}. Lower --batch-size and go on "
            f"with --resume."
        ) from error


def _load_stem(
    init: str, device: str, modality: str, clip: ClipSpec, model: str = I3D, endpoint: str | None = None
) -> Stem:
    with tf.device(device):
        return load_stem(
            init, modality=modality, clip_frames=clip.clip_frames, model=model, endpoint=endpoint
        )


def _check_sides(stem: Stem, short_side: int, crop: int | None) -> None:
    """Image networks of any size of frame pad as for even ones, so only whole strides come out as counted."""
    pixels, option = (short_side, "records of --short-side") if crop is None else (crop, "--crop")
    if stem.model != I3D and pixels % stem.stride:
        raise KdantError(
            f"{stem.endpoint} of {stem.model} wants a multiple of {stem.stride} pixels. Received: {pixels}. "
            f"Give {option} {max(1, pixels // stem.stride) * stem.stride}."
        )


def _describe(stem: Stem, *, windows: int, crop: int | None, records_sha256: str | None) -> FeatureInfo:
    return FeatureInfo(
        shape=stem.network.output.shape[1:],
        source=stem.source,
        per=PER_CLIP,
        endpoint=stem.endpoint,
        width=stem.width,
        weights_sha256=stem.weights_sha256,
        crop=crop,
        windows=windows,
        records_sha256=records_sha256,
        network=stem.model,
        stride=stem.stride,
    )


def _choose_device(devices: str) -> str:
    """Name of the first device of `--devices`."""
    return str(make_strategy(devices).extended.worker_devices[0])

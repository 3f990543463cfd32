"""From records of frames, or from videos, to records of features of I3D's stem (paper §4.3)."""

from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from kdant_tf.models.stem import ENDPOINT, load_stem
from kdant_tf.runs import manifest_sha256
from kdant_tf.training.strategy import make_strategy
from tf_records.clip_features import write_clip_features
from tf_records.errors import KdantError, RecordError
from tf_records.reader import Records
from tf_records.schema import PER_CLIP, FeatureInfo, Manifest


def extract_features(
    records_folder: Path,
    out: Path,
    init: str,
    *,
    modality: str | None = None,
    windows: int = 1,
    crop: int | None = None,
    batch_size: int = 4,
    devices: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    on_record: Callable[[int], None] = lambda count: None,
) -> Manifest:
    """Runs the stem of an I3D over the clips of a record folder, once.

    Args:
        records_folder: records of frames.
        out: folder of the features, made if need be; not empty only with `resume` or `overwrite`.
        init: whose stem, see `kdant_tf.models.stem.load_stem`.
        modality: "rgb" or "flow", where the records hold both; None is RGB then.
        windows: clips of each segment, evenly spaced, at most; both segments of a training pair have the
            same.
        crop: pixels of the central square to cut first, as evaluation on frames does; None for whole
            frames.
        batch_size: clips at a time.
        devices: "auto", "cpu" or "gpu"; one device is used.
        resume: keep the finished shards of an interrupted extraction.
        overwrite: replace the records in `out`.
        on_record: told of each number of records done.

    Raises:
        KdantError: records, weights, devices and `out` do not fit together (says how).
    """
    records = Records.open(records_folder, modality=modality)
    manifest = records.manifest
    if manifest.features is not None:
        raise RecordError(f"{records_folder} has features already. Give the records of frames.")
    if out.resolve() == records_folder.resolve():
        raise RecordError(f"Features of {out} cannot lie in its own place. Give another --out.")
    (device, *_) = make_strategy(devices).extended.worker_devices
    with tf.device(device):
        stem = load_stem(init, modality=records.modality, clip_frames=manifest.clip.clip_frames)
        info = FeatureInfo(
            shape=stem.network.output.shape[1:],
            source=init,
            per=PER_CLIP,
            endpoint=ENDPOINT,
            width=stem.width,
            weights_sha256=stem.weights_sha256,
            crop=crop,
            windows=windows,
            records_sha256=manifest_sha256(records_folder),
        )
        try:
            return write_clip_features(
                records,
                out,
                lambda clips: stem.network(clips, training=False),
                info,
                batch_size=batch_size,
                resume=resume,
                overwrite=overwrite,
                on_record=on_record,
            )
        except tf.errors.ResourceExhaustedError as error:
            raise KdantError(
                f"{batch_size} clips at a time do not fit the memory of {device}. Lower --batch-size and go "
                f"on with --resume."
            ) from error

"""From a run to a SavedModel that TensorFlow Serving loads."""

import shutil
from pathlib import Path

import keras
import tensorflow as tf

from kdant_tf.models.networks import load_network
from kdant_tf.runs import Run
from tf_records.augment import crop_centrally
from tf_records.errors import KdantError, RunError
from tf_records.files import claim_folder
from tf_records.schema import CHANNELS


def export_run(run: Run, out: Path, network: keras.Model | None = None) -> Path:
    """Writes `out`/1, a SavedModel with the preprocessing inside.

    Its signature `serving_default` takes uint8 `clips` `(B, T, H, W, 3)`, RGB, any H and W of at
    least 32, and gives float32 `probabilities` `(B, classes)`. The central square of 7/8 of the
    shorter side is cut and scaled as in evaluation. A flow run takes `(B, T, H, W, 2)`, u and v in the 8
    bits of records, `tf_records.flow.flow_to_bytes`.

    Args:
        run: a finished run.
        out: folder, made if need be.
        network: the run's, where it is loaded already.

    Raises:
        KdantError: `out`/1 exists, or `out` cannot be written.
        RunError: the run's network sees features, not clips.
    """
    if run.features is not None:
        raise RunError(
            f"Run {run.folder} sees features, {run.features.words}, and kdant cannot export it together with "
            f"the network that makes them yet. Export a run that was trained on frames."
        )
    network = load_network(run) if network is None else network
    version = out / "1"
    if version.exists():
        raise KdantError(f"{version} exists. Export to another folder: kdant export {run.folder} --out DIR.")
    claim_folder(out, resume=True)
    crop, frames, channels = run.config.crop, run.clip.clip_frames, CHANNELS[run.modality]

    def serve(clips: tf.Tensor) -> dict[str, tf.Tensor]:
        shape = tf.shape(clips)
        # (B, T, H, W, C) → (B·T, H, W, C) → (B, T, crop, crop, C)
        images = tf.reshape(clips, tf.concat([[-1], shape[2:]], axis=0))
        images = crop_centrally(tf.ensure_shape(images, (None, None, None, channels)), crop)
        inputs = tf.reshape(images, (shape[0], frames, crop, crop, channels))
        return {"probabilities": tf.nn.softmax(network(inputs, training=False)["logits"])}

    archive = keras.export.ExportArchive()
    archive.track(network)
    archive.add_endpoint(
        name="serving_default",
        fn=serve,
        input_signature=[tf.TensorSpec((None, frames, None, None, channels), tf.uint8, name="clips")],
    )
    temporary = out / ".tmp-1"
    shutil.rmtree(temporary, ignore_errors=True)
    archive.write_out(str(temporary), verbose=False)
    temporary.rename(version)
    return version

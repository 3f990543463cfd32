"""A network that answers clips, wherever it runs: of a run, of an export, or behind a server.

TensorFlow is imported only to load a network, so that a server's client need not wait for it.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kdant_tf.runs import CONFIG_NAME, MODEL_NAME, Run, flow_from, load_run
from tf_records.errors import KdantError, RunError
from tf_records.schema import CHANNELS, ClipSpec, FlowInfo

SAVED_MODEL_NAME = "saved_model.pb"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnticipationModel:
    """Clips in, class probabilities out.

    Args:
        name: for messages, such as the folder it came from.
        classes: class names in index order.
        clip: length of a clip, and how far ahead the network looks.
        modality: "rgb", "flow", or "rgb,flow" for both.
        short_side: pixels of the shorter side of the frames it was trained on. It takes any, but flow is in
            pixels of this size.
        fps: frames per second of its clips, or None where it was trained on videos of several rates.
        anticipates: whether it names what comes, or, as a teacher, what it sees.
        infer: clips as `probabilities` takes them → float32 `(B, classes)`.
        flow: how the flow in its clips was computed; None without flow, or where that was not noted.
    """

    name: str
    classes: tuple[str, ...]
    clip: ClipSpec
    modality: str
    short_side: int
    fps: float | None
    anticipates: bool
    infer: Callable[[np.ndarray], np.ndarray]
    flow: FlowInfo | None = None

    @property
    def clip_frames(self) -> int:
        return self.clip.clip_frames

    @property
    def channels(self) -> int:
        return sum(CHANNELS[modality] for modality in self.modality.split(","))

    @property
    def offset_s(self) -> float | None:
        """Seconds from a clip's first frame to the first one of what is expected; None without `fps`."""
        return None if self.fps is None else self.offset_at(self.fps)

    def offset_at(self, fps: float) -> float:
        """`offset_s` where clips have `fps` frames per second."""
        return self.clip.offset_at(fps) / fps if self.anticipates else 0.0

    def ahead_at(self, fps: float) -> float:
        """Seconds from a clip's last frame to the first of what is expected; below 0 where they overlap."""
        return self.offset_at(fps) - (self.clip_frames - 1) / fps

    def probabilities(self, clips: np.ndarray) -> np.ndarray:
        """Class probabilities of each clip.

        Args:
            clips: uint8 `(B, T, H, W, C)`, of any H and W. C is 3, RGB; 2, u and v of flow in the 8 bits of
                records; or 5, RGB and then flow.

        Returns:
            float32 `(B, classes)`.

        Raises:
            KdantError: clips of another shape or type.
        """
        frames, channels = self.clip_frames, self.channels
        fits = clips.ndim == 5 and clips.shape[1::3] == (frames, channels) and clips.dtype == np.uint8
        if not fits or 0 in clips.shape:
            raise KdantError(
                f"{self.name} takes clips of uint8 (B, {frames}, H, W, {channels}). "
                f"Received: {clips.dtype} {clips.shape}."
            )
        return self.infer(clips)


def load_model(path: str | Path) -> AnticipationModel:
    """The model of a run folder, or of a folder that `kdant export` wrote (the highest version, or one).

    Raises:
        RunError: no such folder, one that is neither, or one that cannot be read.
    """
    folder = Path(path)
    exported = find_version(folder)
    if exported is not None:
        return model_of_export(read_export_config(exported), _load_signature(exported), str(folder))
    if (folder / MODEL_NAME).is_file() or (folder / CONFIG_NAME).is_file():
        return _model_of_run(load_run(folder))
    if not folder.is_dir():
        raise RunError(
            f"Model folder {folder} does not exist. Give a run folder, or one that kdant export wrote."
        )
    raise RunError(
        f"Folder {folder} holds neither {MODEL_NAME} nor {SAVED_MODEL_NAME}. Give a run folder, or one that "
        f"kdant export wrote."
    )


def find_version(folder: Path) -> Path | None:
    """The folder that holds the SavedModel: `folder`, or the one of its versions with the highest number."""
    if (folder / SAVED_MODEL_NAME).is_file():
        return folder
    versions = [path.parent for path in folder.glob(f"*/{SAVED_MODEL_NAME}") if path.parent.name.isdecimal()]
    return max(versions, key=lambda path: int(path.name), default=None)


def read_export_config(version: Path) -> dict[str, Any]:
    """What an exported version's config.json says.

    Raises:
        RunError: there is none, or it cannot be read.
    """
    path = version / CONFIG_NAME
    if not path.is_file():
        raise RunError(
            f"SavedModel {version} has no {CONFIG_NAME}, which tells its classes and clips. Export it again: "
            f"kdant export RUN --out DIR."
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        model_of_export(config, lambda clips: clips, str(version))
    except (ValueError, KeyError, TypeError, AttributeError, KdantError) as error:
        raise RunError(f"{path} cannot be read: {error}. Export the run again.") from error
    return config


def model_of_export(
    config: dict[str, Any], infer: Callable[[np.ndarray], np.ndarray], name: str
) -> AnticipationModel:
    """The model that an export's config.json describes, answered by `infer`."""
    clip = dict(config["clip"])
    fps = clip.pop("fps")
    return AnticipationModel(
        name=name,
        classes=tuple(config["classes"]),
        clip=ClipSpec(**clip),
        modality=config["modality"],
        short_side=config["short_side"],
        fps=fps,
        anticipates=config["anticipates"],
        flow=flow_from(config.get("flow")),
        infer=infer,
    )


def _load_signature(version: Path) -> Callable[[np.ndarray], np.ndarray]:
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(version))
        serve = loaded.signatures["serving_default"]
        inputs = serve.structured_input_signature[1]
    except Exception as error:  # TensorFlow has many for a damaged SavedModel, KeyError for a foreign one.
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise RunError(f"SavedModel {version} cannot be loaded: {reason}. Export the run again.") from error
    rgb = CHANNELS["rgb"]

    def infer(clips: np.ndarray) -> np.ndarray:
        if "flow_clips" in inputs:
            given = {"clips": clips[..., :rgb], "flow_clips": clips[..., rgb:]}
        else:
            given = {"clips": clips}
        # `loaded` owns the variables, which `serve` alone does not keep.
        assert loaded is not None
        return serve(**{name: tf.constant(value) for name, value in given.items()})["probabilities"].numpy()

    return infer


def _model_of_run(run: Run) -> AnticipationModel:
    return AnticipationModel(
        name=str(run.folder),
        classes=run.classes,
        clip=run.clip,
        modality=run.modality,
        short_side=run.short_side,
        fps=run.fps,
        anticipates=run.anticipates,
        flow=run.flow,
        infer=_load_network(run),
    )


def _load_network(run: Run) -> Callable[[np.ndarray], np.ndarray]:
    import tensorflow as tf

    from kdant_tf.serving.signatures import clips_spec, open_streams, prepare_clips

    (stream,) = open_streams([run])

    @tf.function(
        input_signature=[clips_spec("clips", run.clip.clip_frames, stream.channels)], autograph=False
    )
    def answer(clips: tf.Tensor) -> tf.Tensor:
        logits, _ = stream.infer(prepare_clips(clips, stream.prepare))
        return tf.nn.softmax(logits)

    return lambda clips: answer(tf.constant(clips)).numpy()

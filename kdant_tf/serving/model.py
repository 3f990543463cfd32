"""A network that answers clips, wherever it runs: of a run, of an export, or behind a server.

TensorFlow is imported only to load a network, so that a server's client need not wait for it.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from kdant_tf.archive import local_run
from kdant_tf.evaluation.predictions import DIVERGED
from kdant_tf.models.inference import DEFAULT, FLOAT32, Engine
from kdant_tf.runs import CONFIG_NAME, MODEL_NAME, Run, flow_from, load_run, run_from
from kdant_tf.serving import ENCODED, RAW
from kdant_tf.serving.formats import FORMATS, SAVED_MODEL, Answer, Arrays, format_of, open_network
from kdant_tf.version import unreadable_advice
from tf_records.errors import KdantError, RunError, first_line
from tf_records.heads import Heads, heads_from
from tf_records.schema import CHANNELS, RGB, ClipSpec, FlowInfo

if TYPE_CHECKING:
    import tensorflow as tf

# zlib's quickest: 1.07 to 1.11 times the bytes of its default, in a fourth to a third of the time.
_PNG_LEVEL = 1

Infer = Callable[[np.ndarray], np.ndarray]


class NotFiniteAnswerError(KdantError):
    """A network whose outputs are infinite or not a number."""


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
        heads: whose columns `classes` are, where it has several or several labels a clip; see
            `tf_records.heads`.

    Example:
        >>> from tf_records.schema import ClipSpec
        >>> model = AnticipationModel(
        ...     name="always the first class",
        ...     classes=("clap", "golf"),
        ...     clip=ClipSpec(clip_frames=8, offset_frames=15),
        ...     modality="rgb",
        ...     short_side=128,
        ...     fps=30.0,
        ...     anticipates=True,
        ...     infer=lambda clips: np.tile(np.float32([1, 0]), (len(clips), 1)),
        ... )
        >>> model.probabilities(np.zeros((1, 8, 96, 128, 3), np.uint8))
        array([[1., 0.]], dtype=float32)
        >>> model.offset_s
        0.5
    """

    name: str
    classes: tuple[str, ...]
    clip: ClipSpec
    modality: str
    short_side: int
    fps: float | None
    anticipates: bool
    infer: Infer
    flow: FlowInfo | None = None
    heads: Heads = ()

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
            NotFiniteAnswerError: the network diverged in its training.
        """
        frames, channels = self.clip_frames, self.channels
        fits = clips.ndim == 5 and clips.shape[1::3] == (frames, channels) and clips.dtype == np.uint8
        if not fits or 0 in clips.shape:
            raise KdantError(
                f"{self.name} takes clips of uint8 (B, {frames}, H, W, {channels}). "
                f"Received: {clips.dtype} {clips.shape}."
            )
        probabilities = self.infer(clips)
        check_finite(probabilities, self.name)
        return probabilities

    def warm_up(self) -> None:
        """Lets it answer once: a first answer takes seconds, which no stream should wait for."""
        side = self.short_side
        self.probabilities(np.zeros((1, self.clip_frames, side, side, self.channels), np.uint8))


def check_finite(probabilities: np.ndarray, name: str) -> None:
    """Refuses probabilities, float32 `(B, classes)`, of which some are infinite or not a number.

    Raises:
        NotFiniteAnswerError: says for how many clips, and the places of the first.
    """
    broken = np.flatnonzero(~np.isfinite(probabilities).all(axis=-1))
    if len(broken):
        first = ", ".join(str(number) for number in broken[:3]) + (" …" if len(broken) > 3 else "")
        raise NotFiniteAnswerError(
            f"{name} gives outputs that are not finite for {len(broken)} of {len(probabilities)} clips: "
            f"{first}. {DIVERGED}"
        )


def load_model(path: str | Path, engine: Engine = DEFAULT) -> AnticipationModel:
    """The model of a run folder, or of a folder that `kdant export` wrote (the highest version, or one).

    Args:
        path: of the run folder or an archive of it, of the folder of versions, or of one of these.
        engine: that is to compute a run's answers; an export says itself what computes it.

    Raises:
        KdantError: an export, and an engine for it.
        RunError: no such folder, one that is neither, or one that cannot be read; or an engine that cannot
            do the run's network.
    """
    folder = local_run(path)
    exported = find_version(folder)
    if exported is not None:
        if not engine.is_default:
            raise KdantError(
                f"{folder} is an export, which has its own format and precision. Leave --engine and "
                f"--precision out, or give the run."
            )
        return _model_of_version(exported, str(folder))
    if (folder / MODEL_NAME).is_file() or (folder / CONFIG_NAME).is_file():
        return _model_of_run(load_run(folder), engine)
    if not folder.is_dir():
        raise RunError(
            f"Model folder {folder} does not exist. Give a run folder, or one that kdant export wrote."
        )
    raise RunError(
        f"Folder {folder} holds neither {MODEL_NAME} nor {FORMATS[SAVED_MODEL].file} or a network in another "
        f"format. Give a run folder, or one that kdant export wrote."
    )


def find_version(folder: str | Path) -> Path | None:
    """The folder with an exported network: `folder`, or the one of its versions with the highest number.

    None where there is neither.
    """
    folder = Path(folder)
    return folder if format_of(folder) is not None else max(versions_in(folder), key=_number, default=None)


def versions_in(folder: str | Path) -> list[Path]:
    """The folders in `folder` whose names are numbers and that hold an exported network, of any format."""
    numbered = [path for path in Path(folder).glob("*") if path.name.isdecimal()]
    return [path for path in numbered if format_of(path) is not None]


def needs_tensorflow(folder: str | Path) -> bool:
    """Whether TensorFlow is what runs the model of `folder`: it takes seconds to start."""
    version = find_version(folder)
    return version is None or format_of(version) == SAVED_MODEL


def _number(version: Path) -> int:
    return int(version.name)


def read_export_config(version: str | Path) -> dict[str, Any]:
    """What an exported version's config.json says.

    Raises:
        RunError: there is none, or it cannot be read.
    """
    path = Path(version) / CONFIG_NAME
    if not path.is_file():
        raise RunError(
            f"Export {version} has no {CONFIG_NAME}, which tells its classes and clips. Export it again: "
            f"kdant export RUN --out DIR."
        )
    config: dict[str, Any] = {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        model_of_export(config, lambda clips: clips, str(version))
    except (ValueError, KeyError, TypeError, AttributeError, KdantError) as error:
        written_by = config.get("kdant") if isinstance(config, dict) else None
        advice = unreadable_advice(written_by, "Export the run again.")
        raise RunError(f"{path} cannot be read: {str(error).rstrip('.')}. {advice}") from error
    return config


def model_of_export(config: dict[str, Any], infer: Infer, name: str) -> AnticipationModel:
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
        heads=heads_from(config.get("heads")),
    )


def runs_of_export(config: dict[str, Any], folder: Path) -> list[Run]:
    """The runs that an export's config.json tells of, RGB first, as of frames; `folder` is for messages."""
    clip = {name: value for name, value in config["clip"].items() if name != "fps"}
    shared = {"classes": config["classes"], "clip": clip, "heads": config.get("heads"), "features": None}
    own = [config[name] for name in ("run", "with") if name in config]
    left_out = ("folder", "weight")
    return [
        run_from(folder, {**{name: each[name] for name in each if name not in left_out}, **shared})
        for each in own
    ]


def make_inputs(clips: np.ndarray, modality: str, signature: str) -> dict[str, np.ndarray]:
    """Clips as the inputs of an exported model's signature, those of two streams apart.

    Args:
        clips: uint8 `(B, T, H, W, C)`, see `AnticipationModel.probabilities`.
        modality: "rgb", "flow" or "rgb,flow".
        signature: RAW or FEATURES for the clips as they are, ENCODED for PNG.
    """
    rgb = CHANNELS[RGB]
    streams = {"": clips[..., :rgb], "flow_": clips[..., rgb:]} if "," in modality else {"": clips}
    if signature == ENCODED:
        return {f"{stream}frames": encode_frames(values) for stream, values in streams.items()}
    return {f"{stream}clips": values for stream, values in streams.items()}


def encode_frames(clips: np.ndarray) -> np.ndarray:
    """uint8 `(B, T, H, W, 3)` → PNG bytes, object `(B, T)`; of flow, `(B, T, H, W, 2)` → `(B, T, 2)`."""
    is_rgb = clips.shape[-1] == CHANNELS[RGB]
    # (B, T, H, W, 2) → (B, T, 2, H, W)
    images = clips if is_rgb else np.moveaxis(clips, -1, 2)
    frames = np.empty(images.shape[: 2 if is_rgb else 3], object)
    for place in np.ndindex(frames.shape):
        buffer = io.BytesIO()
        Image.fromarray(images[place]).save(buffer, "PNG", compress_level=_PNG_LEVEL)
        frames[place] = buffer.getvalue()
    return frames


def load_signatures(version: str | Path) -> dict[str, Callable[..., Any]]:
    """The signatures of an exported version by name: tensors by name in and out.

    Args:
        version: folder of the SavedModel.

    Raises:
        RunError: it cannot be loaded, or has no signature RAW.
    """
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(version))
        signatures = {RAW: loaded.signatures[RAW], **loaded.signatures}
    except Exception as error:  # TensorFlow has many for a damaged SavedModel, KeyError for a foreign one.
        raise RunError(
            f"SavedModel {version} cannot be loaded: {first_line(error)}. Export the run again."
        ) from error
    # `loaded` owns what the signatures capture, which they alone do not keep.
    return {name: partial(_call, loaded, signature) for name, signature in signatures.items()}


def load_answers(version: str | Path, precision: str = FLOAT32) -> dict[str, Answer]:
    """The signatures of an exported version of any format by name: arrays by name in and out.

    Args:
        version: folder of the network.
        precision: that its config.json states.

    Raises:
        KdantError: what runs it is not installed.
        RunError: it cannot be loaded.
    """
    name = format_of(version)
    if name is not None and name != SAVED_MODEL:
        return {RAW: open_network(version, name, precision)}
    return {name: partial(_ask, signature) for name, signature in load_signatures(version).items()}


def _ask(signature: Callable[..., Any], inputs: Arrays) -> dict[str, np.ndarray]:
    import tensorflow as tf

    outputs = signature(**{name: tf.constant(value) for name, value in inputs.items()})
    return {name: value.numpy() for name, value in outputs.items()}


def _call(owner: object, signature: Callable[..., Any], **inputs: tf.Tensor) -> Any:
    return signature(**inputs)


def _model_of_version(version: Path, name: str) -> AnticipationModel:
    config = read_export_config(version)
    answer = load_answers(version, config.get("precision", FLOAT32))[RAW]
    modality = config["modality"]
    return model_of_export(
        config, lambda clips: answer(make_inputs(clips, modality, RAW))["probabilities"], name
    )


def _model_of_run(run: Run, engine: Engine) -> AnticipationModel:
    return AnticipationModel(
        name=str(run.folder),
        classes=run.classes,
        clip=run.clip,
        modality=run.modality,
        short_side=run.short_side,
        fps=run.fps,
        anticipates=run.anticipates,
        flow=run.flow,
        infer=_load_network(run, engine),
        heads=run.heads,
    )


def _load_network(run: Run, engine: Engine) -> Infer:
    import tensorflow as tf

    from kdant_tf.losses.heads import head_probabilities
    from kdant_tf.models.inference import convert_inference
    from kdant_tf.serving.signatures import clips_spec, open_streams, prepare_clips

    (stream,) = open_streams([run])
    spec = clips_spec("clips", run.clip.clip_frames, stream.channels)

    def prepare(clips: tf.Tensor) -> tf.Tensor:
        return prepare_clips(clips, stream.prepare)

    def answer(clips: tf.Tensor) -> tf.Tensor:
        logits, _ = stream.infer(prepare(clips))
        return head_probabilities(logits, run.heads)

    if engine.is_default:
        traced = tf.function(answer, input_signature=[spec], autograph=False)
        return lambda clips: traced(tf.constant(clips)).numpy()
    folded = stream.folded()
    inference = convert_inference(
        lambda clips: folded.infer(clips)[0],
        folded.networks,
        engine,
        shape=stream.prepared_shape,
        reference=lambda clips: stream.infer(clips)[0],
        name=f"run {run.folder}",
        heads=run.heads,
    )
    prepared = tf.function(prepare, input_signature=[spec], autograph=False)
    return lambda clips: inference(prepared(tf.constant(clips)))

"""A run's network with everything before it, from uint8 frames on, as evaluation has it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf

from kdant_tf.config import INITS
from kdant_tf.models.folding import fold_batch_norm
from kdant_tf.models.networks import LOGITS, feature_map_name, load_network
from kdant_tf.models.stem import load_stem
from kdant_tf.runs import Run
from tf_records import augment
from tf_records.clips import map_side
from tf_records.errors import RunError
from tf_records.schema import CHANNELS


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stream:
    """One network of an exported model.

    Args:
        run: whose network it is.
        network: of the run.
        stem: makes the features that the network sees, where the run was trained on features.
        weight: of its logits.
    """

    run: Run
    network: keras.Model
    stem: keras.Model | None = None
    weight: float = 1.0

    @property
    def channels(self) -> int:
        return CHANNELS[self.run.modality]

    @property
    def crop(self) -> int | None:
        """Pixels of the square cut out of each frame; None where the stem sees whole frames."""
        return self.run.config.crop if self.run.features is None else self.run.features.crop

    @property
    def prepared_shape(self) -> tuple[int | None, ...]:
        """(T, H, W, C) of what `infer` takes."""
        return (self.run.clip.clip_frames, self.crop, self.crop, self.channels)

    def prepare(self, frames: tf.Tensor) -> tf.Tensor:
        """uint8 `(N, H, W, C)` → float32 `(N, crop, crop, C)` in [-1, 1]; whole frames keep their shape."""
        if self.crop is not None:
            return augment.crop_centrally(frames, self.crop)
        size = tf.shape(frames)[1:3]
        short_side = self.run.short_side
        scaled = tf.cast(tf.round(size * short_side / tf.reduce_min(size)), tf.int32)
        right_size = tf.cond(
            tf.reduce_all(tf.equal(scaled, size)),
            lambda: tf.cast(frames, tf.float32),
            lambda: tf.image.resize(frames, scaled, method="bilinear", antialias=True),
        )
        return augment.scale(tf.ensure_shape(right_size, (None, None, None, self.channels)))

    def infer(self, clips: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Prepared `(B, T, H, W, C)` → logits `(B, classes)` and the mean of the feature map `(B, d)`."""
        outputs = self.network(self._seen(clips), training=False)
        features = outputs[feature_map_name(self.network)]
        return outputs[LOGITS], tf.reduce_mean(features, axis=list(range(1, len(features.shape) - 1)))

    def folded(self) -> "Stream":
        """The same with batch normalisation folded into the layers before it."""
        stem = None if self.stem is None else fold_batch_norm(self.stem)
        return dataclasses.replace(self, network=fold_batch_norm(self.network), stem=stem)

    def _seen(self, clips: tf.Tensor) -> tf.Tensor:
        """What the network sees of the clips: records of features hold float16, and the middle of a map."""
        if self.stem is None:
            return clips
        maps = tf.cast(self.stem(clips, training=False), tf.float16)
        side = map_side(self.run.config.crop)
        # (B, T, H, W, C): crop_map leaves the first axis of its four alone, so B and T can share it.
        shape = tf.shape(maps)
        cut = augment.crop_map(tf.reshape(maps, tf.concat([[-1], shape[2:]], axis=0)), None, side)
        return tf.reshape(cut, (shape[0], maps.shape[1], side, side, maps.shape[4]))


def open_streams(
    runs: Sequence[Run],
    weights: Sequence[float] = (),
    *,
    stem: str | None = None,
    network: keras.Model | None = None,
) -> tuple[Stream, ...]:
    """Loads one network, or the two of a pair of RGB and flow, RGB first.

    Args:
        runs: finished.
        weights: of their logits; none for equal ones.
        stem: where the weights lie that made the runs' features, see `kdant_tf.models.stem.load_stem`; None
            for where they were.
        network: of the first run, where it is loaded already.

    Raises:
        RunError: a pair that does not fit together, or a stem other than that of the features.
        WeightsError: the stem's weights cannot be had.
    """
    if len(runs) > 1:
        _check_pair(runs)
    if stem is not None and all(run.features is None for run in runs):
        raise RunError(
            f"--stem is for runs trained on features. Received: {runs[0].folder}, which sees frames."
        )
    streams = [
        _open_stream(run, weight, stem, network if run is runs[0] else None)
        for run, weight in zip(runs, weights or (1.0,) * len(runs), strict=True)
    ]
    return tuple(sorted(streams, key=lambda stream: -stream.channels))


def _open_stream(run: Run, weight: float, stem: str | None, network: keras.Model | None) -> Stream:
    network = load_network(run) if network is None else network
    return Stream(run=run, network=network, stem=_open_stem(run, stem), weight=weight)


def _open_stem(run: Run, init: str | None) -> keras.Model | None:
    if run.features is None:
        return None
    source = run.features.source if init is None else init
    advice = "Say where the weights lie that made them: --stem INIT."
    if source not in INITS and not Path(source).exists() and not Path(f"{source}.index").exists():
        raise RunError(
            f"Run {run.folder} was trained on features of a stem whose weights are not at {source}. {advice}"
        )
    stem = load_stem(source, modality=run.modality, clip_frames=run.clip.clip_frames)
    if stem.weights_sha256 != run.features.weights_sha256:
        raise RunError(
            f"Run {run.folder} was trained on features of another stem than that of {source}. {advice}"
        )
    return stem.network


def _check_pair(runs: Sequence[Run]) -> None:
    first, second = runs
    if first.modality == second.modality:
        raise RunError(
            f"Two streams are one of RGB and one of flow. Received: {first.folder} and {second.folder}, both "
            f"of {first.modality}."
        )
    for what in ("classes", "clip", "anticipates"):
        own, other = getattr(first, what), getattr(second, what)
        if own != other:
            raise RunError(
                f"Two streams should agree in `{what}`. Received: {own} of {first.folder}, {other} of "
                f"{second.folder}. Train both on the same records."
            )

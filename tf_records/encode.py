"""From a sample to its SequenceExample: decode, cut, resize, encode."""

import dataclasses
import io
from collections.abc import Collection, Iterator

import numpy as np
import tensorflow as tf
from PIL import Image

from tf_records import schema
from tf_records.encoded_frame import EncodedFrame, encode_frames, with_frames_before
from tf_records.errors import VideoError
from tf_records.pairing import (
    Pair,
    Spacing,
    Window,
    pair_for_anticipation,
    pair_for_prefix,
    pair_for_training,
)
from tf_records.plan import BuildOptions
from tf_records.sources.sample import Sample
from tf_records.video import VideoInfo, probe, read_all_frames, read_clock_frames


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """A sample's frames, by frame number, and the windows cut from them."""

    pair: Pair
    frames: dict[int, EncodedFrame]
    fps: float
    height: int
    width: int

    @property
    def modalities(self) -> tuple[str, ...]:
        """Of each frame; RGB first."""
        return tuple(self.frames[self.pair.observed.first])


def read_segments(sample: Sample, options: BuildOptions) -> Segments:
    """Decodes what the sample's two segments need, and no more of a long video.

    Raises:
        VideoError: the video cannot be decoded to the end of the segments.
    """
    info = probe(sample.path, sample.folder)
    clock = options.fps if sample.fps is None else sample.fps
    fps = info.fps if clock is None else clock
    if clock is None and (sample.start_s is None or sample.end_s is None):
        numbered = enumerate(_resize(frame, options) for frame in read_all_frames(sample.path))
        frames = encode_frames(numbered, options)
        pair = _pair_of(sample, len(frames), Window(0, len(frames)), options, fps)
    else:
        ticks = info.ticks(fps)
        pair = _pair_of(sample, ticks, _action_window(sample, info, fps), options, fps)
        needed = {*range(*pair.observed), *range(*pair.future)}
        frames = encode_frames(_read_ticks(sample, clock, needed, options), options, needed)
    (picture, *_), *_ = frames[pair.observed.first].values()
    width, height = Image.open(io.BytesIO(picture)).size
    return Segments(pair=pair, frames=frames, fps=fps, height=height, width=width)


def _read_ticks(
    sample: Sample, clock: float | None, needed: Collection[int], options: BuildOptions
) -> Iterator[tuple[int, np.ndarray]]:
    """(tick, resized frame) of all that encoding the `needed` ticks takes."""
    ticks = with_frames_before(needed, options)
    start, stop = min(ticks), max(ticks) + 1
    frames = read_clock_frames(sample.path, start, stop, fps=clock, folder=sample.folder)
    for tick, frame in enumerate(frames, start=start):
        if tick in ticks:
            yield tick, _resize(frame, options)


def _action_window(sample: Sample, info: VideoInfo, fps: float) -> Window:
    """The action in ticks of a clock of `fps`: at least one, within the video."""
    ticks = info.ticks(fps)
    if sample.start_s is None or sample.end_s is None:
        return Window(0, ticks)
    if sample.start_s > info.duration_s + 1 / info.fps:
        raise VideoError(
            f"{sample.path} lasts {info.duration_s:.2f} s, but an action is said to start at "
            f"{sample.start_s:.2f} s. Check that it is the right video."
        )
    first = min(round(sample.start_s * fps), ticks - 1)
    return Window(first, max(first + 1, min(round(sample.end_s * fps), ticks)))


def _pair_of(sample: Sample, num_frames: int, action: Window, options: BuildOptions, fps: float) -> Pair:
    clip = options.clip
    spacing = Spacing(clip.clip_frames, clip.offset_at(fps), before_action=clip.anticipation_s is not None)
    if sample.offset_s is not None:
        spacing = Spacing(clip.clip_frames, max(1, round(sample.offset_s * fps)))
    if sample.observed_fraction is not None:
        return pair_for_prefix(num_frames, sample.observed_fraction, spacing)
    if sample.split == "train":
        return pair_for_training(num_frames, action, spacing)
    return pair_for_anticipation(num_frames, action, spacing)


def _resize(frame: np.ndarray, options: BuildOptions) -> np.ndarray:
    """The frame, resized (bilinear, antialiased) so that the shorter side is `short_side`."""
    image = Image.fromarray(frame)
    scale = options.short_side / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    return frame if size == image.size else np.asarray(image.resize(size, Image.Resampling.BILINEAR))


def to_example(sample: Sample, segments: Segments, classes: tuple[str, ...]) -> tf.train.SequenceExample:
    """The record of a sample; a label index is the position in `classes`."""
    pair = segments.pair
    index = schema.UNLABELED if sample.label is None else classes.index(sample.label)
    context = {
        schema.CLIP_ID: _bytes(sample.id.encode()),
        schema.CLIP_VIDEO: _bytes(sample.video.encode()),
        schema.CLIP_OFFSET_FRAMES: _ints(pair.offset_frames),
        schema.LABEL_INDEX: _ints(index),
        schema.LABEL_STRING: _bytes((sample.label or "").encode()),
        schema.OBSERVED_START_S: _floats(pair.observed.first / segments.fps),
        schema.FUTURE_START_S: _floats(pair.future.first / segments.fps),
        schema.FRAME_RATE: _floats(segments.fps),
        schema.IMAGE_HEIGHT: _ints(segments.height),
        schema.IMAGE_WIDTH: _ints(segments.width),
        schema.IMAGE_CHANNELS: _ints(schema.CHANNELS[segments.modalities[0]]),
    }
    lists = {
        key: tf.train.FeatureList(
            feature=[_bytes(each[place]) for each in _encoded(segments, window, modality)]
        )
        for view, window in ((schema.OBSERVED, pair.observed), (schema.FUTURE, pair.future))
        for modality in segments.modalities
        for place, key in enumerate(schema.VIEW_KEYS[modality][view])
    }
    return tf.train.SequenceExample(
        context=tf.train.Features(feature=context),
        feature_lists=tf.train.FeatureLists(feature_list=lists),
    )


def _encoded(segments: Segments, window: Window, modality: str) -> list[tuple[bytes, ...]]:
    """A segment's pictures of one modality, in order.

    No frame leads to the video's first one: it takes the flow of the second, where the segment holds it.
    """
    numbers = list(range(*window))
    if modality == schema.FLOW and numbers[:2] == [0, 1]:
        numbers[0] = 1
    return [segments.frames[number][modality] for number in numbers]


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _ints(value: int) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def _floats(value: float) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))

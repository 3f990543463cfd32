"""From a sample to its SequenceExample: decode, cut, resize, encode."""

import dataclasses
import io

import numpy as np
import tensorflow as tf
from PIL import Image

from tf_records import schema
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
    """A sample's frames as JPEG bytes, by frame number, and the windows cut from them."""

    pair: Pair
    jpegs: dict[int, bytes]
    fps: float
    height: int
    width: int


def read_segments(sample: Sample, options: BuildOptions) -> Segments:
    """Decodes what the sample's two segments need, and no more of a long video.

    Raises:
        VideoError: the video cannot be decoded to the end of the segments.
    """
    info = probe(sample.path, sample.folder)
    clock = options.fps if sample.fps is None else sample.fps
    fps = info.fps if clock is None else clock
    if clock is None and (sample.start_s is None or sample.end_s is None):
        jpegs = {n: _encode(frame, options) for n, frame in enumerate(read_all_frames(sample.path))}
        pair = _pair_of(sample, len(jpegs), Window(0, len(jpegs)), options, fps)
    else:
        ticks = info.ticks(fps)
        pair = _pair_of(sample, ticks, _action_window(sample, info, fps), options, fps)
        start = min(pair.observed.first, pair.future.first)
        stop = max(pair.observed.stop, pair.future.stop)
        frames = read_clock_frames(sample.path, start, stop, fps=clock, folder=sample.folder)
        needed = {*range(*pair.observed), *range(*pair.future)}
        jpegs = {n: _encode(frame, options) for n, frame in enumerate(frames, start=start) if n in needed}
    width, height = Image.open(io.BytesIO(jpegs[pair.observed.first])).size
    return Segments(pair=pair, jpegs=jpegs, fps=fps, height=height, width=width)


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


def _encode(frame: np.ndarray, options: BuildOptions) -> bytes:
    """JPEG of a frame, resized (bilinear, antialiased) so that the shorter side is `short_side`."""
    image = Image.fromarray(frame)
    scale = options.short_side / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=options.jpeg_quality)
    return buffer.getvalue()


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
        schema.IMAGE_CHANNELS: _ints(3),
    }
    lists = {
        key: tf.train.FeatureList(feature=[_bytes(segments.jpegs[i]) for i in range(*window)])
        for key, window in ((schema.OBSERVED_IMAGES, pair.observed), (schema.FUTURE_IMAGES, pair.future))
    }
    return tf.train.SequenceExample(
        context=tf.train.Features(feature=context),
        feature_lists=tf.train.FeatureLists(feature_list=lists),
    )


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _ints(value: int) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def _floats(value: float) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))

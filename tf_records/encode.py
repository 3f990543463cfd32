"""From a sample to its SequenceExample: decode, cut, resize, encode."""

import dataclasses
import io
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from PIL import Image

from tf_records import schema
from tf_records.pairing import Pair, Window, pair_for_anticipation, pair_for_prefix, pair_for_training
from tf_records.plan import BuildOptions
from tf_records.sources.sample import Sample
from tf_records.video import probe, read_all_frames, read_clock_frames


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
    info = probe(sample.path)
    if sample.start_s is None or sample.end_s is None:
        jpegs = dict(enumerate(_encode_frames(read_all_frames(sample.path), options)))
        pair = _pair_of(sample, len(jpegs), Window(0, len(jpegs)), options)
    else:
        first = min(round(sample.start_s * info.fps), info.frames - 1)
        action = Window(first, max(first + 1, min(round(sample.end_s * info.fps), info.frames)))
        pair = _pair_of(sample, info.frames, action, options)
        start = min(pair.observed.first, pair.future.first)
        stop = max(pair.observed.stop, pair.future.stop)
        frames = read_clock_frames(sample.path, start, stop)
        jpegs = dict(enumerate(_encode_frames(frames, options), start=start))
    width, height = Image.open(io.BytesIO(jpegs[pair.observed.first])).size
    return Segments(pair=pair, jpegs=jpegs, fps=info.fps, height=height, width=width)


def _pair_of(sample: Sample, num_frames: int, action: Window, options: BuildOptions) -> Pair:
    if sample.observed_fraction is not None:
        return pair_for_prefix(num_frames, sample.observed_fraction, options.clip)
    if sample.split == "train":
        return pair_for_training(num_frames, action, options.clip)
    return pair_for_anticipation(num_frames, action, options.clip)


def _encode_frames(frames: Iterator[np.ndarray], options: BuildOptions) -> Iterator[bytes]:
    """JPEG of each frame, resized (bilinear, antialiased) so that the shorter side is `short_side`."""
    for frame in frames:
        image = Image.fromarray(frame)
        scale = options.short_side / min(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        if size != image.size:
            image = image.resize(size, Image.Resampling.BILINEAR)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=options.jpeg_quality)
        yield buffer.getvalue()


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

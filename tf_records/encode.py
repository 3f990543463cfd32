"""From the samples of a video to their records: decode, cut, resize, encode. No TensorFlow."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from tf_records import schema
from tf_records.errors import VideoError
from tf_records.flow import compute_flow, flow_to_bytes
from tf_records.heads import Heads, label_keys, names_of_heads
from tf_records.plan import (
    BuildOptions,
    FrameRange,
    Pair,
    Spacing,
    frames_for_training,
    pair_for_anticipation,
    pair_for_prefix,
    pair_for_training,
)
from tf_records.schema import FLOW, RGB
from tf_records.sources.sample import Sample
from tf_records.tfrecord import Value, encode_sequence_example
from tf_records.video import Video
from tf_records.video_file import MAX_RECORD_BYTES, VideoInfo, to_picture

# Modality → its pictures, in the order of `schema.VIEW_KEYS`: one of RGB, u and v of flow.
EncodedFrame = dict[str, tuple[bytes, ...]]
# When a frame is shown, the rate of its clock, its number there: in this order frames are read.
_Key = tuple[float, float, int]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """A sample's frames, by frame number, and the ranges that make its two segments.

    Frame 0 is shown at `zero_s`. `damaged` are the numbers of frames that are corrupt or predicted from such.
    """

    pair: Pair
    frames: dict[int, EncodedFrame]
    fps: float
    height: int
    width: int
    zero_s: float = 0.0
    damaged: frozenset[int] = frozenset()

    @property
    def modalities(self) -> tuple[str, ...]:
        """Of each frame; RGB first."""
        return tuple(self.frames[self.pair.observed.first])

    @property
    def seconds(self) -> float:
        """Length of the observed and the future segment together; what both show counts twice."""
        return (self.pair.observed.frames + self.pair.future.frames) / self.fps


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _FrameList:
    """Which frames a sample holds and which it takes to encode them, in the order of reading."""

    sample: Sample
    pair: Pair
    fps: float
    held: tuple[_Key, ...]
    read: tuple[_Key, ...]


def read_samples(
    video: Video, samples: Sequence[Sample], options: BuildOptions
) -> Iterator[tuple[Sample, Segments | VideoError]]:
    """Reads all samples of one video, of which no frame is decoded twice, and no more than is needed.

    Yields each sample when its last frame was read, with what is wrong with the video where it could
    not be.
    """
    plans = []
    for sample in samples:
        try:
            if _clock(sample, options) is None and (sample.start_s is None or sample.end_s is None):
                yield sample, _read_stored(video, sample, options)
            else:
                plans.append(_plan(video.info, sample, options))
        except VideoError as error:
            yield sample, error
    yield from _read_planned(video, plans, options)


def _read_planned(
    video: Video, plans: list[_FrameList], options: BuildOptions
) -> Iterator[tuple[Sample, Segments | VideoError]]:
    """Reads forward through the video; after damage, on from the next sample."""
    pending = sorted(plans, key=lambda plan: plan.held[-1])
    while pending:
        wanted = sorted({key for plan in pending for key in plan.read})
        held = {key for plan in pending for key in plan.held}
        encoders = {fps: FrameEncoder(options) for _, fps, _ in wanted}
        encoded: dict[_Key, EncodedFrame] = {}
        damaged: set[_Key] = set()
        shapes: dict[_Key, tuple[int, ...]] = {}
        read = 0
        try:
            for key, frame in zip(wanted, video.shown_at([key[0] for key in wanted]), strict=True):
                _, fps, tick = key
                if key in held:
                    encoded[key] = encoders[fps].encode(tick, frame)
                    shapes[key] = frame.shape
                if video.shows_damage:
                    damaged.add(key)
                encoders[fps].remember(tick, frame)
                while pending and pending[0].held[-1] <= key:
                    plan = pending.pop(0)
                    yield plan.sample, _cut_segments(video.path, plan, encoded, shapes, damaged, options)
                    encoded = _keep_needed(encoded, pending)
                _check_memory(video.path, encoded)
                read += 1
        except VideoError as error:
            reached = wanted[read]
            for plan in [plan for plan in pending if plan.read[0] <= reached]:
                pending.remove(plan)
                yield plan.sample, error


def _read_stored(video: Video, sample: Sample, options: BuildOptions) -> Segments | VideoError:
    """A sample that is the whole video, by its stored frames."""
    fps = video.info.fps
    encoder, encoded, damaged = FrameEncoder(options), {}, set()
    shapes: dict[int, tuple[int, ...]] = {}
    wanted = frames_for_training(_spacing(sample, options, fps)) if _is_for_training(sample) else None
    for number, frame in enumerate(video.stored()):
        if wanted is None or number < wanted:
            encoded[number] = encoder.encode(number, frame)
            encoder.remember(number, frame)
            _check_memory(video.path, encoded)
            shapes[number] = frame.shape
            if video.shows_damage:
                damaged.add(number)
    segments = Segments(
        pair=_pair_of(sample, number + 1, FrameRange(0, number + 1), options, fps),
        frames=encoded,
        fps=fps,
        height=shapes[0][0],
        width=shapes[0][1],
        zero_s=video.info.start_s,
        damaged=frozenset(damaged),
    )
    return _check_segments(video.path, segments, set(shapes.values()), options)


def _plan(info: VideoInfo, sample: Sample, options: BuildOptions) -> _FrameList:
    clock = _clock(sample, options)
    fps = info.fps if clock is None else clock
    first = info.first_tick(clock)
    # As if the clock began with the video, before which nothing is shown.
    action = _action_range(sample, info, clock).moved(-first)
    pair = _pair_of(sample, info.stop_tick(clock) - first, action, options, fps)
    pair = dataclasses.replace(pair, observed=pair.observed.moved(first), future=pair.future.moved(first))
    held = {*range(*pair.observed), *range(*pair.future)}

    def keys(ticks: set[int]) -> tuple[_Key, ...]:
        return tuple((info.shown_s(tick, clock), fps, tick) for tick in sorted(ticks))

    return _FrameList(
        sample=sample, pair=pair, fps=fps, held=keys(held), read=keys(with_frames_before(held, options))
    )


def _pair_of(sample: Sample, num_frames: int, action: FrameRange, options: BuildOptions, fps: float) -> Pair:
    spacing = _spacing(sample, options, fps)
    if sample.observed_fraction is not None:
        return pair_for_prefix(num_frames, sample.observed_fraction, spacing)
    if _is_for_training(sample):
        return pair_for_training(num_frames, action, spacing)
    return pair_for_anticipation(num_frames, action, spacing)


def _spacing(sample: Sample, options: BuildOptions, fps: float) -> Spacing:
    clip, longest_s = options.clip, options.longest_anticipation_s
    longest = None if longest_s is None else clip.clip_frames + round(longest_s * fps)
    if sample.time is not None:
        frames = clip.clip_frames + round(options.times_s[sample.time] * fps)
        return Spacing(clip.clip_frames, frames, True, longest)
    if sample.offset_s is not None:
        return Spacing(clip.clip_frames, max(1, round(sample.offset_s * fps)), longest_offset=longest)
    before_action = clip.anticipation_s is not None
    return Spacing(clip.clip_frames, clip.offset_at(fps), before_action, longest)


def _clock(sample: Sample, options: BuildOptions) -> float | None:
    """The rate asked for, or None for the video's own."""
    return options.fps if sample.fps is None else sample.fps


def _is_for_training(sample: Sample) -> bool:
    return sample.split == "train" and sample.observed_fraction is None


def _action_range(sample: Sample, info: VideoInfo, clock: float | None) -> FrameRange:
    """The action in ticks of the clock: at least one, within the video."""
    fps = info.fps if clock is None else clock
    earliest, ticks = info.first_tick(clock), info.stop_tick(clock)
    if sample.start_s is None or sample.end_s is None:
        return FrameRange(earliest, ticks)
    if sample.start_s > info.duration_s + 1 / info.fps:
        raise VideoError(
            f"{sample.path} lasts {info.duration_s:.2f} s, but an action is said to start at "
            f"{sample.start_s:.2f} s. Check that it is the right video."
        )
    if sample.end_s < info.start_s - 1 / info.fps:
        raise VideoError(
            f"{sample.path} shows nothing before {info.start_s:.2f} s, but an action is said to end at "
            f"{sample.end_s:.2f} s. Times should count from the beginning of the file, its sound included."
        )
    first = max(earliest, min(round(sample.start_s * fps), ticks - 1))
    return FrameRange(first, max(first + 1, min(round(sample.end_s * fps), ticks)))


def _cut_segments(
    path: str,
    plan: _FrameList,
    encoded: dict[_Key, EncodedFrame],
    shapes: dict[_Key, tuple[int, ...]],
    damaged: set[_Key],
    options: BuildOptions,
) -> Segments | VideoError:
    height, width = shapes[plan.held[0]][:2]
    segments = Segments(
        pair=plan.pair,
        frames={key[2]: encoded[key] for key in plan.held},
        fps=plan.fps,
        height=height,
        width=width,
        damaged=frozenset(key[2] for key in plan.held if key in damaged),
    )
    return _check_segments(path, segments, {shapes[key] for key in plan.held}, options)


def _check_segments(
    path: str, segments: Segments, shapes: set[tuple[int, ...]], options: BuildOptions
) -> Segments | VideoError:
    """The segments, or what to say of frames of several shapes, or of too many damaged ones."""
    if len(shapes) > 1:
        sizes = " and ".join(f"{width}x{height}" for height, width, _ in sorted(shapes))
        return VideoError(
            f"{path} changes the shape of its picture within an action: as stored, it has frames of {sizes}. "
            f"Cut it there, or encode it anew in one size."
        )
    damaged, frames = len(segments.damaged), len(segments.frames)
    if damaged <= options.max_damaged_frames * frames:
        return segments
    return VideoError(
        f"{path} has {damaged} damaged frames among the {frames} of an action, more than the share of "
        f"{options.max_damaged_frames:g} allowed. If that is meant, raise --max-damaged-frames."
    )


def _keep_needed(encoded: dict[_Key, EncodedFrame], pending: list[_FrameList]) -> dict[_Key, EncodedFrame]:
    """Without the frames before all that is still to come."""
    first = min((plan.held[0] for plan in pending), default=None)
    return {key: frame for key, frame in encoded.items() if first is not None and key >= first}


def _check_memory(path: str, encoded: dict[Any, EncodedFrame]) -> None:
    if len(encoded) % 256 > 0:
        return
    size = sum(
        len(picture) for frame in encoded.values() for pictures in frame.values() for picture in pictures
    )
    if size > MAX_RECORD_BYTES:
        raise VideoError(
            f"{path} has an action whose first {len(encoded)} frames take more than "
            f"{MAX_RECORD_BYTES >> 20} MB. Cut it into shorter ones, or lower --short-side."
        )


class FrameEncoder:
    """Encodes frames of one clock, in rising order, in every modality of `options`.

    The flow of frame t leads from frame t - 1 to it and depends on nothing else; frame 0 has none, so its
    flow is zero.
    """

    def __init__(self, options: BuildOptions) -> None:
        self._options = options
        self._before: tuple[int, np.ndarray] | None = None
        self._jpeg: tuple[np.ndarray, bytes] | None = None

    def encode(self, number: int, frame: np.ndarray) -> EncodedFrame:
        """Encodes frame `number`, resized RGB uint8 `(H, W, 3)`.

        Raises:
            KdantError: OpenCV is missing, or too old for the flow asked for.
        """
        encoded: EncodedFrame = {}
        if RGB in self._options.modalities:
            # Where the clock is faster than the video, several ticks show one frame.
            if self._jpeg is None or frame is not self._jpeg[0]:
                self._jpeg = (frame, _to_jpeg(frame, self._options.jpeg_quality))
            encoded[RGB] = (self._jpeg[1],)
        if FLOW in self._options.modalities:
            encoded[FLOW] = _encode_flow(self._before, (number, frame), self._options)
        return encoded

    def remember(self, number: int, frame: np.ndarray) -> None:
        """Takes the frame that the next flow leads from."""
        self._before = (number, frame)


def with_frames_before(needed: Collection[int], options: BuildOptions) -> set[int]:
    """The frames to decode so that the `needed` ones can be encoded: for flow, also the one before each."""
    if options.flow is None:
        return set(needed)
    return {*needed, *(number - 1 for number in needed if number > 0)}


def _encode_flow(
    before: tuple[int, np.ndarray] | None, now: tuple[int, np.ndarray], options: BuildOptions
) -> tuple[bytes, bytes]:
    assert options.flow is not None  # BuildOptions has made sure of it
    number, frame = now
    if number == 0:
        flow = np.zeros((*frame.shape[:2], 2), np.float32)
    elif before is None or before[0] != number - 1:
        raise ValueError(f"The flow of frame {number} needs frame {number - 1}. Received: {before}.")
    else:
        flow = np.zeros((*frame.shape[:2], 2), np.float32)
        if before[1].shape == frame.shape:  # else nobody knows what moved
            flow = compute_flow(to_grey(before[1]), to_grey(frame), options.flow)
    u, v = (_to_jpeg(flow_to_bytes(flow[..., i], options.flow.bound), options.jpeg_quality) for i in range(2))
    return u, v


def to_grey(frame: np.ndarray) -> np.ndarray:
    """RGB uint8 `(H, W, 3)` → uint8 `(H, W)`, of which flow is computed."""
    return np.asarray(Image.fromarray(frame).convert("L"))


def _to_jpeg(picture: np.ndarray, quality: int) -> bytes:
    """JPEG of uint8 `(H, W, 3)` RGB or `(H, W)` grey."""
    buffer = io.BytesIO()
    to_picture(picture).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def to_example(
    sample: Sample, segments: Segments, classes: tuple[str, ...], heads: Heads = ()
) -> list[bytes]:
    """The record of a sample, in pieces; a label index is the position in `classes`, or in a head's."""
    pair = segments.pair
    context: dict[str, Value] = {
        schema.CLIP_ID: sample.id.encode(),
        schema.CLIP_VIDEO: sample.video.encode(),
        schema.CLIP_OFFSET_FRAMES: pair.offset_frames,
        **_label_values(sample, classes, heads),
        **({} if sample.time is None else {schema.TIME_INDEX: sample.time}),
        schema.OBSERVED_START_S: pair.observed.first / segments.fps + segments.zero_s,
        schema.FUTURE_START_S: pair.future.first / segments.fps + segments.zero_s,
        schema.FRAME_RATE: segments.fps,
        schema.IMAGE_HEIGHT: segments.height,
        schema.IMAGE_WIDTH: segments.width,
        schema.IMAGE_CHANNELS: schema.CHANNELS[segments.modalities[0]],
    }
    lists = {
        key: [each[place] for each in _encoded(segments, window, modality)]
        for view, window in ((schema.OBSERVED, pair.observed), (schema.FUTURE, pair.future))
        for modality in segments.modalities
        for place, key in enumerate(schema.VIEW_KEYS[modality][view])
    }
    return encode_sequence_example(context, lists)


def _label_values(sample: Sample, classes: tuple[str, ...], heads: Heads) -> dict[str, Value]:
    if not heads:
        index = schema.UNLABELED if sample.label is None else classes.index(sample.label)
        return {schema.LABEL_INDEX: index, schema.LABEL_STRING: (sample.label or "").encode()}
    values: dict[str, Value] = {}
    own = [()] * len(heads) if sample.label is None else names_of_heads(sample.labels, heads)
    for (index_key, name_key), head, names in zip(label_keys(heads), heads, own, strict=True):
        values[index_key] = [head.classes.index(name) for name in names] or [schema.UNLABELED]
        values[name_key] = [name.encode() for name in names] or [b""]
    return values


def _encoded(segments: Segments, window: FrameRange, modality: str) -> list[tuple[bytes, ...]]:
    """A segment's pictures of one modality, in order.

    No frame leads to the video's first one: it takes the flow of the second, where the segment holds it.
    """
    numbers = list(range(*window))
    if modality == schema.FLOW and numbers[:2] == [0, 1]:
        numbers[0] = 1
    return [segments.frames[number][modality] for number in numbers]

"""What is decided before any frame is read: a sample's shard, and the frames of its pair. No TensorFlow.

Ranges of frames are half open, [first, stop), in frames of the video's clock. The reader draws clips from
them, both with the same start, so that x_{t-tau} and x_t stay `offset_frames` apart.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, NamedTuple

from tf_records.container import Limits
from tf_records.errors import RecordError
from tf_records.heads import Heads, labeled_columns
from tf_records.manifest import FORMAT_VERSION, HEADS_FORMAT_VERSION, Manifest, ShardInfo, SplitInfo
from tf_records.schema import FLOW, MAX_FPS, MODALITIES, RGB, SPLITS, ClipSpec, FlowInfo
from tf_records.sources.sample import Annotations, Sample
from tf_records.video_file import RESIZE

RECORDS_PER_SHARD = 64
# A record of TV-L1 flow takes most of a minute; a killed build loses a shard, and progress moves by shards.
RECORDS_PER_FLOW_SHARD = 16
MAX_ANTICIPATION_S = 60
# Of a sample's frames. One lost packet spoils what is predicted from it, up to the next key frame.
MAX_DAMAGED_FRAMES = 0.25
# Taken for the length of a sample that is a whole video.
_UNKNOWN_S = 5.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """How frames are cut, resized and stored.

    Args:
        clip: length of a clip and distance of a pair.
        fps: rate of the clock that frames are taken on, or None for each video's own.
        longest_anticipation_s: seconds before the action from which on val and test samples keep frames to
            observe, so that other anticipation times can be evaluated; None keeps the protocol's clip.
        short_side: pixels, int >= 16; every frame is resized once so that its shorter side has them.
        jpeg_quality: 1 to 100.
        modality: one of `schema.MODALITIES`.
        flow: how to compute flow, of `flow.describe_flow`; None where `modality` has none.
        shards: shards a split, or None for one every 64 samples, 16 with flow.
        limits: what a video may ask for.
        times_s: several anticipation times, in ascending order, of which each training sample has one; none
            for that of `clip`, which is the first of them.
        max_damaged_frames: share, 0 to 1, of the frames of a sample that may be damaged: FFmpeg flags them as
            corrupt, or they are predicted from such a frame.
    """

    clip: ClipSpec = dataclasses.field(default_factory=ClipSpec)
    fps: float | None = None
    longest_anticipation_s: float | None = None
    short_side: int = 256
    jpeg_quality: int = 95
    modality: str = RGB
    flow: FlowInfo | None = None
    shards: int | None = None
    limits: Limits = dataclasses.field(default_factory=Limits)
    max_damaged_frames: float = MAX_DAMAGED_FRAMES
    times_s: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.fps is not None and not 0 < self.fps <= MAX_FPS:
            raise RecordError(f"`fps` should be above 0 and at most {MAX_FPS}. Received: {self.fps}.")
        longest = self.longest_anticipation_s
        if longest is not None and not 0 <= longest <= MAX_ANTICIPATION_S:
            raise RecordError(
                f"`longest_anticipation_s` should be from 0 to {MAX_ANTICIPATION_S} seconds. "
                f"Received: {longest}."
            )
        if self.short_side < 16:
            raise RecordError(f"`short_side` should be at least 16 pixels. Received: {self.short_side}.")
        if not 1 <= self.jpeg_quality <= 100:
            raise RecordError(f"`jpeg_quality` should be from 1 to 100. Received: {self.jpeg_quality}.")
        if self.modality not in MODALITIES:
            raise RecordError(
                f"`modality` should be one of {' | '.join(MODALITIES)}. Received: {self.modality!r}."
            )
        if (FLOW in self.modalities) != (self.flow is not None):
            raise RecordError(
                f"`flow` should be given for modalities with flow, and only for these. Received: modality "
                f"{self.modality!r} and flow {self.flow}."
            )
        if not 0 <= self.max_damaged_frames <= 1:
            raise RecordError(
                f"`max_damaged_frames` should be from 0 to 1. Received: {self.max_damaged_frames}."
            )
        if self.shards is not None and self.shards < 1:
            raise RecordError(f"`shards` should be at least 1. Received: {self.shards}.")

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.modality.split(","))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """All that a worker needs to write one shard."""

    split: str
    file: str
    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    options: BuildOptions
    heads: Heads = ()

    @property
    def seconds(self) -> float:
        """A guess at the video to decode, to tell dear shards from cheap ones."""
        return sum(
            _UNKNOWN_S if sample.start_s is None or sample.end_s is None else sample.end_s - sample.start_s
            for sample in self.samples
        ) + len(self.samples)

    def digest(self) -> str:
        """Changes when anything that decides the shard's bytes changes, but for the videos' own bytes.

        Where the videos lie does not decide the bytes.
        """
        fields = dataclasses.asdict(self) | {"resize": RESIZE}
        for sample in fields["samples"]:
            del sample["path"]
            if not self.heads:
                del sample["labels"]
            if not self.options.times_s:
                del sample["time"]
        if not self.options.times_s:
            del fields["options"]["times_s"]
        # As it was before there was what is not used: builds that were begun then go on.
        if not self.heads:
            del fields["heads"]
        if self.options.longest_anticipation_s is None:
            del fields["options"]["longest_anticipation_s"]
        fields["format_version"] = FORMAT_VERSION
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def plan_shards(annotations: Annotations, options: BuildOptions) -> tuple[ShardTask, ...]:
    """Deals the samples out to shards.

    Training samples are ordered by a hash of their id, so that any stretch of a shard mixes the
    classes; the order of the others is the source's.
    """
    tasks = []
    records_per_shard = RECORDS_PER_SHARD if options.flow is None else RECORDS_PER_FLOW_SHARD
    for split in SPLITS:
        samples = [sample for sample in annotations.samples if sample.split == split]
        if split == "train":
            samples.sort(key=lambda sample: hashlib.sha256(sample.id.encode()).digest())
        wanted = options.shards or math.ceil(len(samples) / records_per_shard)
        count = min(wanted, len(samples))
        for index in range(count):
            first, stop = index * len(samples) // count, (index + 1) * len(samples) // count
            tasks.append(
                ShardTask(
                    split=split,
                    file=f"{split}-{index:05d}-of-{count:05d}.tfrecord",
                    samples=tuple(samples[first:stop]),
                    classes=annotations.classes,
                    options=options,
                    heads=annotations.heads,
                )
            )
    return tuple(tasks)


def empty_manifest(annotations: Annotations, options: BuildOptions) -> Manifest:
    """The manifest as far as it is known before any video is decoded."""
    digests = "".join(task.digest() for task in plan_shards(annotations, options))
    return Manifest(
        dataset=annotations.dataset,
        clip=options.clip,
        classes=annotations.classes,
        splits={},
        options=annotations.options,
        fps=None,
        short_side=options.short_side,
        resize=RESIZE,
        jpeg_quality=options.jpeg_quality,
        plan_sha256=hashlib.sha256(digests.encode()).hexdigest(),
        skipped=annotations.skipped,
        absent=annotations.absent,
        modality=options.modality,
        flow=options.flow,
        longest_anticipation_s=options.longest_anticipation_s,
        heads=annotations.heads,
        times_s=options.times_s,
        format_version=HEADS_FORMAT_VERSION if annotations.heads or options.times_s else FORMAT_VERSION,
    )


def count_labels(samples: Iterable[Sample], classes: tuple[str, ...], heads: Heads) -> dict[str, Any]:
    """Fields of ShardInfo: "classes", and with heads "labeled_records"."""
    labeled = [sample for sample in samples if sample.label is not None]
    if not heads:
        counts = Counter(sample.label for sample in labeled)
        return {"classes": {name: counts[name] for name in classes if counts[name]}}
    counts = Counter(name for sample in labeled for name in labeled_columns(sample.labels, heads))
    return {
        "classes": {name: counts[name] for name in classes if counts[name]},
        "labeled_records": len(labeled),
    }


def dry_run_summary(annotations: Annotations, options: BuildOptions) -> dict[str, Any]:
    """`Manifest.summary` of what would be built; seconds and bytes are 0, as nothing is read or written."""
    shards: dict[str, list[ShardInfo]] = {}
    for task in plan_shards(annotations, options):
        labels = count_labels(task.samples, task.classes, task.heads)
        shard = ShardInfo(
            file=task.file, records=len(task.samples), bytes=0, sha256="", seconds=0.0, **labels
        )
        shards.setdefault(task.split, []).append(shard)
    splits = {split: SplitInfo.of(own) for split, own in shards.items()}
    return dataclasses.replace(empty_manifest(annotations, options), splits=splits).summary()


class FrameRange(NamedTuple):
    """Frames [first, stop)."""

    first: int
    stop: int

    @property
    def frames(self) -> int:
        return self.stop - self.first

    def moved(self, frames: int) -> FrameRange:
        """The range so many frames later."""
        return FrameRange(self.first + frames, self.stop + frames)


class Spacing(NamedTuple):
    """A ClipSpec in frames of one video's clock.

    `before_action`: no observed training clip may show the action, where the video leaves room for
    that (protocols whose tau is measured to the start of the action). `longest_offset`: observed test
    segments begin so far before the action, and end with its start, for evaluation at other distances.
    """

    clip_frames: int
    offset_frames: int
    before_action: bool = False
    longest_offset: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The observed and the future segment of one record.

    `offset_frames` is the true distance of two clips drawn with the same start; it is below the
    Spacing's, and `shortened` says so, where the video leaves no room. `repeated` marks a segment
    shorter than a clip.
    """

    observed: FrameRange
    future: FrameRange
    offset_frames: int
    shortened: bool
    repeated: bool


def pair_for_training(num_frames: int, action: FrameRange, spacing: Spacing) -> Pair:
    """Segments from which training draws clips anew each epoch.

    Future clips lie in the action, observed clips `offset_frames` earlier. An action shorter than a
    clip is widened to one. Where the offset reaches back beyond the video's first frame the future
    segment starts later, and if no clip is left then, the future clip moves back to end with the
    action and the offset shrinks. With `before_action` the segments end where the observed one would
    reach the future one.
    """
    action = _widen_to_clip(num_frames, action, spacing.clip_frames)
    last_start = action.stop - spacing.clip_frames
    first = max(action.first, min(spacing.offset_frames, last_start))
    offset_frames = min(spacing.offset_frames, first)
    stop = action.stop
    if spacing.before_action:
        stop = min(stop, first + max(spacing.clip_frames, offset_frames))
    observed = FrameRange(first - offset_frames, stop - offset_frames)
    return _pair(observed, FrameRange(first, stop), offset_frames, spacing)


def frames_for_training(spacing: Spacing) -> int | None:
    """The first so many frames hold the training segments of an action that is the whole video; None is all.

    However long the video is: what comes later need not be encoded.
    """
    if not spacing.before_action:
        return None
    return spacing.offset_frames + max(spacing.clip_frames, spacing.offset_frames)


def pair_for_anticipation(num_frames: int, action: FrameRange, spacing: Spacing) -> Pair:
    """Segments of a test record: one observed clip, before the action as far as the video allows.

    With a `longest_offset` that clip lies within a longer segment, at `offset_frames` before the action.
    """
    action = _widen_to_clip(num_frames, action, spacing.clip_frames)
    offset_frames = min(spacing.offset_frames, action.first)
    first = action.first - offset_frames
    observed = FrameRange(first, min(first + spacing.clip_frames, num_frames))
    if spacing.longest_offset is not None:
        earliest = max(0, action.first - spacing.longest_offset)
        observed = FrameRange(min(first, earliest), max(observed.stop, action.first))
    return _pair(observed, action, offset_frames, spacing)


def pair_for_prefix(num_frames: int, fraction: float, spacing: Spacing) -> Pair:
    """Segments of a JHMDB test record: the first `fraction` of the frames, rounded up, and all of them."""
    observed_frames = math.ceil(Fraction(str(fraction)) * num_frames)
    return _pair(FrameRange(0, observed_frames), FrameRange(0, num_frames), 0, spacing, shortened=False)


def _widen_to_clip(num_frames: int, action: FrameRange, clip_frames: int) -> FrameRange:
    stop = min(max(action.stop, action.first + clip_frames), num_frames)
    return FrameRange(max(0, min(action.first, stop - clip_frames)), stop)


def _pair(
    observed: FrameRange,
    future: FrameRange,
    offset_frames: int,
    spacing: Spacing,
    shortened: bool | None = None,
) -> Pair:
    return Pair(
        observed=observed,
        future=future,
        offset_frames=offset_frames,
        shortened=offset_frames < spacing.offset_frames if shortened is None else shortened,
        repeated=min(observed.frames, future.frames) < spacing.clip_frames,
    )

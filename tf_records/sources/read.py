"""One way to read any data set: its annotations, then what was asked to be added to them or left out.

The defaults of `build-records` are those of each data set's protocol in the paper, see PROTOCOLS.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

from tf_records.container import Limits
from tf_records.errors import AnnotationError, RecordError
from tf_records.schema import ClipSpec
from tf_records.sources.guards import guard, unify_videos
from tf_records.sources.mining import mine_pairs
from tf_records.sources.sample import Annotations, Sample


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How clips are cut.

    Args:
        clip: length of a clip, and distance of the two of a pair.
        fps: rate of the clock that frames are taken on, or None for each video's own.
        times_s: several anticipation times, in ascending order; `clip` then has the first of them.
    """

    clip: ClipSpec = dataclasses.field(default_factory=ClipSpec)
    fps: float | None = None
    times_s: tuple[float, ...] = ()

    @property
    def lead_s(self) -> float:
        """Seconds from the first frame that A observes to the start of the action.

        Raises:
            RecordError: the clock's rate depends on the video.
        """
        if self.fps is None:
            raise RecordError("`fps` should be a number here, so that a clip has one length. Received: None.")
        return self.longest_clip.offset_at(self.fps) / self.fps

    @property
    def longest_clip(self) -> ClipSpec:
        """That of the longest of several times."""
        if not self.times_s:
            return self.clip
        return dataclasses.replace(self.clip, anticipation_s=self.times_s[-1])


# JHMDB: pairs of 8-frame clips, tau = 15 frames (§4.2). EPIC-KITCHENS: 32-frame clips, tau = 1 s (§4.3).
# THUMOS14: one-second clips of 16 frames that end one second before the action (§4.4).
PROTOCOLS = {
    "jhmdb": Protocol(),
    "csv": Protocol(),
    "synthetic": Protocol(),
    "epic55": Protocol(clip=ClipSpec(clip_frames=32, anticipation_s=1.0)),
    "epic100": Protocol(clip=ClipSpec(clip_frames=32, anticipation_s=1.0)),
    "thumos14": Protocol(clip=ClipSpec(clip_frames=16, anticipation_s=1.0), fps=16.0),
}


def resolve_protocol(
    source: str,
    *,
    clip_frames: int | None = None,
    offset_frames: int | None = None,
    anticipation_s: float | Sequence[float] | None = None,
    fps: float | None = None,
) -> Protocol:
    """The protocol of a data set with what was given in place of its own.

    Args:
        source: a key of PROTOCOLS.
        clip_frames: frames a clip.
        offset_frames: frames from one clip's first frame to the other's.
        anticipation_s: seconds from the end of the observed clip to the start of the action, or several such
            times. Either distance replaces the protocol's distance, of whichever kind that is.
        fps: rate of the clock that frames are taken on.

    Returns:
        The protocol; what was None is the data set's own.

    Raises:
        RecordError: a value out of range, or both distances.
    """
    own = PROTOCOLS[source]
    times_s: tuple[float, ...] = ()
    if isinstance(anticipation_s, Sequence):
        times_s = tuple(sorted(anticipation_s)) if len(anticipation_s) > 1 else ()
        anticipation_s = min(anticipation_s)
    if len({f"{time_s:g}" for time_s in times_s}) < len(times_s):
        raise RecordError(f"`anticipation_s` should have each time once. Received: {times_s}.")
    if offset_frames is None and anticipation_s is None:
        offset_frames, anticipation_s = own.clip.offset_frames, own.clip.anticipation_s
    clip = ClipSpec(
        clip_frames=own.clip.clip_frames if clip_frames is None else clip_frames,
        offset_frames=offset_frames,
        anticipation_s=anticipation_s,
    )
    return Protocol(clip=clip, fps=own.fps if fps is None else fps, times_s=times_s)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """What to read.

    Args:
        source: a key of PROTOCOLS.
        path: the data set's folder, or the CSV.
        split: JHMDB's, 1 to 3.
        target: EPIC-KITCHENS' classes: "verb", "noun" or "action"; or several, such as "verb,noun".
        classes: keep only these; empty for all.
        allow_outside: a CSV may name videos outside its folder.
        skip_bad_rows: leave out rows of a CSV that cannot be used, in place of refusing them.
        unlabeled_per_label: unlabelled pairs to mine for each labelled training sample.
        vicinity_s: how far from a training action they may lie.
        mining_seed: of their draw.
        label_fraction: share of the training labels to keep.
        limit: samples to keep a split, or None for all.
        seed: decides which labels and samples are kept.
        drift: of the synthetic source's videos, see SyntheticSpec.
        need_videos: False where nothing is to be built.
        limits: beyond which a video counts as one that cannot be used.
    """

    source: str
    path: str | Path
    split: int = 1
    target: str = "verb"
    classes: tuple[str, ...] = ()
    allow_outside: bool = False
    skip_bad_rows: bool = False
    unlabeled_per_label: float = 0.0
    vicinity_s: float = 10.0
    mining_seed: int = 0
    label_fraction: float = 1.0
    limit: int | None = None
    seed: int = 0
    drift: float | None = None
    need_videos: bool = True
    limits: Limits = dataclasses.field(default_factory=Limits)


def read_annotations(options: SourceOptions, protocol: Protocol) -> Annotations:
    """Reads a data set, mines unlabelled pairs, takes labels away and samples out, in this order.

    So other labels or fewer samples change nothing else: the pairs are mined for all labels.

    Args:
        options: which data set, and what of it.
        protocol: how clips are cut, as `resolve_protocol` gives it; decides where mined pairs have room.

    Returns:
        Samples in the order of the data set, mined ones after them, with classes, what was missing, and
        the stretches of video that two splits share.

    Raises:
        AnnotationError: annotations that cannot be right, or an option that does not suit them.
    """
    annotations = unify_videos(_read_source(options, protocol))
    if options.unlabeled_per_label != 0:
        annotations = mine_pairs(
            annotations,
            protocol.longest_clip,
            protocol.fps,
            per_label=options.unlabeled_per_label,
            vicinity_s=options.vicinity_s,
            seed=options.mining_seed,
        )
    if options.label_fraction != 1:
        annotations = use_labels(annotations, options.label_fraction, options.seed)
    if options.limit is not None:
        annotations = limit_samples(annotations, options.limit, options.seed)
    if protocol.times_s:
        annotations = at_each_time(annotations, protocol.times_s)
    return guard(annotations)


def at_each_time(annotations: Annotations, times_s: Sequence[float]) -> Annotations:
    """A training sample for each of several anticipation times in place of each one.

    Raises:
        AnnotationError: samples that have several labels, or distances of their own.
    """
    if annotations.heads:
        raise AnnotationError(
            "Several times for `--anticipation-s` go with one label of one class a clip. Give one time, or "
            "one label."
        )
    samples: list[Sample] = []
    for sample in annotations.samples:
        if sample.observed_fraction is not None or sample.offset_s is not None:
            raise AnnotationError(
                f"Several times for `--anticipation-s` are not for {annotations.dataset}, whose "
                f"{sample.video} has a distance of its own. Give one time."
            )
        if sample.split != "train":
            samples.append(sample)
            continue
        samples += [
            dataclasses.replace(sample, id=f"{sample.id} {time_s:g} s ahead", time=number)
            for number, time_s in enumerate(times_s)
        ]
    return dataclasses.replace(annotations, samples=tuple(samples))


def _read_source(options: SourceOptions, protocol: Protocol) -> Annotations:
    """Calls the data set's own reader, imported here since some bring PyAV along."""
    if options.source == "jhmdb":
        from tf_records.sources.jhmdb import read_jhmdb

        return read_jhmdb(options.path, options.split, options.classes)
    if options.source in ("epic55", "epic100"):
        from tf_records.sources.epic_kitchens import read_epic55, read_epic100

        read = read_epic55 if options.source == "epic55" else read_epic100
        return read(options.path, options.target, options.classes, need_videos=options.need_videos)
    if options.source == "thumos14":
        from tf_records.sources.thumos14 import read_thumos14

        return read_thumos14(
            options.path, options.classes, lead_s=protocol.lead_s, need_videos=options.need_videos
        )
    if options.source == "csv":
        from tf_records.sources.csv_manifest import read_csv

        return read_csv(
            options.path,
            options.classes,
            allow_outside=options.allow_outside,
            skip_bad_rows=options.skip_bad_rows,
            limits=options.limits,
        )
    from tf_records.sources.synthetic import SyntheticSpec, read_synthetic

    spec = None if options.drift is None else SyntheticSpec(drift=options.drift)
    return read_synthetic(options.path, spec, options.classes)


def use_labels(annotations: Annotations, fraction: float, seed: int) -> Annotations:
    """Keeps the labels of a seeded `fraction` of the labelled training samples; the others lose theirs.

    A larger fraction keeps all that a smaller one keeps.

    Args:
        annotations: what a source read.
        fraction: 0 to 1.
        seed: of the choice.

    Returns:
        The same samples in the same order.

    Raises:
        AnnotationError: `fraction` is not from 0 to 1.
    """
    if not 0 <= fraction <= 1:
        raise AnnotationError(f"`--label-fraction` should be from 0 to 1. Received: {fraction}.")
    labeled = [s for s in annotations.samples if s.split == "train" and s.label is not None]
    ranked = sorted(labeled, key=lambda sample: _rank("label", seed, sample))
    without = {sample.id for sample in ranked[round(fraction * len(ranked)) :]}
    return dataclasses.replace(
        annotations,
        samples=tuple(
            dataclasses.replace(s, label=None) if s.id in without else s for s in annotations.samples
        ),
        options={**annotations.options, "label_fraction": fraction, "seed": seed},
    )


def limit_samples(annotations: Annotations, limit: int, seed: int) -> Annotations:
    """Keeps the first `limit` samples of each split in a seeded order that mixes the classes.

    Args:
        annotations: what a source read.
        limit: samples a split, at least 1.
        seed: of that order.

    Returns:
        Fewer samples, in the source's order.

    Raises:
        AnnotationError: `limit` is below 1.
    """
    if limit < 1:
        raise AnnotationError(f"`--limit` should be at least 1. Received: {limit}.")
    left: dict[str, int] = {}
    kept = set()
    for sample in sorted(annotations.samples, key=lambda sample: _rank("limit", seed, sample)):
        left[sample.split] = left.get(sample.split, limit) - 1
        if left[sample.split] >= 0:
            kept.add(sample.id)
    return dataclasses.replace(
        annotations,
        samples=tuple(sample for sample in annotations.samples if sample.id in kept),
        options={**annotations.options, "limit": limit, "seed": seed},
    )


def _rank(purpose: str, seed: int, sample: Sample) -> bytes:
    """A place in an order that is another one for each purpose, so that a limit keeps no more labels."""
    return hashlib.sha256(f"{purpose} {seed} {sample.id}".encode()).digest()

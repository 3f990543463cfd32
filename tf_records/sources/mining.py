"""Pairs of clips from stretches that nobody annotated (§4.3.1), to be learned from without a label.

A pair takes the stretch from the first frame of its observed clip to the last of its future clip. That
stretch holds nothing of any annotation and lies within `vicinity_s` of training actions, in a video of
which nothing is tested. Of all places where such a stretch can begin, frame by frame, each is equally
likely to be drawn, and none is drawn twice; pairs may overlap.
"""

import bisect
import collections
import dataclasses
import itertools
import math
import random
from collections.abc import Iterable
from typing import NamedTuple

from tf_records.errors import AnnotationError
from tf_records.schema import ClipSpec
from tf_records.sources.sample import Annotations, Sample, Segment

Interval = tuple[float, float]


class _Places(NamedTuple):
    """Frames `first` to `first` + `number` - 1 of a video, at which a pair may begin."""

    video: str
    fps: float
    first: int
    number: int


def mine_pairs(
    annotations: Annotations,
    clip: ClipSpec,
    fps: float | None,
    *,
    per_label: float,
    vicinity_s: float = 10.0,
    seed: int = 0,
) -> Annotations:
    """Adds `per_label` unlabelled samples for each labelled training sample, as far as there is room.

    Args:
        annotations: of a source that knows which stretches are annotated.
        clip: length and distance of the clips.
        fps: rate of the clock that frames are taken on, or None for each video's own, as far as known.
        per_label: finite, >= 0.
        vicinity_s: finite, >= 0.
        seed: of the draw.

    Returns:
        The annotations with the mined samples after their own, and what was asked and drawn in `options`.

    Raises:
        AnnotationError: a number out of range, or nothing but the actions is known of the videos.
    """
    _check(annotations, per_label, vicinity_s)
    labeled = sum(s.label is not None and s.split == "train" for s in annotations.samples)
    asked = round(per_label * labeled)
    places, unknown = _find_places(annotations, clip, fps, vicinity_s)
    drawn = _draw(places, asked, seed)
    notes = list(annotations.notes)
    if len(drawn) < asked:
        notes.append(
            f"Only {len(drawn)} of {asked} unlabelled pairs have room within {vicinity_s:g} s of an action."
        )
    if unknown:
        listed = ", ".join(unknown[:5]) + (" …" if len(unknown) > 5 else "")
        notes.append(f"No unlabelled pairs from {len(unknown)} videos of unknown rate: {listed}. Give --fps.")
    mined = {
        "per_label": per_label,
        "vicinity_s": vicinity_s,
        "seed": seed,
        "asked": asked,
        "drawn": len(drawn),
    }
    return dataclasses.replace(
        annotations,
        samples=(*annotations.samples, *(_sample(annotations, *place, clip) for place in drawn)),
        options={**annotations.options, "unlabeled_mining": mined},
        notes=tuple(notes),
    )


def _check(annotations: Annotations, per_label: float, vicinity_s: float) -> None:
    for name, value in (("unlabeled-per-label", per_label), ("vicinity-s", vicinity_s)):
        if not 0 <= value < math.inf:
            raise AnnotationError(f"`--{name}` should be a number, at least 0. Received: {value}.")
    if not annotations.segments:
        raise AnnotationError(
            f"`--unlabeled-per-label` needs videos that hold more than the actions; the videos of "
            f"{annotations.dataset} do not. Leave it out."
        )


def _find_places(
    annotations: Annotations, clip: ClipSpec, fps: float | None, vicinity_s: float
) -> tuple[list[_Places], list[str]]:
    """Where pairs may begin, and the training videos whose frame rate nobody knows."""
    occupied: dict[str, list[Segment]] = collections.defaultdict(list)
    for segment in annotations.segments:
        occupied[segment.video].append(segment)
    near: dict[str, list[Interval]] = collections.defaultdict(list)
    for s in annotations.samples:
        if s.split == "train" and s.start_s is not None and s.end_s is not None:
            near[s.video].append((s.start_s - vicinity_s, s.end_s + vicinity_s))
    places, unknown = [], []
    for video in sorted(near):
        segments, footage = occupied[video], annotations.footage[video]
        if any(segment.split != "train" for segment in segments):
            continue
        rate = footage.fps if fps is None else fps
        if rate is None:
            unknown.append(video)
            continue
        end_s = footage.duration_s
        if end_s is None:
            end_s = max(segment.end_s for segment in segments)
        span = clip.offset_at(rate) + clip.clip_frames
        taken = [(segment.start_s, segment.end_s) for segment in segments]
        for free in free_stretches(near[video], taken, end_s):
            first, number = _frames_within(free, rate, span)
            if number > 0:
                places.append(_Places(video, rate, first, number))
    return places, unknown


def free_stretches(near: Iterable[Interval], taken: Iterable[Interval], end_s: float) -> list[Interval]:
    """What of [0, `end_s`] is in `near` and not in `taken`, in order and apart from one another."""
    cuts = sorted(merge(taken))
    free = []
    for start, stop in merge(near):
        start, stop = max(start, 0.0), min(stop, end_s)
        for cut_start, cut_stop in cuts:
            if cut_stop <= start or cut_start >= stop:
                continue
            if cut_start > start:
                free.append((start, cut_start))
            start = cut_stop
        if start < stop:
            free.append((start, stop))
    return free


def merge(intervals: Iterable[Interval]) -> list[Interval]:
    """The same stretches, in order and apart from one another."""
    merged: list[Interval] = []
    for start, stop in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
        else:
            merged.append((start, stop))
    return merged


def _frames_within(free: Interval, fps: float, span: int) -> tuple[int, int]:
    """First frame, and number of frames, at which `span` frames may begin: one clear frame on either side.

    The clear frame keeps pairs out of annotations whose times were rounded to another frame.
    """
    first = math.floor(free[0] * fps) + 2 if free[0] > 0 else 0
    return first, math.floor(free[1] * fps) - span - first


def _draw(places: list[_Places], count: int, seed: int) -> list[tuple[_Places, int]]:
    """Up to `count` distinct frames of `places`, each as likely as any other."""
    stops = list(itertools.accumulate(place.number for place in places))
    total = stops[-1] if stops else 0
    # Of `random`, only random() is promised to give the same numbers in every version of Python.
    rng = random.Random(seed)
    moved: dict[int, int] = {}
    drawn = []
    for index in range(min(count, total)):  # a shuffle of range(total), as far as it is needed
        other = index + int(rng.random() * (total - index))
        number = moved.get(other, other)
        moved[other] = moved.get(index, index)
        place = bisect.bisect_right(stops, number)
        drawn.append((places[place], number - stops[place] + places[place].number + places[place].first))
    return drawn


def _sample(annotations: Annotations, place: _Places, frame: int, clip: ClipSpec) -> Sample:
    future = frame + clip.offset_at(place.fps)
    footage = annotations.footage[place.video]
    return Sample(
        id=f"{place.video}@{frame / place.fps:.3f} unlabelled",
        video=place.video,
        path=footage.path,
        split="train",
        label=None,
        start_s=future / place.fps,
        end_s=(future + clip.clip_frames) / place.fps,
        folder=footage.folder,
    )

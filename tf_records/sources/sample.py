"""What every source gives: samples in order, the classes, and what was missing."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tf_records.errors import AnnotationError
from tf_records.manifest import Skipped

_NAMES_LISTED = 40


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FolderClock:
    """What the annotations say of a video that may lie there as a folder of frames.

    Args:
        duration_s: length of the video.
        rates: frames per second at which the frames may have been taken out of it; the one that
            their number fits is right.
    """

    duration_s: float
    rates: tuple[float, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One action in one video, before any frame is read.

    Args:
        id: unique within the data set, the same on every machine.
        video: name of the video in the data set, relative, with forward slashes.
        path: where the file, or the folder of frames, lies on this machine.
        split: "train", "val" or "test".
        label: class name, or None for unlabelled.
        start_s, end_s: the action in seconds of the video; both None where the action is the video.
        observed_fraction: for test samples, the share of the video the protocol lets A see; None
            for one clip before the action.
        fps: rate of the clock that frames are taken on, in place of the build's.
        offset_s: seconds between the first frames of the two clips, in place of the build's distance.
        folder: needed where `path` is a folder of frames.
    """

    id: str
    video: str
    path: str
    split: str
    label: str | None
    start_s: float | None = None
    end_s: float | None = None
    observed_fraction: float | None = None
    fps: float | None = None
    offset_s: float | None = None
    folder: FolderClock | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Footage:
    """A video in which unlabelled pairs may lie; `fps` and `duration_s` are None where unknown."""

    path: str
    fps: float | None = None
    duration_s: float | None = None
    folder: FolderClock | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of a video that an annotation names, whether or not it became a sample."""

    video: str
    start_s: float
    end_s: float
    split: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Annotations:
    """What a source read: `samples` in the source's order, `classes` in index order.

    Args:
        dataset: name of the source.
        samples, classes: as above.
        options: settings of the source, for the manifest.
        skipped: inputs that could not be used, and why.
        absent: names that the annotations list and that are not on this machine.
        too_early: how many of `skipped`, from its first on, the protocol leaves out because they start
            too early; these are no fault of the input.
        segments: every annotated stretch, where the videos hold more than the actions.
        footage: video name → what is known of it, for the same sources.
        notes: lines for the user.
    """

    dataset: str
    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    absent: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    too_early: int = 0
    segments: tuple[Segment, ...] = ()
    footage: dict[str, Footage] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


def select_classes(found: Iterable[str], wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The classes of `found` in alphabetical order, or those `wanted`, in the same order.

    Args:
        found: labels that occur.
        wanted: names to keep; empty for all.

    Returns:
        Class names in index order.

    Raises:
        AnnotationError: a wanted class does not occur.
    """
    return keep_classes(tuple(sorted(found)), wanted)


def keep_classes(names: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[str, ...]:
    """`names` in their order, or those of them that are `wanted`.

    Args:
        names: all classes, in index order.
        wanted: names to keep; empty for all.

    Returns:
        Class names in index order.

    Raises:
        AnnotationError: a wanted class is not among them.
    """
    unknown = [name for name in wanted if name not in names]
    if unknown:
        listed = names
        if len(names) > _NAMES_LISTED:
            near = dict.fromkeys(near for name in unknown for near in difflib.get_close_matches(name, names))
            listed = (*(near or names[:_NAMES_LISTED]), f"… ({len(names)} in all)")
        raise AnnotationError(
            f"`--classes` names {', '.join(unknown)}, which does not occur. Choose from: {', '.join(listed)}."
        )
    return tuple(name for name in names if not wanted or name in wanted)


def place_videos(
    annotations: Annotations,
    footage: Mapping[str, Footage],
    found: Mapping[str, Path],
    *,
    root: Path,
    need_videos: bool,
    hint: str,
) -> Annotations:
    """Tells each sample where its video lies; videos that are not there are left out, and named as absent.

    Where none is there, all samples are kept for counting, unless videos are needed.

    Args:
        annotations: samples without paths.
        footage: of every video of the samples.
        found: video → where it lies.
        root: where they were looked for.
        need_videos: refuse to go on without any.
        hint: where to put them.

    Returns:
        The annotations with the samples whose videos are there, and the others' names under `absent`.

    Raises:
        AnnotationError: `need_videos`, and there is none.
    """
    names = sorted({sample.video for sample in annotations.samples})
    there = [name for name in names if name in found]
    if names and not there and need_videos:
        raise AnnotationError(
            f"None of the {len(names)} videos is under {root}. {hint} Without videos there is --dry-run."
        )
    note = f"No video is under {root}; this is counted from the annotations alone."
    usable = {name: footage[name] for name in there or names}
    return dataclasses.replace(
        annotations,
        samples=tuple(
            dataclasses.replace(s, path=usable[s.video].path, folder=usable[s.video].folder)
            for s in annotations.samples
            if s.video in usable
        ),
        footage=usable,
        absent={"videos": [name for name in names if name not in usable]},
        notes=annotations.notes if there else (*annotations.notes, note),
    )

"""What every source gives: samples in order, the classes, and what was missing."""

import dataclasses
from typing import Any

from tf_records.errors import AnnotationError
from tf_records.schema import Skipped


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One action in one video, before any frame is read.

    Args:
        id: unique within the data set, the same on every machine.
        video: name of the video in the data set, relative, with forward slashes.
        path: where the file lies on this machine.
        split: "train", "val" or "test".
        label: class name, or None for unlabelled.
        start_s, end_s: the action in seconds of the video; both None where the action is the video.
        observed_fraction: for test samples, the share of the video the protocol lets A see; None
            for one clip before the action.
    """

    id: str
    video: str
    path: str
    split: str
    label: str | None
    start_s: float | None = None
    end_s: float | None = None
    observed_fraction: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Annotations:
    """What a source read: `samples` in the source's order, `classes` in index order."""

    dataset: str
    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    absent: dict[str, list[str]] = dataclasses.field(default_factory=dict)


def select_classes(found: set[str], wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The classes of `found` in alphabetical order, or those `wanted`, in the same order.

    Raises:
        AnnotationError: a wanted class does not occur.
    """
    unknown = [name for name in wanted if name not in found]
    if unknown:
        raise AnnotationError(
            f"`--classes` names {', '.join(unknown)}, which does not occur. "
            f"Choose from: {', '.join(sorted(found))}."
        )
    return tuple(sorted(wanted or found))

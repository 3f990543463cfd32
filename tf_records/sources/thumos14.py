"""THUMOS14: CLASS_val.txt and CLASS_test.txt, lines such as `video_validation_0000266  72.8 76.4`.

§4.4: the 200 validation videos train, the 213 test videos test. `Ambiguous` is no class. What A observes
ends one second before an action; actions that start too early for that are skipped.

CliffDiving is a kind of Diving, and all its instances are listed under both. They stay two samples, as
in the data set's own count; the manifest says how many there are.
"""

import math
import re
from pathlib import Path
from typing import NamedTuple

from tf_records.errors import AnnotationError
from tf_records.manifest import Skipped
from tf_records.sources.guards import count_twice_labeled, place_videos
from tf_records.sources.sample import (
    Annotations,
    BadRows,
    Footage,
    Sample,
    Segment,
    decimal,
    read_text,
    select_classes,
)

NO_CLASS = "Ambiguous"
# List name's end → (our split, what the videos of that list are called).
_PARTS = {"_val.txt": ("train", "video_validation_"), "_test.txt": ("test", "video_test_")}
# Side by side, or as the two official archives unpack.
_LIST_FOLDERS = (
    *("", "annotation", "annotations", "annotation_val", "annotation_test"),
    "TH14_Temporal_annotations_validation/annotation",
    "TH14_Temporal_annotations_test/annotation",
    "TH14_Temporal_Annotations_Test/annotations/annotation",
)
_SUFFIXES = (".mp4", ".mkv", ".avi", ".webm", ".mov")


class _ThumosAction(NamedTuple):
    where: str
    video: str
    start_s: float
    end_s: float
    label: str
    split: str


def read_thumos14(
    root: str | Path, classes: tuple[str, ...] = (), *, lead_s: float = 2.0, need_videos: bool = True
) -> Annotations:
    """Reads and checks the lists, and looks for the videos in `root` and in the folders within it.

    Args:
        root: folder of the annotations and of the videos.
        classes: leave out actions of other classes.
        lead_s: from the start of what A observes to the start of the action; actions that start
            earlier in their video are skipped.
        need_videos: False keeps all samples where no video is there; True refuses that.

    Returns:
        Samples list by list, in each list's order. Without any video there, all samples, for counting.

    Raises:
        AnnotationError: with file and line.
    """
    root = Path(root)
    bad = BadRows(root)
    actions = [action for path in _find_lists(root) for action in _read_list(path, bad)]
    bad.refuse()
    names = _select_classes(actions, classes)
    kept = [action for action in actions if action.label in names]
    early = [action for action in kept if action.start_s < lead_s]
    annotations = Annotations(
        dataset="thumos14",
        samples=tuple(_sample(action) for action in kept if action.start_s >= lead_s),
        classes=names,
        options={"instances_listed_twice": count_twice_labeled(map(_sample, kept))},
        skipped=tuple(_skip(action, root, lead_s) for action in early),
        too_early=len(early),
        segments=tuple(
            Segment(video=a.video, start_s=a.start_s, end_s=a.end_s, split=a.split) for a in actions
        ),
    )
    found = _find_videos(root)
    return place_videos(
        annotations,
        {a.video: Footage(path=str(found.get(a.video, root / f"{a.video}.mp4"))) for a in kept},
        found,
        root=root,
        need_videos=need_videos,
        hint="Put them there or in folders within it, such as video_validation_0000051.mp4.",
    )


def _select_classes(actions: list[_ThumosAction], wanted: tuple[str, ...]) -> tuple[str, ...]:
    trained = {action.label for action in actions if action.split == "train"} - {NO_CLASS}
    for action in actions:
        if action.label not in {*trained, NO_CLASS} and not wanted:
            raise AnnotationError(
                f"{action.where}: {action.label} has no action in a list {action.label}_val.txt to train on. "
                f"Add it, or leave the class out with --classes."
            )
    return select_classes(trained, wanted)


def _find_lists(root: Path) -> list[Path]:
    found: dict[str, Path] = {}
    for folder in _LIST_FOLDERS:
        for end in _PARTS:
            for path in sorted((root / folder).glob(f"*{end}")):
                if path.name in found and not path.samefile(found[path.name]):
                    raise AnnotationError(f"{path} is there a second time as {found[path.name]}. Keep one.")
                found.setdefault(path.name, path)
    if not any(name.endswith("_val.txt") for name in found):
        raise AnnotationError(
            f"Found no CLASS_val.txt under {root}, nor in annotation, annotation_val or the folders that "
            f"THUMOS14's archives of temporal annotations unpack to. Give the folder that holds them."
        )
    return [found[name] for name in sorted(found)]


def _read_list(path: Path, bad: BadRows) -> list[_ThumosAction]:
    end = next(end for end in _PARTS if path.name.endswith(end))
    split, prefix = _PARTS[end]
    label = path.name.removesuffix(end)
    places: dict[tuple[str, float, float], str] = {}
    actions = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            video, start_s, end_s = _parse(where, line, prefix)
            earlier = places.setdefault((video, start_s, end_s), where)
            if earlier != where:
                raise AnnotationError(f"{where} repeats {earlier}: the same video and times.")
        except AnnotationError as error:
            bad.add("", error)
            continue
        actions.append(_ThumosAction(where, video, start_s, end_s, label, split))
    return actions


def _parse(where: str, line: str, prefix: str) -> tuple[str, float, float]:
    fields = line.split()
    times = [decimal(field) for field in fields[1:]]
    good = len(fields) == 3 and re.fullmatch(prefix + "[0-9]{7}", fields[0])
    if not good or any(math.isnan(time_s) for time_s in times):
        raise AnnotationError(
            f"{where} should read `{prefix}0000266  72.8 76.4`: a video, its start and its end in seconds. "
            f"Received: {line!r}."
        )
    if not times[0] < times[1] < math.inf:
        raise AnnotationError(f"{where}: the end should be later than the start. Received: {line!r}.")
    return fields[0], times[0], times[1]


def _sample(action: _ThumosAction) -> Sample:
    return Sample(
        id=f"{action.video}@{action.start_s}-{action.end_s} {action.label}",
        video=action.video,
        path="",
        split=action.split,
        label=action.label,
        start_s=action.start_s,
        end_s=action.end_s,
    )


def _skip(action: _ThumosAction, root: Path, lead_s: float) -> Skipped:
    where = action.where.removeprefix(f"{root}/")  # the same manifest on every machine
    return Skipped(
        video=action.video,
        reason=f"{where}: {action.label} starts at {action.start_s:g} s, before {lead_s:g} s: there is "
        f"no room for an observed clip",
    )


def _find_videos(root: Path) -> dict[str, Path]:
    """Name → file, for the data set's videos in `root` and in the folders within it."""
    found: dict[str, Path] = {}
    for path in (*sorted(root.glob("video_*")), *sorted(root.glob("*/video_*"))):
        if path.suffix.lower() in _SUFFIXES and path.is_file():
            found.setdefault(path.stem, path)
    return found

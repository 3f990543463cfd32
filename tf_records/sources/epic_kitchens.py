"""EPIC-KITCHENS-55: EPIC_train_action_labels.csv, EPIC_verb_classes.csv and EPIC_video_info.csv.

§4.1: the verbs of participants P01 to P25 train, those of the others test; 23,191 and 5,281 actions.
Videos lie as `P01/P01_01.MP4` or as a folder of frames `P01/P01_01`, below --input or in the folders that
the data set's own downloads make.
"""

import collections
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tf_records.errors import AnnotationError
from tf_records.heads import Head, Heads, columns
from tf_records.sources.guards import place_videos
from tf_records.sources.sample import (
    AnnotationRow,
    Annotations,
    BadRows,
    FolderClock,
    Footage,
    Sample,
    Segment,
    decimal,
    keep_classes,
    read_table,
)
from tf_records.video import holds_frames

ACTIONS_NAME = "EPIC_train_action_labels.csv"
VERBS_NAME = "EPIC_verb_classes.csv"
INFO_NAME = "EPIC_video_info.csv"
LAST_TRAINING_PARTICIPANT = 25
# The data set's own frames were taken at this rate, whatever the video's (59.94 mostly): its columns
# start_frame and stop_frame are 60 times the seconds, in all 28,472 rows.
EXTRACTION_FPS = 60.0
_TIMES = ("start_timestamp", "stop_timestamp")
_COLUMNS = ("uid", "participant_id", "video_id", *_TIMES)
# Columns whose numbers make up a class, and those that name it.
_KEYS = {"verb": ("verb_class",), "noun": ("noun_class",), "action": ("verb_class", "noun_class")}
_NAMES = {"verb": (), "noun": ("noun",), "action": ("noun",)}
_VIDEO = re.compile(r"P([0-9]{2})_[0-9]{2,3}")
_CLOCK = re.compile(r"([0-9]{1,2}):([0-5][0-9]):([0-5][0-9](?:\.[0-9]{1,6})?)")
# Lengths in EPIC_video_info.csv are the containers'; an action may end a little later.
_LENGTH_TOLERANCE_S = 1.0
# Below the input folder: what people make by hand, and what the data set's download scripts make.
_ABOVE_PARTICIPANT = ("", "videos", "videos/train", "frames", "rgb", "rgb/train", "frames_rgb_flow/rgb/train")
_BELOW_PARTICIPANT = ("", "videos", "rgb_frames")
_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm")


class _EpicAction(NamedTuple):
    where: str
    uid: int
    video: str
    split: str
    start_s: float
    end_s: float
    keys: dict[str, tuple[int, ...]]


class _Info(NamedTuple):
    duration_s: float
    fps: float


def read_epic55(
    root: str | Path, target: str = "verb", classes: tuple[str, ...] = (), *, need_videos: bool = True
) -> Annotations:
    """Reads and checks the annotations in `root` or `root`/annotations, and looks for the videos.

    Args:
        root: folder of the annotations and of the videos.
        target: "verb" (all 125 classes, whether they occur or not), "noun" or "action", which is
            "verb noun". A noun class is called what its actions call it most often. Or several of them,
            such as "verb,noun,action": a head for each.
        classes: leave out actions of other classes; of one target alone.
        need_videos: False keeps all samples where no video is there; True refuses that.

    Returns:
        Samples in the order of the annotations, classes in that of their numbers.

    Raises:
        AnnotationError: with file and line.
    """
    root, targets = Path(root), _parse_targets(target, classes)
    folder = _find_annotations(root)
    bad = BadRows(folder / ACTIONS_NAME)
    wanted_columns = dict.fromkeys(name for each in targets for name in (*_KEYS[each], *_NAMES[each]))
    rows = read_table(folder / ACTIONS_NAME, (*_COLUMNS, *wanted_columns), bad=bad)
    info = _read_info(folder / INFO_NAME) if (folder / INFO_NAME).is_file() else {}
    actions = _parse_rows(rows, targets, info, bad)
    bad.refuse()
    names = {each: _name_classes(folder, each, rows, actions) for each in targets}
    heads: Heads = ()
    if len(targets) > 1:
        heads = tuple(Head(name=each, classes=tuple(own.values())) for each, own in names.items())
        kept, chosen = actions, columns(heads)
    else:
        own = names[target]
        chosen = keep_classes(tuple(own.values()), classes)
        wanted = set(chosen)
        kept = [action for action in actions if own[action.keys[target]] in wanted]
    if not kept:
        raise AnnotationError(f"{folder / ACTIONS_NAME} has no action of the classes {', '.join(chosen)}.")
    annotations = Annotations(
        dataset="epic55",
        samples=tuple(
            _sample(action, [names[each][action.keys[each]] for each in targets]) for action in kept
        ),
        classes=chosen,
        heads=heads,
        options={"target": target},
        segments=tuple(
            Segment(video=a.video, start_s=a.start_s, end_s=a.end_s, split=a.split) for a in actions
        ),
    )
    videos = sorted({action.video for action in kept})
    found = _find_videos(root, videos)
    expected = {name: found.get(name, root / name.split("_")[0] / f"{name}.MP4") for name in videos}
    return place_videos(
        annotations,
        {name: _footage(name, info.get(name), path) for name, path in expected.items()},
        found,
        root=root,
        need_videos=need_videos,
        hint="Put them there as P01/P01_01.MP4, or as folders of frames P01/P01_01.",
    )


def _parse_targets(target: str, classes: tuple[str, ...]) -> tuple[str, ...]:
    targets = tuple(target.split(","))
    if not set(targets) <= set(_KEYS) or len(set(targets)) < len(targets):
        raise AnnotationError(f"`--target` should be of {', '.join(_KEYS)}, each once. Received: {target}.")
    if len(targets) > 1 and classes:
        raise AnnotationError(
            f"`--classes` chooses among the classes of one target. Received: --target {target}. Leave it out."
        )
    return targets


def _find_annotations(root: Path) -> Path:
    for folder in (root, root / "annotations"):
        if (folder / ACTIONS_NAME).is_file():
            return folder
    raise AnnotationError(
        f"Found no {ACTIONS_NAME} in {root} or {root / 'annotations'}. Give the folder that holds "
        f"EPIC-KITCHENS-55's annotations."
    )


def _parse(row: AnnotationRow, targets: tuple[str, ...], info: dict[str, _Info]) -> _EpicAction:
    where, cells = row
    video = cells["video_id"]
    match = _VIDEO.fullmatch(video)
    if match is None or cells["participant_id"] != video.split("_")[0]:
        raise AnnotationError(
            f"{where}: participant_id and video_id should read like P01 and P01_01. "
            f"Received: {cells['participant_id']!r} and {video!r}."
        )
    start_s, end_s = (_seconds(row, column) for column in _TIMES)
    if end_s <= start_s:
        raise AnnotationError(
            f"{where}: stop_timestamp should be later than start_timestamp. "
            f"Received: {cells['start_timestamp']} to {cells['stop_timestamp']}."
        )
    if video in info and end_s > info[video].duration_s + _LENGTH_TOLERANCE_S:
        raise AnnotationError(
            f"{where}: stop_timestamp {cells['stop_timestamp']} is past the end of {video}, which lasts "
            f"{info[video].duration_s:.2f} s by {INFO_NAME}."
        )
    return _EpicAction(
        where=where,
        uid=_whole(row, "uid"),
        video=video,
        split="train" if int(match[1]) <= LAST_TRAINING_PARTICIPANT else "test",
        start_s=start_s,
        end_s=end_s,
        keys={each: tuple(_whole(row, column) for column in _KEYS[each]) for each in targets},
    )


def _parse_rows(
    rows: list[AnnotationRow], targets: tuple[str, ...], info: dict[str, _Info], bad: BadRows
) -> list[_EpicAction]:
    """The rows that can be used; a uid stands for one action."""
    actions, places = [], dict[int, str]()
    for row in rows:
        try:
            action = _parse(row, targets, info)
            earlier = places.setdefault(action.uid, action.where)
            if earlier != action.where:
                raise AnnotationError(f"{action.where} repeats the uid {action.uid} of {earlier}.")
        except AnnotationError as error:
            bad.add("", error)
            continue
        actions.append(action)
    return actions


def _name_classes(
    folder: Path, target: str, rows: list[AnnotationRow], actions: list[_EpicAction]
) -> dict[tuple[int, ...], str]:
    """Class key → name, in the order of the data set's own numbers."""
    verbs = {} if target == "noun" else _read_verbs(folder / VERBS_NAME)
    keys = [action.keys[target] for action in actions]
    for action, key in zip(actions, keys, strict=True):
        if verbs and key[0] not in verbs:
            raise AnnotationError(f"{action.where}: verb_class {key[0]} is not in {VERBS_NAME}.")
    if target == "verb":
        return {(number,): name for number, name in verbs.items()}
    called: dict[int, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for row, key in zip(rows, keys, strict=True):
        called[key[-1]][row.cells["noun"]] += 1
    nouns = {number: min(c, key=lambda name: (-c[name], name)) for number, c in called.items()}
    names: dict[tuple[int, ...], str] = {}
    owners: dict[str, tuple[int, ...]] = {}
    for action in sorted(actions, key=lambda action: action.keys[target]):
        key = action.keys[target]
        noun = nouns[key[-1]]
        name = noun if target == "noun" else f"{verbs[key[0]]} {noun}"
        if not noun or owners.setdefault(name, key) != key:
            raise AnnotationError(f"{action.where}: noun {noun!r} is empty or names two classes. Correct it.")
        names[key] = name
    return names


def _read_verbs(path: Path) -> dict[int, str]:
    if not path.is_file():
        raise AnnotationError(
            f"{path} does not exist; it names the verb classes. It is part of EPIC-KITCHENS' annotations."
        )
    verbs: dict[int, str] = {}
    for row in read_table(path, ("verb_id", "class_key")):
        number, name = _whole(row, "verb_id"), row.cells["class_key"]
        if not name or number in verbs or name in verbs.values():
            raise AnnotationError(
                f"{row.where}: verb_id and class_key should name a class once. Received: {number}, {name!r}."
            )
        verbs[number] = name
    return dict(sorted(verbs.items()))


def _read_info(path: Path) -> dict[str, _Info]:
    infos = {}
    for row in read_table(path, ("video", "duration", "fps")):
        duration_s, fps = decimal(row.cells["duration"]), decimal(row.cells["fps"])
        if not (0 < duration_s < math.inf and 0 < fps < math.inf):
            raise AnnotationError(
                f"{row.where}: duration and fps should be numbers above 0. "
                f"Received: {row.cells['duration']!r} and {row.cells['fps']!r}."
            )
        infos[row.cells["video"]] = _Info(duration_s, fps)
    return infos


def _sample(action: _EpicAction, labels: list[str]) -> Sample:
    """Of one label, or of one for each head."""
    return Sample(
        id=f"{action.video}/{action.uid}",
        video=action.video,
        path="",
        split=action.split,
        label=labels[-1],
        start_s=action.start_s,
        end_s=action.end_s,
        labels=tuple(labels) if len(labels) > 1 else (),
    )


def _footage(name: str, stated: _Info | None, path: Path) -> Footage:
    folder = None
    if path.is_dir():
        if stated is None:
            raise AnnotationError(
                f"{path} is a folder of frames, and {INFO_NAME} states no frame rate of {name}. Add it there."
            )
        folder = FolderClock(duration_s=stated.duration_s, rates=(stated.fps, EXTRACTION_FPS))
    return Footage(
        path=str(path),
        fps=None if stated is None else stated.fps,
        duration_s=None if stated is None else stated.duration_s,
        folder=folder,
    )


def _seconds(row: AnnotationRow, column: str) -> float:
    match = _CLOCK.fullmatch(row.cells[column])
    if match is None:
        raise AnnotationError(
            f"{row.where}: {column} should read hours:minutes:seconds, such as 00:01:02.50. "
            f"Received: {row.cells[column]!r}."
        )
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])


def _whole(row: AnnotationRow, column: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", row.cells[column]):
        raise AnnotationError(
            f"{row.where}: {column} should be a whole number. Received: {row.cells[column]!r}."
        )
    return int(row.cells[column])


def _find_videos(root: Path, names: Iterable[str]) -> dict[str, Path]:
    """Name (P01_01) → its file, or else its folder of frames, in any of the data set's own layouts."""
    listed: dict[str, list[Path]] = {}
    found = {}
    for name in names:
        participant = name.split("_")[0]
        if participant not in listed:
            listed[participant] = _list_places(root, participant)
        own = [path for path in listed[participant] if path.name.split(".")[0] == name]
        files = [path for path in own if path.suffix.lower() in _SUFFIXES and path.is_file()]
        folders = (path for path in own if path.name == name and holds_frames(path))
        path = next(iter(files), None) or next(folders, None)
        if path is not None:
            found[name] = path
    return found


def _list_places(root: Path, participant: str) -> list[Path]:
    """All that lies where a participant's videos may lie, in a fixed order."""
    places = [
        root / above / participant / below for above in _ABOVE_PARTICIPANT for below in _BELOW_PARTICIPANT
    ]
    return [path for place in places if place.is_dir() for path in sorted(place.iterdir())]

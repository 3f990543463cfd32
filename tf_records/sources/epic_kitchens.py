"""EPIC-KITCHENS-55 and -100, by the annotation files that each publishes.

EPIC-KITCHENS-55: EPIC_train_action_labels.csv, EPIC_verb_classes.csv and EPIC_video_info.csv. §4.1: the verbs
of participants P01 to P25 train, those of the others test; 23,191 and 5,281 actions.

EPIC-KITCHENS-100 (Damen et al. 2022): EPIC_100_train.csv trains and EPIC_100_validation.csv tests, since the
labels of its own test set are not public. Participants that no training video shows, and tail classes, are
noted for evaluation, where EPIC_100_unseen_participant_ids_validation.csv, EPIC_100_tail_verbs.csv and
EPIC_100_tail_nouns.csv are there.

Videos lie as `P01/P01_01.MP4` or as a folder of frames `P01/P01_01`, below --input or in the folders that
the data set's own downloads make.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

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
_COLUMNS = ("participant_id", "video_id", *_TIMES)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Edition:
    """The files of one data set, and their columns.

    Args:
        name: of the source.
        title: in messages.
        splits: file of actions → the split that it is; None for one by participant.
        id_column: that tells actions apart.
        verbs, nouns: file of classes, and its columns of number and name; without one of nouns, a noun class
            is called what its actions call it most often.
        info, info_video: file of lengths and frame rates, and its column of the video.
    """

    name: str
    title: str
    splits: dict[str, str | None]
    id_column: str
    verbs: tuple[str, str, str]
    nouns: tuple[str, str, str] | None
    info: str
    info_video: str


EPIC_55 = _Edition(
    name="epic55",
    title="EPIC-KITCHENS-55",
    splits={ACTIONS_NAME: None},
    id_column="uid",
    verbs=(VERBS_NAME, "verb_id", "class_key"),
    nouns=None,
    info=INFO_NAME,
    info_video="video",
)
EPIC_100 = _Edition(
    name="epic100",
    title="EPIC-KITCHENS-100",
    splits={"EPIC_100_train.csv": "train", "EPIC_100_validation.csv": "test"},
    id_column="narration_id",
    verbs=("EPIC_100_verb_classes.csv", "id", "key"),
    nouns=("EPIC_100_noun_classes.csv", "id", "key"),
    info="EPIC_100_video_info.csv",
    info_video="video_id",
)
_UNSEEN_NAME = "EPIC_100_unseen_participant_ids_validation.csv"
_TAIL_NAMES = {"verb": "EPIC_100_tail_verbs.csv", "noun": "EPIC_100_tail_nouns.csv"}
# Columns whose numbers make up a class, and those that name it.
_KEYS = {"verb": ("verb_class",), "noun": ("noun_class",), "action": ("verb_class", "noun_class")}
_NAMES = {"verb": (), "noun": ("noun",), "action": ("noun",)}
_ID = re.compile(r"(P[0-9]{2}_[0-9]{2,3})_[0-9]+")
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
    id: str
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
    return _read(EPIC_55, Path(root), target, classes, need_videos=need_videos)


def read_epic100(
    root: str | Path, target: str = "verb", classes: tuple[str, ...] = (), *, need_videos: bool = True
) -> Annotations:
    """The same for EPIC-KITCHENS-100, which names its nouns itself.

    `options` have "unseen_participants", and "tail_classes" of each target, where their files are there. An
    action is of the tail where its verb or its noun is.

    Args:
        root, target, classes, need_videos: see `read_epic55`.

    Source: Damen et al. 2022, Rescaling Egocentric Vision, §4.
    """
    annotations = _read(EPIC_100, Path(root), target, classes, need_videos=need_videos)
    return dataclasses.replace(
        annotations, options={**annotations.options, **_read_groups(root, annotations)}
    )


def _read(
    edition: _Edition, root: Path, target: str, classes: tuple[str, ...], *, need_videos: bool
) -> Annotations:
    targets = _parse_targets(target, classes)
    folder = _find_annotations(root, edition)
    rows, actions, info = _read_actions(edition, folder, targets)
    names = {each: _name_classes(edition, folder, each, rows, actions) for each in targets}
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
        files = " and ".join(str(folder / name) for name in edition.splits)
        raise AnnotationError(f"{files} has no action of the classes {', '.join(chosen)}.")
    annotations = Annotations(
        dataset=edition.name,
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
        {name: _footage(name, info.get(name), path, edition.info) for name, path in expected.items()},
        found,
        root=root,
        need_videos=need_videos,
        hint="Put them there as P01/P01_01.MP4, or as folders of frames P01/P01_01.",
    )


def _read_actions(
    edition: _Edition, folder: Path, targets: tuple[str, ...]
) -> tuple[list[AnnotationRow], list[_EpicAction], dict[str, _Info]]:
    """All rows of all files, the actions that they are, and what is known of the videos."""
    info_path = folder / edition.info
    info = _read_info(info_path, edition.info_video) if info_path.is_file() else {}
    wanted = dict.fromkeys(name for each in targets for name in _KEYS[each])
    if edition.nouns is None:
        wanted |= dict.fromkeys(name for each in targets for name in _NAMES[each])
    rows: list[AnnotationRow] = []
    actions: list[_EpicAction] = []
    for name, split in edition.splits.items():
        bad = BadRows(folder / name)
        own = read_table(folder / name, (edition.id_column, *_COLUMNS, *wanted), bad=bad)
        found = _parse_rows(own, targets, info, bad, edition, split)
        bad.refuse()
        rows += own
        actions += found
    return rows, actions, info


def _read_groups(root: str | Path, annotations: Annotations) -> dict[str, Any]:
    """What evaluation reports apart: "unseen_participants", and "tail_classes" of each target."""
    folder = _find_annotations(Path(root), EPIC_100)
    groups: dict[str, Any] = {}
    if (folder / _UNSEEN_NAME).is_file():
        rows = read_table(folder / _UNSEEN_NAME, ("participant_id",))
        groups["unseen_participants"] = [row.cells["participant_id"] for row in rows]
    if not all((folder / name).is_file() for name in _TAIL_NAMES.values()):
        return groups
    assert EPIC_100.nouns is not None
    files = {"verb": EPIC_100.verbs, "noun": EPIC_100.nouns}
    tail: dict[str, set[str]] = {}
    for target, name in _TAIL_NAMES.items():
        names = _read_names(folder, *files[target])
        numbers = [_whole(row, target) for row in read_table(folder / name, (target,))]
        tail[target] = {names[number] for number in numbers if number in names}
    targets = annotations.options["target"].split(",")
    classes = {head.name: head.classes for head in annotations.heads} or {targets[0]: annotations.classes}
    groups["tail_classes"] = {
        target: [name for name in own if _is_of_tail(target, name, tail)] for target, own in classes.items()
    }
    return groups


def _is_of_tail(target: str, name: str, tail: dict[str, set[str]]) -> bool:
    if target != "action":
        return name in tail[target]
    verb, _, noun = name.partition(" ")
    return verb in tail["verb"] or noun in tail["noun"]


def _parse_targets(target: str, classes: tuple[str, ...]) -> tuple[str, ...]:
    targets = tuple(target.split(","))
    if not set(targets) <= set(_KEYS) or len(set(targets)) < len(targets):
        raise AnnotationError(f"`--target` should be of {', '.join(_KEYS)}, each once. Received: {target}.")
    if len(targets) > 1 and classes:
        raise AnnotationError(
            f"`--classes` chooses among the classes of one target. Received: --target {target}. Leave it out."
        )
    return targets


def _find_annotations(root: Path, edition: _Edition) -> Path:
    name = next(iter(edition.splits))
    for folder in (root, root / "annotations"):
        if (folder / name).is_file():
            return folder
    raise AnnotationError(
        f"Found no {name} in {root} or {root / 'annotations'}. Give the folder that holds "
        f"{edition.title}'s annotations."
    )


def _parse(
    row: AnnotationRow,
    targets: tuple[str, ...],
    info: dict[str, _Info],
    edition: _Edition,
    split: str | None,
) -> _EpicAction:
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
            f"{info[video].duration_s:.2f} s by {edition.info}."
        )
    if split is None:
        split = "train" if int(match[1]) <= LAST_TRAINING_PARTICIPANT else "test"
    return _EpicAction(
        where=where,
        id=_read_id(row, edition.id_column, video),
        video=video,
        split=split,
        start_s=start_s,
        end_s=end_s,
        keys={each: tuple(_whole(row, column) for column in _KEYS[each]) for each in targets},
    )


def _read_id(row: AnnotationRow, column: str, video: str) -> str:
    """Of EPIC-KITCHENS-55 a number, of -100 the video's name and a number."""
    if column == EPIC_55.id_column:
        return f"{video}/{_whole(row, column)}"
    name = row.cells[column]
    match = _ID.fullmatch(name)
    if match is None or match[1] != video:
        raise AnnotationError(f"{row.where}: {column} should read like {video}_0. Received: {name!r}.")
    return f"{video}/{name[len(video) + 1 :]}"


def _parse_rows(
    rows: list[AnnotationRow],
    targets: tuple[str, ...],
    info: dict[str, _Info],
    bad: BadRows,
    edition: _Edition,
    split: str | None,
) -> list[_EpicAction]:
    """The rows that can be used; an id stands for one action."""
    actions, places = [], dict[str, str]()
    for row in rows:
        try:
            action = _parse(row, targets, info, edition, split)
            # A uid is one over all videos.
            key = action.id.rpartition("/")[2] if edition.id_column == EPIC_55.id_column else action.id
            earlier = places.setdefault(key, action.where)
            if earlier != action.where:
                own = row.cells[edition.id_column]
                raise AnnotationError(f"{action.where} repeats the {edition.id_column} {own} of {earlier}.")
        except AnnotationError as error:
            bad.add("", error)
            continue
        actions.append(action)
    return actions


def _name_classes(
    edition: _Edition,
    folder: Path,
    target: str,
    rows: list[AnnotationRow],
    actions: list[_EpicAction],
) -> dict[tuple[int, ...], str]:
    """Class key → name, in the order of the data set's own numbers."""
    verbs = {} if target == "noun" else _read_names(folder, *edition.verbs)
    keys = [action.keys[target] for action in actions]
    for action, key in zip(actions, keys, strict=True):
        if verbs and key[0] not in verbs:
            raise AnnotationError(f"{action.where}: verb_class {key[0]} is not in {edition.verbs[0]}.")
    if target == "verb":
        return {(number,): name for number, name in verbs.items()}
    if edition.nouns is not None:
        nouns = _read_names(folder, *edition.nouns)
        for action, key in zip(actions, keys, strict=True):
            if key[-1] not in nouns:
                raise AnnotationError(f"{action.where}: noun_class {key[-1]} is not in {edition.nouns[0]}.")
        if target == "noun":
            return {(number,): name for number, name in nouns.items()}
        return {key: f"{verbs[key[0]]} {nouns[key[1]]}" for key in sorted(set(keys))}
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


def _read_names(folder: Path, file: str, number_column: str, name_column: str) -> dict[int, str]:
    """Number → name of all classes of a file, in the order of the numbers."""
    path = folder / file
    if not path.is_file():
        raise AnnotationError(
            f"{path} does not exist; it names the {'noun' if 'noun' in file else 'verb'} classes. It is part "
            f"of EPIC-KITCHENS' annotations."
        )
    names: dict[int, str] = {}
    for row in read_table(path, (number_column, name_column)):
        number, name = _whole(row, number_column), row.cells[name_column]
        if not name or number in names or name in names.values():
            raise AnnotationError(
                f"{row.where}: {number_column} and {name_column} should name a class once. Received: "
                f"{number}, {name!r}."
            )
        names[number] = name
    return dict(sorted(names.items()))


def _read_info(path: Path, video_column: str) -> dict[str, _Info]:
    infos = {}
    for row in read_table(path, (video_column, "duration", "fps")):
        duration_s, fps = decimal(row.cells["duration"]), decimal(row.cells["fps"])
        if not (0 < duration_s < math.inf and 0 < fps < math.inf):
            raise AnnotationError(
                f"{row.where}: duration and fps should be numbers above 0. "
                f"Received: {row.cells['duration']!r} and {row.cells['fps']!r}."
            )
        infos[row.cells[video_column]] = _Info(duration_s, fps)
    return infos


def _sample(action: _EpicAction, labels: list[str]) -> Sample:
    """Of one label, or of one for each head."""
    return Sample(
        id=action.id,
        video=action.video,
        path="",
        split=action.split,
        label=labels[-1],
        start_s=action.start_s,
        end_s=action.end_s,
        labels=tuple(labels) if len(labels) > 1 else (),
    )


def _footage(name: str, stated: _Info | None, path: Path, info_name: str) -> Footage:
    folder = None
    if path.is_dir():
        if stated is None:
            raise AnnotationError(
                f"{path} is a folder of frames, and {info_name} states no frame rate of {name}. Add it there."
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

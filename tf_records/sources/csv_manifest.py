"""A person's own videos: a CSV with the columns video,start_s,end_s and, if wanted, label,split,fps,offset_s.

A row is an action in a video; its label may be a list, `eat|sit`. An empty label means unlabelled, an empty
split train, empty times the whole video; `fps` and `offset_s` replace the build's clock and distance for one
row. A pattern such as `monday/*.mp4` stands for a row for each file that fits. Paths are relative to the
CSV's folder. Every row is checked before any video is opened.
"""

import dataclasses
import glob
import math
import os
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tf_records.container import Limits
from tf_records.errors import AnnotationError, VideoError
from tf_records.heads import LABELS, Head
from tf_records.manifest import Skipped
from tf_records.schema import MAX_FPS, SPLITS
from tf_records.sources.guards import (
    FileFinder,
    count_twice_labeled,
    describe_aliases,
    first_names,
    holds_control_characters,
)
from tf_records.sources.sample import (
    AnnotationRow,
    Annotations,
    BadRows,
    Footage,
    Sample,
    Segment,
    read_table,
    select_classes,
)
from tf_records.video import probe
from tf_records.video_file import VideoInfo

REQUIRED = ("video", "start_s", "end_s")
OPTIONAL = ("label", "split", "fps", "offset_s")
COLUMNS = (*REQUIRED, "label", "split")
# Between the labels of a row; where any row has several, all rows have a list of them.
SEPARATOR = "|"


_TIME = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


class _CsvAction(NamedTuple):
    """What a row says of one file; without times it is the whole video."""

    where: str
    video: str
    times: tuple[float, float] | None
    label: str | None
    split: str
    fps: float | None
    offset_s: float | None

    @property
    def labels(self) -> tuple[str, ...]:
        """All that the row gives."""
        return () if self.label is None else tuple(self.label.split(SEPARATOR))


def read_csv(
    path: str | Path,
    classes: tuple[str, ...] = (),
    *,
    allow_outside: bool = False,
    skip_bad_rows: bool = False,
    limits: Limits | None = None,
) -> Annotations:
    """Reads and checks `path`; opens each video once, for its length.

    A stretch that several rows give different labels is a sample for each of them, and counted. Where any
    label is a list, such as "eat|sit", a sample has all labels of its row, and each stretch one row.

    Args:
        path: the CSV.
        classes: leave out rows of other classes; unlabelled rows stay.
        allow_outside: accept videos outside the CSV's folder.
        skip_bad_rows: leave out rows that cannot be used, and name them in `skipped`.
        limits: skip videos beyond these; None for the usual ones.

    Returns:
        Samples in the order of the rows. A file that rows call by several names has the first of them.

    Raises:
        AnnotationError: with file and line, for a missing column, or for all bad rows at once: a time that is
            no number, negative, reversed or past the video's end, a missing video or one outside the
            folder, an unlabelled test row, a row that repeats another, or a test label that no training
            row has.
    """
    path = Path(path)
    bad = BadRows(path, skip=skip_bad_rows)
    rows = read_table(path, REQUIRED, OPTIONAL, as_is=("video",), bad=bad)
    actions, aliases = _name_files(path.parent, _parse_rows(rows, path.parent, allow_outside, bad))
    several = any(SEPARATOR in (action.label or "") for action in actions)
    actions = _drop_untrained(_drop_repeats(actions, bad, several), classes, bad)
    bad.refuse()
    skipped: list[Skipped] = []
    infos = _probe_videos(path.parent, [action.video for action in actions], skipped, limits or Limits())
    timed = _drop_repeats(_time_actions(actions, infos, bad), bad, several)
    actions = _drop_untrained(timed, classes, bad)
    bad.refuse()
    names = select_classes({label for action in actions for label in action.labels}, classes)
    samples = _make_samples(actions, path.parent)
    if several:
        samples = [_with_labels(sample, names) for sample in samples]
    kept = [
        sample
        for sample in samples
        if sample.label is None or (sample.labels if several else sample.label in names)
    ]
    twice = count_twice_labeled(kept)
    return Annotations(
        dataset="csv",
        samples=tuple(kept),
        classes=names,
        options={"instances_listed_twice": twice} if twice else {},
        skipped=(*bad.skipped, *skipped),
        segments=tuple(
            Segment(video=a.video, start_s=a.times[0], end_s=a.times[1], split=a.split)
            for a in timed
            if a.times is not None
        ),
        footage={
            video: Footage(path=str(path.parent / video), fps=info.fps, duration_s=info.duration_s)
            for video, info in infos.items()
        },
        notes=(*aliases, *_describe_twice(twice)),
        heads=(Head(name=LABELS, classes=names, several=True),) if several else (),
    )


def _with_labels(sample: Sample, names: tuple[str, ...]) -> Sample:
    """The sample with those of its row's labels that are classes."""
    labels = () if sample.label is None else tuple(sample.label.split(SEPARATOR))
    return dataclasses.replace(sample, labels=tuple(label for label in labels if label in names))


def _parse_rows(
    rows: list[AnnotationRow], folder: Path, allow_outside: bool, bad: BadRows
) -> list[_CsvAction]:
    """An action for each file that a row names, in the order of the rows."""
    actions, finder = [], FileFinder()
    for row in rows:
        try:
            action = _parse(row)
            found = _find_videos(action, folder, allow_outside, finder)
        except AnnotationError as error:
            bad.add(row.cells["video"].strip(), error)
            continue
        actions += [action._replace(video=video) for video in found]
    return actions


def _name_files(folder: Path, actions: list[_CsvAction]) -> tuple[list[_CsvAction], tuple[str, ...]]:
    """The actions with one name for each file, and a note on files that have several.

    A pattern that fits a file by two names stands for it once.
    """
    names = first_names({action.video: folder / action.video for action in actions})
    named = dict.fromkeys(action._replace(video=names[action.video]) for action in actions)
    return list(named), describe_aliases(names)


def _drop_repeats(actions: list[_CsvAction], bad: BadRows, several: bool) -> list[_CsvAction]:
    """The actions without those that repeat an earlier row: the same stretch, label and split.

    Where rows have `several` labels, without those of the same stretch and split.
    """
    first: dict[_CsvAction, str] = {}
    kept = []
    for action in actions:
        stretch = action._replace(where="", label=None if several else action.label)
        earlier = first.setdefault(stretch, action.where)
        if earlier == action.where:
            kept.append(action)
        else:
            advice = f" Put all its labels into one row, with {SEPARATOR} between them." if several else ""
            error = f"{action.where} repeats {earlier}: the same video and times.{advice}"
            bad.add(action.video, AnnotationError(error))
    return kept


def _drop_untrained(actions: list[_CsvAction], classes: tuple[str, ...], bad: BadRows) -> list[_CsvAction]:
    """The actions without those to test of a class that no row trains, be it one of `classes`."""
    trained = {label for action in actions if action.split == "train" for label in action.labels}
    kept = []
    for action in actions:
        wanted = [label for label in action.labels if not classes or label in classes]
        untrained = [label for label in wanted if label not in trained]
        if not untrained:
            kept.append(action)
        else:
            error = (
                f"{action.where}: label {untrained[0]!r} of a {action.split} row has no training row. "
                f"Add one, or leave the class out with --classes."
            )
            bad.add(action.video, AnnotationError(error))
    return kept


def _time_actions(actions: list[_CsvAction], infos: dict[str, VideoInfo], bad: BadRows) -> list[_CsvAction]:
    """The actions in videos that open, each with its times."""
    timed = []
    for action in actions:
        info = infos.get(action.video)
        if info is None:
            continue
        times = action.times or (0.0, info.duration_s)
        if times[1] <= info.duration_s + 1 / info.fps:
            timed.append(action._replace(times=times))
        else:
            error = (
                f"{action.where}: end_s {times[1]} is past the end of {action.video}, which lasts "
                f"{info.duration_s:.3f} s."
            )
            bad.add(action.video, AnnotationError(error))
    return timed


def _make_samples(actions: list[_CsvAction], folder: Path) -> list[Sample]:
    ids = [_identify(action) for action in actions]
    shared = {name for name, count in Counter(ids).items() if count > 1}
    samples = []
    for action, name in zip(actions, ids, strict=True):
        assert action.times is not None
        own = f" {action.label or 'unlabelled'} {action.split}" if name in shared else ""
        samples.append(
            Sample(
                id=f"{name}{own}",
                video=action.video,
                path=str(folder / action.video),
                split=action.split,
                label=action.label,
                start_s=action.times[0],
                end_s=action.times[1],
                fps=action.fps,
                offset_s=action.offset_s,
            )
        )
    return samples


def _identify(action: _CsvAction) -> str:
    assert action.times is not None
    start_s, end_s = action.times
    return (
        f"{action.video}@{start_s}-{end_s}"
        + ("" if action.fps is None else f" at {action.fps} fps")
        + ("" if action.offset_s is None else f" after {action.offset_s} s")
    )


def _describe_twice(twice: dict[str, int]) -> tuple[str, ...]:
    if not twice:
        return ()
    counts = ", ".join(f"{count} in {split}" for split, count in twice.items())
    return (f"Stretches that carry several labels are a sample for each: {counts}.",)


def _parse(row: AnnotationRow) -> _CsvAction:
    where, cells = row
    split, label = cells.get("split") or "train", cells.get("label") or None
    if split not in SPLITS:
        raise AnnotationError(f"{where}: split should be one of {', '.join(SPLITS)}. Received: {split!r}.")
    if label is None and split != "train":
        raise AnnotationError(f"{where}: a {split} row needs a label; only training rows may be unlabelled.")
    if label is not None and len(label.splitlines()) > 1:  # labels.txt of an export has one a line.
        raise AnnotationError(f"{where}: a label should be one line. Received: {label!r}.")
    if label is not None and holds_control_characters(label):
        raise AnnotationError(f"{where}: a label should hold no control characters. Received: {label!r}.")
    if label is not None and SEPARATOR in label:
        label = _check_list(where, label)
    return _CsvAction(
        where=where,
        video=cells["video"].replace(os.sep, "/"),
        times=_times(row),
        label=label,
        split=split,
        fps=_positive(row, "fps", MAX_FPS),
        offset_s=_positive(row, "offset_s", math.inf),
    )


def _check_list(where: str, label: str) -> str:
    """Several labels, each without spaces around it, in one order, so that equal rows are alike."""
    labels = [part.strip() for part in label.split(SEPARATOR)]
    if not all(labels) or len(set(labels)) < len(labels):
        raise AnnotationError(
            f"{where}: labels with {SEPARATOR} between them should be names, each once. Received: {label!r}."
        )
    return SEPARATOR.join(sorted(labels))


def _times(row: AnnotationRow) -> tuple[float, float] | None:
    where, cells = row
    if not cells["start_s"] and not cells["end_s"]:
        return None
    start_s, end_s = _seconds(row, "start_s"), _seconds(row, "end_s")
    if start_s < 0:
        raise AnnotationError(f"{where}: start_s should not be negative. Received: {cells['start_s']}.")
    if end_s <= start_s:
        raise AnnotationError(
            f"{where}: end_s should be later than start_s. Received: {cells['start_s']} to {cells['end_s']}."
        )
    return start_s, end_s


def _find_videos(action: _CsvAction, folder: Path, allow_outside: bool, finder: FileFinder) -> list[str]:
    """The row's video, or all that its pattern fits, relative to the CSV's folder."""
    where, named = action.where, action.video.strip()
    if not allow_outside and (os.path.isabs(named) or os.path.normpath(named).split(os.sep)[0] == ".."):
        raise _outside(where, named, folder)
    file = finder.find(folder, action.video) or finder.find(folder, named)
    if file is not None:
        found = [file]
    elif glob.has_magic(named) and "\0" not in named:
        forms = dict.fromkeys((named, *(unicodedata.normalize(form, named) for form in ("NFC", "NFD"))))
        matches = {name for form in forms for name in glob.glob(form, root_dir=folder, recursive=True)}
        found = sorted(name for name in matches if os.path.isfile(folder / name))
        if not found:
            raise AnnotationError(f"{where}: no file in {folder} fits the pattern {named!r}.")
    else:
        raise AnnotationError(f"{where}: video {named!r} does not exist in {folder}.")
    root = os.path.realpath(folder)
    for video in found:
        if not _is_utf8(video):
            raise AnnotationError(f"{where}: the name of {video!r} is not UTF-8. Rename the file.")
        if holds_control_characters(video):
            raise AnnotationError(
                f"{where}: the name of {video!r} holds control characters. Rename the file."
            )
        inside = os.path.commonpath((root, os.path.realpath(folder / video))) == root
        if not inside and not allow_outside:
            raise _outside(where, video, folder)
    return found


def _is_utf8(name: str) -> bool:
    """Whether a record can hold the name: Python reads other bytes of file names as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _outside(where: str, video: str, folder: Path) -> AnnotationError:
    return AnnotationError(
        f"{where}: video {video!r} lies outside {folder}, the CSV's folder. "
        f"Add --allow-outside if that is meant."
    )


def _probe_videos(
    folder: Path, videos: list[str], skipped: list[Skipped], limits: Limits
) -> dict[str, VideoInfo]:
    """Length and frame rate of each video that opens; the others go to `skipped`."""
    infos: dict[str, VideoInfo] = {}
    for video in dict.fromkeys(videos):
        try:
            infos[video] = probe(folder / video, limits=limits)
        except VideoError as error:
            skipped.append(Skipped(video=video, reason=str(error).replace(str(folder / video), video)))
    return infos


def _seconds(row: AnnotationRow, column: str) -> float:
    value = _number(row.cells[column])
    if not math.isfinite(value):
        raise AnnotationError(
            f"{row.where}: {column} should be a number of seconds. Received: {row.cells[column]!r}."
        )
    return value


def _positive(row: AnnotationRow, column: str, most: float) -> float | None:
    """The cell's number, or None where it is empty or has no column."""
    cell = row.cells.get(column, "")
    if not cell:
        return None
    value = _number(cell)
    if not (0 < value <= most and math.isfinite(value)):
        limit = "" if math.isinf(most) else f", at most {most:g}"
        raise AnnotationError(
            f"{row.where}: {column} should be a number above 0{limit}, or empty. Received: {cell!r}."
        )
    return value


def _number(text: str) -> float:
    """The number that `text` is in ASCII digits, or NaN; Python itself would read 0_1 as 1."""
    return float(text) if _TIME.fullmatch(text) else math.nan

"""A person's own videos: a CSV with the columns video,start_s,end_s and, if wanted, label,split,fps,offset_s.

A row is an action in a video. An empty label means unlabelled, an empty split train, empty times the
whole video; `fps` and `offset_s` replace the build's clock and distance for one row. A pattern such as
`monday/*.mp4` stands for a row for each file that fits. Paths are relative to the CSV's folder. Every
row is checked before any video is decoded.
"""

import glob
import math
import os
from pathlib import Path
from typing import NamedTuple

from tf_records.errors import AnnotationError, VideoError
from tf_records.manifest import Skipped
from tf_records.schema import MAX_FPS, SPLITS
from tf_records.sources.annotation_file import AnnotationRow, read_table
from tf_records.sources.sample import Annotations, Footage, Sample, Segment, select_classes
from tf_records.video import probe
from tf_records.video_file import Limits, VideoInfo

REQUIRED = ("video", "start_s", "end_s")
OPTIONAL = ("label", "split", "fps", "offset_s")
COLUMNS = (*REQUIRED, "label", "split")


class _Action(NamedTuple):
    """What a row says, before its videos are looked at; without times it is the whole video."""

    where: str
    video: str
    times: tuple[float, float] | None
    label: str | None
    split: str
    fps: float | None
    offset_s: float | None


def read_csv(
    path: str | Path,
    classes: tuple[str, ...] = (),
    *,
    allow_outside: bool = False,
    limits: Limits | None = None,
) -> Annotations:
    """Reads and checks `path`; opens each video once, for its length.

    Args:
        path: the CSV.
        classes: leave out rows of other classes; unlabelled rows stay.
        allow_outside: accept videos outside the CSV's folder.
        limits: skip videos beyond these; None for the usual ones.

    Returns:
        Samples in the order of the rows.

    Raises:
        AnnotationError: with file and line, for a missing column, a time that is no number,
            negative, reversed or past the video's end, a missing video or one outside the folder, an
            unlabelled test row, or a test label that no training row has.
    """
    path = Path(path)
    actions = [_parse(row) for row in read_table(path, REQUIRED, OPTIONAL)]
    found = [
        (action, video) for action in actions for video in _find_videos(action, path.parent, allow_outside)
    ]
    skipped: list[Skipped] = []
    infos = _probe_videos(path.parent, [video for _, video in found], skipped, limits or Limits())
    samples = _make_samples(found, infos, path.parent)
    names = select_classes({s.label for _, s in samples if s.label is not None}, classes)
    kept = [(where, s) for where, s in samples if s.label is None or s.label in names]
    _check_trained(kept)
    return Annotations(
        dataset="csv",
        samples=tuple(s for _, s in kept),
        classes=names,
        skipped=tuple(skipped),
        segments=tuple(
            Segment(video=s.video, start_s=s.start_s or 0.0, end_s=s.end_s or 0.0, split=s.split)
            for _, s in samples
        ),
        footage={
            video: Footage(path=str(path.parent / video), fps=info.fps, duration_s=info.duration_s)
            for video, info in infos.items()
        },
    )


def _make_samples(
    found: list[tuple[_Action, str]], infos: dict[str, VideoInfo], folder: Path
) -> list[tuple[str, Sample]]:
    """(file:line, sample) for each action in a video that opens."""
    samples: dict[str, tuple[str, Sample]] = {}
    for action, video in found:
        if video not in infos:
            continue
        sample = _sample(action, video, folder, infos[video])
        if sample.id in samples:
            earlier, _ = samples[sample.id]
            raise AnnotationError(f"{action.where} repeats {earlier}: the same video and times.")
        samples[sample.id] = (action.where, sample)
    return list(samples.values())


def _check_trained(kept: list[tuple[str, Sample]]) -> None:
    trained = {s.label for _, s in kept if s.split == "train"}
    for where, sample in kept:
        if sample.label not in trained:
            raise AnnotationError(
                f"{where}: label {sample.label!r} of a {sample.split} row has no training row. "
                f"Add one, or leave the class out with --classes."
            )


def _parse(row: AnnotationRow) -> _Action:
    where, cells = row
    split, label = cells.get("split") or "train", cells.get("label") or None
    if split not in SPLITS:
        raise AnnotationError(f"{where}: split should be one of {', '.join(SPLITS)}. Received: {split!r}.")
    if label is None and split != "train":
        raise AnnotationError(f"{where}: a {split} row needs a label; only training rows may be unlabelled.")
    if label is not None and len(label.splitlines()) > 1:  # labels.txt of an export has one a line.
        raise AnnotationError(f"{where}: a label should be one line. Received: {label!r}.")
    return _Action(
        where=where,
        video=cells["video"].replace(os.sep, "/"),
        times=_times(row),
        label=label,
        split=split,
        fps=_positive(row, "fps", MAX_FPS),
        offset_s=_positive(row, "offset_s", math.inf),
    )


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


def _find_videos(action: _Action, folder: Path, allow_outside: bool) -> list[str]:
    """The row's video, or all that its pattern fits, relative to the CSV's folder."""
    where, named = action.where, action.video
    if not allow_outside and (os.path.isabs(named) or os.path.normpath(named).split(os.sep)[0] == ".."):
        raise _outside(where, named, folder)
    if os.path.isfile(folder / named):
        found = [named]
    elif glob.has_magic(named) and "\0" not in named:
        matches = glob.glob(named, root_dir=folder, recursive=True)
        found = sorted(name for name in matches if os.path.isfile(folder / name))
        if not found:
            raise AnnotationError(f"{where}: no file in {folder} fits the pattern {named!r}.")
    else:
        raise AnnotationError(f"{where}: video {named!r} does not exist in {folder}.")
    root = os.path.realpath(folder)
    for video in found:
        if not _is_utf8(video):
            raise AnnotationError(f"{where}: the name of {video!r} is not UTF-8. Rename the file.")
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


def _sample(action: _Action, video: str, folder: Path, info: VideoInfo) -> Sample:
    start_s, end_s = action.times or (0.0, info.duration_s)
    if end_s > info.duration_s + 1 / info.fps:
        raise AnnotationError(
            f"{action.where}: end_s {end_s} is past the end of {video}, which lasts {info.duration_s:.3f} s."
        )
    return Sample(
        id=f"{video}@{start_s}-{end_s}"
        + ("" if action.fps is None else f" at {action.fps} fps")
        + ("" if action.offset_s is None else f" after {action.offset_s} s"),
        video=video,
        path=str(folder / video),
        split=action.split,
        label=action.label,
        start_s=start_s,
        end_s=end_s,
        fps=action.fps,
        offset_s=action.offset_s,
    )


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
    try:
        return float(text)
    except ValueError:
        return math.nan

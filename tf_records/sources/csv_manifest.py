"""A person's own videos: a CSV with the columns video,start_s,end_s,label,split.

A row is an action in a video. An empty label means unlabelled; an empty split means train. Paths are
relative to the CSV's folder. Every row is checked before any video is decoded.
"""

import csv
import math
import os
from pathlib import Path

from tf_records.errors import AnnotationError, VideoError
from tf_records.schema import SPLITS, Skipped
from tf_records.sources.sample import Annotations, Sample, select_classes
from tf_records.video import VideoInfo, probe

COLUMNS = ("video", "start_s", "end_s", "label", "split")


def read_csv(path: Path, classes: tuple[str, ...] = ()) -> Annotations:
    """Reads and checks `path`; opens each video once, for its length.

    With `classes`, rows of other classes are left out; unlabelled rows stay.

    Raises:
        AnnotationError: with file and line, for a missing column, a time that is no number,
            negative, reversed or past the video's end, a missing video, an unlabelled test row, or
            a test label that no training row has.
    """
    rows = _read_rows(path)
    skipped: list[Skipped] = []
    infos = _probe_videos(path.parent, rows, skipped)
    samples: dict[str, tuple[str, Sample]] = {}
    for where, row in rows:
        if row["video"] not in infos:
            continue
        sample = _sample(where, row, path.parent, infos[row["video"]])
        if sample.id in samples:
            raise AnnotationError(f"{where} repeats {samples[sample.id][0]}: the same video and times.")
        samples[sample.id] = (where, sample)
    names = select_classes({s.label for _, s in samples.values() if s.label is not None}, classes)
    kept = [(where, s) for where, s in samples.values() if s.label is None or s.label in names]
    trained = {s.label for _, s in kept if s.split == "train"}
    for where, sample in kept:
        if sample.label not in trained:
            raise AnnotationError(
                f"{where}: label {sample.label!r} of a {sample.split} row has no training row. "
                f"Add one, or leave the class out with --classes."
            )
    return Annotations(
        dataset="csv", samples=tuple(s for _, s in kept), classes=names, skipped=tuple(skipped)
    )


def _read_rows(path: Path) -> list[tuple[str, dict[str, str]]]:
    """(file:line, row) for each row, with the columns checked."""
    if not path.is_file():
        raise AnnotationError(f"CSV file {path} does not exist. Its columns should be {','.join(COLUMNS)}.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise AnnotationError(
                    f"{path}:1 lacks the column {', '.join(missing)}. It should have {','.join(COLUMNS)}. "
                    f"Received: {','.join(reader.fieldnames or ['nothing'])}."
                )
            rows = [(f"{path}:{reader.line_num}", _clean(row)) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise AnnotationError(f"{path} is no CSV file in UTF-8: {error}.") from error
    if not rows:
        raise AnnotationError(f"{path} has no rows below its header.")
    return rows


def _clean(row: dict[str, str | None]) -> dict[str, str]:
    cleaned = {column: (row[column] or "").strip() for column in COLUMNS}
    return {**cleaned, "video": cleaned["video"].replace(os.sep, "/")}


def _probe_videos(
    folder: Path, rows: list[tuple[str, dict[str, str]]], skipped: list[Skipped]
) -> dict[str, VideoInfo]:
    """Length and frame rate of each video that opens; the others go to `skipped`."""
    infos: dict[str, VideoInfo] = {}
    failed: set[str] = set()
    for where, row in rows:
        video = row["video"]
        if video in infos or video in failed:
            continue
        if not os.path.isfile(folder / video):
            raise AnnotationError(f"{where}: video {video!r} does not exist in {folder}.")
        try:
            infos[video] = probe(folder / video)
        except VideoError as error:
            failed.add(video)
            skipped.append(Skipped(video=video, reason=str(error).replace(str(folder / video), video)))
    return infos


def _sample(where: str, row: dict[str, str], folder: Path, info: VideoInfo) -> Sample:
    video = row["video"]
    start_s, end_s = _seconds(where, row, "start_s"), _seconds(where, row, "end_s")
    if start_s < 0:
        raise AnnotationError(f"{where}: start_s should not be negative. Received: {row['start_s']}.")
    if end_s <= start_s:
        raise AnnotationError(
            f"{where}: end_s should be later than start_s. Received: {row['start_s']} to {row['end_s']}."
        )
    if end_s > info.duration_s + 1 / info.fps:
        raise AnnotationError(
            f"{where}: end_s {row['end_s']} is past the end of {video}, which lasts {info.duration_s:.3f} s."
        )
    split = row["split"] or "train"
    if split not in SPLITS:
        raise AnnotationError(f"{where}: split should be one of {', '.join(SPLITS)}. Received: {split!r}.")
    if not row["label"] and split != "train":
        raise AnnotationError(f"{where}: a {split} row needs a label; only training rows may be unlabelled.")
    return Sample(
        id=f"{video}@{start_s}-{end_s}",
        video=video,
        path=str(folder / video),
        split=split,
        label=row["label"] or None,
        start_s=start_s,
        end_s=end_s,
    )


def _seconds(where: str, row: dict[str, str], column: str) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise AnnotationError(f"{where}: {column} should be a number of seconds. Received: {row[column]!r}.")
    return value

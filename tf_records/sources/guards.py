"""What would spoil a result without a word: one file under two names, one stretch in two splits, look-alikes.

A video is its content, whatever it is called: `a.mp4`, `./a.mp4`, a link to it, a copy. What keeps test
footage out of training goes by the names in samples, segments and footage, so these have one name a file.
"""

import bisect
import dataclasses
import math
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tf_records.errors import AnnotationError, VideoError
from tf_records.files import hash_file
from tf_records.schema import SPLITS
from tf_records.sources.mining import merge
from tf_records.sources.sample import Annotations, Footage, Sample
from tf_records.video import probe

# Of files under several names, and of actions that end after their video; the manifest counts all of these.
_LISTED = 20
# Overlaps shorter than this are of times that were rounded.
_ROUNDING_S = 1e-6
# Bytes; what is smaller is no video.
_SMALLEST_VIDEO = 1000


class FileFinder:
    """Finds the file that a name means, however the characters of either are composed.

    File systems and spreadsheets differ in whether `é` is one code point or two. A file of exactly the name
    goes first.
    """

    def __init__(self) -> None:
        self._listings: dict[str, dict[str, str]] = {}

    def find(self, folder: str | Path, name: str) -> str | None:
        """The name, relative to `folder`, of the file that `name` means there, or None.

        Args:
            folder: where `name` begins.
            name: relative or absolute, with forward slashes.

        Returns:
            `name`, or the same name as the file system spells it.
        """
        if os.path.isfile(os.path.join(folder, name)):
            return name
        if name.isascii() or "\0" in name:
            return None
        spelled = "/" if name.startswith("/") else ""
        for part in name.split("/"):
            here = os.path.join(folder, spelled)
            if not os.path.exists(os.path.join(here, part)):
                part = self._list(here).get(compose(part), part)
            spelled = os.path.join(spelled, part)
        return spelled if os.path.isfile(os.path.join(folder, spelled)) else None

    def _list(self, folder: str) -> dict[str, str]:
        """Composed name → name of each entry."""
        if folder not in self._listings:
            try:
                entries = sorted(os.listdir(folder), reverse=True)
            except OSError:
                entries = []
            self._listings[folder] = {compose(entry): entry for entry in entries}
        return self._listings[folder]


def compose(name: str) -> str:
    """`name` in the form in which equal texts are equal.

    Args:
        name: of a file or a class.
    """
    return unicodedata.normalize("NFC", name)


def first_names(paths: Mapping[str, str | Path]) -> dict[str, str]:
    """What to call each video, so that each file has one name: the first that it has in `paths`.

    Args:
        paths: name → where it lies; what does not exist is a file of its own.

    Returns:
        Name → the first name of the same file or folder, be it a link, a hard link, another spelling of the
        path, or a copy with the same bytes.
    """
    files = {name: _identify(path) for name, path in paths.items()}
    sizes = Counter(size for _, size in set(files.values()))
    firsts: dict[object, str] = {}
    names = {}
    for name, (file, size) in files.items():
        # Only files of one size can be copies; what is too small to be a video is not read.
        may_be_copy = size >= _SMALLEST_VIDEO and sizes[size] > 1
        content = hash_file(Path(paths[name])) if may_be_copy and file not in firsts else None
        first = firsts.setdefault(file, name if content is None else firsts.setdefault(content, name))
        names[name] = first
    return names


def _identify(path: str | Path) -> tuple[object, int]:
    """What a file or folder is known by, and a file's bytes; 0 of others."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return os.fspath(path), 0
    # Some network file systems number no files.
    file = (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)
    return file, status.st_size if stat.S_ISREG(status.st_mode) else 0


def describe_aliases(names: Mapping[str, str]) -> tuple[str, ...]:
    """A note on files that have several names, if any has.

    Args:
        names: as `first_names` returns them.

    Returns:
        No line, or one.
    """
    groups: dict[str, list[str]] = {}
    for name, first in names.items():
        if name != first:
            groups.setdefault(first, []).append(name)
    if not groups:
        return ()
    listed = [f"{first} is also {', '.join(others[:_LISTED])}" for first, others in groups.items()]
    more = " …" if len(listed) > _LISTED else ""
    return (f"One video under several names: {'; '.join(listed[:_LISTED])}{more}.",)


def unify_videos(annotations: Annotations) -> Annotations:
    """Calls each file by one name in samples, segments and footage.

    Args:
        annotations: samples with paths.

    Returns:
        The same samples in the same order, with a note where a file had several names.
    """
    paths = {sample.video: sample.path for sample in annotations.samples if sample.path}
    names = first_names(paths)
    aliases = describe_aliases(names)
    if not aliases:
        return annotations
    return dataclasses.replace(
        annotations,
        samples=tuple(dataclasses.replace(s, video=names.get(s.video, s.video)) for s in annotations.samples),
        segments=tuple(
            dataclasses.replace(s, video=names.get(s.video, s.video)) for s in annotations.segments
        ),
        footage={name: known for name, known in annotations.footage.items() if names.get(name, name) == name},
        notes=(*annotations.notes, *aliases),
    )


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

    Where none is there, all samples are kept for counting, unless videos are needed. Actions that end
    after their video stay, and are counted and named.

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
    placed = dataclasses.replace(
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
    return _count_past_end(placed, _probe_lengths(there, usable)) if there else placed


def _probe_lengths(names: Iterable[str], footage: Mapping[str, Footage]) -> dict[str, tuple[float, float]]:
    """Video → its length and that of a frame, in seconds; without those that do not open."""
    lengths = {}
    for name in names:
        try:
            info = probe(footage[name].path, footage[name].folder)
        except VideoError:  # The build skips it, and says why.
            continue
        lengths[name] = info.duration_s, 1 / info.fps
    return lengths


def _count_past_end(annotations: Annotations, lengths: Mapping[str, tuple[float, float]]) -> Annotations:
    counts: dict[str, int] = {}
    lines = []
    ends = dict(annotations.footage)
    for sample in annotations.samples:
        length_s, frame_s = lengths.get(sample.video, (float("inf"), 0.0))
        if sample.end_s is not None and sample.end_s > length_s + frame_s:
            counts[sample.split] = counts.get(sample.split, 0) + 1
            lines.append(f"{sample.video} {sample.start_s:g} to {sample.end_s:g} of {length_s:.2f} s")
            ends[sample.video] = dataclasses.replace(ends[sample.video], duration_s=length_s)
    if not counts:
        return annotations
    listed = "; ".join(lines[:_LISTED]) + (" …" if len(lines) > _LISTED else "")
    return dataclasses.replace(
        annotations,
        options={**annotations.options, "past_the_end": dict(sorted(counts.items()))},
        footage=ends,
        notes=(
            *annotations.notes,
            f"{len(lines)} actions end after their video, and are cut at its end: {listed}.",
        ),
    )


def guard(annotations: Annotations) -> Annotations:
    """Finds stretches that two splits share, and classes that are told apart by hardly anything.

    Args:
        annotations: what a source read, with one name a file.

    Returns:
        The annotations with `overlaps`, and notes on such classes.

    Raises:
        AnnotationError: a class or a video's name holds control characters.
    """
    for what, names in (("class", annotations.classes), ("video", (s.video for s in annotations.samples))):
        for name in names:
            if holds_control_characters(name):
                raise AnnotationError(f"The name of a {what} should hold no control characters: {name!r}.")
    overlaps = find_overlaps(annotations.samples)
    options = annotations.options
    if overlaps:
        options = {**options, "stretches_in_two_splits": len(overlaps)}
    return dataclasses.replace(
        annotations,
        overlaps=overlaps,
        options=options,
        notes=(*annotations.notes, *map(_describe_alike, find_alike(annotations.classes))),
    )


def holds_control_characters(text: str) -> bool:
    """Whether a terminal could take something in `text` for a command, such as an escape sequence.

    Args:
        text: a name or a label.
    """
    return any(unicodedata.category(character) == "Cc" for character in text)


def find_overlaps(samples: Iterable[Sample]) -> tuple[str, ...]:
    """Stretches of video that are in two splits.

    Args:
        samples: with one name a file; an action without times is its whole video.

    Returns:
        A line for each sample of val or test that shares time with one of an earlier split, such as
        "a.mp4 1 to 2 s is in train and in test".
    """
    videos: dict[str, dict[str, list[Sample]]] = {}
    for sample in samples:
        videos.setdefault(sample.video, {}).setdefault(sample.split, []).append(sample)
    lines = []
    for video, splits in videos.items():
        for number, split in enumerate(SPLITS):
            for earlier in SPLITS[:number]:
                taken = merge(_stretch(sample) for sample in splits.get(earlier, ()))
                lines += [
                    f"{video}{_describe_times(sample)} is in {earlier} and in {split}"
                    for sample in splits.get(split, ())
                    if _meets(_stretch(sample), taken)
                ]
    return tuple(dict.fromkeys(lines))


def _stretch(sample: Sample) -> tuple[float, float]:
    if sample.start_s is None or sample.end_s is None:
        return 0.0, math.inf
    return sample.start_s, sample.end_s


def _meets(stretch: tuple[float, float], taken: Sequence[tuple[float, float]]) -> bool:
    """Whether `stretch` shares time with one of `taken`, which are in order and apart from one another."""
    start, stop = stretch
    place = bisect.bisect_left(taken, (stop - _ROUNDING_S,))
    return place > 0 and taken[place - 1][1] > start + _ROUNDING_S


def _describe_times(sample: Sample) -> str:
    return "" if sample.start_s is None else f" {sample.start_s:g} to {sample.end_s:g} s"


def count_twice_labeled(samples: Iterable[Sample]) -> dict[str, int]:
    """Split → stretches that carry several labels.

    Args:
        samples: with one name a file.
    """
    labels: dict[tuple[str, float | None, float | None, str], set[str]] = {}
    for sample in samples:
        key = sample.video, sample.start_s, sample.end_s, sample.split
        if sample.label is not None:
            labels.setdefault(key, set()).add(sample.label)
    counts = Counter(key[-1] for key, own in labels.items() if len(own) > 1)
    return dict(sorted(counts.items()))


def find_alike(names: Iterable[str]) -> list[list[str]]:
    """Groups of names that differ in case, spaces, invisible or composed characters alone.

    Args:
        names: of classes.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(" ".join(_visible(name).casefold().split()), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _visible(name: str) -> str:
    """Composed, and without characters of no width."""
    composed = unicodedata.normalize("NFKC", name)
    return "".join(character for character in composed if unicodedata.category(character) != "Cf")


def _describe_alike(names: Sequence[str]) -> str:
    differ = len({_visible(name) for name in names}) == len(names)
    shown = ", ".join(repr(name) if differ else ascii(name) for name in names)
    return f"Classes that look alike are kept apart: {shown}. If they are one, give them one name."

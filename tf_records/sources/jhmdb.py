"""JHMDB: a folder a class of .avi files, and splits/CLASS_test_splitN.txt.

928 clips of 21 actions, each an action from its first frame to its last. The protocol (§4.1) shows the
anticipation network the first 20 % of a test video. Layout and line format are the official ones: a
line of a split file is `NAME.avi 1` (training) or `NAME.avi 2` (test).
"""

import re
from pathlib import Path

import numpy as np

from tf_records.errors import AnnotationError
from tf_records.sources.guards import FileFinder, compose
from tf_records.sources.sample import Annotations, Sample, read_text, select_classes

OBSERVED_FRACTION = 0.2
# Clips of HMDB51, of which JHMDB's are, by their names: of one video, NAME_0.avi, NAME_1.avi and so on, where
# NAME ends in what is seen: visible body, camera motion, number of people, viewpoint, quality.
_CLIP = re.compile(r"(_[fhul]_(?:cm|nm)_np\d+_(?:fr|ba|le|ri)_(?:bad|med|goo))_\d+\.avi$")
_SPLIT_OF_MARK = {"1": "train", "2": "test"}


def read_jhmdb(root: str | Path, split: int = 1, classes: tuple[str, ...] = ()) -> Annotations:
    """Reads the split files under `root` and finds the videos they list.

    A partial copy is normal: classes without a folder and listed videos without a file are counted
    and named under `absent`.

    Args:
        root: folder that holds the class folders and `splits`.
        split: 1, 2 or 3.
        classes: leave out the other classes; empty for all.

    Returns:
        Samples class by class, in the order of the split files; an action is its whole video.

    Raises:
        AnnotationError: no split files, a line that is not `NAME.avi 1|2`, or no video at all.
    """
    root = Path(root)
    suffix = f"_test_split{split}.txt"
    lists = sorted((root / "splits").glob(f"*{suffix}"))
    if not lists:
        raise AnnotationError(
            f"Found no splits/*{suffix} under {root}. Give the folder that holds JHMDB's class folders "
            f"and `splits`, and a split of 1, 2 or 3."
        )
    listed = {path.name.removesuffix(suffix): path for path in lists}
    folders = {compose(path.name) for path in root.iterdir() if path.is_dir()}
    present = {name for name in listed if compose(name) in folders}
    finder = FileFinder()
    samples: list[Sample] = []
    absent_videos: list[str] = []
    wanted = select_classes(present, classes)
    for name in wanted:
        for video, part in _read_split_file(listed[name]):
            file = finder.find(root, f"{name}/{video}")
            if file is None:
                absent_videos.append(f"{name}/{video}")
                continue
            samples.append(_sample(f"{name}/{video}", root / file, part, name))
    if not samples:
        raise AnnotationError(f"None of the videos that {root / 'splits'} lists is under {root}.")
    return Annotations(
        dataset="jhmdb",
        samples=tuple(samples),
        classes=wanted,
        options={"split": split, "observed_fraction": OBSERVED_FRACTION},
        absent={"classes": sorted(set(listed) - present), "videos": absent_videos},
    )


def source_videos(names: np.ndarray) -> np.ndarray:
    """The videos that clips were cut from, where their names say so, as HMDB51's do; other names stay.

    Clips of one video show one place and one person: they are no independent samples, and the official splits
    keep them together. JHMDB's 928 clips are of 571 videos.

    Args:
        names: of the clips' files, str or bytes `(N,)`.

    Returns:
        str `(N,)`.

    Source: Kuehne et al. 2011, HMDB, §3.
    """
    different, places = np.unique(np.asarray(names), return_inverse=True)
    texts = [name.decode() if isinstance(name, bytes) else str(name) for name in different.tolist()]
    sources = np.array([_CLIP.sub(r"\1", text) for text in texts], dtype=str)
    found: np.ndarray = sources[places]
    return found


def _sample(video: str, path: Path, split: str, label: str) -> Sample:
    return Sample(
        id=video.removesuffix(".avi"),
        video=video,
        path=str(path),
        split=split,
        label=label,
        observed_fraction=OBSERVED_FRACTION if split == "test" else None,
    )


def _read_split_file(path: Path) -> list[tuple[str, str]]:
    """(file name, "train" or "test") for each line; other marks (0, unused) are left out."""
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        video, _, mark = line.strip().rpartition(" ")
        if not video or mark not in ("0", *_SPLIT_OF_MARK):
            raise AnnotationError(
                f"{path}:{number} should read `NAME.avi 1` or `NAME.avi 2`. Received: {line!r}."
            )
        if mark in _SPLIT_OF_MARK:
            rows.append((video, _SPLIT_OF_MARK[mark]))
    return rows

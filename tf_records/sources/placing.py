"""Which of the videos that annotations name are on this machine, and where."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from tf_records.errors import AnnotationError
from tf_records.sources.sample import Annotations, Footage


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

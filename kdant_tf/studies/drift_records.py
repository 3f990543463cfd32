"""The drift study's videos and records. No TensorFlow here."""

import dataclasses
import json
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from kdant_tf.studies.drift import STUDY, drift_name
from kdant_tf.studies.hardware import count_cores
from tf_records.errors import KdantError
from tf_records.manifest import MANIFEST_NAME
from tf_records.plan import BuildOptions
from tf_records.schema import ClipSpec
from tf_records.sources.synthetic import HEIGHT, OFFSET_FRAMES, SPEC_NAME, SyntheticSpec, read_synthetic
from tf_records.writer import build_records

# Chosen so that `none` is far from 100 % and from chance; CONTRIBUTING says how.
VIDEOS: Mapping[str, SyntheticSpec] = types.MappingProxyType(
    {
        STUDY: SyntheticSpec(train=80, unlabeled=240, test=2000, hint=0.2),
        "tiny": SyntheticSpec(train=4, unlabeled=4, test=8),
    }
)


def prepare_records(
    study_folder: Path,
    drifts: Sequence[float],
    scale: str,
    *,
    build: bool = True,
    report: Callable[[str], None] = lambda line: None,
) -> dict[float, Path]:
    """Renders the videos of each drift and builds their records, where that has not been done.

    Args:
        study_folder: of the study; holds "videos" and "records".
        drifts: each from 0 to MAX_DRIFT.
        scale: a key of VIDEOS.
        build: False only says where records should lie.
        report: told in a line what takes long.

    Returns:
        drift → its record folder.

    Raises:
        KdantError: there are videos of another study, or records that cannot be built.
    """
    folders = {}
    for number, drift in enumerate(drifts):
        videos = study_folder / "videos" / drift_name(drift)
        folders[drift] = study_folder / "records" / drift_name(drift)
        spec = dataclasses.replace(VIDEOS[scale], drift=drift)
        _check_videos(videos, spec)
        if build and not (folders[drift] / MANIFEST_NAME).is_file():
            count = spec.train + spec.unlabeled + spec.test
            report(f"Rendering {count} videos of drift {drift:g} ({number + 1} of {len(drifts)}).")
            _build(videos, folders[drift], spec)
    return folders


def _check_videos(videos: Path, spec: SyntheticSpec) -> None:
    path = videos / SPEC_NAME
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != dataclasses.asdict(spec):
        raise KdantError(
            f"The videos in {videos} are not those of this study, as its scale was another. Give the same "
            f"--scale as then, or another --out."
        )


def _build(videos: Path, records: Path, spec: SyntheticSpec) -> None:
    annotations = read_synthetic(videos, spec)
    clip = ClipSpec(clip_frames=8, offset_frames=OFFSET_FRAMES)
    records.parent.mkdir(exist_ok=True)
    options = BuildOptions(clip=clip, short_side=HEIGHT)
    build_records(annotations, records, options, workers=count_cores(), resume=True)

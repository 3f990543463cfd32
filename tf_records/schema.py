"""What a record and a record folder are: keys, ClipSpec, Manifest, format version. No TensorFlow.

One `tf.train.SequenceExample` holds one pair of segments on one clock, with keys in the manner of
MediaSequence, so that other readers understand them.
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from tf_records.errors import RecordError

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
UNLABELED = -1

CLIP_ID = "clip/id"
CLIP_VIDEO = "clip/video"
CLIP_OFFSET_FRAMES = "clip/offset_frames"
LABEL_INDEX = "clip/label/index"
LABEL_STRING = "clip/label/string"
OBSERVED_START_S = "observed/start_s"
FUTURE_START_S = "future/start_s"
FRAME_RATE = "image/frame_rate"
IMAGE_HEIGHT = "image/height"
IMAGE_WIDTH = "image/width"
IMAGE_CHANNELS = "image/channels"
OBSERVED_IMAGES = "observed/image/encoded"
FUTURE_IMAGES = "future/image/encoded"

OBSERVED = "observed"
FUTURE = "future"
EITHER = "either"
VIEW_IMAGES = {OBSERVED: OBSERVED_IMAGES, FUTURE: FUTURE_IMAGES}
SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClipSpec:
    """Length of a clip and distance between the first frames of the two clips of a pair.

    Args:
        clip_frames: int >= 1, frames in each clip (JHMDB: 8, §4.2).
        offset_frames: int >= 1, first frame of the future clip minus first frame of the observed
            clip (JHMDB: the paper's tau = 15 frames, §4.2).
    """

    clip_frames: int = 8
    offset_frames: int = 15

    def __post_init__(self) -> None:
        for name in ("clip_frames", "offset_frames"):
            value = getattr(self, name)
            if value < 1:
                raise RecordError(f"`{name}` should be at least 1. Received: {value}.")

    @property
    def gap_frames(self) -> int:
        """Frames between the end of the observed clip and the start of the future one."""
        return self.offset_frames - self.clip_frames


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShardInfo:
    """One shard as the manifest describes it; `bytes` and `sha256` are of the file."""

    file: str
    records: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SplitInfo:
    """One split: what it holds, and its shards in order.

    `shortened_offset` counts samples whose video was too short for the offset, `repeated` those
    with a segment shorter than a clip, which readers repeat in time order.
    """

    labeled: int
    unlabeled: int
    shortened_offset: int
    repeated: int
    shards: tuple[ShardInfo, ...]

    @property
    def records(self) -> int:
        return self.labeled + self.unlabeled


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """An input that gave no record, and why."""

    video: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Description of a record folder, written last: a folder without it is not a data set.

    Args:
        dataset: name of the source.
        clip: the ClipSpec the pairs were cut for.
        classes: class names; a label index is a position in this tuple.
        splits: split name to SplitInfo.
        options: settings of the source, such as JHMDB's split number.
        fps: frames per second if all videos agree, else None.
        short_side: pixels of the shorter side of the stored frames.
        jpeg_quality: of the stored frames.
        plan_sha256: of everything that decided the records but the videos' own bytes.
        skipped: inputs that could not be used.
        absent: names listed by the annotations without a file, such as {"classes": [...]}.
    """

    dataset: str
    clip: ClipSpec
    classes: tuple[str, ...]
    splits: dict[str, SplitInfo]
    options: dict[str, Any]
    fps: float | None
    short_side: int
    jpeg_quality: int
    plan_sha256: str
    skipped: tuple[Skipped, ...] = ()
    absent: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    modality: str = "rgb"
    flow_algorithm: str | None = None
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Inverse of `to_json`. Raises what `load_manifest` catches on other text."""
        fields = json.loads(text)
        if fields["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format version {fields['format_version']}, this kdant reads {FORMAT_VERSION}")
        splits = {
            name: SplitInfo(**{**split, "shards": tuple(ShardInfo(**shard) for shard in split["shards"])})
            for name, split in fields["splits"].items()
        }
        return cls(
            **{
                **fields,
                "clip": ClipSpec(**fields["clip"]),
                "classes": tuple(fields["classes"]),
                "splits": splits,
                "skipped": tuple(Skipped(**skipped) for skipped in fields["skipped"]),
            }
        )

    def summary(self) -> dict[str, Any]:
        """What `build-records --json` and `inspect --json` print."""
        splits = {
            name: {
                "labeled": split.labeled,
                "unlabeled": split.unlabeled,
                "shards": len(split.shards),
                "bytes": sum(shard.bytes for shard in split.shards),
            }
            for name, split in self.splits.items()
        }
        return {
            "splits": splits,
            "classes": list(self.classes),
            "skipped": [dataclasses.asdict(skipped) for skipped in self.skipped],
        }


def load_manifest(folder: str | os.PathLike[str]) -> Manifest:
    """Reads `folder`/manifest.json.

    Raises:
        RecordError: no such folder, no manifest in it, or one that this version cannot read.
    """
    path = Path(folder) / MANIFEST_NAME
    if not Path(folder).is_dir():
        raise RecordError(f"Record folder {folder} does not exist. Build it first: kdant build-records.")
    if not path.is_file():
        raise RecordError(
            f"Folder {folder} has no {MANIFEST_NAME}, so it is no finished record folder. "
            f"Build it, or finish it: kdant build-records … --out {folder} --resume."
        )
    try:
        return Manifest.from_json(path.read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError, AttributeError, RecordError) as error:
        raise RecordError(f"{path} cannot be read: {error}. Rebuild it with --overwrite.") from error

"""What a record folder is, by its manifest: shards, splits, how the records were made. No TensorFlow."""

import dataclasses
import json
import math
import os
from collections import Counter
from collections.abc import Iterable
from typing import Any

from tf_records.errors import RecordError
from tf_records.files import hash_file, is_sealed, seal
from tf_records.heads import Heads, heads_from
from tf_records.remote_path import RecordPath, RemotePath, record_path
from tf_records.schema import MODALITIES, RGB, ClipSpec, FeatureInfo, FlowInfo

# 2: the manifest carries a checksum of itself, and counts classes and seconds. 3: times count from the start
# of the file, before from the first frame of its video.
FORMAT_VERSION = 3
# Of records with heads, whose labels an earlier kdant would look for elsewhere.
HEADS_FORMAT_VERSION = 4
_READABLE_VERSIONS = (2, 3, 4)
MANIFEST_NAME = "manifest.json"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShardInfo:
    """One shard as the manifest describes it; `bytes` and `sha256` are of the file.

    `classes` counts the labelled records of each class that occurs, in index order; `seconds` is the
    length of all segments, observed and future ones. Where records have heads, `classes` counts columns, and
    `labeled_records` the records that any of them is of.
    """

    file: str
    records: int
    bytes: int
    sha256: str
    classes: dict[str, int]
    seconds: float
    labeled_records: int | None = None

    @property
    def labeled(self) -> int:
        return sum(self.classes.values()) if self.labeled_records is None else self.labeled_records


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

    @classmethod
    def of(cls, shards: Iterable[ShardInfo], *, shortened_offset: int = 0, repeated: int = 0) -> "SplitInfo":
        """A split of these shards."""
        shards = tuple(shards)
        labeled = sum(shard.labeled for shard in shards)
        return cls(
            labeled=labeled,
            unlabeled=sum(shard.records for shard in shards) - labeled,
            shortened_offset=shortened_offset,
            repeated=repeated,
            shards=shards,
        )

    @property
    def records(self) -> int:
        return self.labeled + self.unlabeled

    @property
    def seconds(self) -> float:
        return round(math.fsum(shard.seconds for shard in self.shards), 3)

    def count_classes(self, classes: tuple[str, ...]) -> dict[str, int]:
        """Labelled samples of each of `classes` that occurs, in their order."""
        counts: Counter[str] = Counter()
        for shard in self.shards:
            counts.update(shard.classes)
        return {name: counts[name] for name in classes if counts[name]}


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
        options: settings of the source, such as JHMDB's split number, and what was drawn or kept of it.
        fps: frames per second of the recorded frames if all records agree, else None.
        short_side: pixels of the shorter side of the stored frames.
        jpeg_quality: of the stored frames.
        resize: library and filter that gave the frames their size; records of before have Pillow's.
        plan_sha256: of everything that decided the records but the videos' own bytes.
        skipped: inputs that could not be used.
        damaged_frames: video → frames in the records that FFmpeg flags as corrupt, and those after such a
            frame up to the next key frame, which are predicted from it.
        guessed_fps: video → frames per second, where it states none.
        open_ended: videos that do not say where they end, so that a cut copy would not be noticed.
        absent: names listed by the annotations without a file, such as {"classes": [...]}.
        modality: one of MODALITIES.
        flow: how the flow was computed, where there is any.
        features: where the records hold features in place of frames.
        longest_anticipation_s: seconds before the action from which on the observed segments of val and
            test hold clips, up to its start; None where they hold the protocol's clip alone.
        heads: where a record has a label for each of several, or several labels; `classes` are their columns.
        times_s: the anticipation times of the training pairs, where they have several.
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
    damaged_frames: dict[str, int] = dataclasses.field(default_factory=dict)
    guessed_fps: dict[str, float] = dataclasses.field(default_factory=dict)
    open_ended: tuple[str, ...] = ()
    absent: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    resize: str = "pillow bilinear"
    modality: str = RGB
    flow: FlowInfo | None = None
    features: FeatureInfo | None = None
    longest_anticipation_s: float | None = None
    heads: Heads = ()
    times_s: tuple[float, ...] = ()
    format_version: int = FORMAT_VERSION

    @property
    def modalities(self) -> tuple[str, ...]:
        """What can be read: RGB first, where there is both."""
        return tuple(self.modality.split(","))

    @property
    def shards(self) -> tuple[ShardInfo, ...]:
        """Of all splits."""
        return tuple(shard for split in self.splits.values() for shard in split.shards)

    def to_json(self) -> str:
        """JSON that carries a checksum of itself, see `seal`."""
        fields = dataclasses.asdict(self)
        if not self.heads:  # As it was before there were any.
            del fields["heads"]
        if not self.times_s:
            del fields["times_s"]
        for split in fields["splits"].values():
            for shard in split["shards"]:
                if shard["labeled_records"] is None:
                    del shard["labeled_records"]
        return seal(json.dumps(fields, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Inverse of `to_json`. Raises what `load_manifest` catches on other text."""
        fields = json.loads(text)
        if fields["format_version"] not in _READABLE_VERSIONS:
            known = "{}, {} and {}".format(*_READABLE_VERSIONS)
            raise ValueError(f"format version {fields['format_version']}, this kdant reads {known}")
        if not is_sealed(text.encode()):
            raise ValueError("it does not agree with its own checksum, so it was damaged or edited")
        del fields["sha256"]
        splits = {
            name: SplitInfo(**{**split, "shards": tuple(ShardInfo(**shard) for shard in split["shards"])})
            for name, split in fields["splits"].items()
        }
        if fields["modality"] not in MODALITIES:
            raise ValueError(f"modality {fields['modality']!r} is none of {' | '.join(MODALITIES)}")
        flow = fields.get("flow")
        if flow is not None:
            fields["flow"] = FlowInfo(**flow)
        features = fields.get("features")
        if features is not None:
            fields["features"] = FeatureInfo.from_dict(features)
        return cls(
            **{
                **fields,
                "clip": ClipSpec(**fields["clip"]),
                "classes": tuple(fields["classes"]),
                "splits": splits,
                "skipped": tuple(Skipped(**skipped) for skipped in fields["skipped"]),
                "open_ended": tuple(fields.get("open_ended", ())),
                "heads": heads_from(fields.get("heads")),
                "times_s": tuple(fields.get("times_s", ())),
            }
        )

    def summary(self) -> dict[str, Any]:
        """What `build-records --json` and `inspect --json` print."""
        splits = {
            name: {
                "samples": split.records,
                "labeled": split.labeled,
                "unlabeled": split.unlabeled,
                "shards": len(split.shards),
                "seconds": split.seconds,
                "bytes": sum(shard.bytes for shard in split.shards),
                "classes": split.count_classes(self.classes),
            }
            for name, split in self.splits.items()
        }
        return {
            "dataset": self.dataset,
            "clip": dataclasses.asdict(self.clip),
            "fps": self.fps,
            "short_side": self.short_side,
            "splits": splits,
            "classes": list(self.classes),
            **({"heads": [dataclasses.asdict(head) for head in self.heads]} if self.heads else {}),
            **({"times_s": list(self.times_s)} if self.times_s else {}),
            "modality": self.modality,
            "flow": None if self.flow is None else dataclasses.asdict(self.flow),
            "features": None if self.features is None else dataclasses.asdict(self.features),
            "longest_anticipation_s": self.longest_anticipation_s,
            "skipped": [dataclasses.asdict(skipped) for skipped in self.skipped],
            "damaged_frames": self.damaged_frames,
            "guessed_fps": self.guessed_fps,
            "open_ended": list(self.open_ended),
        }


def load_manifest(folder: str | os.PathLike[str]) -> Manifest:
    """Reads `folder`/manifest.json.

    Raises:
        RecordError: no such folder, no manifest in it, or one that this version cannot read.
    """
    records = record_path(folder)
    path = records / MANIFEST_NAME
    if isinstance(records, RemotePath):
        records.check_store()
    if not records.is_dir():
        raise RecordError(f"Record folder {folder} does not exist. Build it first: kdant build-records.")
    if not path.is_file():
        raise RecordError(
            f"Folder {folder} has no {MANIFEST_NAME}, so it is no finished record folder. "
            f"Build it, or finish it: kdant build-records … --out {folder} --resume."
        )
    try:
        # Not read_text, which would take a damaged line break for another kind of line break.
        return Manifest.from_json(path.read_bytes().decode("utf-8"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, RecordError) as error:
        raise RecordError(f"{path} cannot be read: {error}. Rebuild it with --overwrite.") from error


def find_size_fault(folder: RecordPath, shard: ShardInfo) -> str | None:
    """What is wrong with a shard's presence or size, or None."""
    path = folder / shard.file
    if not path.is_file():
        return "is missing"
    if (size := path.stat().st_size) != shard.bytes:
        return f"has {size} bytes, the manifest says {shard.bytes}"
    return None


def find_file_fault(folder: RecordPath, shard: ShardInfo) -> str | None:
    """What is wrong with a shard's presence, size or bytes, or None. Reads the whole file."""
    if fault := find_size_fault(folder, shard):
        return fault
    try:
        digest = hash_file(folder / shard.file)
    except OSError as error:  # as from a failing disk
        return f"cannot be read: {error.strerror or error}"
    if digest != shard.sha256:
        return f"is not what the manifest describes (sha256 {digest[:12]}…, expected {shard.sha256[:12]}…)"
    return None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """What is wrong with a shard, or with one record of it, counted from 0."""

    shard: str
    reason: str
    record: int | None = None

    def __str__(self) -> str:
        record = "" if self.record is None else f", record {self.record}"
        return f"{self.shard}{record}: {self.reason}"

"""One planned shard to one TFRecord file, with a note of what it holds, so that a killed build resumes.

A video that several samples of the shard show is opened once, and none of its frames decoded twice.
"""

import dataclasses
import json
import math
import os
from collections import Counter

from tf_records.encode import Segments, read_samples, to_example
from tf_records.errors import KdantError, VideoError
from tf_records.files import atomic_path, hash_file, write_text_atomically
from tf_records.manifest import ShardInfo, Skipped
from tf_records.pairing import Pair
from tf_records.plan import ShardTask
from tf_records.record_file import OrderedRecords, RecordFile
from tf_records.remote_path import RecordPath
from tf_records.sources.sample import Sample
from tf_records.video import open_video

# Beside the shards until the manifest is there.
PROGRESS_FOLDER = ".progress"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShardResult:
    """What a finished shard holds, as the manifest needs it, and what it took."""

    split: str
    shard: ShardInfo
    shortened_offset: int
    repeated: int
    fps: tuple[float, ...]
    skipped: tuple[Skipped, ...]
    videos: int
    frames_decoded: int


def write_shard(task: ShardTask, out: RecordPath) -> ShardResult:
    """Writes one shard into `out`, or returns the result of an earlier run that finished it.

    Raises:
        KdantError: a video has vanished.
        OSError: the shard cannot be written.
    """
    earlier = read_note(task, out)
    if earlier is not None and hash_file(out / task.file) == earlier.shard.sha256:
        return earlier
    with atomic_path(out / task.file) as temporary, temporary.open("wb") as file:
        records = RecordFile(file)
        with OrderedRecords(records, temporary.parent) as ordered:
            writing = _ShardWriting(task, ordered)
            for samples in _group_by_video(task.samples):
                writing.add_video(samples)
    result = writing.result(records)
    note_text = json.dumps({"task": task.digest(), "result": dataclasses.asdict(result)})
    write_text_atomically(_note(task, out), note_text)
    return result


def read_note(task: ShardTask, out: RecordPath) -> ShardResult | None:
    """What `write_shard` noted of this very task, if its shard is there."""
    note = _note(task, out)
    if not note.exists() or not (out / task.file).exists():
        return None
    noted = json.loads(note.read_text(encoding="utf-8"))
    if noted["task"] != task.digest():
        return None
    fields = noted["result"]
    return ShardResult(
        **{
            **fields,
            "shard": ShardInfo(**fields["shard"]),
            "fps": tuple(fields["fps"]),
            "skipped": tuple(Skipped(**skipped) for skipped in fields["skipped"]),
        }
    )


def _note(task: ShardTask, out: RecordPath) -> RecordPath:
    return out / PROGRESS_FOLDER / f"{task.file}.json"


class _ShardWriting:
    """Takes in one video after the other, and remembers what became of the samples."""

    def __init__(self, task: ShardTask, ordered: OrderedRecords) -> None:
        self._task = task
        self._ordered = ordered
        self._numbers = {sample.id: number for number, sample in enumerate(task.samples)}
        self._kept: list[tuple[Sample, Pair, float]] = []
        self._lengths_s: list[float] = []
        self._skipped: dict[int, Skipped] = {}
        self._frames_decoded = 0

    def add_video(self, samples: list[Sample]) -> None:
        """Reads all samples of one video."""
        path, options = samples[0].path, self._task.options
        try:
            with open_video(
                path, samples[0].folder, short_side=options.short_side, limits=options.limits
            ) as video:
                for sample, outcome in read_samples(video, samples, options):
                    self._add(sample, outcome)
                self._frames_decoded += video.frames_decoded
        except VideoError as error:  # it does not open
            for sample in samples:
                self._add(sample, error)

    def _add(self, sample: Sample, outcome: Segments | VideoError) -> None:
        number = self._numbers[sample.id]
        if isinstance(outcome, Segments):
            self._ordered.add(number, to_example(sample, outcome, self._task.classes))
            self._kept.append((sample, outcome.pair, outcome.fps))
            self._lengths_s.append(outcome.seconds)
            return
        if not os.path.exists(sample.path):
            raise KdantError(
                f"{sample.path} has vanished since its annotations were read. The finished shards are kept: "
                f"bring the videos back and go on with the same command and --resume."
            ) from outcome
        self._ordered.add(number, [])
        reason = str(outcome).replace(sample.path, sample.video)
        self._skipped[number] = Skipped(video=sample.video, reason=reason)

    def result(self, records: RecordFile) -> ShardResult:
        labels = Counter(sample.label for sample, _, _ in self._kept)
        return ShardResult(
            split=self._task.split,
            shard=ShardInfo(
                file=self._task.file,
                records=records.records,
                bytes=records.bytes,
                sha256=records.sha256,
                classes={name: labels[name] for name in self._task.classes if labels[name]},
                seconds=round(math.fsum(self._lengths_s), 3),
            ),
            shortened_offset=sum(pair.shortened for _, pair, _ in self._kept),
            repeated=sum(pair.repeated for _, pair, _ in self._kept),
            fps=tuple(sorted({fps for _, _, fps in self._kept})),
            skipped=tuple(skipped for _, skipped in sorted(self._skipped.items())),
            videos=len(_group_by_video(self._task.samples)),
            frames_decoded=self._frames_decoded,
        )


def _group_by_video(samples: tuple[Sample, ...]) -> list[list[Sample]]:
    """In the order of each video's first sample."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.path, []).append(sample)
    return list(groups.values())

"""From planned shards to a record folder: write, rename, describe. No TensorFlow.

Shards are written under a temporary name, fsynced and renamed; the manifest comes last. Beside the shards,
`.progress` holds what each finished one contains until the manifest is there, so that a killed build resumes.
The bytes depend on the input alone, not on the number of workers. A video that several samples of a shard
show is opened once, and none of its frames is decoded twice.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import json
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tf_records import schema
from tf_records.encode import Segments, read_samples, to_example
from tf_records.errors import KdantError, RecordError, VideoError
from tf_records.files import (
    atomic_path,
    claim_folder,
    hash_file,
    lock_folder,
    remove_folder,
    share_lock,
    write_text_atomically,
)
from tf_records.manifest import (
    FORMAT_VERSION,
    HEADS_FORMAT_VERSION,
    MANIFEST_NAME,
    Manifest,
    ShardInfo,
    Skipped,
    SplitInfo,
    find_file_fault,
    load_manifest,
)
from tf_records.plan import BuildOptions, Pair, ShardTask, count_labels, empty_manifest, plan_shards
from tf_records.remote_path import RecordPath, record_path
from tf_records.sources.sample import Annotations, Sample
from tf_records.tfrecord import OrderedRecords, RecordFile
from tf_records.video import open_video

# Beside the shards until the manifest is there.
PROGRESS_FOLDER = ".progress"
# Writes the planned shards into a folder; yields their results as they are finished.
ShardWriter = Callable[[tuple[ShardTask, ...], RecordPath], Iterator["ShardResult"]]


def build_records(
    annotations: Annotations,
    out: str | os.PathLike[str],
    options: BuildOptions,
    *,
    workers: int = 1,
    write_shards: ShardWriter | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_shard: Callable[[ShardResult], None] = lambda result: None,
    report: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Writes the record folder `out` and returns its manifest.

    Args:
        annotations: what a source read.
        out: folder, local or remote, made if need be; not empty only with `resume` or `overwrite`.
        options: how frames are cut and stored.
        workers: processes that write shards; 1 writes in this process. They end when this one does.
        write_shards: writes the planned shards in place of these processes.
        resume: keep the finished shards of an interrupted build of the same plan; of a finished data set,
            write those again whose bytes have changed since.
        overwrite: replace the records in `out`; other files there stay.
        on_shard: called after each finished shard.
        report: called with a sentence where shards of an interrupted build cannot be kept.

    Raises:
        RecordError: nothing could be decoded, `out` holds a data set built otherwise, or a damaged shard of
            it comes out otherwise than before.
        KdantError: `out` is not empty, in use or cannot be written, or a video vanished meanwhile.
    """
    out = record_path(out)
    claim_folder(out, resume=resume, overwrite=overwrite)
    try:
        with lock_folder(out):
            if overwrite:
                remove_records(out)
            if write_shards is None:
                write_shards = functools.partial(_write_shards, workers=workers)
            if resume and (out / MANIFEST_NAME).exists():
                manifest = finished_manifest(out, annotations, options)
                _mend(manifest, plan_shards(annotations, options), out, write_shards, on_shard)
                return manifest
            lost = _count_outdated(plan_shards(annotations, options), out)
            if lost:
                report(
                    f"{lost} finished shards in {out} are of another build: its options or samples were "
                    f"others, or kdant was of another version. They are built anew."
                )
            return _build(annotations, out, options, write_shards, on_shard)
    except OSError as error:
        raise KdantError(
            f"Records cannot be written to {out}: {error.strerror or error}. The finished shards are kept: "
            f"make room there and go on with the same command and --resume."
        ) from error


def _build(
    annotations: Annotations,
    out: RecordPath,
    options: BuildOptions,
    write_shards: ShardWriter,
    on_shard: Callable[[ShardResult], None],
) -> Manifest:
    tasks = plan_shards(annotations, options)
    remove_leftovers(out, {task.file for task in tasks})
    (out / PROGRESS_FOLDER).mkdir(exist_ok=True)
    results = {}
    for result in write_shards(tasks, out):
        results[result.shard.file] = result
        on_shard(result)
    manifest = _assemble(annotations, options, [results[task.file] for task in tasks])
    if not any(split.records for split in manifest.splits.values()):
        remove_records(out)
        reason = manifest.skipped[0].reason if manifest.skipped else "there are no samples"
        raise RecordError(f"No video could be used, so no records were built; the first reason: {reason}")
    write_text_atomically(out / MANIFEST_NAME, manifest.to_json())
    remove_folder(out / PROGRESS_FOLDER)
    return manifest


def _mend(
    manifest: Manifest,
    tasks: tuple[ShardTask, ...],
    out: RecordPath,
    write_shards: ShardWriter,
    on_shard: Callable[[ShardResult], None],
) -> None:
    """Writes the damaged shards of a finished data set again; the others stay as they are."""
    damaged = {shard.file: shard for shard in manifest.shards if find_file_fault(out, shard)}
    if not damaged:
        return
    remove_leftovers(out, {task.file for task in tasks})
    (out / PROGRESS_FOLDER).mkdir(exist_ok=True)
    for result in write_shards(tuple(task for task in tasks if task.file in damaged), out):
        if result.shard != damaged[result.shard.file]:
            raise RecordError(
                f"Damaged shard {out / result.shard.file} comes out otherwise than before, so videos or "
                f"libraries have changed since. Build all records again with --overwrite."
            )
        on_shard(result)
    remove_folder(out / PROGRESS_FOLDER)


def _assemble(annotations: Annotations, options: BuildOptions, results: list[ShardResult]) -> Manifest:
    splits = {}
    for split in dict.fromkeys(result.split for result in results):
        own = [result for result in results if result.split == split]
        splits[split] = SplitInfo.of(
            [r.shard for r in own],
            shortened_offset=sum(r.shortened_offset for r in own),
            repeated=sum(r.repeated for r in own),
        )
    fps = {rate for result in results for rate in result.fps}
    skipped = dict.fromkeys(item for result in results for item in result.skipped)
    damaged: dict[str, set[float]] = {}
    guessed_fps: dict[str, float] = {}
    for result in results:
        guessed_fps |= result.guessed_fps
        for video, times_s in result.damaged.items():
            damaged.setdefault(video, set()).update(times_s)
    return dataclasses.replace(
        empty_manifest(annotations, options),
        splits=splits,
        fps=fps.pop() if len(fps) == 1 else None,
        skipped=(*annotations.skipped, *skipped),
        damaged_frames={video: len(times_s) for video, times_s in sorted(damaged.items())},
        guessed_fps=dict(sorted(guessed_fps.items())),
        open_ended=tuple(sorted({video for result in results for video in result.open_ended})),
    )


def _count_outdated(tasks: tuple[ShardTask, ...], out: RecordPath) -> int:
    """Finished shards of an interrupted build that are not those planned now."""
    planned = {task.file: task.digest() for task in tasks}
    notes = [(note.name, _load_note(note)) for note in (out / PROGRESS_FOLDER).glob("*.tfrecord.json")]
    return sum(bool(note) and planned.get(name.removesuffix(".json")) != note["task"] for name, note in notes)


def finished_manifest(out: RecordPath, annotations: Annotations, options: BuildOptions) -> Manifest:
    """The manifest of a build that had finished, if it is the build that is asked for now."""
    manifest = load_manifest(out)
    if manifest.format_version not in (FORMAT_VERSION, HEADS_FORMAT_VERSION):
        raise RecordError(
            f"{out} holds records of format version {manifest.format_version}, which this kdant, of version "
            f"{FORMAT_VERSION}, reads but does not go on with. Use them as they are, or build them anew: add "
            f"--overwrite in place of --resume."
        )
    fields = (
        "dataset",
        "clip",
        "classes",
        "options",
        "short_side",
        "resize",
        "jpeg_quality",
        "modality",
        "flow",
        "heads",
        "times_s",
    )
    planned = empty_manifest(annotations, options)
    changed = [name for name in fields if getattr(planned, name) != getattr(manifest, name)]
    if changed or manifest.plan_sha256 != planned.plan_sha256:
        raise RecordError(
            f"{out} holds a finished data set with other {', '.join(changed or ['shards or samples'])}. "
            f"Choose another folder, or add --overwrite in place of --resume."
        )
    return manifest


def remove_leftovers(out: RecordPath, planned: set[str]) -> None:
    """Removes what a killed build left half written, and noted shards that are not `planned` now."""
    for note in (out / PROGRESS_FOLDER).glob("*.tfrecord.json"):
        if (name := note.name.removesuffix(".json")) not in planned:
            (out / name).unlink(missing_ok=True)
            note.unlink()
    for path in out.glob(".tmp-[0-9]*-*"):
        if path.name.split("-", 2)[2] in {*planned, MANIFEST_NAME}:
            path.unlink()


def remove_records(out: RecordPath) -> None:
    """Removes what an earlier build left in `out`, and nothing else."""
    (out / MANIFEST_NAME).unlink(missing_ok=True)
    for folder in (PROGRESS_FOLDER, schema.FEATURES_FOLDER, schema.FRAMES_FOLDER):
        remove_folder(out / folder)
    for split in schema.SPLITS:
        for path in out.glob(f"{split}-[0-9]*-of-[0-9]*.tfrecord"):
            path.unlink()


def _write_shards(tasks: tuple[ShardTask, ...], out: RecordPath, workers: int) -> Iterator[ShardResult]:
    """Yields results as shards are finished; the dearest begin first, so that workers end together."""
    workers = min(workers, len(tasks))
    if workers <= 1:
        yield from (write_shard(task, out) for task in tasks)
        return
    with concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker, initargs=(out,)
    ) as pool:
        dearest_first = sorted(tasks, key=lambda task: -task.seconds)
        # Workers begin with Ctrl-C blocked, and so have nothing to say of one that comes while they start.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        futures = [pool.submit(write_shard, task, out) for task in dearest_first]
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise KdantError(
                "A worker process died; the system may be short of memory. The finished shards are kept: go "
                "on with the same command and --resume, perhaps with fewer --workers."
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _start_worker(out: RecordPath) -> None:
    """Ties the worker to its build: it ends with its parent, and on Ctrl-C without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    share_lock(out)
    parent = multiprocessing.parent_process()
    assert parent is not None
    if not parent.is_alive():  # it died while this worker started, and the lock may be another build's
        os._exit(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShardResult:
    """What a finished shard holds, as the manifest needs it, and what it took.

    `damaged` is, of each video with corrupt frames, when those and what is predicted from them are shown, in
    seconds.
    """

    split: str
    shard: ShardInfo
    shortened_offset: int
    repeated: int
    fps: tuple[float, ...]
    skipped: tuple[Skipped, ...]
    damaged: dict[str, list[float]]
    guessed_fps: dict[str, float]
    open_ended: tuple[str, ...]
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
    # Not fsynced, as the shard is: a note that a power failure takes costs building its shard again.
    write_text_atomically(_note(task, out), note_text, sync=False)
    return result


def read_note(task: ShardTask, out: RecordPath) -> ShardResult | None:
    """What `write_shard` noted of this very task, if its shard is there."""
    note = _note(task, out)
    if not note.exists() or not (out / task.file).exists():
        return None
    noted = _load_note(note)
    if not noted or noted["task"] != task.digest():
        return None
    fields = noted["result"]
    return ShardResult(
        **{
            **fields,
            "shard": ShardInfo(**fields["shard"]),
            "fps": tuple(fields["fps"]),
            "open_ended": tuple(fields.get("open_ended", ())),
            "skipped": tuple(Skipped(**skipped) for skipped in fields["skipped"]),
        }
    )


def _load_note(path: RecordPath) -> dict[str, Any]:
    """Empty where a power failure has left nothing of it."""
    try:
        note: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return note


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
        self._damaged: dict[str, list[float]] = {}
        self._guessed_fps: dict[str, float] = {}
        self._open_ended: set[str] = set()
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
                if video.damaged_s:
                    self._damaged[samples[0].video] = sorted(video.damaged_s)
                if video.info.rate_is_guessed:
                    self._guessed_fps[samples[0].video] = video.info.fps
                if not video.info.end_is_stated:
                    self._open_ended.add(samples[0].video)
        except VideoError as error:  # it does not open
            for sample in samples:
                self._add(sample, error)

    def _add(self, sample: Sample, outcome: Segments | VideoError) -> None:
        number = self._numbers[sample.id]
        if isinstance(outcome, Segments):
            self._ordered.add(number, to_example(sample, outcome, self._task.classes, self._task.heads))
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
        kept = [sample for sample, _, _ in self._kept]
        return ShardResult(
            split=self._task.split,
            shard=ShardInfo(
                file=self._task.file,
                records=records.records,
                bytes=records.bytes,
                sha256=records.sha256,
                **count_labels(kept, self._task.classes, self._task.heads),
                seconds=round(math.fsum(self._lengths_s), 3),
            ),
            shortened_offset=sum(pair.shortened for _, pair, _ in self._kept),
            repeated=sum(pair.repeated for _, pair, _ in self._kept),
            fps=tuple(sorted({fps for _, _, fps in self._kept})),
            skipped=tuple(skipped for _, skipped in sorted(self._skipped.items())),
            damaged=self._damaged,
            guessed_fps=self._guessed_fps,
            open_ended=tuple(sorted(self._open_ended)),
            videos=len(_group_by_video(self._task.samples)),
            frames_decoded=self._frames_decoded,
        )


def _group_by_video(samples: tuple[Sample, ...]) -> list[list[Sample]]:
    """In the order of each video's first sample."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.path, []).append(sample)
    return list(groups.values())

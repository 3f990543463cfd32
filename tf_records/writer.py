"""From planned shards to a record folder: write, rename, describe.

Shards are written under a temporary name, fsynced and renamed; the manifest comes last. Beside the
shards, `.progress` holds what each finished one contains until the manifest is there, so that a
killed build resumes. The bytes depend on the input alone, not on the number of workers.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow as tf

from tf_records import schema
from tf_records.encode import read_segments, to_example
from tf_records.errors import RecordError, VideoError
from tf_records.files import atomic_path, claim_folder, write_text_atomically
from tf_records.plan import BuildOptions, ShardTask, empty_manifest, plan_shards
from tf_records.quiet import start_tensorflow
from tf_records.schema import Manifest, ShardInfo, Skipped, SplitInfo
from tf_records.sources.sample import Annotations

PROGRESS_FOLDER = ".progress"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShardResult:
    """What a finished shard holds, as the manifest needs it."""

    split: str
    shard: ShardInfo
    labeled: int
    unlabeled: int
    shortened_offset: int
    repeated: int
    fps: tuple[float, ...]
    skipped: tuple[Skipped, ...]


def build_records(
    annotations: Annotations,
    out: Path,
    options: BuildOptions,
    *,
    workers: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    on_shard: Callable[[ShardResult], None] = lambda result: None,
) -> Manifest:
    """Writes the record folder `out` and returns its manifest.

    Args:
        annotations: what a source read.
        out: folder, made if need be; not empty only with `resume` or `overwrite`.
        options: how frames are cut and stored.
        workers: processes that write shards; 1 writes in this process.
        resume: keep the finished shards of an interrupted build of the same plan.
        overwrite: replace the records in `out`; other files there stay.
        on_shard: called after each finished shard, in order.

    Raises:
        RecordError: nothing could be decoded, or `out` holds a data set built otherwise.
        KdantError: `out` is not empty or cannot be written.
    """
    claim_folder(out, resume=resume, overwrite=overwrite)
    tasks = plan_shards(annotations, options)
    if overwrite:
        remove_records(out)
    if resume and (out / schema.MANIFEST_NAME).exists():
        return _finished_manifest(out, annotations, options)
    _remove_leftovers(out, tasks)
    (out / PROGRESS_FOLDER).mkdir(exist_ok=True)
    results = []
    for result in _write_shards(tasks, out, workers):
        results.append(result)
        on_shard(result)
    manifest = _assemble(annotations, options, results)
    if not any(split.records for split in manifest.splits.values()):
        remove_records(out)
        reason = manifest.skipped[0].reason if manifest.skipped else "there are no samples"
        raise RecordError(f"No video could be used, so no records were built; the first reason: {reason}")
    write_text_atomically(out / schema.MANIFEST_NAME, manifest.to_json())
    shutil.rmtree(out / PROGRESS_FOLDER)
    return manifest


def write_shard(task: ShardTask, out: Path) -> ShardResult:
    """Writes one shard into `out`, or returns the result of an earlier run that finished it."""
    note = out / PROGRESS_FOLDER / f"{task.file}.json"
    earlier = _earlier_result(task, note, out)
    if earlier is not None:
        return earlier
    labeled, fps, pairs, skipped = 0, set(), [], []
    with atomic_path(out / task.file) as temporary:
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            for sample in task.samples:
                try:
                    segments = read_segments(sample, task.options)
                except VideoError as error:
                    reason = str(error).replace(sample.path, sample.video)
                    skipped.append(Skipped(video=sample.video, reason=reason))
                    continue
                writer.write(to_example(sample, segments, task.classes).SerializeToString(deterministic=True))
                labeled += sample.label is not None
                fps.add(segments.fps)
                pairs.append(segments.pair)
        content = temporary.read_bytes()
    result = ShardResult(
        split=task.split,
        shard=ShardInfo(
            file=task.file,
            records=len(pairs),
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        ),
        labeled=labeled,
        unlabeled=len(pairs) - labeled,
        shortened_offset=sum(pair.shortened for pair in pairs),
        repeated=sum(pair.repeated for pair in pairs),
        fps=tuple(sorted(fps)),
        skipped=tuple(skipped),
    )
    note_text = json.dumps({"task": task.digest(), "result": dataclasses.asdict(result)})
    write_text_atomically(note, note_text)
    return result


def _write_shards(tasks: tuple[ShardTask, ...], out: Path, workers: int) -> Iterator[ShardResult]:
    """Yields results in the tasks' order. Workers are spawned: TensorFlow does not survive a fork."""
    if min(workers, len(tasks)) <= 1:
        yield from (write_shard(task, out) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        min(workers, len(tasks)), mp_context=context, initializer=start_tensorflow
    ) as pool:
        try:
            yield from pool.map(write_shard, tasks, [out] * len(tasks))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _earlier_result(task: ShardTask, note: Path, out: Path) -> ShardResult | None:
    """The noted result, if it is of this very task and the shard is as it was."""
    if not note.exists() or not (out / task.file).exists():
        return None
    noted = json.loads(note.read_text(encoding="utf-8"))
    fields = noted["result"]
    content = (out / task.file).read_bytes()
    if noted["task"] != task.digest() or hashlib.sha256(content).hexdigest() != fields["shard"]["sha256"]:
        return None
    return ShardResult(
        **{
            **fields,
            "shard": ShardInfo(**fields["shard"]),
            "fps": tuple(fields["fps"]),
            "skipped": tuple(Skipped(**skipped) for skipped in fields["skipped"]),
        }
    )


def _assemble(annotations: Annotations, options: BuildOptions, results: list[ShardResult]) -> Manifest:
    splits = {}
    for split in dict.fromkeys(result.split for result in results):
        own = [result for result in results if result.split == split]
        splits[split] = SplitInfo(
            labeled=sum(r.labeled for r in own),
            unlabeled=sum(r.unlabeled for r in own),
            shortened_offset=sum(r.shortened_offset for r in own),
            repeated=sum(r.repeated for r in own),
            shards=tuple(r.shard for r in own),
        )
    fps = {rate for result in results for rate in result.fps}
    skipped = dict.fromkeys(item for result in results for item in result.skipped)
    return dataclasses.replace(
        empty_manifest(annotations, options),
        splits=splits,
        fps=fps.pop() if len(fps) == 1 else None,
        skipped=(*annotations.skipped, *skipped),
    )


def _finished_manifest(out: Path, annotations: Annotations, options: BuildOptions) -> Manifest:
    """The manifest of a build that had finished, if it is the build that is asked for now."""
    manifest = schema.load_manifest(out)
    fields = ("dataset", "clip", "classes", "options", "short_side", "jpeg_quality", "modality", "flow")
    planned = empty_manifest(annotations, options)
    changed = [name for name in fields if getattr(planned, name) != getattr(manifest, name)]
    if changed or manifest.plan_sha256 != planned.plan_sha256:
        raise RecordError(
            f"{out} holds a finished data set with other {', '.join(changed or ['shards or samples'])}. "
            f"Choose another folder, or add --overwrite in place of --resume."
        )
    return manifest


def _remove_leftovers(out: Path, tasks: tuple[ShardTask, ...]) -> None:
    """Removes what a killed build left half written, and noted shards that this plan does not have."""
    planned = {task.file for task in tasks}
    for note in (out / PROGRESS_FOLDER).glob("*.tfrecord.json"):
        if (name := note.name.removesuffix(".json")) not in planned:
            (out / name).unlink(missing_ok=True)
            note.unlink()
    for name in (*planned, schema.MANIFEST_NAME):
        for path in out.glob(f".tmp-[0-9]*-{name}"):
            path.unlink()


def remove_records(out: Path) -> None:
    """Removes what an earlier build left in `out`, and nothing else."""
    (out / schema.MANIFEST_NAME).unlink(missing_ok=True)
    for folder in (PROGRESS_FOLDER, schema.FEATURES_FOLDER, schema.FRAMES_FOLDER):
        shutil.rmtree(out / folder, ignore_errors=True)
    for split in schema.SPLITS:
        for path in out.glob(f"{split}-[0-9]*-of-[0-9]*.tfrecord"):
            path.unlink()

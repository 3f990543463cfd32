"""From planned shards to a record folder: write, rename, describe.

Shards are written under a temporary name, fsynced and renamed; the manifest comes last. Beside the
shards, `.progress` holds what each finished one contains until the manifest is there, so that a
killed build resumes. The bytes depend on the input alone, not on the number of workers.
"""

import concurrent.futures
import dataclasses
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool

from tf_records import schema
from tf_records.errors import KdantError, RecordError
from tf_records.files import claim_folder, lock_folder, remove_folder, share_lock, write_text_atomically
from tf_records.manifest import MANIFEST_NAME, Manifest, SplitInfo, load_manifest
from tf_records.plan import BuildOptions, ShardTask, empty_manifest, plan_shards
from tf_records.remote_path import RecordPath
from tf_records.shard import PROGRESS_FOLDER, ShardResult, write_shard
from tf_records.shard_files import find_file_fault
from tf_records.sources.sample import Annotations

ShardWriter = Callable[[tuple[ShardTask, ...], RecordPath], Iterator[ShardResult]]


def build_records(
    annotations: Annotations,
    out: RecordPath,
    options: BuildOptions,
    *,
    workers: int = 1,
    write_shards: ShardWriter | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_shard: Callable[[ShardResult], None] = lambda result: None,
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

    Raises:
        RecordError: nothing could be decoded, `out` holds a data set built otherwise, or a damaged shard of
            it comes out otherwise than before.
        KdantError: `out` is not empty, in use or cannot be written, or a video vanished meanwhile.
    """
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
    return dataclasses.replace(
        empty_manifest(annotations, options),
        splits=splits,
        fps=fps.pop() if len(fps) == 1 else None,
        skipped=(*annotations.skipped, *skipped),
    )


def finished_manifest(out: RecordPath, annotations: Annotations, options: BuildOptions) -> Manifest:
    """The manifest of a build that had finished, if it is the build that is asked for now."""
    manifest = load_manifest(out)
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

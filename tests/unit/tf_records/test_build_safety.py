"""Nothing is lost: builds that are killed, locked out, short of space or of a video."""

import dataclasses
import errno
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tf_records.errors import KdantError
from tf_records.files import LOCK_NAME
from tf_records.plan import BuildOptions
from tf_records.schema import ClipSpec
from tf_records.sources.sample import Annotations, Sample
from tf_records.sources.synthetic import read_synthetic
from tf_records.tfrecord import RecordFile
from tf_records.writer import ShardResult, _start_worker, build_records, write_shard

pytestmark = pytest.mark.slow

OPTIONS = BuildOptions(clip=ClipSpec(clip_frames=8, offset_frames=16), short_side=16, shards=2)
PACKAGE = str(Path(write_shard.__code__.co_filename).parent)


@pytest.fixture(scope="module")
def few(videos: Path) -> Annotations:
    """Four training videos, one of them shown twice, and two for testing."""
    annotations = read_synthetic(videos)
    train = [sample for sample in annotations.samples if sample.split == "train"][:4]
    test = [sample for sample in annotations.samples if sample.split == "test"][:2]
    again = dataclasses.replace(train[0], id="again", start_s=1.0, end_s=1.5)
    return dataclasses.replace(annotations, samples=(*train, again, *test))


@pytest.fixture(scope="module")
def undisturbed(few: Annotations, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("safety") / "records"
    build_records(few, out, OPTIONS)
    return content(out)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def resume(few: Annotations, out: Path) -> dict[str, bytes]:
    build_records(few, out, OPTIONS, resume=True)
    return content(out)


class _LineCounter:
    """Counts the lines of tf_records that are run, and kills the process at one of them."""

    def __init__(self, fatal: int | None) -> None:
        self.lines = 0
        self._fatal = fatal

    def __call__(self, frame: Any, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self._fatal:
                os.kill(os.getpid(), signal.SIGKILL)
        return self


def _build_and_count(few: Annotations, out: Path, fatal: int | None, counted: Any) -> None:
    counter = _LineCounter(fatal)
    sys.settrace(counter)
    build_records(few, out, OPTIONS, resume=True)
    sys.settrace(None)
    counted.value = counter.lines


def _die_with_workers(few: Annotations, out: Path) -> None:
    build_records(few, out, OPTIONS, workers=2, on_shard=lambda result: os.kill(os.getpid(), signal.SIGKILL))


@pytest.fixture(scope="module")
def forkserver() -> Any:
    """Forks processes from one that has imported the builder, and no TensorFlow."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tf_records.writer"])
    return context


@pytest.fixture(scope="module")
def start_build(forkserver: Any) -> Callable[[Annotations, Path, int | None], tuple[int | None, int]]:
    """Runs a build in a process of its own, which dies at line `fatal`: (exit code, lines run)."""

    def start(few: Annotations, out: Path, fatal: int | None) -> tuple[int | None, int]:
        counted = forkserver.Value("q", 0)
        process = forkserver.Process(target=_build_and_count, args=(few, out, fatal, counted))
        process.start()
        process.join()
        return process.exitcode, counted.value

    return start


def test_a_build_killed_at_any_moment_resumes_to_the_same_bytes(
    few: Annotations, undisturbed: dict[str, bytes], tmp_path: Path, start_build: Callable
) -> None:
    """kill -9 at twenty random lines of the build, drawn anew by a seed."""
    code, lines = start_build(few, tmp_path / "whole", None)
    assert code == 0
    assert content(tmp_path / "whole") == undisturbed
    moments = random.Random(20).sample(range(1, lines), 20)
    left_behind = set()
    for moment in moments:
        out = tmp_path / str(moment)
        code, _ = start_build(few, out, moment)
        assert code == -signal.SIGKILL
        left_behind.add(frozenset(path.name for path in out.rglob("*")) if out.exists() else None)
        assert resume(few, out) == undisturbed
        shutil.rmtree(out)
    assert len(left_behind) > 5  # they died at different stages


def test_workers_end_with_their_parent(
    few: Annotations, undisturbed: dict[str, bytes], tmp_path: Path, forkserver: Any
) -> None:
    """They hold the lock, so that the build that resumes cannot begin before."""
    process = forkserver.Process(target=_die_with_workers, args=(few, tmp_path / "out"))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert "manifest.json" not in content(tmp_path / "out")
    assert resume(few, tmp_path / "out") == undisturbed


def _start_late(out: Path, until_it_ends: Any) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    threading.Thread.start = lambda self: None  # type: ignore[method-assign]  # the watcher may be too late
    _start_worker(out)
    (out / "written").touch()


def _leave_worker_behind(out: Path, until_it_ends: Any) -> None:
    worker = multiprocessing.get_context("spawn").Process(target=_start_late, args=(out, until_it_ends))
    worker.start()
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_whose_build_died_while_it_started_writes_nothing(tmp_path: Path, forkserver: Any) -> None:
    """The lock that it shares may be that of the build that resumes."""
    (tmp_path / LOCK_NAME).touch()
    ours, theirs = forkserver.Pipe()
    process = forkserver.Process(target=_leave_worker_behind, args=(tmp_path, theirs))
    process.start()
    theirs.close()
    with pytest.raises(EOFError):  # when the last process that holds the other end is gone
        ours.recv()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "written").exists()


class _Fatal(str):
    """Ends the process that unpickles it."""

    __slots__ = ()

    def __reduce__(self) -> Any:
        return os._exit, (9,)

    def __deepcopy__(self, memo: Any) -> "_Fatal":
        return self


def test_a_worker_that_dies_is_one_sentence(few: Annotations, undisturbed: dict, tmp_path: Path) -> None:
    *others, last = few.samples
    doomed = dataclasses.replace(last, path=_Fatal(last.path))
    with pytest.raises(KdantError, match=r"A worker process died.*--resume"):
        build_records(
            dataclasses.replace(few, samples=(*others, doomed)), tmp_path / "out", OPTIONS, workers=2
        )
    assert resume(few, tmp_path / "out") == undisturbed


def test_a_second_builder_is_refused_and_the_first_undisturbed(
    few: Annotations, undisturbed: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tf_records.files._LOCK_PAUSE_S", 0.0)
    refused = []

    def begin_another(result: ShardResult) -> None:
        for mode in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(KdantError, match="Another build is writing to") as refusal:
                build_records(few, tmp_path / "out", OPTIONS, **mode)
            refused.append(refusal)

    build_records(few, tmp_path / "out", OPTIONS, on_shard=begin_another)
    assert len(refused) == 8
    assert content(tmp_path / "out") == undisturbed


def test_a_full_disk_keeps_the_finished_shards(
    few: Annotations, undisturbed: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, writes = RecordFile.write, iter(range(100))

    def fill(self: RecordFile, *record: Any) -> None:
        write(self, *record)
        if next(writes) == 4:  # in the second shard
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(RecordFile, "write", fill)
        with pytest.raises(KdantError, match=r"cannot be written to .*: No space left on device\..*--resume"):
            build_records(few, tmp_path / "out", OPTIONS)
    assert not list((tmp_path / "out").glob(".tmp*"))
    results: list[ShardResult] = []
    first = tmp_path / "out" / "train-00000-of-00002.tfrecord"
    finished = first.stat().st_mtime_ns
    build_records(few, tmp_path / "out", OPTIONS, resume=True, on_shard=results.append)
    assert content(tmp_path / "out") == undisturbed
    assert first.stat().st_mtime_ns == finished
    assert min(result.frames_decoded for result in results) > 0  # the kept shard remembers its own


def test_a_note_that_a_power_failure_emptied_costs_building_its_shard_again(
    few: Annotations, undisturbed: dict, tmp_path: Path
) -> None:
    """Notes are not fsynced: their names can outlive their bytes."""

    def stop_after_two(result: ShardResult) -> None:
        done.append(result)
        if len(done) == 2:
            raise KeyboardInterrupt

    done: list[ShardResult] = []
    with pytest.raises(KeyboardInterrupt):
        build_records(few, tmp_path / "out", OPTIONS, on_shard=stop_after_two)
    notes = list((tmp_path / "out").rglob("*.tfrecord.json"))
    assert len(notes) == 2
    for note, left in zip(notes, ("", '{"task": "3f'), strict=True):
        note.write_text(left, encoding="utf-8")
    said: list[str] = []
    build_records(few, tmp_path / "out", OPTIONS, resume=True, report=said.append)
    assert content(tmp_path / "out") == undisturbed
    assert said == []  # they are not of another build


def test_a_file_that_may_not_grow_is_one_sentence(videos: Path, tmp_path: Path) -> None:
    """On the command line, where the system itself refuses."""
    args = ["build-records", "--source", "synthetic", "--input", str(videos), "--out", str(tmp_path / "out")]
    script = (
        "import resource, sys\n"
        "from kdant_cli.main import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        f"main({[*args, '--short-side', '64']!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: Records cannot be written to {tmp_path / 'out'}: File too large.")


def test_a_folder_that_cannot_be_made_is_one_sentence(few: Annotations) -> None:
    with pytest.raises(KdantError, match=r"Output folder /proc/kdant cannot be made"):
        build_records(few, Path("/proc/kdant"), OPTIONS)


def test_a_video_that_vanishes_stops_the_build(
    few: Annotations, undisturbed: dict, tmp_path: Path, videos: Path
) -> None:
    """It is not skipped: when a disk goes, all of them vanish, and the data set would be finished."""
    folder = tmp_path / "videos"
    folder.mkdir()
    samples = []
    for sample in few.samples:
        shutil.copy(sample.path, folder)
        samples.append(dataclasses.replace(sample, path=str(folder / Path(sample.path).name)))
    moved = dataclasses.replace(few, samples=tuple(samples))
    with pytest.raises(KdantError, match=r"\.mp4 has vanished since .*--resume"):
        build_records(moved, tmp_path / "out", OPTIONS, on_shard=lambda result: shutil.rmtree(folder))
    assert "train-00000-of-00002.tfrecord" in content(tmp_path / "out")
    assert resume(few, tmp_path / "out") == undisturbed


def test_overlapping_actions_share_the_frames_they_decode(few: Annotations, tmp_path: Path) -> None:
    def decoded(samples: tuple[Sample, ...], out: Path) -> int:
        results: list[ShardResult] = []
        build_records(
            dataclasses.replace(few, samples=samples),
            out,
            dataclasses.replace(OPTIONS, shards=1),
            on_shard=results.append,
        )
        return sum(result.frames_decoded for result in results)

    first, again = few.samples[0], few.samples[4]
    assert first.path == again.path
    alone = decoded((first,), tmp_path / "alone")
    assert 30 <= alone <= 40  # of 40, both segments of one action
    assert decoded((first, again), tmp_path / "both") == alone


def test_damage_costs_the_actions_behind_it_alone(few: Annotations, tmp_path: Path) -> None:
    """Three actions of one video, of which the file ends in the second."""
    path = encode_matroska(tmp_path / "whole.mkv")
    data = path.read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(data[: len(data) // 2])
    sample = Sample(id="", video="cut.mkv", path=str(cut), split="train", label="rise")
    times = {"late": (3.2, 3.6), "early": (0.8, 1.2), "cut": (1.8, 2.6)}
    samples = [
        dataclasses.replace(sample, id=name, start_s=start_s, end_s=end_s)
        for name, (start_s, end_s) in times.items()
    ]
    annotations = dataclasses.replace(few, samples=tuple(samples), classes=("rise",))
    options = dataclasses.replace(OPTIONS, clip=ClipSpec(clip_frames=4, offset_frames=4))
    manifest = build_records(annotations, tmp_path / "out", options)
    assert manifest.splits["train"].records == 1
    (skipped,) = manifest.skipped
    assert skipped.reason.startswith("cut.mkv is cut short: its header promises 4.00 s")


def encode_matroska(path: Path) -> Path:
    """Four seconds of noise, whose bytes are spread evenly."""
    noise = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=20)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(80):
            picture = noise.integers(0, 255, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path

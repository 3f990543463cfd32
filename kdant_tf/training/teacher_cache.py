"""The frozen teacher's outputs, computed once for each pair and view, and read back in every epoch."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import google_crc32c
import keras
import numpy as np
import tensorflow as tf

from kdant_tf.models.networks import LOGITS
from kdant_tf.runs import TEACHER_CACHE_NAME, manifest_sha256
from kdant_tf.training.assembly import Assembly
from kdant_tf.training.distiller import TEACHER_LOGITS, TEACHER_MAP
from kdant_tf.training.job import Job
from tf_records.errors import KdantError, StoppedError
from tf_records.reader import clips_in_order, plain
from tf_records.records import iterate_batches
from tf_records.remote_path import RecordPath
from tf_records.schema import FUTURE, PER_CLIP

# Of a file, read at a time.
_BLOCK_BYTES = 1 << 26


def check_views_are_fixed(job: Job, strategy: tf.distribute.Strategy) -> None:
    """Refuses `--cache-teacher` where it would keep what no later epoch asks for.

    Raises:
        KdantError: the teacher sees other clips in every epoch, or there are several workers.
    """
    if job.run.config.mixes:
        raise KdantError(
            "`--cache-teacher` keeps what the teacher makes of whole clips, and `--mixup` and `--cutmix` mix "
            "them anew in every step. Leave it or them out."
        )
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        raise KdantError(
            "`--cache-teacher` works on one machine, not with several workers. Leave it out, or train on one."
        )
    if not _count_views(job):
        raise KdantError(
            "`--cache-teacher` keeps what the teacher makes of clips that come again, but every epoch draws "
            "new ones. Add --views K, such as --views 5."
        )


def _count_views(job: Job) -> int:
    """Different clips that a training sees of each pair; 0 where every epoch draws anew."""
    config, features = job.run.config, job.run.features
    if config.views:
        return min(config.views, config.epochs)
    if features is None or features.per != PER_CLIP or features.windows != 1 or features.crop is None:
        return 0
    return 1 if features.map_side(features.crop) == features.map_side(config.crop) else 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TeacherCache:
    """A file of rows, one a pair and view: logits, feature map, checksum; the map only where a loss asks.

    Rows come view by view, in the order of the records, and are only ever appended. So whatever stopped the
    writing, the rows before the first with a wrong checksum are right, and the rest is made again.

    Args:
        path: named after all that decides its content, so that another teacher's is never read.
        pairs, views: that there are.
        classes: of the logits.
        map_shape: of the feature map of one clip; () for none.
    """

    path: Path
    pairs: int
    views: int
    classes: int
    map_shape: tuple[int, ...]

    @classmethod
    def of(cls, job: Job, assembly: Assembly) -> TeacherCache:
        """The cache that a student's training needs, filled or not."""
        distiller, records = assembly.distiller, assembly.records
        teacher = distiller.teacher
        assert teacher is not None  # There is no such option without one.
        map_name = None if distiller.maps is None else distiller.maps[1]
        key = _key(job, teacher, records.folder, map_name)
        return cls(
            path=job.run.folder / TEACHER_CACHE_NAME / f"{key[:16]}.rows",
            pairs=records.split("train").records,
            views=_count_views(job),
            classes=teacher.output[LOGITS].shape[-1],
            map_shape=() if map_name is None else teacher.output[map_name].shape[1:],
        )

    @property
    def rows(self) -> int:
        return self.pairs * self.views

    @property
    def row(self) -> np.dtype:
        values = self.classes + (math.prod(self.map_shape) if self.map_shape else 0)
        return np.dtype([("values", "<f4", (values,)), ("checksum", "<u4")])

    def check_space(self) -> None:
        """Raises KdantError where the disk has not the room that is still needed."""
        there = self.path.stat().st_size if self.path.is_file() else 0
        folder = self.path.parent.parent
        free = shutil.disk_usage(folder).free
        if self.rows * self.row.itemsize - there > free:
            raise KdantError(
                f"The teacher's outputs for {self._describe_size} would not fit in {folder}, which has "
                f"{_format_bytes(free)} free. Lower --views, or leave --cache-teacher out."
            )

    def fill(
        self,
        job: Job,
        assembly: Assembly,
        batch_size: int,
        report: Callable[[str], None],
        stop_requested: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Computes and writes the rows that are not there yet.

        Args:
            job, assembly: those the cache is of.
            batch_size: clips that the teacher takes at a time in training, on one device.
            report: called with lines on how large the file gets, and how far it is.
            stop_requested: gives what asked the training to stop, such as "SIGTERM", or None.

        Raises:
            KdantError: a record is damaged, or the file cannot be written.
            StoppedError: a stop was requested; what is written stays.
        """
        self.path.parent.mkdir(exist_ok=True)
        for other in self.path.parent.iterdir():
            if other != self.path:
                other.unlink()
        done = self._count_whole_rows() if self.path.is_file() else 0
        if done >= self.rows:
            return
        report(f"Keeping the teacher's outputs for {self._describe_size}, in {self.path.parent}")
        try:
            with self.path.open("ab") as file:
                file.truncate(done * self.row.itemsize)
                for rows in self._compute(done, job, assembly, batch_size):
                    file.write(rows.tobytes())
                    before, done = done, done + len(rows)
                    if done * 10 // self.rows != before * 10 // self.rows:
                        report(f"teacher's outputs: {done}/{self.rows} clips")
                    if (by := stop_requested()) is not None:
                        raise StoppedError(
                            f"Stopped by {by} after {done} of {self.rows} of the teacher's outputs, "
                            f"which are kept. Go on with the same command and --resume."
                        )
                os.fsync(file.fileno())
        except OSError as error:
            raise KdantError(
                f"{self.path} cannot be written: {error.strerror}. Make room and go on with --resume, or "
                f"leave --cache-teacher out."
            ) from error

    def _compute(self, done: int, job: Job, assembly: Assembly, batch_size: int) -> Iterator[np.ndarray]:
        """Rows from number `done` on, some at a time."""
        config, records, teacher = job.run.config, assembly.records, assembly.distiller.teacher
        assert teacher is not None
        names = (LOGITS, *(assembly.distiller.maps or ())[1:])

        def compute(clips: tf.Tensor) -> tf.Tensor:
            outputs = teacher(clips, training=False)
            flat = [tf.reshape(outputs[name], (tf.shape(clips)[0], -1)) for name in names]
            return tf.concat([tf.cast(values, tf.float32) for values in flat], axis=1)

        compiled = tf.function(compute, reduce_retracing=True, autograph=False)
        first_view, first = divmod(done, self.pairs)
        for view in range(first_view, self.views):
            batches = clips_in_order(
                records,
                view=FUTURE,
                batch_size=batch_size,
                crop=config.crop,
                seed=config.seed,
                draw=view,
                first=first if view == first_view else 0,
                augmentation=job.augmentation,
            )
            for clips in iterate_batches(batches, records, "train"):
                yield self.make_rows(compiled(clips).numpy())

    def make_rows(self, values: np.ndarray) -> np.ndarray:
        """Logits and maps, flat, float32 `(clips, values)` → rows of the file."""
        rows = np.empty(len(values), self.row)
        rows["values"] = values
        rows["checksum"] = [google_crc32c.value(one.tobytes()) for one in rows["values"]]
        return rows

    def _count_whole_rows(self) -> int:
        """Rows before the first that is cut short or has a wrong checksum."""
        block = max(1, _BLOCK_BYTES // self.row.itemsize) * self.row.itemsize
        whole = 0
        with self.path.open("rb") as file:
            while data := file.read(block):
                for row in np.frombuffer(data, self.row, len(data) // self.row.itemsize):
                    if google_crc32c.value(row["values"].tobytes()) != row["checksum"]:
                        return whole
                    whole += 1
        return whole

    def add_outputs(self, batches: tf.data.Dataset, epoch: int) -> tf.data.Dataset:
        """Batches with a record's number as "index" → the same with what the teacher makes of its clip."""
        rows = np.memmap(self.path, self.row, "r")[: self.rows]
        first = epoch % self.views * self.pairs

        def add(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            size = batch["index"].shape[0]
            values = tf.numpy_function(
                lambda index: rows[first + index]["values"], (batch["index"],), tf.float32, stateful=False
            )
            values = tf.ensure_shape(values, (size, *self.row["values"].shape))
            outputs = {TEACHER_LOGITS: values[:, : self.classes]}
            if self.map_shape:
                outputs[TEACHER_MAP] = tf.reshape(values[:, self.classes :], (size, *self.map_shape))
            return {**batch, **outputs}

        return batches.map(plain(add)).prefetch(tf.data.AUTOTUNE)

    @property
    def _describe_size(self) -> str:
        views = "view" if self.views == 1 else "views"
        return f"{self.pairs} pairs x {self.views} {views}, {_format_bytes(self.rows * self.row.itemsize)}"


def _key(job: Job, teacher: keras.Model, folder: RecordPath, map_name: str | None) -> str:
    """Of everything that decides a row, but for rounding."""
    config = job.run.config
    digest = hashlib.sha256()
    for variable in teacher.weights:
        digest.update(variable.path.encode())
        digest.update(keras.ops.convert_to_numpy(variable).tobytes())
    data = (manifest_sha256(folder), job.run.left_out, job.run.modality, job.augmentation)
    digest.update(repr((*data, config.seed, config.crop, config.precision, map_name)).encode())
    return digest.hexdigest()


def _format_bytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(1, round(size / 1e6))} MB"

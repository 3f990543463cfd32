"""Files that are either whole or absent."""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tf_records.errors import KdantError

LOCK_NAME = ".lock"
# The workers of a killed build need a moment to notice.
_LOCK_TRIES = 10
_LOCK_PAUSE_S = 0.1


def claim_folder(folder: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Makes `folder`, or accepts it where it is empty, or where resuming or overwriting was asked for.

    Raises:
        KdantError: it holds something, is no folder, or cannot be written.
    """
    if resume and overwrite:
        raise KdantError("Received both --resume and --overwrite. Choose one.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        occupied = any(folder.iterdir())
    except OSError as error:
        raise KdantError(
            f"Output folder {folder} cannot be made: {error.strerror}. Choose another."
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise KdantError(f"Output folder {folder} cannot be written: permission denied. Choose another.")
    if occupied and not (resume or overwrite):
        raise KdantError(
            f"Output folder {folder} is not empty. Choose another, or add --resume to go on or --overwrite "
            f"to replace what is there."
        )


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success its file is fsynced and renamed to `path`.

    On any exception the temporary file is removed and `path` stays as it was. The temporary name
    keeps the suffix, which some writers look at.
    """
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.rename(path)
        _fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text_atomically(path: Path, text: str) -> None:
    """Replaces `path` by `text` in UTF-8, or leaves it alone."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def hash_file(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keeps other builders out of `folder` until the block, or the process and its workers, end.

    Raises:
        KdantError: another build is writing there.
    """
    path = folder / LOCK_NAME
    for _ in range(_LOCK_TRIES):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink > 0:  # else its builder removed it just now
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # which workers share
                break
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_S)
        os.close(descriptor)
    else:
        raise KdantError(f"Another build is writing to {folder}. Wait for its end, or choose another folder.")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def share_lock(folder: Path) -> None:
    """Holds the lock of the build that this process works for, until the process ends."""
    fcntl.flock(os.open(folder / LOCK_NAME, os.O_RDWR), fcntl.LOCK_SH | fcntl.LOCK_NB)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Files that are either whole or absent."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tf_records.errors import KdantError


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


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

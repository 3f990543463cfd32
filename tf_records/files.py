"""Files that are either whole or absent, folders that one writer holds at a time, and writers asked to stop.

No TensorFlow here.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from tf_records.errors import KdantError
from tf_records.remote_path import RecordPath, RemotePath

LOCK_NAME = ".lock"
# The workers of a killed build need a moment to notice.
_LOCK_TRIES = 10
_LOCK_PAUSE_S = 0.1
# A sealed text's last field is `"sha256"`: the digest of the file's own bytes with zeros for its digits.
_END = b'"\n}\n'
_ZEROS = "0" * 64
_CONTROL = re.compile("[\x7f-\x9f]")
_SIGNAL_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


def claim_folder(
    folder: RecordPath, *, resume: bool = False, overwrite: bool = False, resumable: bool = True
) -> None:
    """Makes `folder`, or accepts it where it is empty, or where resuming or overwriting was asked for.

    What is not `resumable` has no --resume, which the error then leaves out.

    Raises:
        KdantError: it holds something, is no folder, or cannot be written.
    """
    if resume and overwrite:
        raise KdantError("Received both --resume and --overwrite. Choose one.")
    if isinstance(folder, RemotePath):
        folder.check_store()
        folder.mkdir()
        occupied = any(folder.iterdir())
    else:
        occupied = _make_folder(folder)
    if occupied and not (resume or overwrite):
        raise KdantError(
            f"Output folder {folder} is not empty. Choose another, or add "
            f"{'--resume to go on or ' if resumable else ''}--overwrite to replace what is there."
        )


def check_apart(out: RecordPath, *inputs: RecordPath, may_lie_in: bool = False) -> None:
    """Refuses an output that is, contains or lies in an input, which writing or replacing it could destroy.

    Args:
        out: file or folder that will be written.
        inputs: files and folders that are read.
        may_lie_in: whether `out` may lie in an input, as a report in the folder of its study.

    Raises:
        KdantError: names both.
    """
    for path in inputs:
        if _lies_in(path, out) or (_lies_in(out, path) and not may_lie_in):
            raise KdantError(
                f"Output {out} and input {path} should lie apart, so that nothing of it is overwritten. "
                f"Choose another output."
            )


def _lies_in(path: RecordPath, folder: RecordPath) -> bool:
    """Whether `path` is `folder` or lies below it."""
    if isinstance(path, RemotePath) or isinstance(folder, RemotePath):
        return f"{path}/".startswith(f"{folder}/")
    return path.resolve().is_relative_to(folder.resolve())


def _make_folder(folder: Path) -> bool:
    """Makes a local folder; True where it was there and holds something."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        occupied = any(folder.iterdir())
    except OSError as error:
        raise KdantError(
            f"Output folder {folder} cannot be made: {error.strerror}. Choose another."
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise KdantError(f"Output folder {folder} cannot be written: permission denied. Choose another.")
    return occupied


@contextmanager
def atomic_path(path: RecordPath, *, sync: bool = True) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success its file is fsynced and renamed to `path`.

    Without `sync` a power failure can leave the file empty; a killed process cannot.

    On any exception the temporary file is removed and `path` stays as it was. The temporary name
    keeps the suffix, which some writers look at. For a remote `path` the temporary file is local, and
    uploaded in one go under the final name: a store shows an object whole or not at all, and what
    it calls renaming is copying.
    """
    if isinstance(path, RemotePath):
        with tempfile.TemporaryDirectory(prefix="kdant-") as folder:
            yield Path(folder) / path.name
            path.upload(Path(folder) / path.name)
        return
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        yield temporary
        if sync:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.rename(path)
        if sync:
            fsync_path(path.parent)
    except OSError as error:
        if error.filename is None:  # as of a full disk
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text_atomically(path: RecordPath, text: str, *, sync: bool = True) -> None:
    """Replaces `path` by `text` in UTF-8, or leaves it alone; `sync` as of `atomic_path`."""
    with atomic_path(path, sync=sync) as temporary:
        temporary.write_text(text, encoding="utf-8")


def json_text(value: Mapping[str, Any], *, indent: int | None = None) -> str:
    """JSON that any parser reads: a number that is not finite is null, and `not_finite` says what it was.

    Args:
        value: of what JSON holds; other numbers, such as NumPy's, are taken as floats.
        indent: of each level; None is one line.

    Example:
        >>> json_text({"loss": float("nan"), "epochs": [1, 2]})
        '{"loss": null, "epochs": [1, 2], "not_finite": {"loss": "nan"}}'
    """
    reasons: dict[str, str] = {}
    clean = {name: _finite_only(part, name, reasons) for name, part in value.items()}
    text = json.dumps(
        clean | ({"not_finite": reasons} if reasons else {}),
        ensure_ascii=False,
        allow_nan=False,
        indent=indent,
    )
    # JSON escapes C0; of C1 and delete, too, a terminal may take some for commands.
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def parse_json_text(text: str | bytes) -> dict[str, Any]:
    """What `json_text` was given, the numbers that are not finite in their places again.

    Raises:
        ValueError: it is no JSON object.

    Example:
        >>> parse_json_text('{"loss": null, "epochs": [1, 2], "not_finite": {"loss": "nan"}}')
        {'loss': nan, 'epochs': [1, 2]}
    """
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")
    reasons = value.pop("not_finite", None)
    if not reasons:
        return value
    return {name: _put_back(part, name, reasons) for name, part in value.items()}


def _put_back(value: Any, place: str, reasons: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _put_back(part, f"{place}.{name}", reasons) for name, part in value.items()}
    if isinstance(value, list):
        return [_put_back(part, f"{place}.{number}", reasons) for number, part in enumerate(value)]
    return float(reasons[place]) if place in reasons else value


def _finite_only(value: Any, place: str, reasons: dict[str, str]) -> Any:
    """`value` with None for what is not finite, whose places and values are added to `reasons`."""
    if isinstance(value, Mapping):
        return {name: _finite_only(part, f"{place}.{name}", reasons) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite_only(part, f"{place}.{number}", reasons) for number, part in enumerate(value)]
    if not isinstance(value, str | int | float | None):
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        reasons[place] = str(value)
        return None
    return value


class StopSignals:
    """Within its block, the first SIGTERM or Ctrl-C is kept in `received`; the next one interrupts.

    In threads but the main one, where Python gives no signals, it does nothing.

    Args:
        report: called with a line on what the first one does.
    """

    def __init__(self, report: Callable[[str], None] = lambda line: None) -> None:
        self.received: str | None = None
        self._report = report
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in _SIGNAL_NAMES}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = _SIGNAL_NAMES[signal.Signals(number)]
        with suppress(RuntimeError):  # a line that is just being printed cannot be interrupted
            self._report(f"{self.received}: finishing this step, then a checkpoint. Once more stops at once.")


def hash_file(path: RecordPath) -> str:
    """The sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def seal(text: str) -> str:
    """Adds to a JSON object a checksum that tells of any changed byte of the file.

    Args:
        text: written with an indent of 1, ending in a line break.
    """
    head = text.removesuffix("\n}\n") + ',\n "sha256": "'
    return f"{head}{_seal_digest(head.encode(), _END)}{_END.decode()}"


def is_sealed(content: bytes) -> bool:
    """Whether every byte is as `seal` wrote it, white space and the case of the hex digits included."""
    end = len(content) - len(_END)
    start = max(0, end - len(_ZEROS))
    return content[start:end] == _seal_digest(content[:start], content[end:]).encode()


def _seal_digest(head: bytes, end: bytes) -> str:
    return hashlib.sha256(head + _ZEROS.encode() + end).hexdigest()


def remove_folder(path: RecordPath) -> None:
    """Removes a folder and all that is in it, if it is there."""
    if isinstance(path, RemotePath):
        path.rmtree()
    else:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def lock_folder(folder: RecordPath, writer: str = "build") -> Iterator[None]:
    """Keeps other writers out of `folder` until the block, or the process and its workers, end.

    Stores have no locks: a remote folder is not locked.

    Raises:
        KdantError: another `writer` is writing there.
    """
    if isinstance(folder, RemotePath):
        yield
        return
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
        raise KdantError(
            f"Another {writer} is writing to {folder}. Wait for its end, or choose another folder."
        )
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def share_lock(folder: RecordPath) -> None:
    """Holds the lock of the build, or other writer, that this process works for, until the process ends."""
    if isinstance(folder, RemotePath):
        return
    fcntl.flock(os.open(folder / LOCK_NAME, os.O_RDWR), fcntl.LOCK_SH | fcntl.LOCK_NB)


def fsync_path(path: Path) -> None:
    """Waits until a file, or the names in a folder, have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

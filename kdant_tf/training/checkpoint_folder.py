"""Checkpoints on the disk: folders that are whole or recognised as not. No TensorFlow here.

`checkpoints/step-00000120` holds files of tensors and `state.json`, which has their sha256s and, last, one
of itself. A folder appears under its name in one go, when all of it has reached the disk.
"""

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tf_records.errors import RunError
from tf_records.files import fsync_path, hash_file
from tf_records.seal import is_sealed, seal

STATE_NAME = "state.json"
_NAME = re.compile(r"step-\d{8,}")
_TEMPORARY = ".tmp-"


@dataclasses.dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """A checkpoint whose files are as they were written, and what its state.json says."""

    path: Path
    state: dict[str, Any]


def write_checkpoint(
    folder: Path, global_step: int, state: dict[str, Any], write_files: Callable[[Path], None]
) -> Path:
    """Writes one checkpoint, in the place of an earlier one of the same step; returns its path.

    Args:
        folder: of all checkpoints, made if need be.
        global_step: names it.
        state: what JSON can hold.
        write_files: writes the files of tensors into the folder it is given.
    """
    path = folder / checkpoint_name(global_step)
    temporary = folder / f"{_TEMPORARY}{os.getpid()}-{path.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        write_files(temporary)
        files = {file.name: hash_file(file) for file in sorted(temporary.iterdir())}
        text = json.dumps({**state, "files": files}, indent=1, default=float) + "\n"
        (temporary / STATE_NAME).write_text(seal(text), encoding="utf-8")
        for written in (*temporary.iterdir(), temporary):
            fsync_path(written)
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
        fsync_path(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def checkpoint_name(global_step: int) -> str:
    """Of the checkpoint written after so many steps."""
    return f"step-{global_step:08d}"


def find_checkpoint(folder: Path, report: Callable[[str], None]) -> SavedCheckpoint | None:
    """The newest whole checkpoint in `folder`; None where there never was one.

    Args:
        folder: of all checkpoints, which need not be there.
        report: told in a line of newer ones that are not whole.

    Raises:
        RunError: there are checkpoints, but none that is whole or that this version can read.
    """
    faults = []
    for path in reversed(_checkpoints(folder)):
        try:
            saved = read_checkpoint(path)
        except RunError as error:
            faults.append(str(error))
            continue
        if faults:
            report(f"{' '.join(faults)} Taking {path.name}, the one before.")
        return saved
    if faults:
        raise RunError(f"{' '.join(faults)} There is no other; begin again with --overwrite.")
    if (folder / "checkpoint").is_file():
        raise RunError(
            f"{folder} holds checkpoints of an earlier version of kdant, which this one cannot go on from. "
            f"Finish the run with that version, or begin again with --overwrite."
        )
    return None


def read_checkpoint(path: Path) -> SavedCheckpoint:
    """Raises RunError, in one sentence, where anything is not as it was written."""
    try:
        content = (path / STATE_NAME).read_bytes()
        if not is_sealed(content):
            raise RunError(f"Checkpoint {path} is damaged: {STATE_NAME} is not as it was written.")
        state = json.loads(content)
        for name, sha256 in state["files"].items():
            if hash_file(path / name) != sha256:
                raise RunError(f"Checkpoint {path} is damaged: {name} is not as it was written.")
    except OSError as error:
        missing = Path(error.filename).name if error.filename else "a file"
        raise RunError(f"Checkpoint {path} is damaged: {missing}: {error.strerror}.") from error
    return SavedCheckpoint(path, state)


def remove_checkpoints(folder: Path, *, keep: set[str]) -> None:
    """Removes all checkpoints in `folder` but those named, and what killed trainings left half-written."""
    for path in _checkpoints(folder):
        if path.name not in keep:
            shutil.rmtree(path, ignore_errors=True)
    remove_half_written(folder)


def remove_half_written(folder: Path) -> None:
    """Removes the temporary files and folders of trainings that were killed while they wrote them."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def checkpoint_names(folder: Path) -> list[str]:
    """Names of all checkpoints in `folder`, the oldest first."""
    return [path.name for path in _checkpoints(folder)]


def _checkpoints(folder: Path) -> list[Path]:
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in paths if _NAME.fullmatch(path.name)), key=lambda path: int(path.name[5:]))

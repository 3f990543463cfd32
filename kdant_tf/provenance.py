"""What a run was made with: versions, commit, command line. No TensorFlow here."""

import importlib.metadata
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from kdant_tf.version import __version__

_PACKAGES = ("tensorflow", "keras", "numpy", "av")
_CHECKOUT = Path(__file__).resolve().parents[1]
_GIT_SECONDS = 20


def describe_provenance() -> dict[str, Any]:
    """For config.json: "versions", "git" and "command"."""
    return {
        "versions": _versions(),
        "git": describe_checkout(_CHECKOUT),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def describe_checkout(folder: Path) -> dict[str, Any] | None:
    """The commit of a git checkout, and whether its files differ from it; None of any other folder.

    A folder within a checkout, such as an environment with kdant installed, is none itself.
    """
    if not (folder / ".git").exists():
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain")
    return None if commit is None or changes is None else {"commit": commit, "dirty": changes != ""}


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says, or None where it is not installed or fails."""
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_GIT_SECONDS)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _versions() -> dict[str, str]:
    installed = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"kdant": __version__, "python": platform.python_version(), **installed}

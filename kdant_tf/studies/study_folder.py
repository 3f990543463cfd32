"""What a study's folder tells of itself: study.json. No TensorFlow here."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdant_tf.provenance import describe_provenance
from kdant_tf.runs import manifest_sha256
from kdant_tf.studies.hardware import describe_hardware
from kdant_tf.studies.study import RunSpec
from tf_records.errors import RunError
from tf_records.files import write_text_atomically

STUDY_NAME = "study.json"


class StudyFile:
    """study.json: for each table made in the folder its settings, and for each run the seconds it took.

    Args:
        folder: of the study.

    Raises:
        RunError: the file is there and cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / STUDY_NAME
        self.fields: dict[str, Any] = {"tables": {}, "seconds": {}}
        if self.path.is_file():
            try:
                self.fields |= {**json.loads(self.path.read_text(encoding="utf-8"))}
                dict(self.fields["tables"]), dict(self.fields["seconds"])
            except (OSError, ValueError, TypeError) as error:
                raise RunError(
                    f"{self.path} cannot be read: {error}. Delete it; the runs beside it stay."
                ) from error

    @property
    def seconds(self) -> dict[str, float]:
        """Run → what its training and evaluation took, over all times it was begun."""
        return self.fields["seconds"]

    def add_seconds(self, name: str, seconds: float) -> None:
        """Counts a process of the run `name`."""
        self.seconds[name] = round(self.seconds.get(name, 0.0) + seconds, 1)
        self._write()

    def described(self, name: str) -> dict[str, Any] | None:
        """What is kept of how a table is made; None where it was not begun yet."""
        return self.fields["tables"].get(name)

    def describe(self, name: str, scale: str, runs: Sequence[RunSpec]) -> dict[str, Any]:
        """Keeps what a table is made with, and returns it."""
        about = {
            "scale": scale,
            **describe_provenance(),
            "hardware": describe_hardware(),
            "runs": [_describe_run(spec) for spec in runs],
        }
        self.fields["tables"][name] = about
        self._write()
        return about

    def _write(self) -> None:
        write_text_atomically(self.path, json.dumps(self.fields, indent=1, ensure_ascii=False) + "\n")


def _describe_run(spec: RunSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "role": spec.role,
        "teacher": spec.teacher,
        "records": str(spec.records),
        "records_sha256": manifest_sha256(spec.records),
        "views": list(spec.views),
        "config": dataclasses.asdict(spec.config),
    }

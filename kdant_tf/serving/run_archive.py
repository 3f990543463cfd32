"""From a run folder to an archive that another person evaluates, predicts with and goes on from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from kdant_tf.archive import CONTENTS_NAME, NAMES, SUFFIX, write_archive
from kdant_tf.models.networks import load_network
from kdant_tf.runs import CONFIG_NAME, Run, load_run
from kdant_tf.serving.export import LABELS_NAME, describe_export
from kdant_tf.serving.model_card import CARD_NAME, without_paths, write_card
from kdant_tf.serving.signatures import Stream
from tf_records.files import json_text, parse_json_text


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PackedRun:
    """A run as one file.

    Args:
        path: of the archive.
        bytes: its size.
        sha256: of it, to be handed on by another way than the archive.
        files: what it holds.
        missing_stem: where the stem lies that made the run's features, which the archive does not hold; None
            where every kdant finds it, or there is none.
    """

    path: Path
    bytes: int
    sha256: str
    files: tuple[str, ...]
    missing_stem: str | None


def pack_run(run: str | Path | Run, out: str | Path) -> PackedRun:
    """Writes a finished run with weights, settings, classes, results and a card, but no checkpoints.

    Paths of this machine are cut down to their last names. The network is loaded first, as its receiver will.

    Args:
        run: a finished run, or its folder.
        out: NAME.zip to write, or a folder that gets RUN.zip.

    Raises:
        RunError: the run is not finished, or its network cannot be loaded.
        KdantError: the archive is there already, or cannot be written.

    Example:
        packed = pack_run("student", "student.zip")
        kdant.load_run(f"{packed.path}#sha256={packed.sha256}")
    """
    run = run if isinstance(run, Run) else load_run(run)
    path = Path(out)
    if path.suffix != SUFFIX:
        path = path / f"{run.folder.resolve().name}{SUFFIX}"
    stream = Stream(run=run, network=load_network(run))
    config = parse_json_text((run.folder / CONFIG_NAME).read_text(encoding="utf-8"))
    files: dict[str, bytes | Path] = {
        name: run.folder / name for name in NAMES if (run.folder / name).is_file()
    }
    files |= {
        CONFIG_NAME: (json_text(without_paths(config), indent=1) + "\n").encode(),
        LABELS_NAME: "".join(f"{name}\n" for name in run.classes).encode(),
        CARD_NAME: write_card([stream], describe_export([stream], {})).encode(),
    }
    digest = write_archive(path, files)
    source = None if run.features is None else run.features.source
    return PackedRun(
        path=path,
        bytes=path.stat().st_size,
        sha256=digest,
        files=(CONTENTS_NAME, *sorted(files)),
        missing_stem=None if source in (None, "imagenet", "kinetics") else source,
    )

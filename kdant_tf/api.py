"""Training and runs from Python: what `import kdant_tf as kdant` offers beside the method's own functions.

Folders and files are `str` or `Path`. What a user can mend raises a `KdantError` with the sentence that the
command line prints.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdant_tf import runs
from kdant_tf.config import STUDENT, TEACHER, Execution, resolve_config
from tf_records.remote_path import RecordPath

if TYPE_CHECKING:
    import keras


class TrainedRun(runs.Run):
    """A finished run, and its network once it is asked for.

    Example:
        run = kdant.load_run("student")
        print(run.classes, run.config.feature_loss, run.model.count_params())
    """

    @functools.cached_property
    def model(self) -> keras.Model:
        """The trained network: a clip in, a dict of "logits" and one feature map out."""
        from kdant_tf.models.networks import load_network

        return load_network(self)


def load_run(folder: str | Path) -> TrainedRun:
    """A finished run folder, made by `train`, `distill` or their commands, or an archive of one.

    Args:
        folder: of the run; or NAME.zip, https://…/NAME.zip#sha256=… or hf://OWNER/NAME, see
            `kdant_tf.archive.local_run`.

    Raises:
        RunError: no such folder, no or an unreadable config.json, or no model.

    Example:
        kdant.load_run("student").model.summary()
    """
    run = runs.load_run(folder)
    return TrainedRun(**{field.name: getattr(run, field.name) for field in dataclasses.fields(run)})


def train(
    records: str | RecordPath,
    out: str | Path,
    *,
    preset: str | None = None,
    config: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    report: Callable[[str], None] = lambda line: None,
    **settings: Any,
) -> TrainedRun:
    """Trains the recognition network R on the clips in which the actions happen: `kdant train-teacher`.

    Args:
        records: folder made by `kdant build-records`, local or remote.
        out: run folder to make.
        preset: settings that ship with kdant, such as "jhmdb-small".
        config: TOML file with settings, which override the preset's.
        resume: go on with what was begun in `out`.
        overwrite: replace the run in `out`.
        callbacks: Keras callbacks, told of epochs and steps.
        report: told in a line what takes long before the first epoch.
        settings: fields of `TrainConfig` and `Execution`, such as `epochs=2` or `devices="cpu"`; they
            override preset and file.

    Returns:
        The finished run; `.model` is its network.

    Raises:
        KdantError: records, settings and `out` do not fit together, or the loss is no longer finite.

    Source: Tran et al. 2019, §3.1.

    Example:
        run = kdant.train("records", "teacher", preset="jhmdb-small", epochs=2)
    """
    return _train(
        TEACHER,
        records,
        out,
        None,
        settings,
        preset=preset,
        config=config,
        resume=resume,
        overwrite=overwrite,
        callbacks=callbacks,
        report=report,
    )


def distill(
    records: str | RecordPath,
    out: str | Path,
    *,
    teacher: str | Path | runs.Run,
    preset: str | None = None,
    config: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    report: Callable[[str], None] = lambda line: None,
    **settings: Any,
) -> TrainedRun:
    """Trains the anticipation network A on the earlier clips, with R as its teacher: `kdant distill`.

    Model, width, crop and batch-norm momentum are the teacher's unless they are given.

    Args:
        records: folder made by `kdant build-records`, local or remote.
        out: run folder to make.
        teacher: a finished run of `train`, or its folder.
        preset, config, resume, overwrite, callbacks, report, settings: as for `train`.

    Returns:
        The finished run; `.model` is its network.

    Raises:
        KdantError: records, teacher, settings and `out` do not fit together, or the loss is no longer finite.

    Source: Tran et al. 2019, §3.2, eq. 3.

    Example:
        run = kdant.distill("records", "student", teacher="teacher", feature_loss="bidirectional")
    """
    taught_by = teacher if isinstance(teacher, runs.Run) else load_run(teacher)
    return _train(
        STUDENT,
        records,
        out,
        taught_by,
        settings,
        preset=preset,
        config=config,
        resume=resume,
        overwrite=overwrite,
        callbacks=callbacks,
        report=report,
    )


def _train(
    role: str,
    records: str | RecordPath,
    out: str | Path,
    teacher: runs.Run | None,
    settings: Mapping[str, Any],
    *,
    preset: str | None,
    config: str | Path | None,
    **options: Any,
) -> TrainedRun:
    of_execution = {field.name for field in dataclasses.fields(Execution)}
    resolved = resolve_config(
        role,
        inherited={} if teacher is None else runs.inherited_settings(teacher),
        preset=preset,
        file=None if config is None else Path(config),
        options={name: value for name, value in settings.items() if name not in of_execution},
    )
    execution = Execution(**{name: value for name, value in settings.items() if name in of_execution})
    from kdant_tf.training.train import train as run_training

    run_training(records, out, resolved, teacher=teacher, execution=execution, **options)
    return load_run(out)

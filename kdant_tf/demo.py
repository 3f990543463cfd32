"""The whole loop on rendered videos: records, teacher, three students, evaluation, pictures, export."""

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import keras

from kdant_tf.config import STUDENT, TEACHER, Execution, resolve_config
from kdant_tf.evaluation.evaluate import Evaluation, evaluate_run
from kdant_tf.models.networks import load_network
from kdant_tf.runs import Run, inherited_settings, load_run
from kdant_tf.serving.export import export_run
from kdant_tf.training.train import train
from kdant_tf.visualization.visualize import visualize
from tf_records.files import claim_folder
from tf_records.plan import BuildOptions
from tf_records.records import Records
from tf_records.schema import ClipSpec
from tf_records.sources.synthetic import HEIGHT, OFFSET_FRAMES, SyntheticSpec, read_synthetic
from tf_records.writer import build_records

SIZES = {
    "small": SyntheticSpec(train=160, unlabeled=80, test=80),
    "tiny": SyntheticSpec(train=24, unlabeled=8, test=12),
}
FEATURE_LOSSES = ("none", "direct", "bidirectional")
_FOLDERS = (
    "videos",
    "records",
    "teacher",
    *(f"student-{name}" for name in FEATURE_LOSSES),
    "pictures",
    "export",
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """What came of it.

    Args:
        evaluations: name of the network → its evaluation on the test split.
        chance: accuracy of a guess, a share of 1.
        pictures: folder of them.
        exported: folder of the SavedModel of the student with the bidirectional loss.
    """

    evaluations: dict[str, Evaluation]
    chance: float
    pictures: Path
    exported: Path


def run_demo(
    out: str | Path,
    size: str,
    *,
    overwrite: bool = False,
    on_stage: Callable[[str], None] = lambda stage: None,
    make_callbacks: Callable[[int, str], Sequence[keras.callbacks.Callback]] = lambda epochs, name: (),
) -> DemoResult:
    """Runs everything into `out`.

    Args:
        out: folder, made if need be; not empty only with `overwrite`.
        size: a key of SIZES.
        overwrite: replace what an earlier demo left; other files stay.
        on_stage: told what begins.
        make_callbacks: (epochs, name of the network) → callbacks of its training.

    Raises:
        KdantError: `out` is not empty.
    """
    out = Path(out)
    claim_folder(out, overwrite=overwrite, resumable=False)
    for name in _FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)
    on_stage("rendering and encoding videos, building records")
    records = _build_records(out, size)
    teacher = _train(out, size, None, "none", make_callbacks)
    students = {name: _train(out, size, teacher, name, make_callbacks) for name in FEATURE_LOSSES}
    on_stage("evaluating, drawing, exporting")
    runs = {"teacher": teacher, **students}
    networks = {name: load_network(run) for name, run in runs.items()}
    evaluations = {name: evaluate_run(run, records, network=networks[name]) for name, run in runs.items()}
    pictures = out / "pictures"
    loaded = {run.folder: networks[name] for name, run in runs.items()}
    visualize(list(runs.values()), records, pictures, networks=loaded)
    exported = export_run(students["bidirectional"], out / "export", network=networks["bidirectional"])
    return DemoResult(
        evaluations=evaluations,
        chance=1 / len(records.manifest.classes),
        pictures=pictures,
        exported=exported.folder,
    )


def _build_records(out: Path, size: str) -> Records:
    annotations = read_synthetic(out / "videos", SIZES[size])
    clip = ClipSpec(clip_frames=8, offset_frames=OFFSET_FRAMES)
    build_records(annotations, out / "records", BuildOptions(clip=clip, short_side=HEIGHT))
    return Records.open(out / "records")


def _train(
    out: Path,
    size: str,
    teacher: Run | None,
    feature_loss: str,
    make_callbacks: Callable[[int, str], Sequence[keras.callbacks.Callback]],
) -> Run:
    preset = f"demo-{size}"
    if teacher is None:
        name, config = "teacher", resolve_config(TEACHER, preset=preset)
    else:
        name = f"student-{feature_loss}"
        options = {"feature_loss": feature_loss}
        config = resolve_config(
            STUDENT, inherited=inherited_settings(teacher), preset=preset, options=options
        )
    train(
        out / "records",
        out / name,
        config,
        teacher=teacher,
        # Whatever TF_CONFIG says: a demo is of one machine.
        execution=Execution(strategy="mirrored"),
        callbacks=make_callbacks(config.epochs, name),
    )
    return load_run(out / name)

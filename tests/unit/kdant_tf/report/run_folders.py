"""Run folders made by hand: evaluated, without a network or a training."""

from pathlib import Path
from typing import Any

import numpy as np

from kdant_tf.config import TrainConfig
from kdant_tf.evaluation.evaluate import summarize
from kdant_tf.evaluation.predictions import EvaluatedRun, Predictions, read_evaluated, save_predictions
from kdant_tf.runs import PREDICTIONS_NAME, Run, load_run, record_evaluation
from tf_records.schema import ClipSpec

CLASSES = ("fall", "grow", "rise", "shrink")
METRICS_HEADER = "epoch,learning_rate,loss,classification_loss,feature_loss,accuracy\n"


def make_predictions(labels: list[int], predicted: list[int], names: str = "s") -> Predictions:
    """Of a network that gives the class `predicted` 0.7, each sample in a video of its own."""
    probabilities = np.full((len(labels), len(CLASSES)), 0.1)
    probabilities[np.arange(len(labels)), predicted] = 0.7
    ids = np.array([f"{names}{number}" for number in range(len(labels))])
    return Predictions(probabilities=probabilities, labels=np.array(labels), ids=ids, videos=ids)


def make_run(folder: Path, role: str = "student", records_sha256: str = "0" * 64, **settings: Any) -> Run:
    """A finished run that was not evaluated; its model.keras is no network."""
    folder.mkdir(parents=True)
    run = Run(
        folder=folder,
        role=role,
        config=TrainConfig(**settings),
        classes=CLASSES,
        clip=ClipSpec(clip_frames=8, offset_frames=16),
        modality="rgb",
        short_side=64,
        records_sha256=records_sha256,
        teacher=None if role == "teacher" else "teacher",
    )
    run.save()
    run.model_path.write_bytes(b"no network")
    (folder / "metrics.csv").write_text(METRICS_HEADER + "1,0.1,2,2,0,0.5\n2,0.1,1,1,0,0.75\n")
    return load_run(folder)


def keep(run: Run, predictions: Predictions, view: str = "observed", split: str = "test") -> None:
    """Keeps an evaluation in the run folder, as `kdant evaluate` does."""
    save_predictions(run.folder / PREDICTIONS_NAME, f"{view}/{split}", predictions)
    result = summarize(predictions, CLASSES, view=view, split=split, train_counts={})
    record_evaluation(run, view, {**result.to_dict(), "windows": 5})


def evaluated(folder: Path, predicted: list[int], **settings: Any) -> EvaluatedRun:
    """A run that was evaluated on four samples, one of each class."""
    run = make_run(folder, **settings)
    keep(run, make_predictions([0, 1, 2, 3], predicted))
    (found,) = read_evaluated(run, folder.name)
    return found

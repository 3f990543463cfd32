"""Figure 3: what each network holds active in the same clip, beside what R sees in the action."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kdant_tf.evaluation.plots import activation_magnitude, plot_heat_maps
from kdant_tf.runs import Run
from kdant_tf.training.train import load_network
from tf_records.reader import Records, evaluation_batches
from tf_records.schema import FUTURE, OBSERVED


def draw_heat_maps(
    teacher: Run, students: Mapping[str, Run], records: Records, path: Path, rows: int = 4
) -> None:
    """Draws a row for the first test sample of each class, up to `rows`.

    Columns: the observed clip, the teacher on it, each student on it, the teacher on the future clip.

    Args:
        teacher, students: finished runs with the same crop and endpoint.
        records: with a test split.
        path: PNG to write.
        rows: samples to show.
    """
    observed = _first_clip_of_each_class(records, OBSERVED, teacher.config.crop)
    future = _first_clip_of_each_class(records, FUTURE, teacher.config.crop)
    endpoint = teacher.config.endpoint
    recognition = load_network(teacher)
    networks = {"teacher": recognition, **{name: load_network(run) for name, run in students.items()}}
    table = []
    for label in sorted(observed)[:rows]:
        panels: dict[str, Any] = {"observed clip": (_middle_frame(observed[label]), None)}
        for name, network in networks.items():
            panels[name] = _panel(network, observed[label], endpoint)
        panels["teacher, future clip"] = _panel(recognition, future[label], endpoint)
        table.append({"title": records.manifest.classes[label], "panels": panels})
    plot_heat_maps(table, path)


def _panel(network: keras.Model, clip: np.ndarray, endpoint: str) -> tuple[np.ndarray, np.ndarray]:
    feature_map = keras.ops.convert_to_numpy(network(clip[None], training=False)[endpoint])[0]
    return _middle_frame(clip), activation_magnitude(feature_map)


def _middle_frame(clip: np.ndarray) -> np.ndarray:
    """[-1, 1] → [0, 1]."""
    return (clip[len(clip) // 2] + 1) / 2


def _first_clip_of_each_class(records: Records, view: str, crop: int) -> dict[int, np.ndarray]:
    """Middle window of the first test record of each class: label → float `(T, crop, crop, 3)`."""
    batches = evaluation_batches(records, split="test", view=view, batch_size=16, crop=crop, windows=1)
    clips: dict[int, np.ndarray] = {}
    for batch in batches.as_numpy_iterator():
        for clip, label in zip(batch["clip"], batch["label"], strict=True):
            clips.setdefault(int(label), clip)
    return clips

"""Figure 3: what each network holds active in the same clip, beside what R sees in the action."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kdant_tf.evaluation.plots import activation_magnitude, plot_heat_maps
from kdant_tf.models.networks import feature_map_name
from tf_records.reader import evaluation_batches
from tf_records.records import Records
from tf_records.schema import FUTURE, OBSERVED


def draw_heat_maps(
    teacher: keras.Model,
    students: Mapping[str, keras.Model],
    records: Records,
    path: Path,
    *,
    rows: int = 4,
) -> None:
    """Draws a row for the first test sample of each class, up to `rows`.

    Columns: the observed clip, the teacher on it, each student on it, the teacher on the future clip.

    Args:
        teacher, students: trained networks with the same input size and one map in space each.
        records: with a test split.
        path: PNG to write.
        rows: samples to show.
    """
    crop = teacher.input.shape[2]
    observed = _first_clip_of_each_class(records, OBSERVED, crop)
    future = _first_clip_of_each_class(records, FUTURE, crop)
    labels = sorted(observed)[:rows]
    past, action = (np.stack([clips[label] for label in labels]) for clips in (observed, future))
    columns = {"teacher": (past, teacher), **{name: (past, network) for name, network in students.items()}}
    columns["teacher, future clip"] = (action, teacher)
    panels: dict[str, Any] = {"observed clip": [(_middle_frame(clip), None) for clip in past]}
    for name, (clips, network) in columns.items():
        maps = keras.ops.convert_to_numpy(network(clips, training=False)[feature_map_name(network)])
        frames = [_middle_frame(clip) for clip in clips]
        panels[name] = [(frame, activation_magnitude(m)) for frame, m in zip(frames, maps, strict=True)]
    table = [
        {
            "title": records.manifest.classes[label],
            "panels": {name: cells[i] for name, cells in panels.items()},
        }
        for i, label in enumerate(labels)
    ]
    plot_heat_maps(table, path)


def _middle_frame(clip: np.ndarray) -> np.ndarray:
    """[-1, 1] → RGB in [0, 1]; of flow, u is shown as red and v as green."""
    frame = (clip[len(clip) // 2] + 1) / 2
    return np.pad(frame, ((0, 0), (0, 0), (0, 3 - frame.shape[-1])), constant_values=0.5)


def _first_clip_of_each_class(records: Records, view: str, crop: int) -> dict[int, np.ndarray]:
    """Middle window of the first test record of each class: label → float `(T, crop, crop, 3)`."""
    batches = evaluation_batches(records, split="test", view=view, batch_size=16, crop=crop, windows=1)
    clips: dict[int, np.ndarray] = {}
    for batch in batches.as_numpy_iterator():
        for clip, label in zip(batch["clip"], batch["label"], strict=True):
            clips.setdefault(int(label), clip)
    return clips

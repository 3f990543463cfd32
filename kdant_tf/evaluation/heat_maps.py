"""Figure 3: what each network holds active in the same clip, beside what R sees in the action."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kdant_tf.evaluation.plots import activation_magnitude
from kdant_tf.models.networks import feature_map_name
from tf_records.reader import evaluation_batches
from tf_records.records import Records, iterate_batches


def heat_map_rows(
    titles: Sequence[str],
    shown: tuple[str, np.ndarray],
    columns: Mapping[str, tuple[np.ndarray, keras.Model]],
) -> list[dict[str, Any]]:
    """Rows for `heat_map_pixels`, one a clip.

    Args:
        titles: of the rows.
        shown: name and clips of the first column, which shows them bare.
        columns: name → clips, and the network that sees them, with a map in space.
    """
    name, clips = shown
    panels: dict[str, Any] = {name: [_bare_panel(clip) for clip in clips]}
    for name, (clips, network) in columns.items():
        maps = keras.ops.convert_to_numpy(network(clips, training=False)[feature_map_name(network)])
        frames = [_middle_frame(clip) for clip in clips]
        panels[name] = [
            (frame, activation_magnitude(m.astype("float32"))) for frame, m in zip(frames, maps, strict=True)
        ]
    return [
        {"title": title, "panels": {name: cells[i] for name, cells in panels.items()}}
        for i, title in enumerate(titles)
    ]


def first_clips(
    records: Records,
    split: str,
    view: str,
    crop: int,
    *,
    chosen: np.ndarray | None = None,
    classes: int | None = None,
    samples: int | None = None,
) -> dict[int, np.ndarray]:
    """Middle window of the first record of each class: label → float `(T, crop, crop, C)`, or a map.

    Args:
        chosen: bool `(records,)`, records to look at; None for all.
        classes, samples: look no further than to so many; None for no such bound.
    """
    batches = evaluation_batches(
        records, split=split, view=view, batch_size=4, crop=crop, windows=1, chosen=chosen
    )
    clips: dict[int, np.ndarray] = {}
    looked_at = 0
    for batch in iterate_batches(batches, records, split):
        for clip, label in zip(batch["clip"].numpy(), batch["label"].numpy(), strict=True):
            looked_at += 1
            if label >= 0:
                clips.setdefault(int(label), clip)
            if len(clips) == classes or looked_at == samples:
                return clips
    return clips


def _bare_panel(clip: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The middle frame; of features, which show none, how large they are."""
    return _middle_frame(clip), None if clip.shape[-1] <= 3 else activation_magnitude(clip)


def _middle_frame(clip: np.ndarray) -> np.ndarray:
    """[-1, 1] → RGB in [0, 1]; of flow, u is shown as red and v as green; of features a white one."""
    if clip.shape[-1] > 3:
        return np.ones((*clip.shape[1:3], 3))
    frame = (clip[len(clip) // 2] + 1) / 2
    return np.pad(frame, ((0, 0), (0, 0), (0, 3 - frame.shape[-1])), constant_values=0.5)

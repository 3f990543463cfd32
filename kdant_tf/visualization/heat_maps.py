"""Figure 3: what each network holds active in the same clip, beside what R sees in the action."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from kdant_tf.models.networks import feature_map_name
from kdant_tf.visualization.curves import activation_magnitude
from kdant_tf.visualization.style import GREY, fit_note, save, shorten, wrap
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


# Figure 3: how long the feature vectors of each network are at each place of the same clip.


# Also told apart where all is grey: lightness rises all the way.
_COLOURS = matplotlib.colormaps["inferno"]
_UNIT_SQUARE = (0, 1, 0, 1)
_SIDE, _TITLE, _BAR = 1.75, 0.42, 0.95


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Panel:
    """One picture of a row.

    Args:
        frame: RGB `(S, S, 3)` in [0, 1].
        magnitude: `(H, W)` to draw over it, or None for the bare frame.
        title: above it, such as what the network says.
        wrong: what it says is wrong; the picture's border is dashed then.
    """

    frame: np.ndarray
    magnitude: np.ndarray | None = None
    title: str = ""
    wrong: bool = False


def plot_magnitudes(rows: Mapping[str, Mapping[str, Panel]], path: Path, *, note: str = "") -> Path:
    """A row a sample, a column a network; one colour scale for each row.

    It goes from the smallest to the largest value in the row, so that networks compare in amount too. A
    ring stands at the largest of each map. What a network says wrongly has a cross and a dashed border.

    Args:
        rows: title → name of the column → panel, with the same columns in each row.
        path: PNG to write.
        note: below all.

    Returns:
        `path`.
    """
    names = {name: wrap(shorten(name, 48), 24) for name in next(iter(rows.values()))}
    width = len(names) * (_SIDE + 0.12) + 0.45 + _BAR
    lines = fit_note(note, width - 0.6)
    bottom = 0.1 + (0.16 * (2 + lines.count("\n")) if note else 0)
    top = 0.13 + 0.16 * max(2, *(1 + name.count("\n") for name in names.values()))
    height = _SIDE + _TITLE
    total = top + len(rows) * height + bottom
    figure = Figure(figsize=(width, total))
    for i, (title, row) in enumerate(rows.items()):
        scale = shared_scale([*row.values()])
        for j, (name, panel) in enumerate(row.items()):
            left = 0.4 + j * (_SIDE + 0.12)
            low = total - top - i * height - _TITLE - _SIDE + 0.12
            axis = figure.add_axes((left / width, low / total, _SIDE / width, _SIDE / total))
            _draw(axis, panel, scale)
            if i == 0:
                figure.text(
                    (left + _SIDE / 2) / width,
                    1 - 0.5 * top / total,
                    names[name],
                    ha="center",
                    va="center",
                    fontsize=9,
                    fontweight="bold",
                )
            if j == 0:
                axis.set_ylabel(shorten(title, 24), fontsize=9.5)
        bar = ((width - _BAR + 0.1) / width, low / total, 0.13 / width, _SIDE / total)
        _draw_bar(figure.add_axes(bar), scale)
    figure.text(0.4 / width, (bottom - 0.04) / total, lines, fontsize=8, color=GREY, va="top")
    return save(figure, path)


def shared_scale(panels: Sequence[Panel]) -> Normalize:
    """From the smallest to the largest magnitude of all panels."""
    drawn = [panel.magnitude for panel in panels if panel.magnitude is not None]
    low, high = min(float(each.min()) for each in drawn), max(float(each.max()) for each in drawn)
    return Normalize(low, high if high > low else low + 1)


def _draw(axis: Any, panel: Panel, scale: Normalize) -> None:
    axis.set(xticks=[], yticks=[])
    axis.set_title(panel.title, fontsize=8.5, pad=3)
    if panel.magnitude is None:
        axis.imshow(panel.frame, extent=_UNIT_SQUARE)
    else:
        grey = 0.15 + 0.85 * panel.frame.mean(axis=-1)
        axis.imshow(grey, cmap="gray", vmin=0, vmax=1, extent=_UNIT_SQUARE)
        axis.imshow(
            panel.magnitude,
            cmap=_COLOURS,
            norm=scale,
            alpha=0.62,
            extent=_UNIT_SQUARE,
            interpolation="bilinear",
        )
        rows, columns = panel.magnitude.shape
        y, x = np.unravel_index(np.argmax(panel.magnitude), panel.magnitude.shape)
        place = ((x + 0.5) / columns, 1 - (y + 0.5) / rows)
        for size, colour in ((9, "black"), (7, "white")):
            axis.plot(*place, "o", ms=size, mfc="none", mec=colour, mew=1.3)
        axis.set(xlim=(0, 1), ylim=(0, 1))
    for spine in axis.spines.values():
        spine.set(
            color="black",
            linewidth=1.6 if panel.wrong else 0.8,
            linestyle=(0, (3, 2)) if panel.wrong else "-",
        )


def _draw_bar(axis: Any, scale: Normalize) -> None:
    bar = axis.figure.colorbar(ScalarMappable(scale, _COLOURS), cax=axis, alpha=0.75)
    bar.set_label("length of the vector", fontsize=8)
    axis.tick_params(labelsize=8)

"""Figure 3: how long each network's feature vectors are at each place of the same clip."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from kdant_tf.models.networks import feature_map_name
from kdant_tf.visualization.style import GREY, fit_note, save, shorten, wrap
from tf_records.heads import first_column
from tf_records.reader import evaluation_batches
from tf_records.records import Records, iterate_batches

# Lightness rises all the way, so that it can be read in grey too.
_COLOURS = matplotlib.colormaps["inferno"]
_UNIT_SQUARE = (0, 1, 0, 1)
_LENGTH = "length of the vector"
# Inches: a picture's side, the gap beside it, and the room for its title, the row's title and the colour bar.
_SIDE, _GAP, _TITLE, _LEFT, _BAR = 1.75, 0.12, 0.42, 0.4, 0.95
# Of the colours over the frame.
_ALPHA = 0.62
# Pixels of the plain grid: a picture's side, from one to the next, and a line of text.
_TILE, _PITCH, _LINE = 168, 176, 16


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeatMap:
    """A frame, and how active a network is at each place of it.

    Args:
        frame: RGB `(S, S, 3)` in [0, 1].
        magnitude: `activation_magnitude` `(H, W)` to draw over it, or None for the bare frame.
        title: above it, such as what the network predicts.
        wrong: the prediction is wrong; the border is dashed then.
    """

    frame: np.ndarray
    magnitude: np.ndarray | None = None
    title: str = ""
    wrong: bool = False


def activation_magnitude(feature_map: np.ndarray) -> np.ndarray:
    """Length of the feature vector at each place, averaged over time (§4.2, Figure 3).

    Args:
        feature_map: float `(T, H, W, d)`.

    Returns:
        float `(H, W)`.
    """
    magnitude: np.ndarray = np.linalg.norm(feature_map, axis=-1).mean(axis=0)
    return magnitude


def plot_heat_maps(
    rows: Mapping[str, Mapping[str, HeatMap]],
    path: Path,
    *,
    note: str = "",
    measure: str = _LENGTH,
    limits: tuple[float, float] | None = None,
) -> Path:
    """A row a sample, a column a network; one colour scale for each row.

    It goes from the smallest to the largest value in the row, so that networks compare in amount too. A
    ring stands at the largest of each map. A wrong prediction has a cross and a dashed border.

    Args:
        rows: title → name of the column → heat map, with the same columns in each row.
        path: PNG to write.
        note: below all.
        measure: what the colours show, beside their scale.
        limits: of the scale; None for the smallest and the largest value in each row.

    Returns:
        `path`.
    """
    return save(_draw_rows(rows, note, measure, limits), path)


def heat_map_pixels(rows: Mapping[str, Mapping[str, HeatMap]]) -> np.ndarray:
    """The same heat maps as a plain grid, as for TensorBoard; Matplotlib takes twenty times as long.

    Args:
        rows: title → name of the column → heat map, with the same columns in each row.

    Returns:
        uint8 `(height, width, 3)`.
    """
    names = [*next(iter(rows.values()))]
    grid = Image.new("RGB", (len(names) * _PITCH + _LINE, len(rows) * (_PITCH + _LINE) + _LINE), "white")
    pen = ImageDraw.Draw(grid)
    for column, name in enumerate(names):
        pen.text((column * _PITCH + _LINE, 2), shorten(name, 26), fill="black")
    for number, (title, row) in enumerate(rows.items()):
        top = _LINE + number * (_PITCH + _LINE)
        pen.text((_LINE, top + 2), shorten(title, 60), fill="black")
        scale = _shared_scale([*row.values()])
        for column, heat_map in enumerate(row.values()):
            grid.paste(_tile(heat_map, scale), (column * _PITCH + _LINE, top + _LINE))
    return np.asarray(grid)


def _tile(heat_map: HeatMap, scale: Normalize) -> Image.Image:
    """A frame with its heat map over it, in a square of `_TILE` pixels."""
    size = (_TILE, _TILE)
    if heat_map.magnitude is None:
        return Image.fromarray(np.uint8(255 * heat_map.frame)).resize(size)
    grey = Image.fromarray(np.uint8(255 * (0.15 + 0.85 * heat_map.frame.mean(axis=-1)))).resize(size)
    magnitude = Image.fromarray(heat_map.magnitude.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    colours = Image.fromarray(_COLOURS(scale(np.asarray(magnitude)), bytes=True)[..., :3].copy())
    return Image.blend(grey.convert("RGB"), colours, _ALPHA)


def heat_map_rows(
    titles: Sequence[str],
    bare: tuple[str, np.ndarray],
    columns: Mapping[str, tuple[np.ndarray, keras.Model]],
) -> dict[str, dict[str, HeatMap]]:
    """Rows for `heat_map_pixels`, one a clip.

    Args:
        titles: of the rows, each another one.
        bare: name and clips `(N, T, S, S, C)` of the first column, which has no network.
        columns: name → clips, and the network that sees them, with a map in space.
    """
    name, clips = bare
    rows = {title: {name: _bare_heat_map(clip)} for title, clip in zip(titles, clips, strict=True)}
    for name, (clips, network) in columns.items():
        maps = keras.ops.convert_to_numpy(network(clips, training=False)[feature_map_name(network)])
        for row, clip, feature_map in zip(rows.values(), clips, maps, strict=True):
            magnitude = activation_magnitude(feature_map.astype("float32"))
            row[name] = HeatMap(frame=_middle_frame(clip), magnitude=magnitude)
    return rows


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
            column = first_column(label, records.manifest.heads)
            if column >= 0:
                clips.setdefault(column, clip)
            if len(clips) == classes or looked_at == samples:
                return clips
    return clips


def _bare_heat_map(clip: np.ndarray) -> HeatMap:
    """The middle frame; of features, which have none, their magnitude."""
    return HeatMap(
        frame=_middle_frame(clip), magnitude=None if clip.shape[-1] <= 3 else activation_magnitude(clip)
    )


def _middle_frame(clip: np.ndarray) -> np.ndarray:
    """[-1, 1] → RGB in [0, 1]; of flow, u is shown as red and v as green; of features a white one."""
    if clip.shape[-1] > 3:
        return np.ones((*clip.shape[1:3], 3))
    frame = (clip[len(clip) // 2] + 1) / 2
    return np.pad(frame, ((0, 0), (0, 0), (0, 3 - frame.shape[-1])), constant_values=0.5)


def _draw_rows(
    rows: Mapping[str, Mapping[str, HeatMap]],
    note: str,
    measure: str,
    limits: tuple[float, float] | None,
) -> Figure:
    names = {name: wrap(shorten(name, 48), 24) for name in next(iter(rows.values()))}
    width = len(names) * (_SIDE + _GAP) + _LEFT + 0.05 + _BAR
    lines = fit_note(note, width - 0.6)
    bottom = 0.1 + (0.16 * (2 + lines.count("\n")) if note else 0)
    top = 0.13 + 0.16 * max(2, *(1 + name.count("\n") for name in names.values()))
    total = top + len(rows) * (_SIDE + _TITLE) + bottom
    figure = Figure(figsize=(width, total))
    lefts = {name: _LEFT + column * (_SIDE + _GAP) for column, name in enumerate(names)}
    for name, left in lefts.items():
        place = ((left + _SIDE / 2) / width, 1 - 0.5 * top / total)
        figure.text(*place, names[name], ha="center", va="center", fontsize=9, fontweight="bold")
    for number, (title, row) in enumerate(rows.items()):
        low = total - top - number * (_SIDE + _TITLE) - _TITLE - _SIDE + 0.12
        scale = _shared_scale([*row.values()]) if limits is None else Normalize(*limits)
        axes = [
            figure.add_axes((lefts[name] / width, low / total, _SIDE / width, _SIDE / total)) for name in row
        ]
        for axis, heat_map in zip(axes, row.values(), strict=True):
            _draw_heat_map(axis, heat_map, scale)
        axes[0].set_ylabel(shorten(title, 24), fontsize=9.5)
        bar = ((width - _BAR + 0.1) / width, low / total, 0.13 / width, _SIDE / total)
        _draw_bar(figure.add_axes(bar), scale, measure)
    figure.text(_LEFT / width, (bottom - 0.04) / total, lines, fontsize=8, color=GREY, va="top")
    return figure


def _shared_scale(heat_maps: Sequence[HeatMap]) -> Normalize:
    """From the smallest to the largest magnitude of a row."""
    drawn = [each.magnitude for each in heat_maps if each.magnitude is not None]
    low, high = min(float(each.min()) for each in drawn), max(float(each.max()) for each in drawn)
    return Normalize(low, high if high > low else low + 1)


def _draw_heat_map(axis: Axes, heat_map: HeatMap, scale: Normalize) -> None:
    axis.set(xticks=[], yticks=[])
    axis.set_title(heat_map.title, fontsize=8.5, pad=3)
    if heat_map.magnitude is None:
        axis.imshow(heat_map.frame, extent=_UNIT_SQUARE)
    else:
        grey = 0.15 + 0.85 * heat_map.frame.mean(axis=-1)
        axis.imshow(grey, cmap="gray", vmin=0, vmax=1, extent=_UNIT_SQUARE)
        style: dict[str, Any] = {"cmap": _COLOURS, "norm": scale, "alpha": _ALPHA}
        axis.imshow(heat_map.magnitude, extent=_UNIT_SQUARE, interpolation="bilinear", **style)
        if heat_map.magnitude.max() > 0:
            _draw_ring(axis, heat_map.magnitude)
        axis.set(xlim=(0, 1), ylim=(0, 1))
    for spine in axis.spines.values():
        spine.set(
            color="black",
            linewidth=1.6 if heat_map.wrong else 0.8,
            linestyle=(0, (3, 2)) if heat_map.wrong else "-",
        )


def _draw_ring(axis: Axes, magnitude: np.ndarray) -> None:
    """Around the largest."""
    rows, columns = magnitude.shape
    y, x = np.unravel_index(np.argmax(magnitude), magnitude.shape)
    for size, colour in ((9, "black"), (7, "white")):
        axis.plot((x + 0.5) / columns, 1 - (y + 0.5) / rows, "o", ms=size, mfc="none", mec=colour, mew=1.3)


def _draw_bar(axis: Axes, scale: Normalize, measure: str) -> None:
    bar = axis.figure.colorbar(ScalarMappable(scale, _COLOURS), cax=axis, alpha=0.75)
    bar.set_label(measure, fontsize=8)
    axis.tick_params(labelsize=8)

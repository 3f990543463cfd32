"""Where did it go: lines from the teacher's strongest vectors to where each student holds them.

The weights are those that the feature loss pools by (eq. 4-6), so that the picture shows what it compares.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Curve

from kdant_tf.layers.attention_pooling import dot_products, pooling_weights
from kdant_tf.layers.locality import LocalPrior, map_positions
from kdant_tf.losses.map_statistics import normalize_vectors, pooling_scale
from kdant_tf.visualization.style import GREY, OKABE_ITO, fit_note, save, text_on, wrap

Position = tuple[int, int, int]

# Of the targets, which have numbers as well.
COLOURS = (OKABE_ITO[1], OKABE_ITO[0], OKABE_ITO[2], OKABE_ITO[3])
_LINKS = 6
_SLICES = 4
# Inches: a frame's side, the room between the clips, and that for what is written.
_SIDE, _FINE_SIDE, _GAP, _CAPTION, _HEAD, _TABLE = 2.1, 3.2, 1.5, 0.2, 0.55, 0.24
# Positions a side beyond which frames are drawn larger.
_FINE = 9
_DISC = 0.145
_MARGIN = 0.25


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Target:
    """A vector r_i of the future map, and its attention over the observed map.

    Args:
        position: of r_i, (t, y, x) in the future map.
        magnitude: its length.
        weights: omega, softmax(alpha · r_i · a_k) over the observed map: float `(T, H, W)`, sums to 1.
    """

    position: Position
    magnitude: float
    weights: np.ndarray

    @property
    def strongest(self) -> Position:
        """The position in the observed map that has the largest weight."""
        return _unravel(int(np.argmax(self.weights)), self.weights.shape)

    def links(self, count: int, least: float) -> list[tuple[Position, float]]:
        """The `count` largest weights with their positions, largest first, those below `least` left out."""
        order = np.argsort(-self.weights, axis=None, kind="stable")[:count]
        links = [(_unravel(int(k), self.weights.shape), float(self.weights.flat[k])) for k in order]
        return [(position, weight) for position, weight in links if weight >= least]

    def weight_near(self, future_shape: Sequence[int], reach: int = 1) -> float:
        """Share of the weight that lies within `reach` positions of the same place of the frame, at any time.

        Args:
            future_shape: of the future map, (T, H, W, …).
        """
        y, x = same_place(self.position, future_shape, self.weights.shape)[1:]
        rows, columns = np.ogrid[: self.weights.shape[1], : self.weights.shape[2]]
        near = (np.abs(rows - y) <= reach) & (np.abs(columns - x) <= reach)
        return float(self.weights[:, near].sum())


def find_targets(
    future_map: np.ndarray,
    observed_map: np.ndarray,
    *,
    count: int = 3,
    alpha: float | None = None,
    locality: float = 0.0,
    normalization: str = "none",
) -> list[Target]:
    """The strongest vectors of the future map, and their attention over the observed one.

    A target is the strongest position that is no neighbour of one before it, in its time slice.

    Args:
        future_map: float `(T, H, W, d)`, the teacher's, paper symbol R.
        observed_map: float `(T', H', W', d)`, the student's, paper symbol A.
        count: int >= 1, of targets.
        alpha: float >= 0; None as for `kdant_tf.losses.features.feature_loss`.
        locality: float >= 0, of the loss `local`; 0 for the others.
        normalization: of the vectors, as for that loss.

    Source: Tran et al. 2019, eq. 4-6. Deviations: none with the defaults.
    """
    channels = future_map.shape[-1]
    positions = strongest_positions(np.linalg.norm(future_map, axis=-1), count)
    queries = np.stack([future_map[position] for position in positions])
    keys = observed_map.reshape(1, -1, channels)
    compared = (
        normalize_vectors(ops.convert_to_tensor(each), normalization) for each in (queries[None], keys)
    )
    scale = pooling_scale(alpha, channels, normalization)
    prior = None
    if locality:
        asking = [np.ravel_multi_index(position, future_map.shape[:3]) for position in positions]
        places = ops.convert_to_numpy(map_positions(future_map[None]))[asking]
        prior = LocalPrior(locality, places, map_positions(observed_map[None])).matrix()
    weights = ops.convert_to_numpy(pooling_weights(dot_products(*compared), scale, prior))[0]
    return [
        Target(
            position=position,
            magnitude=float(np.linalg.norm(query)),
            weights=row.reshape(observed_map.shape[:3]),
        )
        for position, query, row in zip(positions, queries, weights, strict=True)
    ]


def strongest_positions(magnitude: np.ndarray, count: int) -> list[Position]:
    """The largest of a map `(T, H, W)` that are no neighbours of each other; ties go to the first."""
    left = magnitude.astype(np.float64)
    positions: list[Position] = []
    while len(positions) < count and np.isfinite(left).any():
        t, y, x = _unravel(int(np.argmax(left)), left.shape)
        positions.append((t, y, x))
        left[t, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = -np.inf
    return positions


def same_place(position: Position, shape: Sequence[int], other: Sequence[int]) -> Position:
    """The position of a map of shape `other` that lies at the same place as `position` in one of `shape`."""
    return tuple(  # type: ignore[return-value]
        min(int((index + 0.5) * there / here), there - 1)
        for index, here, there in zip(position, shape[:3], other[:3], strict=True)
    )


def _unravel(index: int, shape: Sequence[int]) -> Position:
    t, y, x = np.unravel_index(index, tuple(shape))
    return int(t), int(y), int(x)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drift:
    """One student beside the teacher, on one sample.

    Args:
        title: of the block, such as the student's name and what it says.
        observed, future: frames of the two clips, RGB `(T, S, S, 3)` in [0, 1].
        observed_times_s, future_times_s: of the frames.
        future_shape: of the teacher's map, (T, H, W).
        targets: the strongest vectors of the teacher's map, all with weights of one shape.
    """

    title: str
    observed: np.ndarray
    future: np.ndarray
    observed_times_s: np.ndarray
    future_times_s: np.ndarray
    future_shape: tuple[int, int, int]
    targets: Sequence[Target]


def plot_drift(drifts: Sequence[Drift], title: str, note: str, path: Path) -> Path:
    """A block a student: its clip with what it holds on the left, the teacher's clip on the right.

    A numbered square on the right is one of the teacher's strongest vectors r_i. Lines lead to the
    positions that hold it in the student's map; they are the thicker, the larger the weight. The dashed
    square is the same place of the frame, which is all that the loss `direct` compares r_i with.

    Args:
        drifts: of one sample.
        title, note: above and below all.
        path: PNG to write.
    """
    side = _FINE_SIDE if max(_finest(drift) for drift in drifts) > _FINE else _SIDE
    blocks = [_Block(drift, side) for drift in drifts]
    columns = min(2, len(blocks))
    rows = -(-len(blocks) // columns)
    height = max(block.height for block in blocks)
    width = columns * blocks[0].width + _MARGIN
    lines, heading = fit_note(note, width - 0.5), wrap(title, int(10 * (width - 0.5)))
    top, bottom = 0.45 + 0.19 * heading.count("\n"), 0.15 + 0.17 * (1 + lines.count("\n"))
    figure = Figure(figsize=(width, top + rows * height + bottom), facecolor="white")
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, width), ylim=(top + rows * height + bottom, 0))
    axis.axis("off")
    axis.text(_MARGIN, 0.18, heading, fontsize=11, fontweight="bold", va="top")
    axis.text(_MARGIN, top + rows * height + 0.02, lines, fontsize=8, color=GREY, va="top")
    for number, block in enumerate(blocks):
        block.draw(axis, (number % columns) * block.width + _MARGIN, top + number // columns * height)
    return save(figure, path)


class _Block:
    """The place of a block's parts, in inches from its upper left corner."""

    def __init__(self, drift: Drift, side: float) -> None:
        self.drift, self.side = drift, side
        self.weights = np.sum([target.weights for target in drift.targets], axis=(0, 2, 3))
        # A slice with a target's strongest weight comes before any without.
        amount = self.weights.copy()
        for target in drift.targets:
            amount[target.strongest[0]] += len(drift.targets)
        self.observed_slices = _busiest_slices(amount)
        targets = np.bincount([each.position[0] for each in drift.targets], minlength=drift.future_shape[0])
        self.future_slices = _busiest_slices(targets)
        self.slices = max(len(self.observed_slices), len(self.future_slices))
        self.width = 2 * self.side + _GAP + 2 * _MARGIN
        self.table = _HEAD + self.slices * (self.side + _CAPTION)
        self.height = self.table + (1 + len(drift.targets)) * _TABLE + 0.2

    def draw(self, axis: Any, left: float, top: float) -> None:
        drift = self.drift
        right = left + self.side + _GAP
        axis.text(left, top + 0.12, drift.title, fontsize=10, va="center")
        for x, words in ((left, self._observed_words()), (right, "future clip, teacher's map")):
            axis.text(x, top + 0.4, words, fontsize=8.5, color=GREY, va="center")
        clips = (
            (left, drift.observed, drift.observed_times_s, self.observed_slices, drift.targets[0].weights),
            (right, drift.future, drift.future_times_s, self.future_slices, np.zeros(drift.future_shape)),
        )
        for x, frames, times_s, slices, like in clips:
            for line, t in enumerate(slices):
                y = top + _HEAD + line * (self.side + _CAPTION)
                _draw_frame(axis, (x, y), self.side, frames, times_s, t, like.shape[0])
        for number, target in enumerate(drift.targets):
            self._draw_target(axis, left, top, number, target)
        self._draw_table(axis, left, top + self.table)

    def _observed_words(self) -> str:
        drawn, slices = len(self.observed_slices), len(self.weights)
        if drawn == slices:
            return "observed clip, student's map"
        share = self.weights[self.observed_slices].sum() / self.weights.sum()
        return f"observed clip, student's map: {drawn} of {slices} slices, {100 * share:.0f} % of the weight"

    def _cell(
        self, corner: tuple[float, float], position: Position, shape: Sequence[int], future: bool
    ) -> tuple[float, float, float, float] | None:
        """(x, y, width, height) of a position, or None where its time slice is not drawn."""
        slices = self.future_slices if future else self.observed_slices
        t, y, x = position
        if t not in slices:
            return None
        left = corner[0] + (self.side + _GAP if future else 0)
        top = corner[1] + _HEAD + slices.index(t) * (self.side + _CAPTION)
        height, width = self.side / shape[1], self.side / shape[2]
        return left + x * width, top + y * height, width, height

    def _draw_target(self, axis: Any, left: float, top: float, number: int, target: Target) -> None:
        colour, shape = COLOURS[number], target.weights.shape
        source = self._cell((left, top), target.position, self.drift.future_shape, True)
        assert source is not None  # slices with targets are drawn
        # Lines of different targets between the same heights would cover each other.
        aside = 0.2 * (number - (len(self.drift.targets) - 1) / 2)
        links = target.links(_LINKS, 1.5 / target.weights.size)
        for place, (position, weight) in reversed(list(enumerate(links))):
            cell = self._cell((left, top), position, shape, False)
            if cell is None:
                continue
            axis.add_patch(Rectangle(cell[:2], *cell[2:], color=colour, alpha=0.55 * weight**0.5, lw=0))
            end = (cell[0] + cell[2] / 2, cell[1] + cell[3] * (0.5 + aside))
            _draw_link(axis, (source[0], source[1] + source[3] * (0.5 + aside)), end, colour, weight)
            if place == 0:
                axis.add_patch(Rectangle(cell[:2], *cell[2:], fill=False, ec=colour, lw=1.6))
                _draw_number(axis, cell, number)
        same = same_place(target.position, self.drift.future_shape, shape)
        cell = self._cell((left, top), same, shape, False)
        if cell is not None:
            dashes = (0, (2, 1.6))
            axis.add_patch(Rectangle(cell[:2], *cell[2:], fill=False, ec=colour, lw=1.3, ls=dashes))
        axis.add_patch(Rectangle(source[:2], *source[2:], fill=False, ec=colour, lw=2))
        _draw_number(axis, source, number)

    def _draw_table(self, axis: Any, left: float, top: float) -> None:
        places = (left + 0.1, left + 0.35, left + 1.75, left + 3.3)
        heads = ("", "strongest weight", "five strongest", "near the same place")
        for x, head in zip(places, heads, strict=True):
            axis.text(x, top + 0.12, head, fontsize=8, color=GREY, va="center")
        for number, target in enumerate(self.drift.targets):
            y = top + (number + 1.5) * _TABLE
            _draw_disc(axis, (places[0], y), number)
            five = float(np.sort(target.weights, axis=None)[-5:].sum())
            near = target.weight_near(self.drift.future_shape)
            for x, value in zip(places[1:], (target.weights.max(), five, near), strict=True):
                axis.text(x, y, f"{100 * value:.0f} %", fontsize=8.5, va="center")


def _finest(drift: Drift) -> int:
    """Positions a side of the finer map."""
    return int(max(*drift.future_shape[1:], *drift.targets[0].weights.shape[1:]))


def _busiest_slices(amount: np.ndarray) -> list[int]:
    """All time slices, or those of more than _SLICES that hold most of an amount `(T,)`, in order."""
    order = np.argsort(-amount, kind="stable")[:_SLICES]
    return sorted(int(t) for t in order if amount[t] > 0 or len(amount) <= _SLICES)


def _draw_frame(
    axis: Any,
    corner: tuple[float, float],
    side: float,
    frames: np.ndarray,
    times_s: np.ndarray,
    t: int,
    slices: int,
) -> None:
    """The middle frame of the t-th of `slices` slices, in grey, with the frames that it stands for."""
    first = t * len(frames) // slices
    stop = max((t + 1) * len(frames) // slices, first + 1)
    middle = (first + stop - 1) // 2
    x, y = corner
    grey = 0.25 + 0.7 * frames[middle].mean(axis=-1)
    axis.imshow(grey, cmap="gray", vmin=0, vmax=1, extent=(x, x + side, y + side, y), zorder=0)
    words = f"frame {first + 1}" if stop == first + 1 else f"frames {first + 1} to {stop}"
    axis.text(x, y + side + 0.09, f"{words}, {times_s[middle]:.2f} s", fontsize=8, color=GREY, va="center")


def _draw_link(
    axis: Any, start: tuple[float, float], end: tuple[float, float], colour: str, weight: float
) -> None:
    """The same width and strength for the same weight, in every picture."""
    bend = (start[0] - end[0]) * 0.45
    curve = Curve(
        [start, (start[0] - bend, start[1]), (end[0] + bend, end[1]), end],
        [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4],
    )
    style = {"fill": False, "ec": colour, "capstyle": "round"}
    axis.add_patch(PathPatch(curve, lw=0.6 + 6 * weight, alpha=0.3 + 0.6 * weight**0.5, **style))


def _draw_number(axis: Any, cell: tuple[float, float, float, float], number: int) -> None:
    """A disc in a corner of the cell of its own, so that numbers of one cell do not cover each other."""
    x, y, width, height = cell
    right, low = number in (1, 2), number in (2, 3)
    # Discs of four corners need room for two side by side; in smaller cells they stand outside of them.
    far_x, far_y = (
        0.24 * size if size > 2 * _DISC else (size + _DISC) / 2 - 0.02 for size in (width, height)
    )
    centre = (x + width / 2 + (far_x if right else -far_x), y + height / 2 + (far_y if low else -far_y))
    _draw_disc(axis, centre, number)


def _draw_disc(axis: Any, centre: tuple[float, float], number: int) -> None:
    axis.plot(*centre, "o", ms=10, color=COLOURS[number], mec="white", mew=0.8, zorder=5)
    axis.text(
        *centre,
        str(number + 1),
        fontsize=7.5,
        color=text_on(COLOURS[number]),
        ha="center",
        va="center_baseline",
        fontweight="bold",
        zorder=6,
    )

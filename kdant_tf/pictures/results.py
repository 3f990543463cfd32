"""A study's accuracies as bars beside the paper's. No TensorFlow here."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kdant_tf.pictures.style import GREY, OKABE_ITO, save, wrap

_PAPER = OKABE_ITO[1]
_TITLE = 26


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One method in one column of a table.

    Args:
        title: of the method.
        values: accuracy of each training, shares of 1; none of what was not trained.
        published: by the paper, where it has it.
    """

    title: str
    values: Sequence[float]
    published: float | None


def plot_results(columns: Mapping[str, Sequence[Bar]], path: Path) -> Path:
    """A panel a column, a bar a method: the mean, with a dot for each training, and the paper's mark.

    Args:
        columns: name → the same methods in the same order.
        path: PNG to write.

    Returns:
        `path`.
    """
    bars = next(iter(columns.values()))
    figure = Figure(figsize=(1.9 + 3.1 * len(columns), 0.9 + 0.42 * max(2, len(bars))), layout="constrained")
    axes = figure.subplots(1, len(columns), sharey=True, squeeze=False).ravel()
    for axis, (name, own) in zip(axes, columns.items(), strict=True):
        _draw_column(axis, own)
        axis.set_title(name, fontsize=10)
    axes[0].set_yticks(range(len(bars)), [wrap(bar.title, _TITLE) for bar in bars], fontsize=8.5)
    axes[0].invert_yaxis()
    drawn = [each for axis in axes for each in zip(*axis.get_legend_handles_labels(), strict=True)]
    handles = {label: handle for handle, label in drawn}
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=8.5, frameon=False
    )
    return save(figure, path)


def _draw_column(axis: Any, bars: Sequence[Bar]) -> None:
    ours = [(place, 100 * np.asarray(bar.values)) for place, bar in enumerate(bars) if len(bar.values)]
    paper = [(place, 100 * bar.published) for place, bar in enumerate(bars) if bar.published is not None]
    if ours:
        places, means = [place for place, _ in ours], [values.mean() for _, values in ours]
        axis.barh(places, means, height=0.62, color=OKABE_ITO[5], alpha=0.55, label="ours, mean")
        dots = np.array([(value, place) for place, values in ours for value in values])
        axis.scatter(*dots.T, s=16, color=OKABE_ITO[0], lw=0, label="ours, each training", zorder=3)
    if paper:
        style = {"s": 34, "marker": "D", "facecolors": "white", "edgecolors": _PAPER, "linewidths": 1.5}
        axis.scatter(*np.array(paper).T[::-1], label="the paper", zorder=4, **style)
    axis.set_xlim(0, 100)
    axis.set_ylim(-0.6, len(bars) - 0.4)
    axis.set_xlabel("accuracy, %", fontsize=9)
    axis.tick_params(axis="x", labelsize=8.5)
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.spines["left"].set_color(GREY)

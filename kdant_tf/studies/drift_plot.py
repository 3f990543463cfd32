"""The drift study's picture: what each feature loss gains against the drift. No TensorFlow here."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdant_tf.pictures.style import GREY, MARKERS, OKABE_ITO, save
from kdant_tf.studies.drift import NONE, drift_of
from kdant_tf.studies.summary import ResultTable

PICTURE_NAME = "drift.png"
_LOOKS = {
    "direct": ("direct: position by position", OKABE_ITO[1], MARKERS[1]),
    "unidirectional": ("unidirectional: L̃(R, A)", OKABE_ITO[2], MARKERS[2]),
    "bidirectional": ("bidirectional: L_d", OKABE_ITO[0], MARKERS[0]),
}
# Points of neighbouring losses stand side by side, so that no bar hides another; a share of the width.
_STEP = 0.008


def plot_drift(table: ResultTable, path: Path) -> None:
    """Gain over `none` in percentage points with 95 % intervals, a line a loss, and `none` itself below.

    Args:
        table: of `summarize_drift`.
        path: PNG to write.
    """
    figure = Figure(figsize=(8, 6.4), layout="constrained")
    gains, level = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
    for number, name in enumerate(_LOOKS):
        _draw_gain(gains, table, name, shift=(number - 1) * _STEP)
    gains.axhline(0, color="black", linewidth=1)
    gains.set(
        title="Gain over the student without a feature loss, 95 % intervals", ylabel="percentage points"
    )
    if gains.lines[:-1]:
        figure.legend(*gains.get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=9.5)
    _draw_level(level, table)
    for axis in (gains, level):
        axis.grid(alpha=0.3)
    figure.supxlabel(f"Scale {table.study.scale}", x=1, ha="right", fontsize=8, color=GREY)
    save(figure, path)


def _draw_gain(axis: Axes, table: ResultTable, name: str, shift: float) -> None:
    points = [
        (drift_of(column) + shift, found.difference)
        for column in table.study.columns
        if (found := table.cells.get((name, column.name))) is not None and found.difference is not None
    ]
    if not points:
        return
    label, color, marker = _LOOKS[name]
    values = [100 * gain.value for _, gain in points]
    bars = (
        [100 * (gain.value - gain.low) for _, gain in points],
        [100 * (gain.high - gain.value) for _, gain in points],
    )
    drifts = [drift for drift, _ in points]
    axis.errorbar(drifts, values, yerr=bars, label=label, color=color, marker=marker, markersize=7, capsize=4)


def _draw_level(axis: Axes, table: ResultTable) -> None:
    """Accuracy of `none`, so that one sees from where the gains are."""
    points = [
        (drift_of(column), found.ours)
        for column in table.study.columns
        if (found := table.cells.get((NONE, column.name))) is not None and found.ours is not None
    ]
    drifts = [drift for drift, _ in points]
    values = [100 * average.mean for _, average in points]
    spread = [100 * (average.sd if average.sd is not None else 0.0) for _, average in points]
    axis.errorbar(drifts, values, yerr=spread, color=GREY, marker="D", markersize=5, capsize=4)
    axis.set(
        title="Without a feature loss: accuracy ± standard deviation over seeds",
        xlabel="drift between the clips, share of the frame's width",
        ylabel="%",
        ylim=(0, 100),
    )
    axis.set_xticks([drift_of(column) for column in table.study.columns])

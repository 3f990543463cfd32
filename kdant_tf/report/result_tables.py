"""How well networks do, as tables. No TensorFlow here."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdant_tf.evaluation.predictions import Predictions
from kdant_tf.evaluation.statistics import CurvePoint, compare_paired
from kdant_tf.pictures.earliness import AGAINST
from kdant_tf.report.content import Cell, Table, interval_cell
from kdant_tf.report.evaluated import Evaluated

_ACCURACIES = {"top1": "top-1", "top5": "top-5", "mean_class_accuracy": "mean class accuracy"}
_NOTHING = Cell(text="")


def result_table(networks: Sequence[Evaluated]) -> Table:
    """A row a network and segment: accuracies with their intervals, recall, likelihood, calibration."""
    return Table(
        caption="Accuracy on the samples of each network",
        columns=(
            *("network", "sees", "split", *_ACCURACIES.values(), "mean top-5 recall"),
            *("negative log likelihood", "calibration error", "samples", "videos", "chance"),
        ),
        rows=[_result_row(each) for each in networks],
        note="In brackets: intervals of 95 %, bootstrapped over videos.",
    )


def _result_row(each: Evaluated) -> list[Cell]:
    result = each.result
    nll, videos = result.get("negative_log_likelihood"), result.get("videos")
    return [
        Cell(text=each.name),
        Cell(text=each.view),
        Cell(text=str(result["split"])),
        *(_with_interval(result.get(name), result.get(f"{name}_interval")) for name in _ACCURACIES),
        _percent(result.get("mean_top5_recall")),
        _NOTHING if nll is None else Cell(text=f"{nll:.3f}", key=nll),
        _percent(result.get("expected_calibration_error")),
        Cell(text=str(result["samples"]), key=result["samples"]),
        _NOTHING if videos is None else Cell(text=str(videos), key=videos),
        _percent(1 / len(each.run.classes)),
    ]


def difference_table(networks: Sequence[Evaluated]) -> Table | None:
    """Each network against one that had no feature loss, or the first, on the same samples."""
    with_predictions = [(each, each.predictions) for each in networks if each.predictions is not None]
    plain = [pair for pair in with_predictions if _is_plain(pair[0])]
    if not with_predictions:
        return None
    reference, before = (plain or with_predictions)[0]
    rows = [
        _difference_row(each, before, seen)
        for each, seen in with_predictions
        if each is not reference and _same_samples(before, seen)
    ]
    if not rows:
        return None
    return Table(
        caption=f"Difference in top-1 accuracy from {reference.title}",
        columns=("network", "points", "p", "only this one right", "only the other right"),
        rows=rows,
        note="Sample by sample, in percentage points, with intervals of 95 % bootstrapped over videos; "
        "p is McNemar's exact test, two-sided.",
    )


def _is_plain(each: Evaluated) -> bool:
    return each.run.role == "student" and each.run.config.feature_loss == "none"


def _same_samples(one: Predictions, other: Predictions) -> bool:
    return np.array_equal(one.ids, other.ids) and np.array_equal(one.labels, other.labels)


def _difference_row(each: Evaluated, before: Predictions, seen: Predictions) -> list[Cell]:
    paired = compare_paired(before.right(), seen.right(), seen.videos)
    gained = paired.difference
    return [
        Cell(text=each.title),
        interval_cell(gained.value, gained.low, gained.high),
        Cell(text=f"{paired.p_value:.3g}", key=paired.p_value),
        Cell(text=str(paired.only_second), key=paired.only_second),
        Cell(text=str(paired.only_first), key=paired.only_first),
    ]


def class_table(networks: Sequence[Evaluated]) -> Table | None:
    """A row a class with samples, a column a network; of networks of the same classes as the first."""
    known = [each for each in networks if "per_class" in each.result]
    known = [each for each in known if each.run.classes == known[0].run.classes]
    if not known:
        return None
    rows = []
    for number, name in enumerate(known[0].run.classes):
        entries = [each.result["per_class"][number] for each in known]
        samples = max(entry["samples"] for entry in entries)
        if samples:
            cells = [_percent(entry["top1"]) for entry in entries]
            rows.append([Cell(text=name), Cell(text=str(samples), key=samples), *cells])
    return Table(
        caption="Top-1 accuracy of each class",
        columns=("class", "samples", *(each.title for each in known)),
        rows=rows,
    )


def curve_table(name: str, curves: Mapping[str, Sequence[CurvePoint]]) -> Table:
    """Accuracy against what was seen.

    Args:
        name: a key of AGAINST.
        curves: network → points.
    """
    cells = {
        network: {
            point.x: _with_interval(point.top1.value, (point.top1.low, point.top1.high)) for point in points
        }
        for network, points in curves.items()
    }
    places = sorted({x for curve in cells.values() for x in curve})
    rows = [
        [Cell(text=f"{x:g}", key=x), *(curve.get(x, _NOTHING) for curve in cells.values())] for x in places
    ]
    return Table(caption=f"Top-1 accuracy by {AGAINST[name]}", columns=(AGAINST[name], *curves), rows=rows)


def _percent(share: float | None) -> Cell:
    return _NOTHING if share is None else Cell(text=f"{100 * share:.1f} %", key=share)


def _with_interval(share: float | None, interval: Any) -> Cell:
    if share is None or interval is None:
        return _percent(share)
    low, high = interval
    return Cell(text=f"{100 * share:.1f} % ({100 * low:.1f} to {100 * high:.1f})", key=share)

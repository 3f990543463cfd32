"""Accuracy against how much a network saw, as pictures and tables. No TensorFlow here."""

from collections.abc import Mapping, Sequence
from functools import partial

from kdant_tf.evaluation.statistics import CurvePoint, Interval
from kdant_tf.pictures.earliness import AGAINST, plot_accuracy_against
from kdant_tf.report.content import Picture, Table
from kdant_tf.report.evaluated import Evaluated, read_results
from kdant_tf.report.inline import draw_inline
from kdant_tf.report.result_tables import curve_table


def curve_blocks(networks: Sequence[Evaluated]) -> list[Table | Picture]:
    """A picture and a table where `evaluate --observe` was asked for, and where `--tau` was."""
    blocks: list[Table | Picture] = []
    for name in AGAINST:
        if curves := _read_curves(networks, name):
            chance = 1 / max(len(each.run.classes) for each in networks)
            blocks += [_draw(name, curves, chance), curve_table(name, curves)]
    return blocks


def _read_curves(networks: Sequence[Evaluated], name: str) -> dict[str, list[CurvePoint]]:
    """Run's name → points; without those that have none."""
    curves = {}
    for each in networks:
        kept = read_results(each.run).get(name, {}).get("top1", [])
        points = [
            CurvePoint(x=p[name], top1=Interval(value=p["value"], low=p["low"], high=p["high"])) for p in kept
        ]
        if points:
            curves[each.name] = points
    return curves


def _draw(name: str, curves: Mapping[str, Sequence[CurvePoint]], chance: float) -> Picture:
    ends = [
        f"{network}: {100 * points[0].top1.value:.1f} % at {points[0].x:g}, "
        f"{100 * points[-1].top1.value:.1f} % at {points[-1].x:g}"
        for network, points in curves.items()
    ]
    return draw_inline(
        partial(plot_accuracy_against, curves, xlabel=AGAINST[name], chance=chance),
        alt=f"Top-1 accuracy against {AGAINST[name]}. {'; '.join(ends)}.",
        caption=f"Top-1 accuracy against {AGAINST[name]}; bands are intervals of 95 %.",
    )

"""From runs and samples to Figure 3 and to where the teacher's features went."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kdant_tf.evaluation.plots import activation_magnitude
from kdant_tf.pictures.attention import find_targets
from kdant_tf.pictures.drift import Drift, plot_drift
from kdant_tf.pictures.magnitude import Panel, plot_magnitudes
from kdant_tf.pictures.samples import Sample
from kdant_tf.pictures.shown import ShownRun, split_roles, teacher_of
from kdant_tf.pictures.style import verdict
from tf_records.schema import FUTURE, OBSERVED

_HEAT_MAPS_NOTE = (
    "Length of the feature vectors of one clip, averaged over its time, on one scale for each row; the ring "
    "is where it is largest. Above: the first class and its probability over all windows of the "
    "sample; ✓ right, ✗ and a dashed border: wrong."
)
_DRIFT_NOTE = (
    "Numbered squares on the right: the teacher's strongest vectors r_i. Lines: the weights "
    "softmax(alpha · r_i · a_k) over the student's map, by which the feature loss pools (eq. 4-6), {alpha}; "
    "the thicker, the larger, six at most, and none below 1.5 times that of an even spread, {even:.1f} %. "
    "Dashed squares: the same place and time, all that the loss `direct` compares r_i with; the last column "
    "is the weight within one position of that place, at any time."
)


def draw_heat_maps(
    shown: Sequence[ShownRun], samples: Sequence[Sample], classes: Sequence[str], path: Path
) -> Path:
    """A row a sample: the observed clip, each network on it, the future clip, and each teacher on that.

    Args:
        shown: at least one run.
        samples: to show.
        classes: names in index order.
        path: PNG to write.

    Raises:
        PictureError: a network has no map in space.
    """
    teachers, _ = split_roles(shown)
    rows: dict[str, dict[str, Panel]] = {}
    for number, sample in enumerate(samples, start=1):
        row = {"observed clip": _bare(sample, OBSERVED)}
        row |= {each.name: _panel(each, sample, OBSERVED, classes) for each in shown}
        row["future clip"] = _bare(sample, FUTURE)
        for each in teachers:
            row[f"{each.name} on the future clip"] = _panel(each, sample, FUTURE, classes)
        rows[f"{number}  {classes[sample.label]}"] = row
    return plot_magnitudes(rows, path, note=_HEAT_MAPS_NOTE)


def draw_drift(
    shown: Sequence[ShownRun], sample: Sample, classes: Sequence[str], path: Path, *, targets: int = 3
) -> Path:
    """A block a student, or a teacher where there are no students: where it holds the teacher's vectors.

    Args:
        shown: runs, a teacher among them.
        sample: to show.
        classes: names in index order.
        path: PNG to write.
        targets: strongest vectors of the teacher, at most 4.

    Raises:
        PictureError: no teacher, or maps that cannot be compared.
    """
    teachers, students = split_roles(shown)
    drifts, alphas, positions = [], set(), 1
    for each in students or teachers:
        teacher = teacher_of(each, teachers) if students else each
        config = each.run.config
        future_map = teacher.map_for(config, sample, FUTURE)
        observed_map = each.projected_map(sample, OBSERVED, future_map.shape[-1])
        found = find_targets(future_map, observed_map, count=targets, alpha=config.alpha)
        alphas.add(config.alpha)
        positions = max(positions, found[0].weights.size)
        says = verdict(classes, each.said(sample, OBSERVED), sample.label)
        drifts.append(
            Drift(
                title=f"{each.name}   {says}",
                observed=sample.frames(OBSERVED),
                future=sample.frames(FUTURE),
                observed_times_s=sample.times_s[OBSERVED],
                future_times_s=sample.times_s[FUTURE],
                future_shape=future_map.shape[:3],
                targets=found,
            )
        )
    alpha = "alpha " + ", ".join(sorted("1/√d" if each is None else f"{each:g}" for each in alphas))
    title = f"Where did it go?   {classes[sample.label]} · {sample.id}"
    return plot_drift(drifts, title, _DRIFT_NOTE.format(alpha=alpha, even=100 / positions), path)


def _bare(sample: Sample, view: str) -> Panel:
    times_s = sample.times_s[view]
    return Panel(frame=_middle(sample.frames(view)), title=f"{times_s[(len(times_s) - 1) // 2]:.2f} s")


def _panel(each: ShownRun, sample: Sample, view: str, classes: Sequence[str]) -> Panel:
    said = each.said(sample, view)
    return Panel(
        frame=_middle(sample.frames(view)),
        magnitude=activation_magnitude(each.map_of(sample, view)),
        title=verdict(classes, said, sample.label),
        wrong=int(np.argmax(said)) != sample.label,
    )


def _middle(frames: np.ndarray) -> np.ndarray:
    return frames[(len(frames) - 1) // 2]

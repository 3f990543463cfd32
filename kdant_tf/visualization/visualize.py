"""What `kdant visualize` does: all pictures of some runs on one record folder."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from kdant_tf.evaluation.predictions import read_curve
from kdant_tf.runs import METRICS_NAME, Run, read_metrics
from kdant_tf.visualization.confusion import plot_confusion, plot_per_class, plot_reliability
from kdant_tf.visualization.correspondence import Drift, find_targets, plot_drift
from kdant_tf.visualization.curves import AGAINST, activation_magnitude, plot_accuracy_against, plot_curves
from kdant_tf.visualization.embeddings import draw_features
from kdant_tf.visualization.heat_maps import Panel, plot_magnitudes
from kdant_tf.visualization.run_view import (
    PictureError,
    Sample,
    ShownRun,
    choose_samples,
    read_samples,
    split_roles,
    teacher_of,
)
from kdant_tf.visualization.style import unique_names, verdict
from tf_records.errors import RunError
from tf_records.files import claim_folder
from tf_records.records import Records
from tf_records.schema import FUTURE, OBSERVED

PICTURES = ("heat-maps", "drift", "confusion", "per-class", "reliability", "earliness", "curves", "features")
# Within a run folder.
PICTURES_FOLDER = "pictures"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What to draw.

    Args:
        pictures: of PICTURES; None for all that these runs and records give.
        split: of the records.
        ids: samples to show, or none.
        samples: or how many to draw; None is the first of each class, up to eight.
        seed: of that draw, and of t-SNE.
        targets: strongest vectors of the teacher that are followed.
        projection: of the features, "pca" or "tsne".
    """

    pictures: tuple[str, ...] | None = None
    split: str = "test"
    ids: tuple[str, ...] = ()
    samples: int | None = None
    seed: int = 0
    targets: int = 3
    projection: str = "pca"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A picture that was written: its kind, of PICTURES, and the sample or run it is of, if of one."""

    kind: str
    path: Path
    of: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A kind of picture that these runs and records do not give, and why."""

    kind: str
    reason: str


def visualize(
    runs: Sequence[Run],
    records: Records,
    out: Path,
    choice: Choice,
    *,
    overwrite: bool = False,
    networks: Mapping[Path, keras.Model] | None = None,
    on_batch: Callable[[int], None] = lambda clips: None,
) -> tuple[list[Drawn], list[LeftOut]]:
    """Draws pictures of runs into a folder.

    Args:
        runs: finished teachers and students, in any number.
        records: opened, that fit all runs.
        out: folder, made if need be; not empty only with `overwrite`.
        choice: what to draw.
        overwrite: replace pictures of the same names in `out`.
        networks: run folder → its network, of those that are loaded already.
        on_batch: told of the clips of each batch of an evaluation that had to come first.

    Returns:
        What was drawn, and what was not, where `choice` did not insist on it.

    Raises:
        RunError: records that do not fit a run, or a run given twice.
        RecordError: an unknown sample, or a damaged shard.
        PictureError: a picture that was asked for cannot be drawn.
    """
    folders = [run.folder for run in runs]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise RunError(f"Each run should be given once. Received: {', '.join(map(str, folders))}.")
    names = unique_names(folders)
    loaded = networks or {}
    shown = [
        ShownRun(names[run.folder], run, records, choice.split, on_batch, loaded.get(run.folder))
        for run in runs
    ]
    scene = _Scene(shown, records, out, choice)
    scene.check_samples()
    claim_folder(out, overwrite=overwrite, resumable=False)
    drawn: list[Drawn] = []
    left_out: list[LeftOut] = []
    for kind in PICTURES if choice.pictures is None else choice.pictures:
        try:
            drawn += scene.draw(kind)
        except PictureError as error:
            if choice.pictures is not None:
                raise
            left_out.append(LeftOut(kind=kind, reason=str(error)))
    return drawn, left_out


def draw_beside(run: Run, records: Records, split: str) -> list[Drawn]:
    """Pictures of a run's predictions in its own folder, in place of earlier ones."""
    choice = Choice(pictures=("confusion", "per-class", "reliability"), split=split)
    return visualize([run], records, run.folder / PICTURES_FOLDER, choice, overwrite=True)[0]


class _Scene:
    """The runs and records of one call, and a method for each kind of picture."""

    def __init__(self, shown: Sequence[ShownRun], records: Records, out: Path, choice: Choice) -> None:
        self.shown, self.records, self.out, self.choice = shown, records, out, choice
        self.classes = records.manifest.classes
        self._samples: list[Sample] | None = None

    def draw(self, kind: str) -> list[Drawn]:
        draw: Callable[[], list[Drawn]] = getattr(self, f"_draw_{kind.replace('-', '_')}")
        return draw()

    def check_samples(self) -> None:
        """Refuses unknown ids before anything is drawn."""
        if self.choice.ids:
            self._numbers()

    def samples(self) -> list[Sample]:
        if self.records.manifest.features is not None:
            raise PictureError(
                f"{self.records.folder} holds features, over which no map can be drawn: that needs records "
                f"of frames, and runs that were trained on them."
            )
        if self._samples is None:
            self._samples = read_samples(self.records, self.choice.split, self._numbers())
        return self._samples

    def _numbers(self) -> list[int]:
        first, choice = self.shown[0], self.choice
        return choose_samples(
            first.predictions(first.view), count=choice.samples, seed=choice.seed, ids=choice.ids
        )

    def _draw_heat_maps(self) -> list[Drawn]:
        path = draw_heat_maps(self.shown, self.samples(), self.classes, self.out / "heat_maps.png")
        return [Drawn(kind="heat-maps", path=path)]

    def _draw_drift(self) -> list[Drawn]:
        drawn = []
        for number, sample in enumerate(self.samples(), start=1):
            path = self.out / f"drift_{number:02d}_{_slug(self.classes[sample.label])}.png"
            draw_drift(self.shown, sample, self.classes, path, targets=self.choice.targets)
            drawn.append(Drawn(kind="drift", path=path, of=sample.id))
        return drawn

    def _draw_confusion(self) -> list[Drawn]:
        drawn = []
        for each in self.shown:
            path = self.out / f"confusion_{_slug(each.name)}.png"
            plot_confusion(each.name, each.predictions(each.view), self.classes, path)
            drawn.append(Drawn(kind="confusion", path=path, of=each.name))
        return drawn

    def _draw_per_class(self) -> list[Drawn]:
        networks = {each.name: each.predictions(each.view) for each in self.shown}
        path = plot_per_class(networks, self.classes, self.out / "per_class.png")
        return [Drawn(kind="per-class", path=path)]

    def _draw_reliability(self) -> list[Drawn]:
        networks = {each.name: each.predictions(each.view) for each in self.shown}
        return [Drawn(kind="reliability", path=plot_reliability(networks, self.out / "reliability.png"))]

    def _draw_earliness(self) -> list[Drawn]:
        drawn = []
        for name, xlabel in AGAINST.items():
            curves = {each.name: read_curve(each.run, name, self.choice.split) for each in self.shown}
            curves = {run: points for run, points in curves.items() if points}
            if curves:
                path, chance = self.out / f"accuracy_by_{name}.png", 1 / len(self.classes)
                plot_accuracy_against(curves, path, xlabel=xlabel, chance=chance)
                drawn.append(Drawn(kind="earliness", path=path))
        if not drawn:
            raise PictureError(
                f"No run has its accuracy against what was seen yet. Evaluate with --observe or --tau first, "
                f"such as: kdant evaluate {self.shown[0].run.folder} --records {self.records.folder} "
                f"--observe 0.1:1.0:0.1."
            )
        return drawn

    def _draw_curves(self) -> list[Drawn]:
        rows = {each.name: read_metrics(each.run.folder / METRICS_NAME) for each in self.shown}
        rows = {name: own for name, own in rows.items() if own}
        if not rows:
            raise PictureError(f"No run has a {METRICS_NAME}, so there are no training curves.")
        path = self.out / "curves.png"
        plot_curves(rows, path)
        return [Drawn(kind="curves", path=path)]

    def _draw_features(self) -> list[Drawn]:
        choice, path = self.choice, self.out / "features.png"
        draw_features(self.shown, self.classes, path, projection=choice.projection, seed=choice.seed)
        return [Drawn(kind="features", path=path)]


def _slug(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "x"


# From runs and samples to Figure 3 and to where the teacher's features went.


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

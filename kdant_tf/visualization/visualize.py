"""What `kdant visualize` does: all pictures of some runs on one record folder."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from kdant_tf.config import TrainConfig
from kdant_tf.evaluation.evaluate import RecordsOrFolder, RunOrFolder, read_inputs
from kdant_tf.evaluation.metrics import CurvePoint
from kdant_tf.evaluation.predictions import evaluate_command, read_curves
from kdant_tf.runs import METRICS_NAME, Run, manifest_sha256, read_metrics, result_name
from kdant_tf.visualization import PICTURES
from kdant_tf.visualization.confusion import plot_confusion, plot_per_class, plot_reliability
from kdant_tf.visualization.correspondence import Drift, find_targets, plot_drift
from kdant_tf.visualization.curves import AGAINST, plot_accuracy_against, plot_curves
from kdant_tf.visualization.embeddings import draw_features
from kdant_tf.visualization.heat_maps import HeatMap, activation_magnitude, plot_heat_maps
from kdant_tf.visualization.run_view import (
    ClipPair,
    PictureError,
    RunView,
    choose_samples,
    read_clip_pairs,
    split_roles,
    teacher_of,
)
from kdant_tf.visualization.style import describe_prediction, unique_names
from tf_records.errors import RecordError, RunError
from tf_records.files import check_apart, claim_folder
from tf_records.records import Records
from tf_records.schema import FUTURE, OBSERVED

# Within a run folder.
PICTURES_FOLDER = "pictures"
_HEAT_MAPS_NOTE = (
    "Length of the feature vectors of one clip, averaged over its time, on one scale for each row; the ring "
    "is where it is largest. Above: the first class and its probability over all windows of the "
    "sample; ✓ right, ✗ and a dashed border: wrong."
)
_GRAD_CAM_NOTE = (
    "Grad-CAM of {asked}: what at each place of one clip raises its logit, averaged over time, as a share of "
    "the largest in the picture; the ring is there. A picture without a ring has nothing that speaks for it. "
    "Above: the first class and its probability over all windows of the sample; ✓ right, ✗ and a dashed "
    "border: wrong."
)
_DRIFT_NOTE = (
    "Numbered squares on the right: the teacher's strongest vectors r_i. Lines: the weights "
    "softmax(alpha · r_i · a_k) over the student's map, by which the feature loss pools (eq. 4-6), {alpha}; "
    "the thicker, the larger, six at most, and none below 1.5 times that of an even spread, {even:.1f} %. "
    "Dashed squares: the same place and time, all that the loss `direct` compares r_i with; the last column "
    "is the weight within one position of that place, at any time."
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PictureOptions:
    """What to draw.

    Args:
        pictures: of PICTURES; none for all that these runs and records give.
        split: of the records.
        ids: samples to show, or none.
        samples: or how many to draw; None is the first of each class, up to eight.
        seed: of that draw, and of t-SNE.
        targets: strongest vectors of the teacher that are followed.
        class_name: that Grad-CAM is asked of; None for each sample's label.
        projection: of the features, "pca" or "tsne".
        insist: take records of another offset, frame rate or flow than a run was trained on.
    """

    pictures: tuple[str, ...] = ()
    split: str = "test"
    ids: tuple[str, ...] = ()
    samples: int | None = None
    seed: int = 0
    targets: int = 3
    class_name: str | None = None
    projection: str = "pca"
    insist: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DrawnPicture:
    """A picture that was written: its kind, of PICTURES, and the sample or run it is of, if of one."""

    kind: str
    path: Path
    of: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OmittedPicture:
    """A kind of picture that these runs and records do not give, and why."""

    kind: str
    reason: str


def visualize(
    runs: Sequence[RunOrFolder],
    records: RecordsOrFolder,
    out: str | os.PathLike[str],
    options: PictureOptions | None = None,
    *,
    overwrite: bool = False,
    networks: Mapping[Path, keras.Model] | None = None,
    on_batch: Callable[[int], None] = lambda clips: None,
) -> tuple[list[DrawnPicture], list[OmittedPicture]]:
    """Draws pictures of runs into a folder.

    Args:
        runs: finished teachers and students or their folders, in any number.
        records: that fit all runs, opened or their folder.
        out: folder, made if need be; not empty only with `overwrite`.
        options: what to draw; None is all that these runs and records give.
        overwrite: replace pictures of the same names in `out`.
        networks: run folder → its network, of those that are loaded already.
        on_batch: called with the number of clips of each batch, where a run has to be evaluated first.

    Returns:
        What was drawn, and what could not be, where `options` did not name it.

    Raises:
        RunError: records that do not fit a run, or a run given twice.
        RecordError: an unknown sample, or a damaged shard.
        PictureError: a picture that was asked for cannot be drawn.
    """
    options = PictureOptions() if options is None else options
    views = _view_runs(runs, records, options, networks or {}, on_batch)
    pictures = _Pictures(views, Path(out), options)
    pictures.check_ids()
    pictures.check_class()
    check_apart(Path(out), pictures.records.folder)
    check_apart(Path(out), *(view.run.folder for view in views), may_lie_in=True)
    claim_folder(Path(out), overwrite=overwrite, resumable=False)
    drawn: list[DrawnPicture] = []
    omitted: list[OmittedPicture] = []
    for kind in options.pictures or PICTURES:
        try:
            drawn += pictures.draw(kind)
        except PictureError as error:
            if options.pictures:
                raise
            omitted.append(OmittedPicture(kind=kind, reason=str(error)))
    return drawn, omitted


def _view_runs(
    runs: Sequence[RunOrFolder],
    records: RecordsOrFolder,
    options: PictureOptions,
    networks: Mapping[Path, keras.Model],
    on_batch: Callable[[int], None],
) -> list[RunView]:
    opened, records = read_inputs(runs, records, options.split)
    folders = [run.folder for run in opened]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise RunError(f"Each run should be given once. Received: {', '.join(map(str, folders))}.")
    names = unique_names(folders)
    return [
        RunView(
            names[run.folder],
            run,
            records,
            options.split,
            on_batch,
            networks.get(run.folder),
            insist=options.insist,
        )
        for run in opened
    ]


def draw_evaluation(run: Run, records: Records, split: str, *, insist: bool = False) -> list[DrawnPicture]:
    """Pictures of a run's predictions in its own folder, in place of earlier ones."""
    options = PictureOptions(pictures=("confusion", "per-class", "reliability"), split=split, insist=insist)
    return visualize([run], records, run.folder / PICTURES_FOLDER, options, overwrite=True)[0]


def draw_heat_maps(
    views: Sequence[RunView], pairs: Sequence[ClipPair], classes: Sequence[str], path: Path
) -> Path:
    """A row a sample: the observed clip, each network on it, the future clip, and each teacher on that.

    Args:
        views: of at least one run.
        pairs: of the samples to draw.
        classes: names in index order.
        path: PNG to write.

    Raises:
        PictureError: a network has no map in space.
    """

    def magnitude(each: RunView, pair: ClipPair, view: str) -> np.ndarray:
        return activation_magnitude(each.map_of(pair, view))

    for each in views:
        for view in (OBSERVED, FUTURE) if each.is_teacher else (OBSERVED,):
            each.keep_maps(pairs, view)
    return plot_heat_maps(_heat_map_rows(views, pairs, classes, magnitude), path, note=_HEAT_MAPS_NOTE)


def draw_grad_cam(
    views: Sequence[RunView],
    pairs: Sequence[ClipPair],
    classes: Sequence[str],
    path: Path,
    *,
    class_name: str | None = None,
) -> Path:
    """The same rows with Grad-CAM, each map scaled to its largest value.

    Args:
        views: of at least one run.
        pairs: of the samples to draw.
        classes: names in index order.
        path: PNG to write.
        class_name: that is asked of; None for each sample's label.

    Raises:
        PictureError: a network has no map in space, or its logits are not made of it.
    """

    asked_of = [pair.label if class_name is None else classes.index(class_name) for pair in pairs]
    numbers = [pair.number for pair in pairs]

    @functools.cache
    def activations(each: RunView, view: str) -> dict[int, np.ndarray]:
        return dict(zip(numbers, each.class_activations(pairs, view, asked_of), strict=True))

    def magnitude(each: RunView, pair: ClipPair, view: str) -> np.ndarray:
        activation = activations(each, view)[pair.number].mean(axis=0)
        largest = activation.max()
        shares: np.ndarray = activation / largest if largest > 0 else activation
        return shares

    asked = "each sample's class" if class_name is None else f"the class {class_name}"
    rows = _heat_map_rows(views, pairs, classes, magnitude)
    return plot_heat_maps(
        rows,
        path,
        note=_GRAD_CAM_NOTE.format(asked=asked),
        measure="share of the largest",
        limits=(0.0, 1.0),
    )


def _heat_map_rows(
    views: Sequence[RunView],
    pairs: Sequence[ClipPair],
    classes: Sequence[str],
    magnitude: Callable[[RunView, ClipPair, str], np.ndarray],
) -> dict[str, dict[str, HeatMap]]:
    """Row → column → heat map, whose magnitudes `(H, W)` are those of a run, a sample and a view."""

    def heat_map(each: RunView, pair: ClipPair, view: str) -> HeatMap:
        probabilities = each.probabilities(pair, view)
        return HeatMap(
            frame=_middle(pair.frames(view)),
            magnitude=magnitude(each, pair, view),
            title=describe_prediction(classes, probabilities, pair.label),
            wrong=int(np.argmax(probabilities)) != pair.label,
        )

    teachers, _ = split_roles(views)
    rows: dict[str, dict[str, HeatMap]] = {}
    for number, pair in enumerate(pairs, start=1):
        row = {"observed clip": _bare_heat_map(pair, OBSERVED)}
        row |= {each.title: heat_map(each, pair, OBSERVED) for each in views}
        row["future clip"] = _bare_heat_map(pair, FUTURE)
        for each in teachers:
            row[f"{each.title} on the future clip"] = heat_map(each, pair, FUTURE)
        rows[f"{number}  {classes[pair.label]}"] = row
    return rows


def draw_drift(
    views: Sequence[RunView], pair: ClipPair, classes: Sequence[str], path: Path, *, targets: int = 3
) -> Path:
    """A block a student, or a teacher where there are no students: where it holds the teacher's vectors.

    Args:
        views: of runs, a teacher among them.
        pair: of the sample to draw.
        classes: names in index order.
        path: PNG to write.
        targets: strongest vectors of the teacher, at most 4.

    Raises:
        PictureError: no teacher, or maps that cannot be compared.
    """
    teachers, students = split_roles(views)
    drifts, alphas, positions = [], set(), 1
    for each in students or teachers:
        teacher = teacher_of(each, teachers) if students else each
        config = each.run.config
        future_map = teacher.map_for(config, pair, FUTURE)
        observed_map = each.projected_map(pair, OBSERVED, future_map.shape[-1])
        found = find_targets(
            future_map,
            observed_map,
            count=targets,
            alpha=config.alpha,
            locality=config.locality if config.feature_loss == "local" else 0.0,
            normalization=config.feature_normalization,
        )
        alphas.add(_alpha_words(config))
        positions = max(positions, found[0].weights.size)
        prediction = describe_prediction(classes, each.probabilities(pair, OBSERVED), pair.label)
        drifts.append(
            Drift(
                title=f"{each.title}   {prediction}",
                observed=pair.frames(OBSERVED),
                future=pair.frames(FUTURE),
                observed_times_s=pair.times_s[OBSERVED],
                future_times_s=pair.times_s[FUTURE],
                future_shape=future_map.shape[:3],
                targets=found,
            )
        )
    alpha = "alpha " + ", ".join(sorted(alphas))
    title = f"Where did it go?   {classes[pair.label]} · {pair.id}"
    return plot_drift(drifts, title, _DRIFT_NOTE.format(alpha=alpha, even=100 / positions), path)


def _alpha_words(config: TrainConfig) -> str:
    """ "1/√d", or "10 of the cosine, locality 8"."""
    normalised = config.feature_normalization != "none"
    default = "10" if normalised else "1/√d"
    alpha = default if config.alpha is None else f"{config.alpha:g}"
    cosine = " of the cosine" if normalised else ""
    near = f", locality {config.locality:g}" if config.feature_loss == "local" else ""
    return f"{alpha}{cosine}{near}"


class _Pictures:
    """The runs and records of one call, and a method for each kind of picture."""

    def __init__(self, views: Sequence[RunView], out: Path, options: PictureOptions) -> None:
        self.views, self.records, self.out, self.options = views, views[0].records, out, options
        self.classes = views[0].classes
        self._pairs: list[ClipPair] | None = None

    def draw(self, kind: str) -> list[DrawnPicture]:
        draw: Callable[[], list[DrawnPicture]] = getattr(self, f"_draw_{kind.replace('-', '_')}")
        return draw()

    def check_ids(self) -> None:
        """Refuses unknown ids before anything is drawn."""
        if self.options.ids:
            self._numbers()

    def check_class(self) -> None:
        """Refuses an unknown class before anything is drawn."""
        name = self.options.class_name
        if name is not None and name not in self.classes:
            close = difflib.get_close_matches(name, self.classes, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Such classes are there: {self.classes[0]!r}."
            raise RecordError(f"{self.records.folder} has no class {name!r}. {hint}")

    def pairs(self) -> list[ClipPair]:
        if self.records.manifest.features is not None:
            raise PictureError(
                f"{self.records.folder} holds features, over which no map can be drawn. Give the records "
                f"of frames that they were made of."
            )
        if self._pairs is None:
            self._pairs = read_clip_pairs(self.records, self.options.split, self._numbers())
        return self._pairs

    def _numbers(self) -> list[int]:
        first, options = self.views[0], self.options
        return choose_samples(
            first.predictions(first.view), count=options.samples, seed=options.seed, ids=options.ids
        )

    def _draw_heat_maps(self) -> list[DrawnPicture]:
        path = draw_heat_maps(self.views, self.pairs(), self.classes, self.out / "heat_maps.png")
        return [DrawnPicture(kind="heat-maps", path=path)]

    def _draw_grad_cam(self) -> list[DrawnPicture]:
        path, name = self.out / "grad_cam.png", self.options.class_name
        draw_grad_cam(self.views, self.pairs(), self.classes, path, class_name=name)
        return [DrawnPicture(kind="grad-cam", path=path)]

    def _draw_drift(self) -> list[DrawnPicture]:
        drawn = []
        for number, pair in enumerate(self.pairs(), start=1):
            path = self.out / f"drift_{number:02d}_{_slug(self.classes[pair.label])}.png"
            draw_drift(self.views, pair, self.classes, path, targets=self.options.targets)
            drawn.append(DrawnPicture(kind="drift", path=path, of=pair.id))
        return drawn

    def _draw_confusion(self) -> list[DrawnPicture]:
        drawn = []
        for each in self.views:
            path = self.out / f"confusion_{_slug(each.name)}.png"
            plot_confusion(each.title, each.predictions(each.view), self.classes, path)
            drawn.append(DrawnPicture(kind="confusion", path=path, of=each.name))
        return drawn

    def _draw_per_class(self) -> list[DrawnPicture]:
        networks = {each.title: each.predictions(each.view) for each in self.views}
        path = plot_per_class(networks, self.classes, self.out / "per_class.png")
        return [DrawnPicture(kind="per-class", path=path)]

    def _draw_reliability(self) -> list[DrawnPicture]:
        networks = {each.title: each.predictions(each.view) for each in self.views}
        path = plot_reliability(networks, self.out / "reliability.png")
        return [DrawnPicture(kind="reliability", path=path)]

    def _draw_earliness(self) -> list[DrawnPicture]:
        drawn = []
        for name, xlabel in AGAINST.items():
            curves = {each.title: self._curve(each.run, name) for each in self.views}
            curves = {run: points for run, points in curves.items() if points}
            if curves:
                path, chance = self.out / f"accuracy_by_{name}.png", 1 / len(self.classes)
                plot_accuracy_against(curves, path, xlabel=xlabel, chance=chance)
                drawn.append(DrawnPicture(kind="earliness", path=path))
        if not drawn:
            first = self.views[0].run.folder
            raise PictureError(
                f"No run has its accuracy against what was seen, on these records, yet. Evaluate with "
                f"--observe or --tau first, such as: {evaluate_command(first, str(self.records.folder))} "
                f"--observe 0.1:1.0:0.1."
            )
        return drawn

    def _curve(self, run: Run, name: str) -> Sequence[CurvePoint]:
        """On these records and this split; none where it was not asked for."""
        records = manifest_sha256(self.records.folder)
        return read_curves(run, name).get(result_name(run, name, self.options.split, records), ())

    def _draw_curves(self) -> list[DrawnPicture]:
        rows = {each.name: read_metrics(each.run.folder / METRICS_NAME) for each in self.views}
        rows = {name: own for name, own in rows.items() if own}
        if not rows:
            raise PictureError(f"No run has a {METRICS_NAME}, so there are no training curves.")
        path = self.out / "curves.png"
        plot_curves(rows, path)
        return [DrawnPicture(kind="curves", path=path)]

    def _draw_features(self) -> list[DrawnPicture]:
        options, path = self.options, self.out / "features.png"
        if self.records.manifest.heads:
            raise PictureError(
                f"{self.records.folder} has labels for several heads; features are coloured by those of one."
            )
        draw_features(self.views, self.classes, path, projection=options.projection, seed=options.seed)
        return [DrawnPicture(kind="features", path=path)]


def _bare_heat_map(pair: ClipPair, view: str) -> HeatMap:
    times_s = pair.times_s[view]
    return HeatMap(frame=_middle(pair.frames(view)), title=f"{times_s[(len(times_s) - 1) // 2]:.2f} s")


def _middle(frames: np.ndarray) -> np.ndarray:
    middle: np.ndarray = frames[(len(frames) - 1) // 2]
    return middle


def _slug(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "x"

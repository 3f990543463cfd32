"""A sweep of the losses' settings, judged on training videos only. No TensorFlow here.

The test split is neither read nor evaluated on: each seed keeps other training videos out, for the teacher
and all students alike, and a setting is judged by these.
"""

import csv
import dataclasses
import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdant_tf.config import STUDENT, TEACHER
from kdant_tf.losses import ATTENTION_LOSS_NAMES
from kdant_tf.runs import METRICS_NAME, best_epoch, read_metrics
from kdant_tf.studies.results import Average, average
from kdant_tf.studies.study_folder import is_finished
from kdant_tf.studies.study_plan import (
    Network,
    Place,
    RecordSource,
    RunSpec,
    Study,
    StudySettings,
    places_of,
    plan_runs,
    run_folder,
    run_name,
)
from tf_records.files import json_text, write_text_atomically

# Of a run's epochs, the last ones, over which validation is averaged: one epoch's is noisier.
_LAST_SHARE = 0.25
_NONE, _LOCAL = "none", "local"
_WITH_ALPHA = (*ATTENTION_LOSS_NAMES, "infonce")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One point of the grid: settings of TrainConfig.

    Weight and alpha are None where the loss has none, alpha also for its default; the others are None where
    they mean nothing to the loss, or are left as the settings have them.
    """

    feature_loss: str
    feature_weight: float | None = None
    alpha: float | None = None
    feature_normalization: str | None = None
    locality: float | None = None
    soft_weight: float | None = None
    temperature: float | None = None

    @property
    def network(self) -> str:
        """Name of its student."""
        names = [self.feature_loss]
        if self.feature_weight is not None:
            names += [f"weight{self.feature_weight:g}", f"alpha{self.alpha_words}"]
        return "-".join([*names, *(words.replace(" ", "") for words in self.further)])

    @property
    def further(self) -> list[str]:
        """What is swept beside weight and alpha: "l2", "locality 8", "soft 0.5", "temperature 4"."""
        normalization = self.feature_normalization
        words = [] if normalization is None else ["plain" if normalization == "none" else normalization]
        numbers = {
            "locality": self.locality,
            "soft": self.soft_weight,
            "temperature": self.temperature,
        }
        return [*words, *(f"{name} {value:g}" for name, value in numbers.items() if value is not None)]

    @property
    def alpha_words(self) -> str:
        """The number, or "default"."""
        return "default" if self.alpha is None else f"{self.alpha:g}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SweptSetting:
    """What validation says of a setting; None without a finished run.

    Args:
        setting: of the student.
        accuracy: top-1 on the held-out videos, averaged over the last quarter of the epochs.
        loss: their cross-entropy, likewise.
        best_accuracy: of each run's best epoch instead.
    """

    setting: Setting
    accuracy: Average | None
    loss: float | None
    best_accuracy: float | None


def make_grid(
    feature_losses: Sequence[str],
    weights: Sequence[float],
    alphas: Sequence[float | None],
    *,
    normalizations: Sequence[str] = (),
    localities: Sequence[float] = (),
    soft_weights: Sequence[float] = (),
    temperatures: Sequence[float] = (),
) -> tuple[Setting, ...]:
    """`none`, to compare with, and every loss with every value of all that means something to it.

    Args:
        feature_losses, weights, alphas: of the feature loss; an alpha of None is the default.
        normalizations, localities: likewise; empty for what the settings have.
        soft_weights, temperatures: of the teacher's probabilities on labelled samples, which `none` has too;
            empty for what the settings have.
    """
    soft = dict.fromkeys(
        (weight, None if weight == 0 else temperature)
        for weight, temperature in itertools.product(soft_weights or (None,), temperatures or (None,))
    )
    of_features = itertools.product(
        feature_losses, weights, alphas, normalizations or (None,), localities or (None,)
    )
    settings = [Setting(feature_loss=_NONE)]
    for loss, weight, alpha, normalization, locality in of_features:
        setting = Setting(
            feature_loss=loss,
            feature_weight=weight,
            alpha=alpha if loss in _WITH_ALPHA else None,
            feature_normalization=normalization,
            locality=locality if loss == _LOCAL else None,
        )
        if loss != _NONE:
            settings.append(setting)
    return tuple(
        dict.fromkeys(
            dataclasses.replace(setting, soft_weight=weight, temperature=temperature)
            for setting in settings
            for weight, temperature in soft
        )
    )


def plan_sweep(
    sources: Sequence[RecordSource],
    settings: StudySettings,
    grid: Sequence[Setting],
    validation_fraction: float,
) -> Study:
    """A teacher and a student of each setting at every place, none of them evaluated on the test split.

    Raises:
        KdantError: records or settings that cannot be.
    """
    held_out = {"validation_fraction": validation_fraction}
    networks = [Network(name="teacher", role=TEACHER, settings=held_out, views=())]
    for setting in grid:
        own = {name: value for name, value in dataclasses.asdict(setting).items() if value is not None}
        networks.append(
            Network(
                name=setting.network, role=STUDENT, settings={**held_out, **own}, teacher="teacher", views=()
            )
        )
    runs = plan_runs(networks, sources, settings)
    return Study(
        name="sweep",
        title=f"Sweep, judged on {100 * validation_fraction:g} % of the training videos",
        scale=settings.describe(runs),
        places=places_of(sources),
        runs=runs,
    )


def summarize_sweep(study: Study, grid: Sequence[Setting], folder: Path) -> list[SweptSetting]:
    """What the finished runs say of each setting, in the grid's order."""
    runs = {spec.name: spec for spec in study.runs}
    streams = dict.fromkeys(spec.config.modality for spec in study.runs)
    return [
        _summarize(
            setting,
            {
                Place(f"{place.split} {stream}", place.seed): read_metrics(
                    run_folder(folder, name) / METRICS_NAME
                )
                for place in study.places
                for stream in streams
                if _is_there(runs, name := run_name(str(stream), place, setting.network), folder)
            },
        )
        for setting in grid
    ]


def _is_there(runs: Mapping[str, RunSpec], name: str, folder: Path) -> bool:
    return name in runs and is_finished(runs[name], folder)


def _summarize(setting: Setting, runs: Mapping[Place, Sequence[Mapping[str, float]]]) -> SweptSetting:
    if not runs:
        return SweptSetting(setting=setting, accuracy=None, loss=None, best_accuracy=None)
    best = {place: rows[(best_epoch(rows) or 1) - 1]["validation_accuracy"] for place, rows in runs.items()}
    return SweptSetting(
        setting=setting,
        accuracy=average({place: last_mean(rows, "validation_accuracy") for place, rows in runs.items()}),
        loss=average({place: last_mean(rows, "validation_loss") for place, rows in runs.items()}).mean,
        best_accuracy=average(best).mean,
    )


def last_mean(rows: Sequence[Mapping[str, float]], metric: str) -> float:
    """Mean of a metric over the last quarter of the epochs, at least one."""
    count = max(1, round(_LAST_SHARE * len(rows)))
    return float(np.mean([row[metric] for row in rows[-count:]]))


def pick_best(swept: Sequence[SweptSetting]) -> dict[str, Setting]:
    """Feature loss → its setting of the highest accuracy; ties: lower loss, then the grid's order."""
    best: dict[str, SweptSetting] = {}
    for each in swept:
        if each.setting == Setting(feature_loss=_NONE) or each.accuracy is None:
            continue
        before = best.get(each.setting.feature_loss)
        if before is None or _merit(each) > _merit(before):
            best[each.setting.feature_loss] = each
    return {loss: each.setting for loss, each in best.items()}


def _merit(swept: SweptSetting) -> tuple[float, float]:
    assert swept.accuracy is not None
    assert swept.loss is not None
    return swept.accuracy.mean, -swept.loss


def sweep_to_dict(study: Study, swept: Sequence[SweptSetting]) -> dict[str, Any]:
    """As JSON has it."""
    best = {loss: dataclasses.asdict(setting) for loss, setting in pick_best(swept).items()}
    return {
        "study": study.name,
        "title": study.title,
        "scale": study.scale,
        "best": best,
        "settings": [dataclasses.asdict(each) for each in swept],
    }


def write_sweep(
    folder: Path, study: Study, swept: Sequence[SweptSetting], about: Mapping[str, Any]
) -> list[Path]:
    """Writes `sweep.csv` and `sweep.json`; returns their paths."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in dataclasses.fields(Setting)]
    writer.writerow(("scale", *names, "runs", "accuracy", "sd", "loss", "best_accuracy"))
    for each in swept:
        point, seen = [getattr(each.setting, name) for name in names], each.accuracy
        numbers = (None, None, None) if seen is None else (seen.places, seen.mean, seen.sd)
        writer.writerow((study.scale, *point, *numbers, each.loss, each.best_accuracy))
    fields = {**sweep_to_dict(study, swept), **about}
    paths = [folder / "sweep.csv", folder / "sweep.json"]
    write_text_atomically(paths[0], text.getvalue())
    write_text_atomically(paths[1], json_text(fields, indent=1) + "\n")
    return paths

"""Accuracy against what a network has seen, and against the time that its answers take: curves of one run."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from kdant_tf.evaluation.evaluate import (
    OnBatch,
    RecordsOrFolder,
    RunOrFolder,
    check_fit,
    check_one_head,
    digests,
    keeping,
    predict_run,
    read_inputs,
)
from kdant_tf.evaluation.metrics import CurvePoint, accuracy_interval
from kdant_tf.evaluation.predictions import Predictions, save_predictions
from kdant_tf.models.inference import DEFAULT, Engine, Inference, open_inference
from kdant_tf.models.networks import load_network
from kdant_tf.runs import PREDICTIONS_NAME, Run, record_evaluation, result_name
from tf_records.errors import RunError
from tf_records.records import Records
from tf_records.schema import FUTURE, OBSERVED

_LATENCY_WARM_UPS, _LATENCY_CALLS = 2, 10
# A sum of two times may round up.
_TIME_TOLERANCE_S = 1e-9


def evaluate_observed_shares(
    run: RunOrFolder,
    records: RecordsOrFolder,
    shares: Sequence[float],
    *,
    split: str = "test",
    network: keras.Model | None = None,
    engine: Engine = DEFAULT,
    insist: bool = False,
    on_batch: OnBatch = lambda clips: None,
) -> list[CurvePoint]:
    """Accuracy against the share of the video that the network sees, for teachers and students alike.

    Args:
        run, records, split, network, engine, insist, on_batch: as of `evaluate_run`.
        shares: in (0, 1]; of a video's frames, rounded up.

    Raises:
        RunError: the records' future segments are not whole videos, or do not fit the run.
    """
    (run,), records = read_inputs([run], records, split)
    check_one_head(run)
    if "observed_fraction" not in records.manifest.options:
        raise RunError(
            f"Accuracy against the observed share needs records whose test samples are whole videos, as "
            f"JHMDB's are. {records.folder} is of {records.manifest.dataset}."
        )
    seen = {share: {"share": share} for share in shares}
    return _evaluate_curve(run, records, "share", FUTURE, seen, split, network, engine, insist, on_batch)


def evaluate_anticipation_times(
    run: RunOrFolder,
    records: RecordsOrFolder,
    taus_s: Sequence[float],
    *,
    split: str = "test",
    network: keras.Model | None = None,
    engine: Engine = DEFAULT,
    insist: bool = False,
    on_batch: OnBatch = lambda clips: None,
) -> list[CurvePoint]:
    """Accuracy against the time from the end of the observed clip to the start of the action.

    Where a video begins too late for a time, its first clip is evaluated.

    Args:
        run, records, split, network, engine, insist, on_batch: as of `evaluate_run`.
        taus_s: seconds, at least 0.

    Raises:
        RunError: the records keep no, or too few, frames for that, or do not fit the run.
    """
    times = {tau_s: tau_s for tau_s in taus_s}
    return _evaluate_at(run, records, "tau", times, split, network, engine, insist, on_batch)


def evaluate_streaming(
    run: RunOrFolder,
    records: RecordsOrFolder,
    latencies_s: Sequence[float],
    *,
    split: str = "test",
    network: keras.Model | None = None,
    engine: Engine = DEFAULT,
    insist: bool = False,
    on_batch: OnBatch = lambda clips: None,
) -> list[CurvePoint]:
    """Accuracy where an answer counts only once it is there: against the time that it takes.

    An answer that is to be there τ before the action, and takes l, is of a clip that ends τ + l before it. So
    a larger network has to be right earlier. Clips are taken to begin whenever they are asked for; a network
    that is always busy begins up to one more l earlier.

    Args:
        run, records, split, network, engine, insist, on_batch: as of `evaluate_run`.
        latencies_s: from the end of a clip to its answer, at least 0; see `measure_latency`.

    Returns:
        A point for each latency.

    Raises:
        RunError: the records keep no, or too few, frames for that, or do not fit the run.

    Source: Furnari and Farinella 2021, "Towards Streaming Egocentric Action Anticipation", §3.
    """
    (run,), records = read_inputs([run], records, split)
    check_one_head(run)
    clip, fps = records.manifest.clip, records.manifest.fps
    own_s = clip.anticipation_s
    if own_s is None:
        if fps is None:
            raise RunError(
                f"Records {records.folder} have several frame rates and an offset in frames, so that the "
                f"seconds to the action differ. Build them with --anticipation-s."
            )
        own_s = (clip.offset_at(fps) - clip.clip_frames) / fps
    times = {latency_s: own_s + latency_s for latency_s in latencies_s}
    return _evaluate_at(run, records, "latency", times, split, network, engine, insist, on_batch)


def measure_latency(run: Run, network: keras.Model | None = None, engine: Engine = DEFAULT) -> float:
    """Median time of ten answers to one clip on this machine, in seconds; preprocessing is not in it."""
    network = load_network(run) if network is None else network
    infer = open_inference(network, dataclasses.replace(engine, report=lambda line: None))
    clip = tf.zeros((1, *network.input.shape[1:]))
    seconds = []
    for _ in range(_LATENCY_WARM_UPS + _LATENCY_CALLS):
        began_s = time.perf_counter()
        infer(clip)
        seconds.append(time.perf_counter() - began_s)
    return statistics.median(seconds[_LATENCY_WARM_UPS:])


def _evaluate_at(
    run: RunOrFolder,
    records: RecordsOrFolder,
    name: str,
    taus_s: Mapping[float, float],
    split: str,
    network: keras.Model | None,
    engine: Engine,
    insist: bool,
    on_batch: OnBatch,
) -> list[CurvePoint]:
    """A curve called `name`: x → seconds from the end of the clip to the start of the action."""
    (run,), records = read_inputs([run], records, split)
    check_one_head(run)
    check_times(records, taus_s.values())
    seen = {x: {"tau_s": tau_s} for x, tau_s in taus_s.items()}
    return _evaluate_curve(run, records, name, OBSERVED, seen, split, network, engine, insist, on_batch)


def check_times(records: Records, taus_s: Iterable[float]) -> None:
    """Raises RunError where records keep too few frames before their actions."""
    longest_s, wanted_s = records.manifest.longest_anticipation_s, max(taus_s)
    if longest_s is None or wanted_s > longest_s + _TIME_TOLERANCE_S:
        raise RunError(
            f"Records {records.folder} keep "
            f"{'the clips of one time' if longest_s is None else f'{longest_s:g} s before each action'}. "
            f"Build them with --longest-anticipation-s {math.ceil(100 * wanted_s - 1e-6) / 100:g}."
        )


def _evaluate_curve(
    run: Run,
    records: Records,
    name: str,
    view: str,
    seen: Mapping[float, Mapping[str, Any]],
    split: str,
    network: keras.Model | None,
    engine: Engine,
    insist: bool,
    on_batch: OnBatch,
) -> list[CurvePoint]:
    """A curve called `name`: x → what of each segment the network sees, as `predict_run` takes it."""
    differences = check_fit([run], records, insist=insist, offset=False)
    network = load_network(run) if network is None else network
    inference = open_inference(network, engine, name=f"run {run.folder}")
    given: dict[str, Any] = {"view": view, "split": split, "insist": insist, "on_batch": on_batch}
    given |= {"network": network, "inference": inference}
    predictions = {x: predict_run(run, records, **given, **what) for x, what in seen.items()}
    return _keep_curve(run, name, split, predictions, differences, inference)


def _keep_curve(
    run: Run,
    name: str,
    split: str,
    predictions_at: Mapping[float, Predictions],
    differences: Sequence[str],
    inference: Inference,
) -> list[CurvePoint]:
    """Keeps predictions under `NAME X/SPLIT`, and the accuracies under `NAME` in evaluation.json."""
    points = [
        CurvePoint(x=x, top1=accuracy_interval(predictions.correct(), predictions.videos))
        for x, predictions in predictions_at.items()
    ]
    curve = [{name: point.x, **dataclasses.asdict(point.top1)} for point in points]
    differing = {"differences": list(differences)} if differences else {}
    with keeping(run, points):
        for x, predictions in predictions_at.items():
            at = result_name(run, f"{name} {x:g}", split, predictions.records_sha256)
            save_predictions(run.folder / PREDICTIONS_NAME, f"{at}/{split}", predictions)
        name = result_name(run, name, split, predictions.records_sha256)
        fields = {"split": split, "top1": curve, **inference.to_dict(), **differing}
        record_evaluation(run, name, {**fields, **digests(predictions)})
    return points

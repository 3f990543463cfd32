"""Accuracy against what a network has seen, and against the time that its answers take: curves of one run."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from kdant_tf.evaluation.evaluate import (
    OnBatch,
    RecordsOrFolder,
    RunOrFolder,
    check_fit,
    check_one_head,
    check_times,
    digests,
    keeping,
    predict_run,
    read_inputs,
)
from kdant_tf.evaluation.heads import name_predictions
from kdant_tf.evaluation.metrics import (
    CurvePoint,
    Interval,
    accuracy_interval,
    mean_average_precision_interval,
)
from kdant_tf.evaluation.predictions import Predictions, save_predictions
from kdant_tf.models.i3d_stem import load_with_stem
from kdant_tf.models.inference import DEFAULT, Engine, Inference, open_inference
from kdant_tf.runs import PREDICTIONS_NAME, Run, record_evaluation, result_name
from tf_records.errors import RunError
from tf_records.heads import Heads, are_times, column_slices
from tf_records.records import Records
from tf_records.schema import FUTURE, OBSERVED, PER_CLIP

# Head → its points; "" is a network with one answer.
StreamingCurves = dict[str, list[CurvePoint]]


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
        RunError: the records' future segments are not whole videos, are features of whole clips, or do not
            fit the run.
    """
    (run,), records = read_inputs([run], records, split)
    check_one_head(run)
    if "observed_fraction" not in records.manifest.options:
        raise RunError(
            f"Accuracy against the observed share needs records whose test samples are whole videos, as "
            f"JHMDB's are. {records.folder} is of {records.manifest.dataset}."
        )
    features = records.manifest.features
    if features is not None and features.per == PER_CLIP:
        raise RunError(
            f"Accuracy against the observed share needs records of frames, or features of each frame. "
            f"{records.folder} has features of whole clips, which show no share of a video. Give the records "
            f"of frames that they were made of: of a run on features, its stem is put before its network."
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
) -> StreamingCurves:
    """Accuracy where an answer counts only once it is there: against the time that it takes.

    An answer that is to be there τ before the action, and takes l, is of a clip that ends τ + l before it. So
    a larger network has to be right earlier. Clips are taken to begin whenever they are asked for; a network
    that is always busy begins up to one more l earlier.

    Args:
        run, records, split, network, engine, insist, on_batch: as of `evaluate_run`.
        latencies_s: from the end of a clip to its answer, at least 0; see
            `kdant_tf.serving.benchmark.compare_streaming`, which measures them.

    Returns:
        Head → a point for each latency; of a run with one answer that is under "". Heads for several
        anticipation times count each from its own time; of several labels a clip, accuracy is mean average
        precision.

    Raises:
        RunError: the records keep no, or too few, frames for that, or do not fit the run.

    Source: Furnari and Farinella 2021, "Towards Streaming Egocentric Action Anticipation", §3.
    """
    (run,), records = read_inputs([run], records, split)
    check_latencies(records, run.heads, latencies_s)
    differences = check_fit([run], records, insist=insist, offset=False)
    network = load_with_stem(run, network)
    inference = open_inference(network, engine, name=f"run {run.folder}", heads=run.heads)
    given: dict[str, Any] = {"split": split, "insist": insist, "on_batch": on_batch}
    given |= {"network": network, "inference": inference}

    def predict_at(tau_s: float) -> Predictions:
        return predict_run(run, records, view=OBSERVED, tau_s=tau_s, **given)

    predictions = predict_in_time(predict_at, records, run.heads, latencies_s)
    curves = streaming_curves(predictions)
    with keeping(run, curves):
        for head, points in curves.items():
            name = f"latency, {head}" if head else "latency"
            _keep_curve(run, name, split, points, predictions[head], differences, inference)
    return curves


def check_latencies(records: Records, heads: Heads, latencies_s: Sequence[float]) -> None:
    """Raises RunError where records keep too few frames for answers that take so long."""
    check_times(records, [own_s + max(latencies_s) for own_s in _times_s(records, heads).values()])


def _times_s(records: Records, heads: Heads) -> dict[str, float]:
    """Head → seconds from the end of the clip that it answers to the action; "" where all share one."""
    if are_times(heads):
        return {head.name: head.ahead_s or 0.0 for head in heads}
    clip, fps = records.manifest.clip, records.manifest.fps
    if clip.anticipation_s is not None:
        return {"": clip.anticipation_s}
    if fps is None:
        raise RunError(
            f"Records {records.folder} have several frame rates and an offset in frames, so that the "
            f"seconds to the action differ. Build them with --anticipation-s."
        )
    return {"": (clip.offset_at(fps) - clip.clip_frames) / fps}


def predict_in_time(
    predict_at: Callable[[float], Predictions],
    records: Records,
    heads: Heads,
    latencies_s: Sequence[float],
) -> dict[str, dict[float, Predictions]]:
    """What a network says in time, were its answers to take so long.

    Args:
        predict_at: seconds from the end of the clip to the action → what it says of such clips.
        records: that it says it of.
        heads: of the network.
        latencies_s: from the end of a clip to its answer.

    Returns:
        Head → latency → predictions; of a network with one answer, or several labels a clip, under "".
    """
    times_s, slices = _times_s(records, heads), column_slices(heads)
    predict_at = functools.cache(predict_at)  # Two times with their latencies may be one.
    found: dict[str, dict[float, Predictions]] = {}
    for latency_s in latencies_s:
        for head, own_s in times_s.items():
            whole = predict_at(round(own_s + latency_s, 9))
            if head:
                parts = {head: dataclasses.replace(whole, probabilities=whole.probabilities[:, slices[head]])}
            elif len(heads) < 2:
                parts = {"": whole}
            else:
                parts = name_predictions(whole, heads)
            for name, predictions in parts.items():
                found.setdefault(name, {})[latency_s] = predictions
    return found


def streaming_curves(predictions: Mapping[str, Mapping[float, Predictions]]) -> StreamingCurves:
    """Accuracies of what `predict_in_time` gives."""
    return {
        head: [CurvePoint(x=x, top1=_accuracy(each)) for x, each in points.items()]
        for head, points in predictions.items()
    }


def _accuracy(predictions: Predictions) -> Interval:
    """Top-1 accuracy, or of several labels a clip, mean average precision."""
    if predictions.labels.ndim == 1:
        return accuracy_interval(predictions.correct(), predictions.sources)
    return mean_average_precision_interval(predictions.probabilities, predictions.labels, predictions.sources)


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
    network = load_with_stem(run, network)
    inference = open_inference(network, engine, name=f"run {run.folder}")
    given: dict[str, Any] = {"view": view, "split": split, "insist": insist, "on_batch": on_batch}
    given |= {"network": network, "inference": inference}
    predictions = {x: predict_run(run, records, **given, **what) for x, what in seen.items()}
    points = [CurvePoint(x=x, top1=_accuracy(each)) for x, each in predictions.items()]
    with keeping(run, points):
        _keep_curve(run, name, split, points, predictions, differences, inference)
    return points


def _keep_curve(
    run: Run,
    name: str,
    split: str,
    points: Sequence[CurvePoint],
    predictions_at: Mapping[float, Predictions],
    differences: Sequence[str],
    inference: Inference,
) -> None:
    """Keeps predictions under `NAME X/SPLIT`, and the accuracies under `NAME` in evaluation.json."""
    kind, _, head = name.partition(", ")
    curve = [{kind: point.x, **dataclasses.asdict(point.top1)} for point in points]
    differing = {"differences": list(differences)} if differences else {}
    for x, predictions in predictions_at.items():
        what = ", ".join([f"{kind} {x:g}", *([head] if head else [])])
        at = result_name(run, what, split, predictions.records_sha256)
        save_predictions(run.folder / PREDICTIONS_NAME, f"{at}/{split}", predictions)
    measure = "top1" if predictions.labels.ndim == 1 else "mean_average_precision"
    fields = {"split": split, measure: curve, **inference.to_dict(), **differing}
    name = result_name(run, name, split, predictions.records_sha256)
    record_evaluation(run, name, {**fields, **digests(predictions)})

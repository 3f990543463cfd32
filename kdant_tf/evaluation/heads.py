"""How a run with several heads, or with several labels a clip, is evaluated: each head by itself.

The results of several heads are kept under "observed, verb", "observed, noun" and so on; those of several
anticipation times, each of the clip that ends its time before the action, under "observed, 0.25s". Where the
heads are a verb, a noun and an action, the actions are also named by the product of the first two.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kdant_tf.evaluation import evaluate, metrics
from kdant_tf.evaluation.evaluate import Evaluation, OnBatch, RecordsOrFolder, RunOrFolder
from kdant_tf.evaluation.metrics import Interval
from kdant_tf.evaluation.predictions import Predictions, fuse
from kdant_tf.models.i3d_stem import load_with_stem
from kdant_tf.models.inference import DEFAULT, FLOAT32, TENSORFLOW, Engine, Inference, open_inference
from kdant_tf.runs import Run, record_evaluation, result_name
from tf_records.errors import RunError
from tf_records.heads import Head, Heads, are_times, column_slices
from tf_records.records import Records
from tf_records.schema import OBSERVED

VERB, NOUN, ACTION = "verb", "noun", "action"
# Actions, named by the likeliest product of a verb's probability and a noun's.
PRODUCT = "verb x noun"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClassPrecision:
    """How many samples have a class, and its average precision; None without samples."""

    name: str
    samples: int
    average_precision: float | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LabelsEvaluation:
    """How well a run does on a split whose samples have several labels.

    Args:
        view, split: segment that the network saw, and of which samples.
        mean_average_precision_interval: over the classes that occur; 95 %, bootstrapped over videos.
        samples, videos: how many.
        per_class: of every class, in index order.
        predictions: a probability for each class and sample, from which all of these follow.
        differences: in what network and records differ from the training's, where that was insisted on.
        engine, precision: by which they were computed.
    """

    view: str
    split: str
    mean_average_precision_interval: Interval
    samples: int
    videos: int
    per_class: tuple[ClassPrecision, ...]
    predictions: Predictions = dataclasses.field(repr=False, compare=False)
    differences: tuple[str, ...] = ()
    engine: str = TENSORFLOW
    precision: str = FLOAT32

    @property
    def mean_average_precision(self) -> float:
        """Average precision of each class that occurs, averaged over these."""
        return self.mean_average_precision_interval.value

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in index order."""
        return tuple(each.name for each in self.per_class)

    def to_dict(self) -> dict[str, Any]:
        """What `kdant evaluate --json` prints."""
        interval = self.mean_average_precision_interval
        return {
            "view": self.view,
            "split": self.split,
            "mean_average_precision": interval.value,
            "mean_average_precision_interval": [interval.low, interval.high],
            "samples": self.samples,
            "videos": self.videos,
            "per_class": [dataclasses.asdict(each) for each in self.per_class],
            "engine": self.engine,
            "precision": self.precision,
            **({"differences": list(self.differences)} if self.differences else {}),
            "classes": list(self.classes),
        }


HeadEvaluations = dict[str, Evaluation | LabelsEvaluation]


def evaluate_heads(
    run: RunOrFolder,
    records: RecordsOrFolder,
    *,
    others: Sequence[RunOrFolder] = (),
    weights: Sequence[float] = (),
    view: str | None = None,
    split: str = "test",
    network: keras.Model | None = None,
    engine: Engine = DEFAULT,
    insist: bool = False,
    on_batch: OnBatch = lambda clips: None,
) -> HeadEvaluations:
    """Evaluates each head of a run on a split and keeps results and predictions in the run folder.

    Args:
        run: a finished run with heads, or its folder.
        records: with the run's heads, clip length and modality, opened or their folder.
        others, weights: runs whose logits are added, and the weights of all; see `evaluate_streams`.
        view, split, network, engine, insist, on_batch: see `evaluate_run`.

    Returns:
        Head → its evaluation, and, of verb, noun and action, PRODUCT → that of the actions so named.

    Raises:
        RunError: no such run, one without heads, or records that do not fit it.

    Example::

        for name, result in evaluate_heads("student", "records").items():
            print(name, result.top1, result.mean_top5_recall)
    """
    runs, records = evaluate.read_inputs([run, *others], records, split)
    first = runs[0]
    view = evaluate.default_view(first) if view is None else evaluate.check_view(view)
    _check_heads(runs, view)
    offset = view == OBSERVED and not are_times(first.heads)
    differences = evaluate.check_fit(runs, records, insist=insist, offset=offset)
    streams, inferences = [], []
    given: dict[str, Any] = {"view": view, "split": split, "insist": insist, "on_batch": on_batch}
    for each in runs:
        own = load_with_stem(each, network if each is first else None)
        inferences.append(open_inference(own, engine, name=f"run {each.folder}", heads=each.heads))
        given |= {"network": own, "inference": inferences[-1]}
        if are_times(first.heads):
            streams.append(_predict_at_times(each, records, given))
        else:
            streams.append(split_predictions(evaluate.predict_run(each, records, **given), first.heads))
    weights = tuple(weights) or (1.0,) * len(runs)
    predictions = {
        name: streams[0][name] if len(streams) == 1 else fuse([each[name] for each in streams], weights)
        for name in streams[0]
    }
    results = {
        name: dataclasses.replace(
            each, differences=differences, engine=inferences[0].engine, precision=inferences[0].precision
        )
        for name, each in _summarize(first, records, predictions, view, split).items()
    }
    fusion = _describe_fusion(runs, weights, streams) if others else None
    with evaluate.keeping(first, results):
        _keep(first, view, split, results, fusion, inferences[0])
    return results


def _predict_at_times(run: Run, records: Records, given: Mapping[str, Any]) -> dict[str, Predictions]:
    """Each head's part of what the network says of the clip that ends its time before the action."""
    evaluate.check_times(records, [head.ahead_s or 0.0 for head in run.heads])
    parts = {}
    for head, own in zip(run.heads, column_slices(run.heads).values(), strict=True):
        whole = evaluate.predict_run(run, records, tau_s=head.ahead_s, **given)
        parts[head.name] = dataclasses.replace(whole, probabilities=whole.probabilities[:, own])
    return parts


def split_predictions(whole: Predictions, heads: Heads) -> dict[str, Predictions]:
    """Head → its part of predictions, of the samples that have a label for it."""
    if any(head.several for head in heads):
        return {heads[0].name: whole}
    parts = {}
    for number, (name, columns) in enumerate(column_slices(heads).items()):
        known = whole.labels[:, number] >= 0
        parts[name] = dataclasses.replace(
            whole,
            probabilities=whole.probabilities[known, columns],
            labels=whole.labels[known, number],
            ids=whole.ids[known],
            videos=whole.videos[known],
        )
    return parts


def name_predictions(whole: Predictions, heads: Heads) -> dict[str, Predictions]:
    """`split_predictions`, and, of verb, noun and action, PRODUCT → the actions so named."""
    return _with_product(split_predictions(whole, heads), heads)


def _with_product(parts: Mapping[str, Predictions], heads: Heads) -> dict[str, Predictions]:
    product = multiply(parts, heads)
    return {**parts, **({} if product is None else {PRODUCT: product})}


def multiply(predictions: Mapping[str, Predictions], heads: Heads) -> Predictions | None:
    """Actions by the product of a verb's probability and a noun's; None without heads for all three.

    Probabilities sum to 1 over the actions that the third head knows.
    """
    own = {head.name: head for head in heads}
    if not {VERB, NOUN, ACTION} <= set(own):
        return None
    verb, noun, action = (predictions[name] for name in (VERB, NOUN, ACTION))
    if not np.array_equal(verb.ids, action.ids) or not np.array_equal(noun.ids, action.ids):
        return None
    pairs = _pairs_of_actions(own[VERB], own[NOUN], own[ACTION])
    products = verb.probabilities[:, pairs[:, 0]] * noun.probabilities[:, pairs[:, 1]]
    sums = np.maximum(products.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return dataclasses.replace(action, probabilities=products / sums)


def _pairs_of_actions(verb: Head, noun: Head, action: Head) -> np.ndarray:
    """Indices of each action's verb and noun: int64 `(actions, 2)`. An action is called "verb noun"."""
    verbs = {name: number for number, name in enumerate(verb.classes)}
    nouns = {name: number for number, name in enumerate(noun.classes)}
    pairs = []
    for name in action.classes:
        cuts = [place for place, letter in enumerate(name) if letter == " "]
        found = [
            (verbs[name[:cut]], nouns[name[cut + 1 :]])
            for cut in cuts
            if name[:cut] in verbs and name[cut + 1 :] in nouns
        ]
        if not found:
            raise RunError(
                f"Action {name!r} is no verb and noun of the other heads. Build the records again."
            )
        pairs.append(found[0])
    return np.array(pairs, dtype=np.int64)


def _summarize(
    run: Run, records: Records, predictions: Mapping[str, Predictions], view: str, split: str
) -> HeadEvaluations:
    if run.heads[0].several:
        (head,) = run.heads
        return {head.name: summarize_labels(predictions[head.name], head.classes, view=view, split=split)}
    train = records.manifest.splits.get("train")
    classes = run.heads[0].classes if are_times(run.heads) else run.classes
    counts = {} if train is None else train.count_classes(classes)
    parts = _with_product(predictions, run.heads)
    heads = {head.name: head for head in run.heads}
    heads |= {PRODUCT: heads[ACTION]} if PRODUCT in parts else {}
    results: HeadEvaluations = {}
    for name, own in parts.items():
        if not len(own.labels):
            raise RunError(f"No sample of split {split!r} in {records.folder} has a label for {name}.")
        prefix = "" if are_times(run.heads) else f"{heads[name].name}: "
        train_counts = {each.removeprefix(prefix): n for each, n in counts.items() if each.startswith(prefix)}
        summary = evaluate.summarize(
            own, heads[name].classes, view=view, split=split, train_counts=train_counts
        )
        results[name] = evaluate.measure_groups(summary, records.manifest.options, heads[name].name)
    return results


def summarize_labels(
    predictions: Predictions, classes: tuple[str, ...], *, view: str, split: str
) -> LabelsEvaluation:
    """All metrics of predictions of several labels a sample.

    Args:
        predictions: of one sample or more; labels are 0 or 1, int64 `(N, classes)`.
        classes: names in index order.
        view, split: noted in the result.
    """
    probabilities, labels, videos = predictions.probabilities, predictions.labels, predictions.sources
    precision = metrics.average_precision(probabilities, labels)
    return LabelsEvaluation(
        view=view,
        split=split,
        mean_average_precision_interval=metrics.mean_average_precision_interval(
            probabilities, labels, videos
        ),
        samples=len(labels),
        videos=len(np.unique(videos)),
        per_class=tuple(
            ClassPrecision(name=name, samples=int(n), average_precision=None if n == 0 else float(share))
            for name, n, share in zip(classes, labels.sum(axis=0), precision, strict=True)
        ),
        predictions=predictions,
    )


def _keep(
    run: Run,
    view: str,
    split: str,
    results: HeadEvaluations,
    fusion: Mapping[str, Any] | None,
    inference: Inference,
) -> None:
    for name, result in results.items():
        what = view if len(run.heads) == 1 else f"{view}, {name}"
        fields = {**result.to_dict(), **inference.to_dict(), **({"head": name} if len(run.heads) > 1 else {})}
        if fusion is None:
            confusion = None
            if isinstance(result, Evaluation) and len(result.classes) > evaluate.DENSE_CLASSES:
                confusion = result.confusion
            evaluate.keep_evaluation(run, what, split, fields, result.predictions, confusion)
        else:
            fused = result_name(run, f"{what}, fused", split, result.predictions.records_sha256)
            record_evaluation(
                run, fused, {**fields, "fusion": dict(fusion), **evaluate.digests(result.predictions)}
            )


def _describe_fusion(
    runs: Sequence[Run], weights: Sequence[float], streams: Sequence[Mapping[str, Predictions]]
) -> dict[str, Any]:
    return {
        "runs": [str(run.folder) for run in runs],
        "weights": list(weights),
        "weights_sha256": [next(iter(stream.values())).weights_sha256 for stream in streams],
    }


def _check_heads(runs: Sequence[Run], view: str) -> None:
    first = runs[0]
    for run in runs:
        if not run.heads:
            raise RunError(f"Run {run.folder} has one answer. Evaluate it with `evaluate_run`.")
        if are_times(run.heads) and view != OBSERVED:
            raise RunError(
                f"Run {run.folder} names what comes at several times after an observed clip. Received: the "
                f"view {view!r}. Leave it out."
            )
    if len(runs) > 1 and first.heads[0].several:
        raise RunError(
            f"Run {first.folder} gives several labels a clip; no streams of such are added. "
            f"Evaluate it alone."
        )

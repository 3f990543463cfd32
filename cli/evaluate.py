"""kdant evaluate"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tf_records.errors import NotKeptError
from tf_records.remote_path import RecordPath
from tf_records.start_tensorflow import start_tensorflow

from .command import (
    RUN,
    CommaList,
    KdantCommand,
    engine_options,
    insist_option,
    json_option,
    make_engine,
    parse_not_negative,
    records_option,
    weights_option,
)

if TYPE_CHECKING:
    from kdant_tf.evaluation.evaluate import Evaluation
    from kdant_tf.evaluation.heads import HeadEvaluations
    from kdant_tf.evaluation.metrics import CurvePoint, Interval
    from kdant_tf.models.inference import Engine
    from kdant_tf.runs import Run
    from kdant_tf.serving.benchmark import StreamingCurve
    from tf_records.records import Records


def _parse_share(part: str) -> float:
    share = float(Fraction(part))
    if not 0 < share <= 1:
        raise ValueError(part)
    return share


_MEASURED = "measured"


def _parse_latency(part: str) -> float | str:
    """Seconds, or the word."""
    return _MEASURED if part.strip() == _MEASURED else parse_not_negative(part) / 1000


@click.command("evaluate", cls=KdantCommand, short_help="Measure how well a run anticipates, or recognizes.")
@click.argument("runs", type=RUN, nargs=-1, required=True, metavar="RUN...")
@records_option
@click.option(
    "--view",
    type=click.Choice(["observed", "future"]),
    help="What the network sees of each record; default: future for a teacher, observed for a student.",
)
@click.option("--split", type=click.Choice(["test", "val"]), default="test", help="Of the records.")
@click.option(
    "--with",
    "others",
    multiple=True,
    type=RUN,
    help="Another run, such as one of flow, whose logits are added; may be repeated.",
)
@weights_option("Of RUN's logits and of those of each --with, such as 1,1.5; default: equal.")
@click.option(
    "--observe",
    "shares",
    type=CommaList(
        _parse_share, "shares above 0 up to 1, such as 0.2,0.5 or 0.1:1.0:0.1", name="share", ranges=True
    ),
    default=(),
    help="Accuracy against the share of each video that is seen: 0.2,0.5 or FROM:TO:STEP (JHMDB).",
)
@click.option(
    "--tau",
    "taus_s",
    type=CommaList(parse_not_negative, "seconds, at least 0, such as 0.25,0.5,1", name="seconds"),
    default=(),
    help="Accuracy against the anticipation time: 0.25,0.5,1 seconds from the end of the clip to the start "
    "of the action, of records built with --longest-anticipation-s.",
)
@click.option(
    "--streaming",
    is_flag=True,
    help="Accuracy of answers that are there in time: of clips that end earlier by the time an answer takes, "
    "of records built with --longest-anticipation-s. Takes several RUN, exports too, side by side.",
)
@click.option(
    "--latency-ms",
    "latencies",
    type=CommaList(_parse_latency, "milliseconds, at least 0, or measured", name="ms"),
    default=(_MEASURED,),
    show_default=_MEASURED,
    help="With --streaming, how long an answer takes: 0,50,100 as kdant benchmark finds, or measured, which "
    "is each network's time on this machine.",
)
@click.option(
    "--pictures",
    is_flag=True,
    help="Also draw confusion matrix, accuracy of each class and reliability, into RUN/pictures; with "
    "--streaming, accuracy against the time that an answer takes.",
)
@engine_options
@insist_option
@click.option("--per-class", is_flag=True, help="Print each class's accuracy too.")
@json_option
def evaluate(
    runs: tuple[Path, ...],
    records: RecordPath,
    view: str | None,
    split: str,
    others: tuple[Path, ...],
    fusion_weights: tuple[float, ...],
    shares: tuple[float, ...],
    taus_s: tuple[float, ...],
    streaming: bool,
    latencies: tuple[float | str, ...],
    pictures: bool,
    engine: str,
    precision: str,
    insist: bool,
    per_class: bool,
    as_json: bool,
) -> None:
    """Measure how well a run anticipates, or recognizes.

    Result and predictions are also kept in the run folder, in evaluation.json and predictions.npz.
    Intervals are of 95 %, bootstrapped over videos.
    """
    curves = {"--observe": bool(shares), "--tau": bool(taus_s), "--streaming": streaming}
    _check_usage(curves, other=bool(others or view), pictures=pictures)
    _check_runs(runs, streaming=streaming)
    if latencies != (_MEASURED,) and not streaming:
        raise click.UsageError("--latency-ms goes with --streaming.")
    _check_weights(fusion_weights, 1 + len(others))
    made = make_engine(engine, precision)
    if streaming:
        _evaluate_streaming(
            runs,
            records,
            latencies,
            split=split,
            engine=made,
            insist=insist,
            pictures=pictures,
            as_json=as_json,
        )
        return
    from kdant_tf.runs import load_run

    opened_runs = [load_run(folder) for folder in (*runs, *others)]
    start_tensorflow()
    from tf_records.records import Records

    opened = Records.open(records, split=split)
    if any(curves.values()):
        compute = _choose_curve(opened_runs[0], opened, shares=shares, taus_s=taus_s)
    else:
        compute = _choose_evaluation(opened_runs, opened, view, fusion_weights)
    result, not_kept = _compute(partial(compute, split=split, engine=made, insist=insist))
    if any(curves.values()):
        where = "the first part of each video" if shares else "clips that end before the actions"
        title = f"{runs[0]} on {where} of {records} ({split})"
        differences = opened_runs[0].differences(opened.manifest, offset=False)
        _print_curve(title, "share" if shares else "tau", result, differences, as_json)
    else:
        _print_result(opened_runs, result, f"of {records} ({split})", per_class, as_json)
    if not_kept is not None:
        raise not_kept
    if pictures:
        from kdant_tf.visualization.visualize import draw_evaluation

        draw_evaluation(opened_runs[0], opened, split, insist=insist)


def _check_runs(runs: Sequence[Path], *, streaming: bool) -> None:
    """Several networks, and exports, are for streaming accuracy alone."""
    from kdant_tf.serving.model import find_version

    if len(set(runs)) < len(runs):
        raise click.UsageError("The same RUN was given twice.")
    if streaming:
        return
    if len(runs) > 1:
        raise click.UsageError(
            "Several RUN go with --streaming, side by side. To add their logits, give the others by --with."
        )
    if find_version(runs[0]) is not None:
        raise click.UsageError(
            f"{runs[0]} is an export; evaluate its run, or give it with --streaming beside the run."
        )


def _evaluate_streaming(
    networks: Sequence[Path],
    records: RecordPath,
    latencies: Sequence[float | str],
    *,
    split: str,
    engine: Engine,
    insist: bool,
    pictures: bool,
    as_json: bool,
) -> None:
    """One table, and one picture, of all networks."""
    from kdant_tf.serving.model import find_version

    folders = [each for each in networks if find_version(each) is None]
    if pictures and not folders:
        raise click.UsageError("--pictures are drawn into the folder of a run. Give one besides the exports.")
    start_tensorflow()
    from kdant_tf.serving.benchmark import compare_streaming
    from tf_records.records import Records

    opened = Records.open(records, split=split)
    latencies_s = [None if isinstance(each, str) else each for each in latencies]
    compute = partial(compare_streaming, networks, opened, latencies_s)
    curves, not_kept = _compute(partial(compute, split=split, engine=engine, insist=insist))
    _print_streaming(f"Answers that are there in time, of {records} ({split})", curves, as_json)
    if not_kept is not None:
        raise not_kept
    if pictures:
        from kdant_tf.visualization.curves import AGAINST, plot_accuracy_against
        from kdant_tf.visualization.visualize import PICTURES_FOLDER

        path = folders[0] / PICTURES_FOLDER / "streaming.png"
        path.parent.mkdir(exist_ok=True)
        heads = opened.manifest.heads or any(each.head for each in curves)
        chance = None if heads else 1 / len(opened.manifest.classes)
        words = {"xlabel": AGAINST["latency"], "ylabel": _MEASURES[curves[0].measure]}
        plot_accuracy_against({each.title: each.points for each in curves}, path, **words, chance=chance)


def _choose_curve(
    run: Run,
    records: Records,
    *,
    shares: Sequence[float],
    taus_s: Sequence[float],
) -> Callable[..., Any]:
    """What computes the curve that was asked for: against shares, or else times."""
    from kdant_tf.evaluation import curves

    if shares:
        return partial(curves.evaluate_observed_shares, run, records, shares)
    return partial(curves.evaluate_anticipation_times, run, records, taus_s)


def _choose_evaluation(
    runs: Sequence[Run], records: Records, view: str | None, weights: Sequence[float]
) -> Callable[..., Any]:
    """What evaluates a run, each of its heads, or several runs as streams."""
    from kdant_tf.evaluation.evaluate import evaluate_run, evaluate_streams
    from kdant_tf.evaluation.heads import evaluate_heads

    first, *others = runs
    if first.heads:
        return partial(evaluate_heads, first, records, others=others, weights=weights, view=view)
    if others:
        return partial(evaluate_streams, runs, records, weights=weights or (1.0,) * len(runs), view=view)
    return partial(evaluate_run, first, records, view=view)


def _print_result(runs: Sequence[Run], result: Any, where: str, per_class: bool, as_json: bool) -> None:
    """Of `_choose_evaluation`; `where` says of which records."""
    heads = result if runs[0].heads else {"": result}
    view = next(iter(heads.values())).view
    title = f"{' + '.join(str(run.folder) for run in runs)} on the {view} segments {where}"
    if runs[0].heads:
        _print_heads(title, result, per_class, as_json)
    else:
        _print_evaluation(title, result, per_class, as_json)


def _compute(compute: Callable[..., Any]) -> tuple[Any, NotKeptError | None]:
    """The result, and the error of a run folder that cannot be written, which is said after the result."""
    from .output import CountProgress

    with CountProgress("evaluating windows", None) as progress:
        try:
            return compute(on_batch=progress.advance), None
        except NotKeptError as error:
            return error.result, error


def _check_usage(curves: Mapping[str, bool], *, other: bool, pictures: bool) -> None:
    asked = [name for name, given in curves.items() if given]
    if len(asked) > 1 or (asked and other):
        raise click.UsageError(f"{', '.join(curves)} go neither together nor with --with or --view.")
    if pictures and (asked not in ([], ["--streaming"]) or other):
        raise click.UsageError("--pictures goes with none of --observe, --tau, --with and --view.")


def _check_weights(fusion_weights: Sequence[float], runs: int) -> None:
    if fusion_weights and len(fusion_weights) != runs:
        raise click.UsageError(
            f"--fusion-weights should be {runs} numbers, one a run. Received: {len(fusion_weights)}."
        )


def _print_evaluation(title: str, result: Evaluation, per_class: bool, as_json: bool) -> None:
    """An Evaluation on stdout."""
    from .output import percent, print_fields, print_json, print_table

    if as_json:
        print_json(result.to_dict())
        return
    print_fields(title, _describe(result))
    if per_class:
        rows = [
            (each.name, each.samples, "" if each.top1 is None else percent(each.top1))
            for each in result.per_class
        ]
        print_table("", ("class", "samples", "top-1"), rows)


def _describe(result: Evaluation) -> dict[str, str]:
    from kdant_tf.evaluation.evaluate import GROUP_MEASURES

    from .output import percent

    many_shot = result.many_shot_mean_top5_recall
    return {
        "top-1": _with_interval(result.top1_interval),
        "top-5": _with_interval(result.top5_interval),
        "mean class accuracy": _with_interval(result.mean_class_accuracy_interval),
        "mean top-5 recall": percent(result.mean_top5_recall),
        **({} if many_shot is None else {"  many-shot classes": percent(many_shot)}),
        **{
            f"  {words}": percent(share)
            for name, words in GROUP_MEASURES.items()
            if (share := getattr(result, name)) is not None
        },
        "negative log likelihood": f"{result.negative_log_likelihood:.3f}",
        "calibration error": percent(result.expected_calibration_error),
        "samples": f"{result.samples} in {result.videos} videos",
        "chance": percent(1 / len(result.classes)),
        "computed": f"by {result.engine} in {result.precision}",
        **({"not as trained": "; ".join(result.differences)} if result.differences else {}),
    }


def _print_heads(title: str, results: HeadEvaluations, per_class: bool, as_json: bool) -> None:
    """A column a head on stdout; of several labels a clip, their mean average precision."""
    from kdant_tf.evaluation.evaluate import Evaluation

    from .output import percent, print_fields, print_json, print_table

    first = next(iter(results.values()))
    if not isinstance(first, Evaluation):
        if as_json:
            print_json(first.to_dict())
            return
        fields = {
            "mean average precision": _with_interval(first.mean_average_precision_interval),
            "samples": f"{first.samples} in {first.videos} videos",
            **({"not as trained": "; ".join(first.differences)} if first.differences else {}),
        }
        print_fields(title, fields)
        if per_class:
            precisions = [(each.name, each.samples, each.average_precision) for each in first.per_class]
            rows = [(name, n, "" if share is None else percent(share)) for name, n, share in precisions]
            print_table("", ("class", "samples", "average precision"), rows)
        return
    if as_json:
        heads = {name: each.to_dict() for name, each in results.items()}
        print_json({"view": first.view, "split": first.split, "heads": heads})
        return
    columns = {name: _describe(each) for name, each in results.items() if isinstance(each, Evaluation)}
    names = dict.fromkeys(name for column in columns.values() for name in column)
    print_table(
        title, ("", *columns), [(name, *(each.get(name, "") for each in columns.values())) for name in names]
    )
    if per_class:
        for name, each in results.items():
            if isinstance(each, Evaluation):
                shares = [(one.name, one.samples, one.top1) for one in each.per_class]
                rows = [(label, n, "" if share is None else percent(share)) for label, n, share in shares]
                print_table(name, ("class", "samples", "top-1"), rows)


_MEASURES = {"top1": "top-1", "mean_average_precision": "mean average precision"}
_POINTS: dict[str, Callable[[float], str]] = {
    "share": lambda share: f"{100 * share:.1f} %",
    "tau": lambda seconds: f"{seconds:g} s",
}


def _print_curve(
    title: str, name: str, curve: Sequence[CurvePoint], differences: Sequence[str], as_json: bool
) -> None:
    """Points of a curve on stdout, and in what the records differ from those of the training."""
    from .output import print_json, print_table

    if as_json:
        points = [
            {name: point.x, "top1": point.top1.value, "top1_interval": [point.top1.low, point.top1.high]}
            for point in curve
        ]
        print_json({name: points, **({"differences": list(differences)} if differences else {})})
        return
    if differences:
        title = f"{title}; not as trained: {'; '.join(differences)}"
    rows = [(_POINTS[name](point.x), _with_interval(point.top1)) for point in curve]
    print_table(title, (name, "top-1"), rows)


def _print_streaming(title: str, curves: Sequence[StreamingCurve], as_json: bool) -> None:
    """Networks and their heads on stdout, a row a latency."""
    from .output import print_json, print_table

    if as_json:
        print_json({"latency": [row for each in curves for row in each.to_dicts()]})
        return
    for name, differences in {each.network: each.differences for each in curves}.items():
        title += f"; {name} not as trained: {'; '.join(differences)}" if differences else ""
    heads = any(each.head for each in curves)
    rows = [
        (each.network, *([each.head] if heads else []), _milliseconds(point.x), _with_interval(point.top1))
        for each in curves
        for point in each.points
    ]
    measures = ", ".join(dict.fromkeys(_MEASURES[each.measure] for each in curves))
    print_table(title, ("network", *(["head"] if heads else []), "an answer takes", measures), rows)


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"


def _with_interval(interval: Interval) -> str:
    from .output import percent

    return f"{percent(interval.value)}  ({100 * interval.low:.1f} to {100 * interval.high:.1f} %)"

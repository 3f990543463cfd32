"""How long a model takes to answer, where the time goes, what threads gain, and what it says in time.

TensorFlow is imported where a model is loaded into this process; a server is timed without it.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from kdant_tf.models.inference import DEFAULT, FLOAT32, Engine
from kdant_tf.runs import load_run
from kdant_tf.serving import ENCODED, RAW
from kdant_tf.serving.client import connect, make_client
from kdant_tf.serving.formats import Arrays
from kdant_tf.serving.model import (
    AnticipationModel,
    find_version,
    load_answers,
    load_model,
    make_inputs,
    model_of_export,
    needs_tensorflow,
    read_export_config,
    runs_of_export,
)
from kdant_tf.serving.server import Server
from tf_records.errors import NotKeptError, RunError

if TYPE_CHECKING:
    import tensorflow as tf

    from kdant_tf.evaluation.metrics import CurvePoint
    from kdant_tf.evaluation.predictions import Predictions
    from tf_records.records import Records

# Rounds before the first that counts: graphs are traced and kernels chosen in them.
_WARM_UPS = 2
# So much noise makes PNG take the share of raw frames that it takes of JHMDB's, 0.4 to 0.5.
_NOISE = 3.0
_BLOCK = 16
# Of clips by which a latency is measured, and how often they are answered.
_ASPECT, _LATENCY_CALLS = 4 / 3, 10


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One question, asked again and again.

    Args:
        whole: asks it, and returns the probabilities once they are there.
        before: name of a part → does all up to the end of that part, in the order of the parts.
        rest: name of what comes after these.
    """

    whole: Callable[[], np.ndarray]
    before: Mapping[str, Callable[[], object]] = dataclasses.field(default_factory=dict)
    rest: str = "compute"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TimedModel:
    """A model to be timed, see `open_local` and `open_served`.

    Args:
        name: for the table.
        model: that answers clips.
        make_calls: uint8 clips `(B, T, H, W, C)` → signature → the call with these clips.
    """

    name: str
    model: AnticipationModel
    make_calls: Callable[[np.ndarray], dict[str, Call]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CallTimes:
    """Times of one signature at one batch size.

    Args:
        model: its name.
        signature: name.
        batch_size: clips a call.
        seconds: of each call, ascending.
        shares: of the parts in the median time.
        ratio: of the median to that of the first model, where it has the signature and is another one.
    """

    model: str
    signature: str
    batch_size: int
    seconds: tuple[float, ...]
    shares: Mapping[str, float]
    ratio: float | None

    @property
    def clips_per_second(self) -> float:
        return self.batch_size * len(self.seconds) / sum(self.seconds)

    def percentile_s(self, percent: float) -> float:
        """The time that so many percent of the calls stay within."""
        return self.seconds[max(math.ceil(len(self.seconds) * percent / 100), 1) - 1]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        names = {"model": self.model, "signature": self.signature, "batch_size": self.batch_size}
        percentiles = {f"p{percent}_s": self.percentile_s(percent) for percent in (50, 90, 99)}
        rates = {"minimum_s": self.seconds[0], "clips_per_second": self.clips_per_second}
        return {**names, **percentiles, **rates, "shares": dict(self.shares), "ratio": self.ratio}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ThreadTimes:
    """One clip a call, from one thread and from several at a time.

    Args:
        model: its name.
        threads: that ask at a time.
        alone, together: clips a second, from one thread and from all, by the median time.
        largest_difference: between the answers of both.
    """

    model: str
    threads: int
    alone: float
    together: float
    largest_difference: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StreamingCurve:
    """How often a network's answers are right that are there in time, see `compare_streaming`.

    Args:
        network: name of the run or the export.
        head: of the network; "" of one with one answer.
        measure: of the points: "top1", or of several labels a clip "mean_average_precision".
        points: one for each latency.
        differences: in what network and records differ from the training's, where that was insisted on.
    """

    network: str
    head: str
    measure: str
    points: tuple[CurvePoint, ...]
    differences: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.network}, {self.head}" if self.head else self.network

    def to_dicts(self) -> list[dict[str, Any]]:
        """A dict a latency, for JSON."""
        names = {"network": self.network, **({"head": self.head} if self.head else {})}
        differing = {"differences": list(self.differences)} if self.differences else {}
        return [
            {
                **names,
                "latency": point.x,
                self.measure: point.top1.value,
                f"{self.measure}_interval": [point.top1.low, point.top1.high],
                **differing,
            }
            for point in self.points
        ]


def open_local(folder: str | Path, engine: Engine = DEFAULT) -> TimedModel:
    """The model of a run folder, or of one that `kdant export` wrote, loaded into this process.

    Args:
        folder: of the run or the export.
        engine: that is to compute a run's answers.

    Raises:
        KdantError: see `load_model`.
        RunError: it cannot be read.
    """
    version = find_version(folder)
    if version is not None and engine.is_default:
        return _open_export(str(folder), version)
    model, run = load_model(folder, engine), load_run(folder)
    crops = None if run.features is not None else [run.config.crop]
    name = str(folder) if engine.is_default else f"{folder} ({engine.name}, {engine.precision})"

    def make_calls(clips: np.ndarray) -> dict[str, Call]:
        before = _parts(RAW, make_inputs(clips, model.modality, RAW), crops)
        return {RAW: Call(whole=lambda: model.infer(clips), before=before)}

    return TimedModel(name=name, model=model, make_calls=make_calls)


def open_served(server: Server, description: str | Path, *, grpc: bool = False) -> TimedModel:
    """The model of `server`, see `kdant_tf.serving.client.connect`.

    Times hold the way there and back; those of `encoded` name the share that writing PNG takes on this side.

    Raises:
        RunError, ServerError: see `connect`.
    """
    model = connect(server, description, grpc=grpc)
    client = make_client(server, grpc=grpc)
    signatures = [name for name, value in client.signatures().items() if "probabilities" in value.outputs]

    def make_call(name: str, clips: np.ndarray) -> Call:
        encode = partial(make_inputs, clips, model.modality, name)
        return Call(
            whole=lambda: client.predict(name, encode())["probabilities"],
            before={"encode": encode} if name == ENCODED else {},
            rest="answer",
        )

    return TimedModel(
        name=f"{server} {'gRPC' if grpc else 'REST'}",
        model=model,
        make_calls=lambda clips: {name: make_call(name, clips) for name in signatures},
    )


def time_calls(
    models: Sequence[TimedModel],
    *,
    batch_size: int,
    height: int,
    width: int,
    repeats: int,
    on_round: Callable[[], None] = lambda: None,
) -> list[CallTimes]:
    """Times all signatures of all models on the same clips, in turns: what else runs slows all alike.

    Args:
        models: the first is what the others are compared with.
        batch_size: clips a call.
        height, width: of the frames, in pixels.
        repeats: rounds that count.
        on_round: called after each round.
    """
    calls = {
        (model.name, signature): call
        for model in models
        for signature, call in model.make_calls(draw_clips(model.model, batch_size, height, width)).items()
    }
    functions: dict[tuple[str, str, str | None], Callable[[], object]] = {}
    for (name, signature), call in calls.items():
        functions[name, signature, None] = call.whole
        functions |= {(name, signature, part): function for part, function in call.before.items()}
    seconds = _take_turns(functions, repeats, on_round)
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    results = []
    for (name, signature), call in calls.items():
        whole = medians[name, signature, None]
        reference = medians.get((models[0].name, signature, None)) if name != models[0].name else None
        ends = {part: medians[name, signature, part] for part in call.before}
        results.append(
            CallTimes(
                model=name,
                signature=signature,
                batch_size=batch_size,
                seconds=tuple(sorted(seconds[name, signature, None])),
                shares=_share(ends, whole, call.rest),
                ratio=None if reference is None else whole / reference,
            )
        )
    return results


def time_threads(model: TimedModel, *, threads: int, height: int, width: int, repeats: int) -> ThreadTimes:
    """Asks a model for clips one at a time and from `threads` threads at a time, `repeats` times in turns."""
    clips = draw_clips(model.model, threads, height, width)

    def answer(clip: np.ndarray) -> np.ndarray:
        return model.model.probabilities(clip[None])

    with ThreadPoolExecutor(threads) as pool:
        functions: dict[str, Callable[[], list[np.ndarray]]] = {
            "alone": lambda: [answer(clip) for clip in clips],
            "together": lambda: list(pool.map(answer, clips)),
        }
        seconds = _take_turns(functions, repeats, lambda: None)
        alone, together = (np.array(function()) for function in functions.values())
    return ThreadTimes(
        model=model.name,
        threads=threads,
        alone=threads / statistics.median(seconds["alone"]),
        together=threads / statistics.median(seconds["together"]),
        largest_difference=float(np.max(np.abs(alone - together))),
    )


def compare_streaming(
    networks: Sequence[str | Path],
    records: Records,
    latencies_s: Sequence[float | None],
    *,
    split: str = "test",
    engine: Engine = DEFAULT,
    insist: bool = False,
    on_batch: Callable[[int], None] = lambda clips: None,
) -> list[StreamingCurve]:
    """Teacher, students and exports side by side: accuracy of the answers that are there in time.

    Curves of runs are kept in their folders, see `kdant_tf.evaluation.curves.evaluate_streaming`.

    Args:
        networks: folders of runs and exports.
        records: that fit all of them.
        latencies_s: from a clip to its answer; None for the median of ten answers to one clip on this
            machine, preprocessing included, all networks in turns.
        split: of the records.
        engine: that computes the answers of runs.
        insist: see `kdant_tf.evaluation.evaluate.evaluate_run`.
        on_batch: called with each number of clips that has been answered.

    Raises:
        RunError: records that do not fit, or that keep too few frames.
        NotKeptError: a run folder cannot be written; has the curves all the same.
    """
    measured = None in latencies_s
    given_s = [each for each in latencies_s if each is not None]
    about = {each: _check_streaming(each, records, given_s, insist=insist) for each in networks}
    models = {
        each: _open_to_time(each, engine) for each in networks if measured or find_version(each) is not None
    }
    measured_s = _measure_latencies(models) if measured else {}
    found: list[StreamingCurve] = []
    not_kept = None
    for network in networks:
        own_s = [measured_s[network] if each is None else each for each in latencies_s]
        try:
            if find_version(network) is None:
                kept = {"split": split, "engine": engine, "insist": insist, "on_batch": on_batch}
                curves = _evaluate_streaming_run(network, records, own_s, kept)
            else:
                curves = _evaluate_streaming_export(models[network], records, own_s, split, on_batch)
        except NotKeptError as error:
            curves, not_kept = error.result, error
        found += [
            StreamingCurve(network=str(network), head=head, points=tuple(points), **about[network])
            for head, points in curves.items()
        ]
    if not_kept is not None:
        raise NotKeptError(str(not_kept), found)
    return found


def _check_streaming(
    network: str | Path, records: Records, latencies_s: Sequence[float], *, insist: bool
) -> dict[str, Any]:
    """Finds before any work what does not fit; returns measure and differences of a StreamingCurve."""
    from kdant_tf.evaluation.curves import check_latencies
    from kdant_tf.evaluation.evaluate import check_fit, read_inputs

    version = find_version(network)
    runs = [load_run(network)] if version is None else runs_of_export(read_export_config(version), version)
    runs, _ = read_inputs(runs, records, split="test")
    differences = check_fit(runs, records, insist=insist, offset=False)
    heads = runs[0].heads
    check_latencies(records, heads, [0.0, *latencies_s])
    several = bool(heads) and heads[0].several
    return {"measure": "mean_average_precision" if several else "top1", "differences": differences}


def _open_to_time(folder: str | Path, engine: Engine) -> AnticipationModel:
    """The model of an export, or of a run with all that comes before its network."""
    if find_version(folder) is not None:
        return load_model(folder)
    try:
        return load_model(folder, engine)
    except RunError as error:
        raise RunError(f"{error} Or say how long its answers take: --latency-ms 50.") from error


def _evaluate_streaming_run(
    run: str | Path, records: Records, latencies_s: Sequence[float], given: Mapping[str, Any]
) -> Mapping[str, Sequence[CurvePoint]]:
    from kdant_tf.evaluation.curves import evaluate_streaming

    return evaluate_streaming(run, records, latencies_s, **given)


def _evaluate_streaming_export(
    model: AnticipationModel,
    records: Records,
    latencies_s: Sequence[float],
    split: str,
    on_batch: Callable[[int], None],
) -> Mapping[str, Sequence[CurvePoint]]:
    from kdant_tf.evaluation.curves import check_latencies, predict_in_time, streaming_curves

    check_latencies(records, model.heads, latencies_s)
    predict = partial(predict_records, model, records, split, on_batch=on_batch)
    return streaming_curves(predict_in_time(predict, records, model.heads, latencies_s))


def _measure_latencies(models: Mapping[Any, AnticipationModel]) -> dict[Any, float]:
    """Median seconds of an answer to one clip of the size that each was trained on, in turns."""
    clips = {
        key: draw_clips(model, 1, model.short_side, round(model.short_side * _ASPECT))
        for key, model in models.items()
    }
    functions: dict[Any, Callable[[], object]] = {
        key: partial(model.probabilities, clips[key]) for key, model in models.items()
    }
    seconds = _take_turns(functions, _LATENCY_CALLS, lambda: None)
    return {key: statistics.median(values) for key, values in seconds.items()}


def predict_records(
    model: AnticipationModel,
    records: Records,
    split: str,
    tau_s: float,
    on_batch: Callable[[int], None] = lambda clips: None,
) -> Predictions:
    """What a model says of the clip of each record that ends `tau_s` seconds before the action.

    Args:
        model: of an export, or another that takes uint8 frames.
        records: of frames, of its modalities and clip length.
        split: of the records.
        tau_s: seconds; records keep frames for it, see `kdant_tf.evaluation.evaluate.check_times`.
        on_batch: called with 1 after each clip.
    """
    import tensorflow as tf

    from kdant_tf.evaluation.predictions import Predictions
    from tf_records import schema
    from tf_records.reader import decode_clip, observed_start, parse, plain
    from tf_records.records import iterate_batches

    streams = [dataclasses.replace(records, modality=modality) for modality in model.modality.split(",")]

    @plain
    def cut(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        clips = []
        for stream in streams:
            context, segments = parse(stream, serialized, (schema.OBSERVED,))
            encoded = segments[schema.OBSERVED]
            start = observed_start(stream, serialized, tf.shape(encoded)[0], tau_s)
            clips.append(decode_clip(stream, encoded, start))
        names = {"id": context[schema.CLIP_ID], "video": context[schema.CLIP_VIDEO]}
        return {"clip": tf.concat(clips, axis=-1), "label": context[schema.LABEL_INDEX], **names}

    dataset = tf.data.TFRecordDataset(records.paths(split))
    dataset = dataset.map(cut, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(2)
    rows: dict[str, list[Any]] = {name: [] for name in ("probabilities", "label", "id", "video")}
    for sample in iterate_batches(dataset, records, split):
        rows["probabilities"].append(model.probabilities(sample["clip"].numpy()[None])[0])
        rows["label"].append(sample["label"].numpy())
        for name in ("id", "video"):
            rows[name].append(sample[name].numpy().decode())
        on_batch(1)
    return Predictions(
        probabilities=np.array(rows["probabilities"], np.float64),
        labels=np.array(rows["label"], np.int64),
        ids=np.array(rows["id"]),
        videos=np.array(rows["video"]),
    )


def draw_clips(model: AnticipationModel, batch_size: int, height: int, width: int) -> np.ndarray:
    """Smooth shapes that move, with a camera's noise: uint8 `(B, T, H, W, C)`, always the same."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (math.ceil(height / _BLOCK) + 1, math.ceil(width / _BLOCK) + 1), np.uint8)
    plane = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float32)
    moved = np.stack([np.roll(plane, 2 * number, axis=1) for number in range(model.clip_frames)])
    clips = moved[None, ..., None] + rng.normal(0, _NOISE, (batch_size, *moved.shape, model.channels))
    return np.clip(clips, 0, 255).astype(np.uint8)


def _take_turns(
    functions: Mapping[Any, Callable[[], object]], repeats: int, on_round: Callable[[], None]
) -> dict[Any, list[float]]:
    seconds: dict[Any, list[float]] = {key: [] for key in functions}
    for number in range(_WARM_UPS + repeats):
        for key, function in functions.items():
            began_s = time.perf_counter()
            function()
            if number >= _WARM_UPS:
                seconds[key].append(time.perf_counter() - began_s)
        on_round()
    return seconds


def _share(ends: Mapping[str, float], whole: float, rest: str) -> dict[str, float]:
    """Shares of parts from the times of their ends; they are measured apart, so none is let below 0."""
    if not ends:
        return {}
    reached, shares = 0.0, {}
    for part, end in (*ends.items(), (rest, whole)):
        shares[part] = max(min(end, whole) - reached, 0.0) / whole
        reached = max(reached, min(end, whole))
    return shares


def _open_export(folder: str, version: Path) -> TimedModel:
    config = read_export_config(version)
    answers = load_answers(version, config.get("precision", FLOAT32))
    # The parts are timed by TensorFlow's own operations, which other formats do not hold.
    modality, crops = config["modality"], _crops(config) if needs_tensorflow(version) else None

    def ask(name: str, inputs: Arrays) -> np.ndarray:
        return answers[name](inputs)["probabilities"]

    def make_call(name: str, clips: np.ndarray) -> Call:
        inputs = make_inputs(clips, modality, name)
        return Call(whole=partial(ask, name, inputs), before=_parts(name, inputs, crops))

    def infer(clips: np.ndarray) -> np.ndarray:
        return ask(RAW, make_inputs(clips, modality, RAW))

    return TimedModel(
        name=folder,
        model=model_of_export(config, infer, folder),
        make_calls=lambda clips: {name: make_call(name, clips) for name in answers},
    )


def _crops(config: Mapping[str, Any]) -> list[int] | None:
    """Pixels of each stream's square; None where a network sees features, whose making is no part apart."""
    streams = [config[name] for name in ("run", "with") if name in config]
    if any(stream.get("features") for stream in streams):
        return None
    return [stream["config"]["crop"] for stream in streams]


def _parts(
    signature: str, inputs: Mapping[str, np.ndarray], crops: Sequence[int] | None
) -> dict[str, Callable[[], object]]:
    """The parts before the network, done by the functions that the served graph is made of."""
    if crops is None:
        return {}
    import tensorflow as tf

    from kdant_tf.serving.signatures import decode_clips, prepare_clips
    from tf_records.augment import crop_centrally

    values = list(inputs.values())
    prepares = [partial(crop_centrally, crop=crop) for crop in crops]
    if signature != ENCODED:
        return {"preprocess": _together(prepare_clips, values, prepares)}
    as_they_are = [lambda frames: tf.cast(frames, tf.float32)] * len(values)
    return {
        "decode": _together(decode_clips, values, as_they_are),
        "preprocess": _together(decode_clips, values, prepares),
    }


def _together(
    read: Callable[..., tf.Tensor], values: Sequence[np.ndarray], prepares: Sequence[Callable[..., tf.Tensor]]
) -> Callable[[], object]:
    import tensorflow as tf

    function = tf.function(
        lambda *tensors: [read(tensor, prepare) for tensor, prepare in zip(tensors, prepares, strict=True)],
        autograph=False,
    )

    def do() -> None:
        function(*(tf.constant(value) for value in values))
        tf.test.experimental.sync_devices()

    return do

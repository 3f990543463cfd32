"""From runs to a version folder that TensorFlow Serving or another runtime loads.

A version holds the network, what it says of itself to programs (config.json, labels.txt) and to people
(model_card.md), and, of a SavedModel, requests that warm a server up. Before it gets its name, it is loaded
and has to say of a few trial clips what the run says.
"""

from __future__ import annotations

import dataclasses
import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kdant_tf.evaluation.metrics import average_precision
from kdant_tf.evaluation.predictions import read_config
from kdant_tf.losses.heads import head_probabilities
from kdant_tf.models import inference
from kdant_tf.models.inference import BFLOAT16, FLOAT32
from kdant_tf.runs import CONFIG_NAME, MODEL_NAME, Run, load_run, manifest_sha256
from kdant_tf.serving import RAW
from kdant_tf.serving.conversion import CALIBRATION_CLIPS, convert
from kdant_tf.serving.formats import (
    FLOAT16,
    INT8,
    SAVED_MODEL,
    Answer,
    check_installed,
    check_precision,
    format_of,
)
from kdant_tf.serving.model import check_finite, load_answers, versions_in
from kdant_tf.serving.model_card import CARD_NAME, write_card
from kdant_tf.serving.signatures import Stream, make_signatures, open_streams, prepare_clips
from kdant_tf.serving.trial_clips import TrialClip, TrialRecords, draw_trial_clips
from kdant_tf.version import __version__
from tf_records.errors import KdantError, RunError, first_line
from tf_records.files import check_apart, claim_folder, json_text, lock_folder, remove_folder
from tf_records.heads import Heads, are_times, column_slices
from tf_records.records import Records
from tf_records.remote_path import RecordPath

LABELS_NAME = "labels.txt"
BATCHING_NAME = "batching_params.pbtxt"
BATCHING_FLAGS = "--enable_batching --enable_per_model_batching_parameters"
WARM_UP_PATH = Path("assets.extra", "tf_serving_warmup_requests")
# Largest difference of a probability from the run's: of a SavedModel in float32, and of others by precision.
TOLERANCE = 1e-5
# Of 200 clips one is always near a boundary: of a trained MobileNetV2 0.14 in bfloat16, 0.05 in float16.
TOLERANCES = {**inference.TOLERANCES, BFLOAT16: 0.25, FLOAT16: 0.1, INT8: 1.0}
# Share of clips that an export has to name as its run does: 8 bits change probabilities, not what they say.
_LEAST_SAME_TOP1 = 0.5
_TEMPORARY = ".tmp-"
_TIMED_CALLS = 10
# Clips of records that are compared: whether it is the run's network, and what lower precision costs.
_COMPARED_CLIPS, _MEASURED_CLIPS = 4, 200
# In the text form of TensorFlow Serving's BatchingParameters. No clip is filled up to the size of another:
# the network would see the filling.
_BATCHING_TEXT = f"""\
# TensorFlow Serving reads this file beside saved_model.pb when started with
# {BATCHING_FLAGS}.
# Clips join a batch where their shapes agree: encoded frames always do, raw clips only with others of the
# same height and width; a request of another size fails. A frame that cannot be decoded fails its whole
# batch, so leave batching out where images are not to be trusted.
max_batch_size {{ value: 8 }}
allowed_batch_sizes: 1
allowed_batch_sizes: 2
allowed_batch_sizes: 4
allowed_batch_sizes: 8
batch_timeout_micros {{ value: 5000 }}
max_enqueued_batches {{ value: 64 }}
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """An exported model.

    Args:
        folder: of this version.
        config: what its config.json says.
        bytes: of all its files.
        parity: with the run.
        no_warm_up: why there are no requests for warming up, or None where they were written.
    """

    folder: Path
    config: dict[str, Any]
    bytes: int
    parity: Parity
    no_warm_up: str | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """What a trial of an exported model showed.

    Args:
        clips: how many were tried.
        source: where they came from, in words.
        difference: largest one of a probability, over all signatures.
        latency_ms: signature → median time of a request of one clip, decoding included.
        logit_difference: largest one of a logit; None of a SavedModel, which gives none.
        same_top1: share of clips that both name alike; of several heads, of all their names.
        accuracy, run_accuracy: shares of labelled clips that the export and the run name rightly, of one clip
            in the middle of a segment; of several heads their mean, of several labels a clip mean average
            precision; None without labels, and of heads for several times.
    """

    clips: int
    source: str
    difference: float
    latency_ms: dict[str, float]
    logit_difference: float | None = None
    same_top1: float = 1.0
    accuracy: float | None = None
    run_accuracy: float | None = None


def export_run(
    run: str | Path | Run,
    out: str | Path,
    *,
    version: int | None = None,
    other: str | Path | Run | None = None,
    weights: Sequence[float] = (),
    stem: str | None = None,
    records: str | RecordPath | Records | None = None,
    fold_batch_norm: bool = False,
    batching: bool = False,
    network: keras.Model | None = None,
    format: str = SAVED_MODEL,
    precision: str = FLOAT32,
    calibration: str | RecordPath | Records | None = None,
) -> Exported:
    """Writes a version into `out`: a network with everything before it inside, by default a SavedModel.

    The signatures of a SavedModel are those of `kdant_tf.serving.signatures`; other formats have
    "serving_default" alone, with outputs "logits" and "probabilities". Frames of any size are cut and scaled
    as in evaluation; those of a run that was trained on features of whole frames are scaled to the short
    side of its records. Flow comes in the 8 bits of records, `tf_records.flow.flow_to_bytes`.

    Args:
        run: a finished run, or its folder.
        out: folder of the versions, made if need be.
        version: number of the version; None is one more than the highest that is there.
        other: a run of the other modality, whose logits are added.
        weights: of the logits of `run` and `other`; none for equal ones.
        stem: where the weights lie that made the features of a run trained on features, if they were moved.
        records: of frames, some clips of which are compared, four for float32, else 200; None for drawn ones.
        fold_batch_norm: fold batch normalisation into the layers before it, which saves operations.
        batching: write parameters for a server that joins requests.
        network: of `run`, where it is loaded already.
        format: "savedmodel", "openvino", "onnx" or "litert"; all but the first need the extra of that name.
        precision: "float32"; of SavedModel and OpenVINO also "bfloat16", of OpenVINO and ONNX "int8", of all
            but SavedModel "float16".
        calibration: for "int8": records of frames, by whose training clips ranges of values are found.
            Without `records`, clips of their test split are compared.

    Raises:
        KdantError: the version exists, `out` holds another format or cannot be written, or an extra is
            missing.
        RunError: runs, stem or records that do not fit together, a network that the format cannot hold, or
            an export that says something else than the run.

    Example::

        exported = export_run("student", "served")
        served = tf.saved_model.load(str(exported.folder)).signatures["serving_default"]
    """
    out, records, calibration = Path(out), _open_records(records), _open_records(calibration)
    check_precision(format, precision)
    if (precision == INT8) != (calibration is not None):
        raise KdantError(
            f"Precision {INT8} goes with records to calibrate on, and no other does. Received: {precision} "
            f"{'without' if calibration is None else 'with'} --calibration RECORDS."
        )
    check_installed(format, writing=True, precision=precision)
    records = calibration if records is None else records
    loaded = [_load(each) for each in (run, other) if each is not None]
    _check_is_no_model(out)
    _check_is_of_format(out, format)
    _check_is_free(out, version)
    check_apart(out, *(each.folder for each in loaded), may_lie_in=True)
    if records is not None:
        check_apart(out, records.folder)
    runs = [_with_rate(each, records) for each in loaded]
    streams = open_streams(runs, weights, stem=stem, network=network)
    if records is None:
        clips: Iterable[TrialClip] = draw_trial_clips(streams)
        source = "drawn clips"
    else:
        count = _COMPARED_CLIPS if precision == FLOAT32 else _MEASURED_CLIPS
        clips = TrialRecords(streams, records, count)
        source = f"clips of {records.folder}"
    calibrating: Iterable[TrialClip] = ()
    if calibration is not None:
        calibrating = TrialRecords(streams, calibration, CALIBRATION_CLIPS, "train")
    claim_folder(out, resume=True)
    with lock_folder(out, "export"), _temporary_folder(out) as temporary:
        with _errors_named(out):
            if format == SAVED_MODEL:
                # In 16 bits a normalisation of its own would round once more.
                fold_batch_norm = fold_batch_norm or precision == BFLOAT16
                signatures = _write_saved_model(streams, temporary, precision, fold=fold_batch_norm)
                no_warm_up = _write_warm_up(temporary, next(iter(clips)).requests(streams))
            else:
                signatures = convert(streams, temporary, format, precision, calibrating)
                no_warm_up = "none: it is for TensorFlow Serving"
        folded = fold_batch_norm or format != SAVED_MODEL
        written = {"format": format, "precision": precision, "folded_batch_norm": folded}
        parity = _check_parity(temporary, written, streams, clips, source)
        with _errors_named(out):
            config = {**describe_export(streams, signatures), **written, "parity": _kept(parity)}
            _write_texts(streams, temporary, config, batching=batching)
        _check_is_free(out, version)
        folder = temporary.rename(out / str(_next_version(out) if version is None else version))
    return Exported(folder=folder, config=config, bytes=_size(folder), parity=parity, no_warm_up=no_warm_up)


def _load(run: str | Path | Run) -> Run:
    return run if isinstance(run, Run) else load_run(run)


def _open_records(records: str | RecordPath | Records | None) -> Records | None:
    return records if records is None or isinstance(records, Records) else Records.open(records)


def _with_rate(run: Run, records: Records | None) -> Run:
    """A run of before frame rates were noted learns its own from the records that it was trained on."""
    made_of = run.records_sha256 if run.features is None else run.features.records_sha256
    if records is None or run.dataset is not None or manifest_sha256(records.folder) != made_of:
        return run
    return dataclasses.replace(run, dataset=records.manifest.dataset, fps=records.manifest.fps)


def _write_saved_model(
    streams: Sequence[Stream], folder: Path, precision: str, *, fold: bool
) -> dict[str, Any]:
    """Writes the SavedModel; returns its signatures for config.json."""
    served = [stream.folded() for stream in streams] if fold else streams
    module = make_signatures(served, precision)
    tf.saved_model.save(module, str(folder), signatures=dict(module.functions))
    return module.describe()


def _write_texts(
    streams: Sequence[Stream], folder: Path, config: Mapping[str, Any], *, batching: bool
) -> None:
    """Writes what lies beside a network."""
    texts = {
        CONFIG_NAME: json_text(config, indent=1) + "\n",
        LABELS_NAME: "".join(f"{name}\n" for name in config["classes"]),
        CARD_NAME: write_card(streams, config),
        **({BATCHING_NAME: _BATCHING_TEXT} if batching else {}),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


@contextmanager
def _errors_named(out: Path) -> Iterator[None]:
    """Says of a full or broken disk where nothing could be written, and not TensorFlow's names for it."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        # Such as "{{function_node …}} PATH; No space left on device [Op:SaveV2]".
        reason = first_line(error).rpartition("; ")[2].partition(" [Op:")[0]
        raise KdantError(
            f"The export cannot be written to {out}: {getattr(error, 'strerror', None) or reason}. Make "
            f"room there, or give another --out."
        ) from error


@contextmanager
def _temporary_folder(out: Path) -> Iterator[Path]:
    """A folder in `out` under a name that a server does not take for a version; removed unless renamed."""
    for left in out.glob(f"{_TEMPORARY}*"):
        remove_folder(left)
    temporary = out / f"{_TEMPORARY}version"
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _kept(parity: Parity) -> dict[str, Any]:
    """What config.json says of a trial: not how long an answer took here, nor where the clips lay."""
    fields = dataclasses.asdict(parity)
    return {name: value for name, value in fields.items() if name not in ("latency_ms", "source")}


def _next_version(out: Path) -> int:
    return 1 + max((int(path.name) for path in out.iterdir() if path.name.isdecimal()), default=0)


def _check_is_no_model(out: Path) -> None:
    kind = "a run folder" if (out / MODEL_NAME).exists() else "a version of an export"
    if (out / MODEL_NAME).exists() or format_of(out) is not None:
        raise KdantError(f"{out} is {kind}. Give a folder for versions as --out, such as served.")


def _check_is_of_format(out: Path, format: str) -> None:
    """Versions of one folder replace one another, for a server as for kdant: they should be of one format."""
    others = {found for version in versions_in(out) if (found := format_of(version)) not in (None, format)}
    if others:
        raise KdantError(
            f"{out} holds versions of the format {', '.join(sorted(others))}. Give those of {format} "
            f"a folder of their own as --out."
        )


def _check_is_free(out: Path, version: int | None) -> None:
    if version is not None and (out / str(version)).exists():
        raise KdantError(
            f"{out / str(version)} exists, and versions are never replaced. Leave --version out, or give "
            f"{_next_version(out)}."
        )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def describe_export(streams: Sequence[Stream], signatures: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json of an exported version says of its runs.

    Args:
        streams: RGB first.
        signatures: see `kdant_tf.serving.signatures.ServedModule.describe`.
    """
    first, last = streams[0].run, streams[-1].run  # One and the same, or RGB and flow.
    return {
        "kdant": __version__,
        "classes": list(first.classes),
        **({"heads": [dataclasses.asdict(head) for head in first.heads]} if first.heads else {}),
        "clip": {**dataclasses.asdict(first.clip), "fps": first.fps},
        "offset_s": first.offset_s,
        "anticipates": first.anticipates,
        "modality": ",".join(stream.run.modality for stream in streams),
        "flow": None if last.flow is None else dataclasses.asdict(last.flow),
        "crop": first.config.crop,
        "short_side": first.short_side,
        "role": first.role,
        "dataset": first.dataset,
        "signatures": signatures,
        "run": _describe_run(streams[0]),
        **({"with": _describe_run(streams[1])} if len(streams) > 1 else {}),
    }


def _describe_run(stream: Stream) -> dict[str, Any]:
    """All of a run's config.json that is not said of the whole."""
    fields = read_config(stream.run)
    kept = {name: value for name, value in fields.items() if name not in ("classes", "clip", "heads")}
    return {"folder": stream.run.folder.resolve().name, "weight": stream.weight, **kept}


def _write_warm_up(folder: Path, requests: Mapping[str, Mapping[str, np.ndarray]]) -> str | None:
    """Writes a PredictionLog for each signature beside the SavedModel in `folder`.

    Args:
        folder: of a version.
        requests: signature → input → value.

    Returns:
        None, or why nothing was written: the extra `serving` is not installed.
    """
    try:
        from tensorflow_serving.apis.predict_pb2 import PredictRequest
        from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog, PredictLog
    except Exception as error:  # Protobuf has errors of its own for files made for another version.
        return f"none was written: {first_line(error)}; install it with pip install 'kdant-tf[serving]'"
    (folder / WARM_UP_PATH).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / WARM_UP_PATH)) as writer:
        for signature, inputs in requests.items():
            tensors = {name: tf.make_tensor_proto(value) for name, value in inputs.items()}
            request = PredictRequest(inputs=tensors)
            request.model_spec.signature_name = signature
            log = PredictionLog(predict_log=PredictLog(request=request))
            writer.write(log.SerializeToString(deterministic=True))
    return None


def _check_parity(
    folder: Path,
    written: Mapping[str, Any],
    streams: Sequence[Stream],
    clips: Iterable[TrialClip],
    source: str,
) -> Parity:
    """Asks the run's networks and the exported one in `folder` for the same clips.

    Args:
        folder: of a version.
        written: its "format" and "precision".
        streams: of the run, as it was trained.
        clips: to try, at least one.
        source: of the clips, in words.

    Raises:
        RunError: they differ by more than the tolerance of format and precision.
        NotFiniteAnswerError: outputs of the run are infinite or not a number.
    """
    answers = load_answers(folder, written["precision"])
    network = _network_of(streams)
    first, labels, logits = None, [], []
    found: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in answers}
    for clip in clips:
        first = clip if first is None else first
        labels.append(clip.label)
        logits.append(network(clip))
        for name, answer in answers.items():
            found[name].append(answer(clip.requests(streams)[name]))
    assert first is not None
    parity = _compare(np.concatenate(logits), found, np.array(labels), source, streams[0].run)
    exact = (written["format"], written["precision"]) == (SAVED_MODEL, FLOAT32)
    tolerance = TOLERANCE if exact else TOLERANCES[written["precision"]]
    if not parity.difference <= tolerance:
        raise RunError(
            f"The exported model differs from run {streams[0].run.folder} by {parity.difference:.2g} in a "
            f"probability, more than {tolerance:g}, on {source}; nothing was written. Export "
            f"{_other_way(written)}; a network of one's own should give one answer for one clip."
        )
    if parity.same_top1 < _LEAST_SAME_TOP1:
        raise RunError(
            f"The exported model names only {100 * parity.same_top1:.0f} % of {len(labels)} {source} as run "
            f"{streams[0].run.folder} does; nothing was written. Export {_other_way(written)}."
        )
    requests = first.requests(streams)
    latency_ms = {name: _time(answer, requests[name]) for name, answer in answers.items()}
    return dataclasses.replace(parity, latency_ms=latency_ms)


def _compare(
    logits: np.ndarray,
    found: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
    labels: np.ndarray,
    source: str,
    run: Run,
) -> Parity:
    """What the answers of an export are beside those of its run.

    Args:
        logits: of the run, `(N, classes)`.
        found: signature → the export's outputs for each of the N clips.
        labels: int `(N,)`, -1 where there is none; of several heads or labels `(N, n)`.
        source: of the clips, in words.
        run: whose network it is.
    """
    expected: np.ndarray = head_probabilities(tf.constant(logits), run.heads).numpy()
    check_finite(expected, f"The network of run {run.folder}")
    given = {name: np.concatenate([each["probabilities"] for each in rows]) for name, rows in found.items()}
    # max() would drop what is no number.
    difference = np.max([np.abs(each - expected).max() for each in given.values()])
    parts = [*column_slices(run.heads).values()] or [slice(None)]
    firsts = [(expected[:, each].argmax(axis=1), given[RAW][:, each].argmax(axis=1)) for each in parts]
    logit_difference = None
    if "logits" in found[RAW][0]:
        logit_difference = float(
            np.abs(np.concatenate([each["logits"] for each in found[RAW]]) - logits).max()
        )
    return Parity(
        clips=len(labels),
        source=source,
        difference=float(difference),
        latency_ms={},
        logit_difference=logit_difference,
        same_top1=float(np.mean([one == other for one, other in firsts])),
        accuracy=_accuracy(given[RAW], labels, run.heads),
        run_accuracy=_accuracy(expected, labels, run.heads),
    )


def _accuracy(probabilities: np.ndarray, labels: np.ndarray, heads: Heads) -> float | None:
    """Of a Parity."""
    # Several times: each head is of a clip of its own. Clips of noise have no label, whatever the heads.
    if are_times(heads) or (labels < 0).all():
        return None
    if heads and heads[0].several:
        known = (labels >= 0).all(axis=1)
        precisions = average_precision(probabilities[known], labels[known])
        return float(np.nanmean(precisions)) if np.isfinite(precisions).any() else None
    columns = [*column_slices(heads).values()] or [slice(None)]
    shares = []
    for part, own in zip(columns, labels.reshape(len(labels), -1).T, strict=True):
        right = probabilities[:, part].argmax(axis=1) == own
        shares += [right[own >= 0].mean()] if (own >= 0).any() else []
    return float(np.mean(shares)) if shares else None


def _other_way(written: Mapping[str, Any]) -> str:
    if written["precision"] != FLOAT32:
        return f"with --precision {FLOAT32}"
    return "without --fold-batch-norm" if written["format"] == SAVED_MODEL else f"with --format {SAVED_MODEL}"


def _network_of(streams: Sequence[Stream]) -> Callable[[TrialClip], np.ndarray]:
    """The networks themselves, their weights still variables: a clip → its logits `(1, classes)`."""

    def add_logits(*inputs: tf.Tensor) -> tf.Tensor:
        return tf.add_n(
            [stream.weight * stream.infer(each)[0] for stream, each in zip(streams, inputs, strict=True)]
        )

    specs = [tf.TensorSpec((1, *stream.prepared_shape), tf.float32) for stream in streams]
    network = tf.function(add_logits, input_signature=specs, autograph=False)

    def answer(clip: TrialClip) -> np.ndarray:
        prepared = [
            prepare_clips(tf.constant(values), stream.prepare)
            for stream, values in zip(streams, clip.clips, strict=True)
        ]
        logits: np.ndarray = network(*prepared).numpy()
        return logits

    return answer


def _time(answer: Answer, inputs: Mapping[str, np.ndarray]) -> float:
    seconds = []
    for _ in range(_TIMED_CALLS):
        begin = time.perf_counter()
        answer(inputs)
        seconds.append(time.perf_counter() - begin)
    return 1000 * statistics.median(seconds)

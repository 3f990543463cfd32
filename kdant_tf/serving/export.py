"""From runs to a version folder that TensorFlow Serving or another runtime loads.

A version holds the network, what it says of itself to programs (config.json, labels.txt) and to people
(model_card.md), and, of a SavedModel, requests that warm a server up. Before it gets its name, it is loaded
and has to say of a few trial clips what the run says.
"""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kdant_tf.evaluation.evaluate import default_view
from kdant_tf.evaluation.predictions import read_config
from kdant_tf.runs import CONFIG_NAME, MODEL_NAME, Run, load_run, manifest_sha256
from kdant_tf.serving import ENCODED, FEATURES, RAW
from kdant_tf.serving.conversion import convert
from kdant_tf.serving.formats import FLOAT32, SAVED_MODEL, Answer, check_installed, format_of
from kdant_tf.serving.model import check_finite, encode_frames, load_answers, versions_in
from kdant_tf.serving.model_card import CARD_NAME, write_card
from kdant_tf.serving.signatures import Stream, input_names, make_signatures, open_streams, prepare_clips
from kdant_tf.version import __version__
from tf_records import augment
from tf_records.errors import KdantError, RunError, first_line
from tf_records.files import check_apart, claim_folder, json_text, lock_folder, remove_folder
from tf_records.reader import decode_clip, parse
from tf_records.records import Records
from tf_records.remote_path import RecordPath

LABELS_NAME = "labels.txt"
BATCHING_NAME = "batching_params.pbtxt"
BATCHING_FLAGS = "--enable_batching --enable_per_model_batching_parameters"
WARM_UP_PATH = Path("assets.extra", "tf_serving_warmup_requests")
# Largest difference of a probability from the run's: of a SavedModel, and of what other runtimes compute.
TOLERANCE, OTHER_TOLERANCE = 1e-5, 1e-4
_TEMPORARY = ".tmp-"
_TIMED_CALLS = 10
_DRAWN_CLIPS, _READ_CLIPS = 2, 4
# Splits in the order in which one is looked for.
_SPLITS = ("test", "val", "train")
_ASPECT = 4 / 3
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
    """

    clips: int
    source: str
    difference: float
    latency_ms: dict[str, float]


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
        records: of frames, whose first clips are compared; None for drawn ones.
        fold_batch_norm: fold batch normalisation into the layers before it, which saves operations.
        batching: write parameters for a server that joins requests.
        network: of `run`, where it is loaded already.
        format: "savedmodel", "openvino" or "onnx"; the latter two need the extra of the package of that name.
        precision: that the network is written in.

    Raises:
        KdantError: the version exists, `out` holds another format or cannot be written, or an extra is
            missing.
        RunError: runs, stem or records that do not fit together, a network that the format cannot hold, or
            an export that says something else than the run.

    Example::

        exported = export_run("student", "served")
        served = tf.saved_model.load(str(exported.folder)).signatures["serving_default"]
    """
    out, records = Path(out), _open_records(records)
    check_installed(format, writing=True)
    loaded = [_load(each) for each in (run, other) if each is not None]
    _check_is_no_model(out)
    _check_is_of_format(out, format)
    _check_is_free(out, version)
    check_apart(out, *(each.folder for each in loaded), may_lie_in=True)
    if records is not None:
        check_apart(out, records.folder)
    runs = [_with_rate(each, records) for each in loaded]
    streams = open_streams(runs, weights, stem=stem, network=network)
    clips = _draw_trial_clips(streams) if records is None else _read_trial_clips(streams, records)
    source = "drawn clips" if records is None else f"clips of {records.folder}"
    claim_folder(out, resume=True)
    with lock_folder(out, "export"), _temporary_folder(out) as temporary:
        with _errors_named(out):
            if format == SAVED_MODEL:
                signatures = _write_saved_model(streams, temporary, fold_batch_norm=fold_batch_norm)
                no_warm_up = _write_warm_up(temporary, clips[0].requests(streams))
            else:
                signatures = convert(streams, temporary, format, precision)
                no_warm_up = "none: it is for TensorFlow Serving"
            folded = fold_batch_norm or format != SAVED_MODEL
            written = {"format": format, "precision": precision, "folded_batch_norm": folded}
            config = {**_describe_export(streams, signatures), **written}
            _write_texts(streams, temporary, config, batching=batching)
        parity = _check_parity(temporary, config, streams, clips, source)
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


def _write_saved_model(streams: Sequence[Stream], folder: Path, *, fold_batch_norm: bool) -> dict[str, Any]:
    """Writes the SavedModel; returns its signatures for config.json."""
    served = [stream.folded() for stream in streams] if fold_batch_norm else streams
    module = make_signatures(served)
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


def _describe_export(streams: Sequence[Stream], signatures: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json of an exported version says of its runs.

    Args:
        streams: RGB first.
        signatures: see `kdant_tf.serving.signatures.ServedModule.describe`.
    """
    first, last = streams[0].run, streams[-1].run  # One and the same, or RGB and flow.
    return {
        "kdant": __version__,
        "classes": list(first.classes),
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
    kept = {name: value for name, value in fields.items() if name not in ("classes", "clip")}
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
    config: Mapping[str, Any],
    streams: Sequence[Stream],
    clips: Sequence[TrialClip],
    source: str,
) -> Parity:
    """Asks the run's networks and the exported one in `folder` for the same clips.

    Args:
        folder: of a version.
        config: what its config.json says.
        streams: of the run, as it was trained.
        clips: to try, at least one.
        source: of the clips, in words.

    Raises:
        RunError: they differ by more than the format's tolerance.
        NotFiniteAnswerError: outputs of the run are infinite or not a number.
    """
    signatures = load_answers(folder, config["precision"])
    tolerance = TOLERANCE if config["format"] == SAVED_MODEL else OTHER_TOLERANCE
    difference = 0.0
    answers = _answers_of_run(streams, clips)
    check_finite(answers, f"The network of run {streams[0].run.folder}")
    for clip, expected in zip(clips, answers, strict=True):
        requests = clip.requests(streams)
        for name, answer in signatures.items():
            # max() would drop what is no number.
            found = np.abs(answer(requests[name])["probabilities"] - expected).max()
            difference = float(np.maximum(difference, found))
    if not difference <= tolerance:
        raise RunError(
            f"The exported model differs from run {streams[0].run.folder} by {difference:.2g} in a "
            f"probability, more than {tolerance:g}, on {source}; nothing was written. Export "
            f"{_other_way(config)}; a network of one's own should give one answer for one clip."
        )
    requests = clips[0].requests(streams)
    latency_ms = {name: _time(answer, requests[name]) for name, answer in signatures.items()}
    return Parity(clips=len(clips), source=source, difference=difference, latency_ms=latency_ms)


def _other_way(config: Mapping[str, Any]) -> str:
    return "without --fold-batch-norm" if config["format"] == SAVED_MODEL else "with --format savedmodel"


def _answers_of_run(streams: Sequence[Stream], clips: Sequence[TrialClip]) -> np.ndarray:
    """Probabilities `(len(clips), classes)` of the networks themselves, their weights still variables."""

    def add_logits(*inputs: tf.Tensor) -> tf.Tensor:
        return tf.add_n(
            [stream.weight * stream.infer(each)[0] for stream, each in zip(streams, inputs, strict=True)]
        )

    specs = [tf.TensorSpec((1, *stream.prepared_shape), tf.float32) for stream in streams]
    network = tf.function(add_logits, input_signature=specs, autograph=False)
    logits = [
        network(
            *(
                prepare_clips(tf.constant(values), stream.prepare)
                for stream, values in zip(streams, clip.clips, strict=True)
            )
        )
        for clip in clips
    ]
    probabilities: np.ndarray = tf.nn.softmax(tf.concat(logits, axis=0)).numpy()
    return probabilities


def _time(answer: Answer, inputs: Mapping[str, np.ndarray]) -> float:
    seconds = []
    for _ in range(_TIMED_CALLS):
        begin = time.perf_counter()
        answer(inputs)
        seconds.append(time.perf_counter() - begin)
    return 1000 * statistics.median(seconds)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrialClip:
    """A clip to try an exported model on, in each stream's modality.

    Args:
        clips: uint8 `(1, T, H, W, C)` of each stream.
        frames: the same as strings, `(1, T)` or `(1, T, 2)`, of each stream.
    """

    clips: tuple[np.ndarray, ...]
    frames: tuple[np.ndarray, ...]

    def requests(self, streams: Sequence[Stream]) -> dict[str, dict[str, np.ndarray]]:
        """Signature → input → value."""
        clips = dict(zip(input_names(RAW, streams), self.clips, strict=True))
        frames = dict(zip(input_names(ENCODED, streams), self.frames, strict=True))
        return {RAW: clips, ENCODED: frames, FEATURES: clips}


def _draw_trial_clips(streams: Sequence[Stream]) -> list[TrialClip]:
    """Clips of noise, always the same ones, of the frame size that the runs were trained on."""
    generator = np.random.default_rng(0)
    samples = []
    for _ in range(_DRAWN_CLIPS):
        clips = []
        for stream in streams:
            height = stream.run.short_side
            shape = (1, stream.run.clip.clip_frames, height, round(height * _ASPECT), stream.channels)
            clips.append(generator.integers(0, 256, shape, dtype=np.uint8))
        samples.append(TrialClip(clips=tuple(clips), frames=tuple(encode_frames(each) for each in clips)))
    return samples


def _read_trial_clips(streams: Sequence[Stream], records: Records) -> list[TrialClip]:
    """The middle clips of the first records, of the segment that the first run is to see.

    Raises:
        RunError: records that do not fit a run.
        RecordError: there are none in the folder.
    """
    for stream in streams:
        # Of a run that was trained on features these are the frames that the stem sees.
        if records.manifest.features is not None:
            raise RunError(
                f"{records.folder} has features. Give the records of frames that they were made of."
            )
        dataclasses.replace(stream.run, features=None).check_records(records.manifest, records.folder)
    split = next((name for name in _SPLITS if name in records.manifest.splits), _SPLITS[0])
    view = default_view(streams[0].run)
    read = [_read(dataclasses.replace(records, modality=s.run.modality), split, view) for s in streams]
    return [
        TrialClip(clips=tuple(clips for clips, _ in each), frames=tuple(frames for _, frames in each))
        for each in itertools.islice(zip(*read, strict=True), _READ_CLIPS)
    ]


def _read(records: Records, split: str, view: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    clip_frames = records.manifest.clip.clip_frames
    for serialized in tf.data.TFRecordDataset(records.paths(split)):
        _, segments = parse(records, serialized, (view,))
        count = tf.shape(segments[view])[0]
        (start,) = augment.window_starts(count, clip_frames, 1)
        frames = tf.gather(segments[view], augment.clip_indices(count, start, clip_frames))
        yield decode_clip(records, segments[view], start)[None].numpy(), frames[None].numpy()

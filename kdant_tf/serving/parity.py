"""Whether an exported model says what its run says, and how fast."""

import dataclasses
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from kdant_tf.serving.inputs import prepare_clips
from kdant_tf.serving.samples import Sample
from kdant_tf.serving.streams import Stream
from tf_records.errors import RunError

TOLERANCE = 1e-5
_TIMED_CALLS = 10


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


def check_parity(folder: Path, streams: Sequence[Stream], samples: Sequence[Sample], source: str) -> Parity:
    """Asks the run's networks and the SavedModel in `folder` for the same clips.

    Args:
        folder: of a version.
        streams: of the run, as it was trained.
        samples: to try, at least one.
        source: of the samples, in words.

    Raises:
        RunError: they differ by more than TOLERANCE.
    """
    loaded = tf.saved_model.load(str(folder))
    difference = 0.0
    for sample in samples:
        expected = _answer_of_run(streams, sample)
        for signature, inputs in sample.requests(streams).items():
            answer = loaded.signatures[signature](**_tensors(inputs))["probabilities"].numpy()
            # max() would drop what is no number.
            difference = float(np.maximum(difference, np.abs(answer - expected).max()))
    if not difference <= TOLERANCE:
        raise RunError(
            f"The exported model differs from run {streams[0].run.folder} by {difference:.2g} in a "
            f"probability, more than {TOLERANCE:g}, on {source}; nothing was written. Export without "
            f"--fold-batch-norm; a network of one's own should give one answer for one clip."
        )
    latency_ms = {
        signature: _time(loaded.signatures[signature], inputs)
        for signature, inputs in samples[0].requests(streams).items()
    }
    return Parity(clips=len(samples), source=source, difference=difference, latency_ms=latency_ms)


def _answer_of_run(streams: Sequence[Stream], sample: Sample) -> np.ndarray:
    logits = tf.add_n(
        [
            stream.weight * stream.infer(prepare_clips(tf.constant(clips), stream.prepare))[0]
            for stream, clips in zip(streams, sample.clips, strict=True)
        ]
    )
    return tf.nn.softmax(logits).numpy()


def _time(function: tf.types.experimental.ConcreteFunction, inputs: dict[str, np.ndarray]) -> float:
    seconds = []
    for _ in range(_TIMED_CALLS):
        begin = time.perf_counter()
        answer = function(**_tensors(inputs))
        answer["probabilities"].numpy()
        seconds.append(time.perf_counter() - begin)
    return 1000 * statistics.median(seconds)


def _tensors(inputs: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
    return {name: tf.constant(value) for name, value in inputs.items()}

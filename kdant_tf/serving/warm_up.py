"""Requests that TensorFlow Serving runs while it loads a model, so that the first client does not wait."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

WARM_UP_PATH = Path("assets.extra", "tf_serving_warmup_requests")


def write_warm_up(folder: Path, requests: Mapping[str, Mapping[str, np.ndarray]]) -> str | None:
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
        reason = str(error).splitlines()[0]
        return f"none was written: {reason}; install it with pip install 'kdant-tf[serving]'"
    (folder / WARM_UP_PATH).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / WARM_UP_PATH)) as writer:
        for signature, inputs in requests.items():
            tensors = {name: tf.make_tensor_proto(value) for name, value in inputs.items()}
            request = PredictRequest(inputs=tensors)
            request.model_spec.signature_name = signature
            log = PredictionLog(predict_log=PredictLog(request=request))
            writer.write(log.SerializeToString(deterministic=True))
    return None

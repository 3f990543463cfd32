"""A served model as a subject of the benchmark. No TensorFlow over REST."""

from pathlib import Path

import numpy as np

from kdant_tf.serving.benchmark import Call, Subject
from kdant_tf.serving.served import ENCODED, connect, make_client, make_inputs
from kdant_tf.serving.server import Server


def open_served(server: Server, description: Path, *, grpc: bool = False) -> Subject:
    """The model of `server`, see `kdant_tf.serving.served.connect`.

    Times hold the way there and back; of `encoded` the share is told that writing PNG takes on this side.

    Raises:
        RunError, ServerError: see `connect`.
    """
    model = connect(server, description, grpc=grpc)
    client = make_client(server, grpc=grpc)
    signatures = [name for name, value in client.signatures().items() if "probabilities" in value.outputs]

    def make_calls(clips: np.ndarray) -> dict[str, Call]:
        return {name: make_call(name, clips) for name in signatures}

    def make_call(name: str, clips: np.ndarray) -> Call:
        def encode() -> dict[str, np.ndarray]:
            return make_inputs(clips, model.modality, name)

        return Call(
            whole=lambda: client.predict(name, encode())["probabilities"],
            before={"encode": encode} if name == ENCODED else {},
            rest="answer",
        )

    return Subject(name=f"{server} {'gRPC' if grpc else 'REST'}", model=model, make_calls=make_calls)

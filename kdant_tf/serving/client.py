"""A model behind a server, as an AnticipationModel. No TensorFlow over REST."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kdant_tf.runs import CONFIG_NAME
from kdant_tf.serving import ENCODED, RAW
from kdant_tf.serving.model import (
    AnticipationModel,
    find_version,
    make_inputs,
    model_of_export,
    read_export_config,
)
from kdant_tf.serving.rest_client import RestClient
from kdant_tf.serving.server import Server, ServerError, Signature
from tf_records.errors import RunError


class Client(Protocol):
    """What RestClient and GrpcClient have in common."""

    server: Server

    def signatures(self) -> dict[str, Signature]:
        """The model's signatures by name."""

    def predict(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of `signature` by name."""


def connect(server: Server, description: str | Path, *, grpc: bool = False) -> AnticipationModel:
    """The model that `server` serves.

    Over REST it is sent frames as PNG, which loses nothing and is shorter than numbers in JSON; over gRPC raw
    clips.

    Args:
        server: of the interface asked for.
        description: the folder that `kdant export` wrote, or a copy of its config.json: a server knows
            shapes, but neither the names of classes nor how far ahead they are expected.
        grpc: speak gRPC (extra `serving`), not REST.

    Raises:
        RunError: `description` cannot be read.
        ServerError: the server cannot be reached, is none, or serves another model.

    Example::

        model = connect(Server(host="localhost", port=8501), "served")
        probabilities = model.probabilities(clips)  # uint8 (B, T, H, W, 3) → float32 (B, classes)
    """
    config = read_description(description)
    client = make_client(server, grpc=grpc)
    signatures = client.signatures()
    model = model_of_export(config, lambda clips: clips, f"Server {server}")
    _check_fit(model, signatures, server)

    def infer(clips: np.ndarray) -> np.ndarray:
        name = RAW if grpc else ENCODED
        outputs = client.predict(name, make_inputs(clips, model.modality, name))
        return check_answer(outputs, (len(clips), len(model.classes)), server)

    return model_of_export(config, infer, f"Server {server}")


def make_client(server: Server, *, grpc: bool) -> Client:
    """A client of `server`'s gRPC or REST interface; it does not ask anything yet.

    Raises:
        ServerError: gRPC's packages are missing.
    """
    if not grpc:
        return RestClient(server)
    from kdant_tf.serving.grpc_client import GrpcClient

    return GrpcClient(server)


def read_description(path: str | Path) -> dict[str, Any]:
    """config.json of an exported folder, of one of its versions, or of itself.

    Raises:
        RunError: it is none, or cannot be read.
    """
    path = Path(path)
    if path.name == CONFIG_NAME and path.is_file():
        return read_export_config(path.parent)
    version = find_version(path)
    if version is None:
        raise RunError(
            f"{path} is no folder that kdant export wrote, nor its {CONFIG_NAME}, which tells a served "
            f"model's classes and clips. Give one of them."
        )
    return read_export_config(version)


def check_answer(outputs: Mapping[str, np.ndarray], shape: tuple[int, int], server: Server) -> np.ndarray:
    """The probabilities in an answer: float32 of `shape`.

    Raises:
        ServerError: they are none, or of another shape, as after another model took its place.
    """
    found = outputs.get("probabilities")
    if found is None or found.shape != shape or found.dtype.kind != "f":
        received = sorted(outputs) if found is None else f"{found.dtype} {found.shape}"
        raise ServerError(
            f"Server {server} should answer with probabilities of shape {shape}. Received: {received}. "
            f"Does it serve the model that was described?"
        )
    return found.astype(np.float32)


def _check_fit(model: AnticipationModel, signatures: Mapping[str, Signature], server: Server) -> None:
    """Refuses a served model whose clips or number of classes are not those described."""
    signature = signatures.get(RAW)
    if signature is None:
        raise ServerError(
            f"Model {server.model_name!r} of server {server} has no signature {RAW}. Received: "
            f"{', '.join(signatures) or 'none'}. Serve a folder that kdant export wrote."
        )
    inputs = [shape for shape in signature.inputs.values() if len(shape) == 5]
    frames = max((shape[1] for shape in inputs), default=0)
    classes = signature.outputs.get("probabilities", ())[-1:]
    served = _describe(frames, sum(shape[4] for shape in inputs), *classes)
    described = _describe(model.clip_frames, model.channels, len(model.classes))
    if served != described:
        raise ServerError(
            f"Model {server.model_name!r} of server {server} takes {served}, the one described "
            f"{described}. Give the folder that it serves."
        )


def _describe(frames: int, channels: int, classes: int = 0) -> str:
    return f"{frames} frames of {channels} channels to {classes} classes"

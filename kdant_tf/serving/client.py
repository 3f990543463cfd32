"""A model behind a server, as an AnticipationModel. No TensorFlow over REST."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from kdant_tf.runs import CONFIG_NAME
from kdant_tf.serving.model import AnticipationModel, find_version, model_of_export, read_export_config
from kdant_tf.serving.rest_client import RestClient
from kdant_tf.serving.server import Server, ServerError, Signature
from tf_records.errors import RunError
from tf_records.schema import CHANNELS, RGB

RAW = "serving_default"
ENCODED = "encoded"
# zlib's quickest: 1.07 to 1.11 times the bytes of its default, in a fourth to a third of the time.
_PNG_LEVEL = 1


class Client(Protocol):
    """What RestClient and GrpcClient have in common."""

    server: Server

    def signatures(self) -> dict[str, Signature]:
        """The model's signatures by name."""

    def predict(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of `signature` by name."""


def connect(server: Server, description: Path, *, grpc: bool = False) -> AnticipationModel:
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


def read_description(path: Path) -> dict[str, Any]:
    """config.json of an exported folder, of one of its versions, or of itself.

    Raises:
        RunError: it is none, or cannot be read.
    """
    if path.name == CONFIG_NAME and path.is_file():
        return read_export_config(path.parent)
    version = find_version(path)
    if version is None:
        raise RunError(
            f"{path} is no folder that kdant export wrote, nor its {CONFIG_NAME}, which tells a served "
            f"model's classes and clips. Give one of them."
        )
    return read_export_config(version)


def make_inputs(clips: np.ndarray, modality: str, signature: str) -> dict[str, np.ndarray]:
    """uint8 `(B, T, H, W, C)` as the inputs of an exported model's signature, those of two streams apart."""
    rgb = CHANNELS[RGB]
    streams = {"": clips[..., :rgb], "flow_": clips[..., rgb:]} if "," in modality else {"": clips}
    if signature == ENCODED:
        return {f"{stream}frames": encode_frames(values) for stream, values in streams.items()}
    return {f"{stream}clips": values for stream, values in streams.items()}


def encode_frames(clips: np.ndarray) -> np.ndarray:
    """uint8 `(B, T, H, W, 3)` → PNG bytes, object `(B, T)`; of flow, `(B, T, H, W, 2)` → `(B, T, 2)`."""
    is_rgb = clips.shape[-1] == CHANNELS[RGB]
    # (B, T, H, W, 2) → (B, T, 2, H, W)
    pictures = clips if is_rgb else np.moveaxis(clips, -1, 2)
    frames = np.empty(pictures.shape[: 2 if is_rgb else 3], object)
    for place in np.ndindex(frames.shape):
        buffer = io.BytesIO()
        Image.fromarray(pictures[place]).save(buffer, "PNG", compress_level=_PNG_LEVEL)
        frames[place] = buffer.getvalue()
    return frames


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
    classes = signature.outputs.get("probabilities", ())[-1:]
    served = _words(
        max((shape[1] for shape in inputs), default=0), sum(shape[4] for shape in inputs), *classes
    )
    described = _words(model.clip_frames, model.channels, len(model.classes))
    if served != described:
        raise ServerError(
            f"Model {server.model_name!r} of server {server} takes {served}, the one described "
            f"{described}. Give the folder that it serves."
        )


def _words(frames: int, channels: int, classes: int = 0) -> str:
    return f"{frames} frames of {channels} channels to {classes} classes"

"""TensorFlow Serving's gRPC interface (extra `serving`)."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kdant_tf.serving.server import Server, ServerError, Signature

try:
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        predict_pb2,
        prediction_service_pb2_grpc,
    )
except ModuleNotFoundError as error:
    raise ServerError(
        f"gRPC needs the package {error.name}: pip install 'kdant-tf[serving]', or use REST."
    ) from error

_OPTIONS = [
    # Clips are larger than the 4 MB that gRPC allows by default.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # `Server.call` tries again, and each time should be one.
    ("grpc.enable_retries", 0),
    # min_reconnect_backoff_ms, against its name, also limits how long connecting may take: it stays at 20 s.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    # As over REST: HOST:PORT is where to go.
    ("grpc.enable_http_proxy", 0),
]
# What gRPC says of servers that speak another version of HTTP, or HTTP but not gRPC.
_NO_GRPC = ("http1.x", "HTTP/2", "http2 header", "content-type")
# And of certificates, in the middle of much else.
_UNTRUSTED = re.compile(r"(?<=CERTIFICATE_VERIFY_FAILED: )[^:]+|Hostname Verification Check failed")

Answer = TypeVar("Answer")


class GrpcClient:
    """Asks one model of a server; may be shared by threads.

    Args:
        server: its gRPC interface.

    Raises, in all methods:
        UnavailableError: it cannot be reached or is not ready, also after all tries.
        ServerError: it refuses, is too slow, has no such model, or is no TensorFlow Serving.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self._channel = (
            grpc.secure_channel(str(server), _credentials(server), options=_OPTIONS)
            if server.tls
            else grpc.insecure_channel(str(server), options=_OPTIONS)
        )
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def signatures(self) -> dict[str, Signature]:
        """The model's signatures by name."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = self.server.model_name
        answer = self._ask(self._stub.GetModelMetadata, request)
        found = get_model_metadata_pb2.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(found)
        return {
            name: Signature(_shapes(signature.inputs), _shapes(signature.outputs))
            for name, signature in found.signature_def.items()
        }

    def predict(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of `signature` by name.

        Args:
            signature: name of one of `signatures`.
            inputs: uint8, or object for bytes, such as encoded pictures.
        """
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self.server.model_name
        request.model_spec.signature_name = signature
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        answer = self.server.call(lambda: self._ask(self._stub.Predict, request))
        return {name: tf.make_ndarray(value) for name, value in answer.outputs.items()}

    def _ask(self, method: Callable[..., Answer], request: Any) -> Answer:
        try:
            return method(request, timeout=self.server.timeout_s)
        except grpc.RpcError as error:
            raise self._understand(error.code(), error.details() or error.code().name) from error

    def _understand(self, code: grpc.StatusCode, reason: str) -> ServerError:
        if untrusted := _UNTRUSTED.search(reason):
            return self.server.untrusted(untrusted[0])
        if "WRONG_VERSION_NUMBER" in reason:
            return self.server.foreign("it speaks no TLS")
        if code == grpc.StatusCode.UNIMPLEMENTED or any(sign in reason for sign in _NO_GRPC):
            return self.server.foreign(reason)
        if code == grpc.StatusCode.UNAVAILABLE:
            return self.server.unavailable(reason)
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return self.server.too_slow()
        if code == grpc.StatusCode.NOT_FOUND:
            return self.server.no_model(reason)
        return self.server.refused(reason)


def _credentials(server: Server) -> grpc.ChannelCredentials:
    if server.ca_file is None:
        return grpc.ssl_channel_credentials()
    server.trusted()  # gRPC would say of a file without certificates that the server is not available
    return grpc.ssl_channel_credentials(Path(server.ca_file).read_bytes())


def _shapes(tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(dim.size for dim in info.tensor_shape.dim) for name, info in tensors.items()}

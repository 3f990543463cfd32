"""TensorFlow Serving's documented protocol, REST and gRPC, with a SavedModel behind it, on this machine.

What it answers to wrong requests follows TensorFlow Serving's sources: a status of TensorFlow becomes
one of HTTP or of gRPC. `faults` are answered, one a request, in place of what the model says,
None for no fault; `gate` holds answers back.
"""

import base64
import contextlib
import json
import re
import socket
import ssl
import threading
from collections import deque
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
import trustme
from google.protobuf import json_format
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

HTTP_STATUS = {3: 400, 4: 504, 5: 404, 8: 429, 12: 501, 13: 500, 14: 503}
GRPC_STATUS = {code.value[0]: code for code in grpc.StatusCode}
INVALID_ARGUMENT, NOT_FOUND, UNAVAILABLE = 3, 5, 14


class StatusError(Exception):
    """A status of TensorFlow: its number and its words."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class ServedModel:
    """A SavedModel under one name, and what is to go wrong with it."""

    def __init__(self, version: Path, name: str = "kdant") -> None:
        self.name = name
        self.loaded = tf.saved_model.load(str(version))
        meta_graph = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
        self.signature_defs = {
            key: value
            for key, value in meta_graph.meta_graphs[0].signature_def.items()
            if not key.startswith("__")
        }
        self.faults: deque[StatusError | None] = deque()
        self.gate = threading.Event()
        self.gate.set()
        self.asked: list[str] = []

    def check(self, name: str) -> None:
        self.gate.wait(timeout=60)
        if self.faults and (fault := self.faults.popleft()) is not None:
            raise fault
        if name != self.name:
            raise StatusError(NOT_FOUND, f"Servable not found for request: Latest({name})")

    def inputs_of(self, signature: str) -> Any:
        if signature not in self.signature_defs:
            raise StatusError(INVALID_ARGUMENT, f'Serving signature name: "{signature}" not found')
        return self.signature_defs[signature].inputs

    def predict(self, signature: str, inputs: dict[str, tf.Tensor]) -> dict[str, np.ndarray]:
        self.asked.append(signature)
        self.inputs_of(signature)
        try:
            outputs = self.loaded.signatures[signature](**inputs)
        except tf.errors.OpError as error:
            raise StatusError(error.error_code, error.message) from error
        except (TypeError, ValueError) as error:  # What a session would call INVALID_ARGUMENT.
            raise StatusError(INVALID_ARGUMENT, str(error)) from error
        return {name: value.numpy() for name, value in outputs.items()}

    def metadata(self) -> get_model_metadata_pb2.GetModelMetadataResponse:
        answer = get_model_metadata_pb2.GetModelMetadataResponse()
        answer.model_spec.name = self.name
        found = get_model_metadata_pb2.SignatureDefMap()
        for name, value in self.signature_defs.items():
            found.signature_def[name].CopyFrom(value)
        answer.metadata["signature_def"].Pack(found)
        return answer

    def tensor(self, signature: str, name: str, value: Any) -> tf.Tensor:
        """Nested lists of JSON in the type that the signature wants."""
        info = self.inputs_of(signature).get(name)
        if info is None:
            raise StatusError(INVALID_ARGUMENT, f"JSON object: does not have named input: {name}")
        try:
            return tf.constant(_without_base64(value), tf.as_dtype(info.dtype))
        except (TypeError, ValueError) as error:
            raise StatusError(INVALID_ARGUMENT, f"JSON Value: {str(value)[:2000]} {error}") from error


def _without_base64(value: Any) -> Any:
    if isinstance(value, dict):
        return base64.b64decode(value["b64"], validate=True)
    return [_without_base64(item) for item in value] if isinstance(value, list) else value


class _RestHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model: ServedModel

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(self._post)

    def _get(self) -> Any:
        match = re.fullmatch(r"/v1/models/([^/:]+)(/metadata)?", self.path)
        if match is None:
            raise StatusError(INVALID_ARGUMENT, f"Malformed request: GET {self.path}")
        self.model.check(match[1])
        if match[2] is None:
            status = {"error_code": "OK", "error_message": ""}
            return {"model_version_status": [{"version": "1", "state": "AVAILABLE", "status": status}]}
        return json.loads(json_format.MessageToJson(self.model.metadata(), preserving_proto_field_name=True))

    def _post(self) -> Any:
        match = re.fullmatch(r"/v1/models/([^/:]+):predict", self.path)
        if match is None:
            raise StatusError(INVALID_ARGUMENT, f"Malformed request: POST {self.path}")
        self.model.check(match[1])
        request = json.loads(self.body)
        signature = request.get("signature_name", "serving_default")
        inputs = {k: self.model.tensor(signature, k, v) for k, v in request["inputs"].items()}
        outputs = self.model.predict(signature, inputs)
        return {"outputs": {name: _jsonable(value) for name, value in outputs.items()}}

    def _answer(self, make: Any) -> None:
        try:
            status, answer = 200, make()
        except StatusError as error:
            status, answer = HTTP_STATUS.get(error.code, 500), {"error": str(error)}
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


def _jsonable(value: np.ndarray) -> Any:
    return np.char.decode(value.astype("S"), "utf-8").tolist() if value.dtype == object else value.tolist()


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, model: ServedModel) -> None:
        self.model = model

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        with _aborting(context):
            self.model.check(request.model_spec.name)
            inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
            answer = predict_pb2.PredictResponse()
            for name, value in self.model.predict(request.model_spec.signature_name, inputs).items():
                answer.outputs[name].CopyFrom(tf.make_tensor_proto(value))
            return answer

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        with _aborting(context):
            self.model.check(request.model_spec.name)
            return self.model.metadata()


class _aborting:
    def __init__(self, context: grpc.ServicerContext) -> None:
        self.context = context

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, StatusError):
            self.context.abort(GRPC_STATUS[error.code], str(error))


class _HttpServer(ThreadingHTTPServer):
    """Closes the connections that clients keep open when it stops, as a process that ends does."""

    daemon_threads = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class RestServer:
    """Serves over HTTP, or HTTPS with a certificate; starting again takes the same port."""

    def __init__(self, model: ServedModel, certificate: trustme.LeafCert | None = None) -> None:
        self.model, self.certificate = model, certificate
        self.port = 0
        self.server: _HttpServer | None = None

    def start(self) -> None:
        handler = type("Handler", (_RestHandler,), {"model": self.model})
        self.server = _HttpServer(("127.0.0.1", self.port), handler)
        self.port = self.server.server_port
        if self.certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.certificate.configure_cert(context)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None


class GrpcServer:
    """Serves over gRPC, with a certificate over TLS; starting again takes the same port."""

    def __init__(self, model: ServedModel, certificate: trustme.LeafCert | None = None) -> None:
        self.model, self.certificate = model, certificate
        self.port = 0
        self.server: grpc.Server | None = None

    def start(self) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.server = grpc.server(futures.ThreadPoolExecutor(4), options=options)
        service = _PredictionService(self.model)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, self.server)
        address = f"127.0.0.1:{self.port}"
        if self.certificate is None:
            self.port = self.server.add_insecure_port(address)
        else:
            chain = b"".join(pem.bytes() for pem in self.certificate.cert_chain_pems)
            pair = (self.certificate.private_key_pem.bytes(), chain)
            self.port = self.server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        self.server.start()

    def stop(self) -> None:
        if self.server is not None:
            self.server.stop(grace=None).wait()
            self.server = None

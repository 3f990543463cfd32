"""TensorFlow Serving's REST interface. No TensorFlow."""

import base64
import http.client
import json
import ssl
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

import numpy as np
import urllib3

from kdant_tf.serving.server import Server, Signature, signatures_of_json

# An answer is some numbers a class; a server that is none may send anything.
_LARGEST_ANSWER = 64 << 20
_PIECE = 1 << 16
_CONNECTIONS = 16


class RestClient:
    """Asks one model of a server; may be shared by threads.

    Args:
        server: its REST interface.

    Raises, in all methods:
        UnavailableError: it cannot be reached or is not ready, also after all tries.
        ServerError: it refuses, is too slow, has no such model, or is no TensorFlow Serving.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        make_pool: Callable[..., urllib3.HTTPConnectionPool] = urllib3.HTTPConnectionPool
        if server.tls:
            make_pool = partial(urllib3.HTTPSConnectionPool, ssl_context=server.trusted())
        self._pool = make_pool(
            server.host.strip("[]"),
            server.port,
            timeout=urllib3.Timeout(connect=server.timeout_s, read=server.timeout_s),
            maxsize=_CONNECTIONS,
            retries=False,
        )
        self._url = f"/v1/models/{quote(server.model_name, safe='')}"

    def signatures(self) -> dict[str, Signature]:
        """The model's signatures by name."""
        answer = self._ask("GET", f"{self._url}/metadata", None)
        try:
            return signatures_of_json(answer)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self.server.foreign("its metadata has no signatures") from error

    def predict(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of `signature` by name.

        Args:
            signature: name of one of `signatures`.
            inputs: uint8, or object for bytes, such as encoded pictures.
        """
        columns = {name: _jsonable(value) for name, value in inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": columns}, separators=(",", ":")).encode()
        answer = self.server.call(lambda: self._ask("POST", f"{self._url}:predict", body))
        try:
            return {name: np.asarray(value) for name, value in answer["outputs"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self.server.foreign("its answer has no outputs") from error

    def _ask(self, method: str, url: str, body: bytes | None) -> Any:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            answer = self._pool.request(method, url, body=body, headers=headers, preload_content=False)
            content = self._read(answer)
        except urllib3.exceptions.ReadTimeoutError as error:
            raise self.server.too_slow() from error
        except urllib3.exceptions.HTTPError as error:
            cause = _cause(error)
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise self.server.untrusted(cause.verify_message) from error
            if isinstance(cause, ssl.SSLError) and cause.reason == "WRONG_VERSION_NUMBER":
                raise self.server.foreign("it speaks no TLS") from error
            if isinstance(cause, http.client.BadStatusLine) and not isinstance(cause, ConnectionError):
                raise self.server.foreign("it speaks no HTTP/1") from error
            reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
            raise self.server.unavailable(reason) from error
        return self._understand(answer.status, answer.headers.get("Content-Type", ""), content)

    def _read(self, answer: urllib3.BaseHTTPResponse) -> bytes:
        """The body, within the time for an answer, also where it comes in drops."""
        until_s = time.monotonic() + self.server.timeout_s
        content = bytearray()
        while piece := answer.read1(_PIECE):
            content += piece
            if time.monotonic() > until_s:
                answer.close()
                raise self.server.too_slow()
            if len(content) > _LARGEST_ANSWER:
                answer.close()
                break
        answer.release_conn()
        return bytes(content)

    def _understand(self, status: int, kind: str, content: bytes) -> Any:
        """The JSON of an answer, or the error that it is."""
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            what = f"{status} with {kind or 'no content type'} in place of JSON"
            # What stands before a server answers for it while it is away.
            raise self.server.unavailable(what) if status == 503 else self.server.foreign(what)
        if status == 200:
            return answer
        reason = str(answer.get("error", f"status {status}"))
        if status == 503:
            raise self.server.unavailable(reason)
        if status == 504:
            raise self.server.too_slow()
        raise self.server.no_model(reason) if status == 404 else self.server.refused(reason)


def _jsonable(value: np.ndarray) -> Any:
    if value.dtype != object:
        return value.tolist()
    encoded = [{"b64": base64.b64encode(item).decode("ascii")} for item in value.flat]
    # (B·T,) → (B, T)
    return np.array(encoded, object).reshape(value.shape).tolist()


def _cause(error: BaseException) -> BaseException:
    """The system's own error at the bottom of urllib3's."""
    while (below := error.__cause__ or error.__context__) is not None:
        error = below
    return error

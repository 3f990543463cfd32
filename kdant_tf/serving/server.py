"""Where a model is served, what can go wrong on the way there, and what is tried again. No TensorFlow.

`Server` is one model of a TensorFlow Serving, whose errors it puts into words for both clients; a `Signature`
is what the server says of a model's tensors.
"""

import dataclasses
import random
import re
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tf_records.errors import KdantError

# Pauses between tries double from the first to the longest: ten tries are some ten seconds.
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
# TensorFlow Serving quotes the request in some of its messages, pictures and all.
_LONGEST_REASON = 300
# What the graph of an exported model refuses, it does by an assertion.
_ASSERTION = re.compile(r"assertion failed: \[(.*?)\](?: \[\[|$)")
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(?P<port>[0-9]{1,5})")

Answer = TypeVar("Answer")


class ServerError(KdantError):
    """A server that refuses, answers too late, or is none."""


class UnavailableError(ServerError):
    """A server that cannot be reached or is not ready: the only thing worth another try."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One model of a TensorFlow Serving.

    Args:
        host, port: of its REST or its gRPC interface.
        tls: whether it speaks TLS, or what stands before it.
        ca_file: PEM file of the authorities that may vouch for it over TLS; None for those that the system
            trusts (REST) or that gRPC brings along.
        model_name: that it serves the model under.
        timeout_s: float > 0, that one answer may take.
        tries: int >= 1, while it is unavailable.
        pause: waits for so many seconds between tries.
    """

    host: str
    port: int
    tls: bool = False
    ca_file: str | Path | None = None
    model_name: str = "kdant"
    timeout_s: float = 30.0
    tries: int = 10
    pause: Callable[[float], None] = time.sleep

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def trusted(self) -> ssl.SSLContext:
        """Who may vouch for it over TLS.

        Raises:
            ServerError: `ca_file` holds no certificate, or cannot be read.
        """
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            reason = "it holds none" if isinstance(error, ssl.SSLError) else error.strerror
            raise ServerError(
                f"A file of authorities should hold certificates as PEM. Received: {self.ca_file}, {reason}. "
                f"Ask for it where the server's certificate comes from."
            ) from error

    def call(self, once: Callable[[], Answer]) -> Answer:
        """What `once` returns; called again, after ever longer pauses, while it raises UnavailableError."""
        for number in range(self.tries - 1):
            try:
                return once()
            except UnavailableError:
                # Clients that lost the same server should not all come back at once.
                self.pause(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**number) * random.uniform(0.75, 1.0))
        return once()

    def unavailable(self, reason: str) -> UnavailableError:
        """It cannot be reached, or says that it is not ready."""
        return UnavailableError(
            f"Server {self} is not available: {_shorten(reason)}. Start it, or wait for it."
        )

    def too_slow(self) -> ServerError:
        """Its answer took too long."""
        return ServerError(
            f"Server {self} gave no answer within {self.timeout_s:g} s. Give it more time or smaller clips."
        )

    def no_model(self, reason: str) -> ServerError:
        """It serves no such model, or not yet."""
        return ServerError(
            f"Server {self} has no model {self.model_name!r} ready: {_shorten(reason)}. "
            f"Name the one it serves, or wait until it is loaded."
        )

    def refused(self, reason: str) -> ServerError:
        """It cannot use the request."""
        return ServerError(f"Server {self} refused the request: {_shorten(reason)}.")

    def untrusted(self, reason: str) -> ServerError:
        """It does not prove over TLS who it is."""
        return ServerError(
            f"Server {self} is not trusted: {_shorten(reason)}. Give the name its certificate is for, and "
            f"with --ca-file the authority that signed it."
        )

    def foreign(self, reason: str) -> ServerError:
        """It does not speak the protocol."""
        return ServerError(
            f"Server {self} does not answer as TensorFlow Serving does: {_shorten(reason)}. "
            f"Give the port of its REST interface, mostly 8501, or with --grpc that of gRPC, mostly 8500."
        )


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, also `[::1]:8501`.

    Raises:
        ServerError: it is something else.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or not 0 < int(match["port"]) < 1 << 16:
        raise ServerError(
            f"A server should be given as HOST:PORT, such as localhost:8501. Received: {text!r}."
        )
    return match["host"], int(match["port"])


Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Signature:
    """Shapes of a signature's tensors by name; -1 is any size."""

    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]


def signatures_of_json(metadata: Any) -> dict[str, Signature]:
    """The signatures in TensorFlow Serving's JSON of GetModelMetadataResponse.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is something else.
    """
    found = metadata["metadata"]["signature_def"]["signature_def"]
    return {
        name: Signature(_shapes(fields["inputs"]), _shapes(fields["outputs"]))
        for name, fields in found.items()
        if "inputs" in fields and "outputs" in fields
    }


def _shapes(tensors: Mapping[str, Any]) -> dict[str, Shape]:
    # int64 is a string in the JSON of protocol buffers.
    return {
        name: tuple(int(dim["size"]) for dim in info["tensor_shape"]["dim"]) for name, info in tensors.items()
    }


def _shorten(reason: str) -> str:
    """One line without its full stop; where an assertion of the model failed, the assertion's text alone."""
    line = " ".join(reason.split())
    if failed := _ASSERTION.search(line):
        line = failed[1]
    return (line if len(line) <= _LONGEST_REASON else line[:_LONGEST_REASON] + " …").rstrip(".")

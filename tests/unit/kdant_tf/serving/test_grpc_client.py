"""gRPC with a server: what it says of the model, and what is said where gRPC itself is missing."""

import sys

import numpy as np
import pytest
from model_server import GrpcServer, RestServer, ServedModel

from kdant_tf.serving.client import make_client
from kdant_tf.serving.grpc_client import GrpcClient
from kdant_tf.serving.rest_client import RestClient
from kdant_tf.serving.server import Server, ServerError


def test_both_interfaces_tell_the_same_signatures_and_answers(served: ServedModel) -> None:
    answers = []
    clips = np.random.default_rng(0).integers(0, 256, (2, 8, 40, 60, 3), dtype=np.uint8)
    for kind, client in ((GrpcServer, GrpcClient), (RestServer, RestClient)):
        server = kind(served)
        server.start()
        asked = client(Server(host="127.0.0.1", port=server.port))
        answers.append((asked.signatures(), asked.predict("serving_default", {"clips": clips})))
        server.stop()
    (grpc_signatures, grpc_outputs), (rest_signatures, rest_outputs) = answers
    assert grpc_signatures == rest_signatures
    assert grpc_signatures["serving_default"].inputs == {"clips": (-1, 8, -1, -1, 3)}
    assert set(grpc_outputs) == set(rest_outputs)
    np.testing.assert_allclose(grpc_outputs["probabilities"], rest_outputs["probabilities"], atol=1e-6)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "kdant_tf.serving.grpc_client")
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(ServerError, match=r"needs the package grpc: pip install 'kdant-tf\[serving\]'"):
        make_client(Server(host="a", port=1), grpc=True)

"""Servers that are asked over TLS: whom the clients trust, and what they say otherwise."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trustme
from model_server import GrpcServer, RestServer, ServedModel

from kdant_tf.serving.client import connect
from kdant_tf.serving.model import load_model
from kdant_tf.serving.server import Server, ServerError

AUTHORITY = trustme.CA()


@pytest.fixture(scope="module")
def ca_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(path)
    return path


@pytest.fixture(params=[RestServer, GrpcServer], ids=["rest", "grpc"])
def server(request: pytest.FixtureRequest, served: ServedModel) -> Iterator[RestServer | GrpcServer]:
    """Its certificate is for localhost."""
    server = request.param(served, AUTHORITY.issue_cert("localhost"))
    server.start()
    yield server
    server.stop()


def reach(server: RestServer | GrpcServer, exported: Path, **options) -> str:
    """What the client says of a server that it does not take."""
    address = Server(**{"host": "localhost", "port": server.port, "tls": True, "tries": 1, **options})
    with pytest.raises(ServerError) as caught:
        connect(address, exported, grpc=isinstance(server, GrpcServer))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_server_that_the_given_authority_vouches_for(server, exported, ca_file):
    address = Server(host="localhost", port=server.port, tls=True, ca_file=ca_file)
    model = connect(address, exported, grpc=isinstance(server, GrpcServer))
    clips = np.random.default_rng(0).integers(0, 256, (2, 8, 40, 60, 3), dtype=np.uint8)
    expected = load_model(exported).probabilities(clips)
    np.testing.assert_allclose(model.probabilities(clips), expected, atol=1e-5)


def test_a_server_that_nobody_vouches_for(server, exported, tmp_path):
    assert "is not trusted" in (message := reach(server, exported))
    assert "--ca-file" in message
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    assert "is not trusted" in reach(server, exported, ca_file=tmp_path / "other.pem")


def test_a_certificate_for_another_name(server, exported, ca_file):
    assert "is not trusted" in reach(server, exported, host="127.0.0.1", ca_file=ca_file)


@pytest.mark.parametrize("kind", [RestServer, GrpcServer])
def test_a_server_that_speaks_no_tls(kind, served, exported, ca_file):
    server = kind(served)
    server.start()
    assert "does not answer as TensorFlow Serving does" in reach(server, exported, ca_file=ca_file)
    server.stop()


def test_a_file_without_certificates(server, exported, tmp_path):
    (tmp_path / "ca.pem").write_text("none")
    assert "ca.pem, it holds none." in reach(server, exported, ca_file=tmp_path / "ca.pem")

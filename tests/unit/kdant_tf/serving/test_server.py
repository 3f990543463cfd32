"""Where a model is served: addresses, what is tried again, and what is said of each failure."""

import pytest

from kdant_tf.serving.server import (
    LONGEST_PAUSE_S,
    Server,
    ServerError,
    Signature,
    UnavailableError,
    parse_address,
    signatures_of_json,
)


@pytest.mark.parametrize(
    "text", ["localhost", "localhost:", "host:0", "host:99999", "http://host:80", "a b:1", ""]
)
def test_an_address_that_is_none(text):
    with pytest.raises(ServerError, match="HOST:PORT"):
        parse_address(text)


def test_addresses():
    assert parse_address("localhost:8501") == ("localhost", 8501)
    assert parse_address("[::1]:8500") == ("[::1]", 8500)


def test_what_is_unavailable_is_asked_again_after_longer_and_longer_pauses() -> None:
    pauses: list[float] = []
    server = Server(host="a", port=1, tries=8, pause=pauses.append)
    asked: list[int] = []

    def answer() -> str:
        asked.append(len(asked))
        if len(asked) < 8:
            raise server.unavailable("loading")
        return "here"

    assert server.call(answer) == "here"
    assert len(pauses) == 7
    assert pauses[:4] == sorted(pauses[:4])
    assert 0.75 * LONGEST_PAUSE_S <= pauses[-1] <= LONGEST_PAUSE_S


def test_the_last_try_fails_as_it_does_and_other_errors_at_once() -> None:
    pauses: list[float] = []
    server = Server(host="a", port=1, tries=3, pause=pauses.append)

    def fail(error: ServerError) -> None:
        raise error

    with pytest.raises(UnavailableError, match=r"^Server a:1 is not available: loading\. Start it"):
        server.call(lambda: fail(server.unavailable("loading")))
    assert len(pauses) == 2
    with pytest.raises(ServerError, match="refused the request: no"):
        server.call(lambda: fail(server.refused("no")))
    assert len(pauses) == 2


def test_a_reason_is_one_short_line_and_of_a_failed_assertion_its_words() -> None:
    server = Server(host="a", port=1, model_name="m", timeout_s=1.5)
    assert str(server.refused("out of\n  luck.")) == "Server a:1 refused the request: out of luck."
    assert len(str(server.refused("x" * 5000))) < 400
    failed = "assertion failed: [`clips` should be uint8. Received shape: [1 2].] [[{{node Assert}}]]"
    assert str(server.refused(failed)).endswith("request: `clips` should be uint8. Received shape: [1 2].")
    assert "within 1.5 s" in str(server.too_slow())
    assert "no model 'm' ready" in str(server.no_model("none"))
    assert "--ca-file" in str(server.untrusted("self-signed"))
    assert "mostly 8501" in str(server.foreign("HTML"))


def test_a_file_of_authorities_that_cannot_be_read(tmp_path) -> None:
    with pytest.raises(ServerError, match=r"Received: .*none\.pem, No such file"):
        Server(host="a", port=1, ca_file=tmp_path / "none.pem").trusted()


def test_signatures_are_read_from_the_servers_json() -> None:
    def info(*sizes: int) -> dict:
        return {"dtype": "DT_UINT8", "tensor_shape": {"dim": [{"size": str(size)} for size in sizes]}}

    signature = {"inputs": {"clips": info(-1, 8, -1, -1, 3)}, "outputs": {"probabilities": info(-1, 4)}}
    found = {"serving_default": signature, "__saved_model_init_op": {"outputs": {}}}
    expected = Signature({"clips": (-1, 8, -1, -1, 3)}, {"probabilities": (-1, 4)})
    metadata = {"metadata": {"signature_def": {"signature_def": found}}}
    assert signatures_of_json(metadata) == {"serving_default": expected}
    with pytest.raises(KeyError):
        signatures_of_json({"metadata": {}})

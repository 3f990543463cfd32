"""REST and gRPC clients against a local server of TensorFlow Serving's protocol, and against others."""

import dataclasses
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from model_server import GrpcServer, RestServer, ServedModel, StatusError

from kdant_tf.serving.client import check_answer, connect, make_client, read_description
from kdant_tf.serving.model import AnticipationModel, encode_frames, load_model
from kdant_tf.serving.server import Server, ServerError, UnavailableError
from tf_records.errors import KdantError, RunError

INTERNAL, RESOURCE_EXHAUSTED, UNAVAILABLE = 13, 8, 14


@pytest.fixture(scope="module")
def local(exported: Path) -> AnticipationModel:
    return load_model(exported)


@dataclasses.dataclass
class Running:
    """A server that runs, and how to reach it."""

    server: RestServer | GrpcServer
    grpc: bool
    exported: Path
    pauses: list[float]

    def address(self, **changes: Any) -> Server:
        """Pauses are noted, not waited for."""
        return Server(
            **{"host": "127.0.0.1", "port": self.server.port, "pause": self.pauses.append, **changes}
        )

    def connect(self, **changes: Any) -> AnticipationModel:
        return connect(self.address(**changes), self.exported, grpc=self.grpc)

    def client(self, **changes: Any) -> Any:
        return make_client(self.address(**changes), grpc=self.grpc)


@pytest.fixture(params=["rest", "grpc"])
def running(request: Any, served: ServedModel, exported: Path) -> Iterator[Running]:
    server = RestServer(served) if request.param == "rest" else GrpcServer(served)
    server.start()
    yield Running(server, request.param == "grpc", exported, [])
    served.gate.set()
    server.stop()


def draw_clips(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(1, 8, 40, 60), (3, 8, 64, 33), (1, 8, 1, 1)])
def test_a_served_model_says_what_the_exported_one_says(running, local, served, shape):
    model, clips = running.connect(), draw_clips(*shape)
    probabilities = model.probabilities(clips)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, local.probabilities(clips), atol=1e-5)
    assert served.asked == ["serving_default" if running.grpc else "encoded"]
    assert (model.classes, model.clip, model.fps) == (local.classes, local.clip, local.fps)


def test_threads_may_share_a_connection(running, local):
    model, clips = running.connect(), draw_clips(8, 8, 32, 32)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda clip: model.probabilities(clip[None]), clips))
    np.testing.assert_allclose(np.concatenate(answers), local.probabilities(clips), atol=1e-5)


def test_a_corrupt_frame_among_good_ones_is_named_and_the_server_lives(running):
    frames = encode_frames(draw_clips(2, 8, 32, 32))
    whole = frames[1, 3]
    frames[1, 3] = whole[: len(whole) // 2]
    client = running.client()
    with pytest.raises(ServerError, match=r"refused the request: Frame 3 of clip 1 should be a JPEG or PNG"):
        client.predict("encoded", {"frames": frames})
    frames[1, 3] = whole
    assert client.predict("encoded", {"frames": frames})["probabilities"].shape == (2, 4)
    assert running.pauses == []


@pytest.mark.parametrize(
    "clips",
    [
        draw_clips(1, 5, 32, 32),
        draw_clips(1, 0, 32, 32),
        draw_clips(1, 8, 0, 32),
        draw_clips(8, 32, 32),
        np.zeros((1, 8, 32, 32, 2), np.uint8),
    ],
    ids=["frames", "no frames", "no pixels", "rank", "channels"],
)
def test_clips_that_do_not_fit_are_refused_by_the_client_and_by_the_server(running, clips):
    with pytest.raises(KdantError, match=r"takes clips of uint8 \(B, 8, H, W, 3\)"):
        running.connect().probabilities(clips)
    with pytest.raises(ServerError, match="refused the request"):
        running.client().predict("serving_default", {"clips": clips})


def test_what_the_server_lacks_is_named(running):
    with pytest.raises(ServerError, match="has no model 'other' ready: Servable not found"):
        running.connect(model_name="other")
    with pytest.raises(ServerError, match='"nonsense" not found'):
        running.client().predict("nonsense", {"clips": draw_clips(1, 8, 32, 32)})


def test_only_what_is_unavailable_is_asked_again(running, served):
    model, clips = running.connect(), draw_clips(1, 8, 32, 32)
    served.faults.extend(StatusError(UNAVAILABLE, "The batch scheduling queue is full") for _ in range(3))
    assert model.probabilities(clips).shape == (1, 4)
    assert len(running.pauses) == 3
    assert running.pauses[0] < running.pauses[1] < running.pauses[2]
    running.pauses.clear()
    for code in (INTERNAL, RESOURCE_EXHAUSTED):
        served.faults.append(StatusError(code, "out of\nluck"))
        with pytest.raises(ServerError, match="refused the request: out of luck"):
            model.probabilities(clips)
    assert running.pauses == []


def test_tries_come_to_an_end(running, served):
    model = running.connect(tries=4)
    served.faults.extend(StatusError(UNAVAILABLE, "loading") for _ in range(9))
    with pytest.raises(UnavailableError, match="is not available: loading"):
        model.probabilities(draw_clips(1, 8, 32, 32))
    assert len(running.pauses) == 3
    assert len(served.faults) == 5


def test_an_answer_has_its_deadline(running, served):
    model = running.connect(timeout_s=0.3)
    served.gate.clear()
    with pytest.raises(ServerError, match=r"gave no answer within 0\.3 s"):
        model.probabilities(draw_clips(1, 8, 32, 32))
    assert running.pauses == []


def test_a_server_that_restarts_in_mid_stream_is_waited_for(running):
    def pause(pause_s: float) -> None:
        running.pauses.append(pause_s)
        if len(running.pauses) == 2:
            running.server.start()
            if running.grpc:
                grpc.channel_ready_future(client._channel).result(timeout=30)

    client, frames = running.client(pause=pause), {"frames": encode_frames(draw_clips(1, 8, 32, 32))}
    before = client.predict("encoded", frames)["probabilities"]
    running.server.stop()
    np.testing.assert_array_equal(client.predict("encoded", frames)["probabilities"], before)
    assert len(running.pauses) == 2


def test_a_server_that_does_not_come_back_ends_in_a_sentence(running):
    model = running.connect(tries=3)
    running.server.stop()
    with pytest.raises(UnavailableError, match=r"^Server 127\.0\.0\.1:\d+ is not available: .*\. Start it"):
        model.probabilities(draw_clips(1, 8, 32, 32))
    assert len(running.pauses) == 2


@pytest.mark.slow
def test_a_body_of_100_mb(running):
    # Wide frames, of which the network's square takes little time.
    frame = draw_clips(1, 1, 64, 66_000)
    if running.grpc:
        signature, inputs = "serving_default", {"clips": np.repeat(frame, 8, axis=1)}
        assert inputs["clips"].nbytes > 100e6
    else:
        signature, inputs = "encoded", {"frames": np.repeat(encode_frames(frame), 8, axis=1)}
        assert sum(map(len, inputs["frames"].flat)) * 4 / 3 > 100e6
    outputs = running.client().predict(signature, inputs)
    np.testing.assert_allclose(outputs["probabilities"].sum(), 1, atol=1e-5)


def test_another_model_in_its_place_is_noticed(running, exported, tmp_path):
    config = json.loads((exported / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "classes": [*config["classes"], "more"]}))
    with pytest.raises(ServerError, match=r"to 4 classes, the one described .* to 5 classes"):
        connect(running.address(), tmp_path / "config.json", grpc=running.grpc)


def test_a_description_is_an_exported_folder_a_version_or_its_config(exported, tmp_path):
    config = read_description(exported)
    assert config == read_description(exported.parent) == read_description(exported / "config.json")
    with pytest.raises(RunError, match="no folder that kdant export wrote"):
        read_description(tmp_path)
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(RunError, match=r"has no config\.json, which tells its classes"):
        read_description(tmp_path)


@pytest.mark.parametrize(
    "outputs",
    [{}, {"probabilities": np.zeros((2, 3))}, {"probabilities": np.zeros((2, 4), np.int64)}],
    ids=["none", "classes", "type"],
)
def test_an_answer_of_another_model(outputs):
    with pytest.raises(ServerError, match=r"probabilities of shape \(2, 4\)\. Received: .*Does it serve"):
        check_answer(outputs, (2, 4), Server(host="a", port=1))

"""kdant predict with a model that answers at once: what is printed of it, and what is refused."""

import dataclasses
import json
import re
import socket
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from click.testing import CliRunner, Result
from kdant_cli.predict import predict
from PIL import Image

from kdant_tf.serving import model as models
from kdant_tf.serving.model import AnticipationModel
from tf_records.schema import ClipSpec


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> dict[str, AnticipationModel]:
    """What every --model is loaded as, under "model"."""
    held = {
        "model": AnticipationModel(
            name="constant",
            classes=("clap", "golf"),
            clip=ClipSpec(clip_frames=4, offset_frames=15),
            modality="rgb",
            short_side=32,
            fps=30.0,
            anticipates=True,
            infer=lambda clips: np.tile(np.float32([0.25, 0.75]), (len(clips), 1)),
        )
    }
    monkeypatch.setattr(models, "load_model", lambda folder, engine: held["model"])
    return held


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """15 grey frames at 30 a second."""
    path = tmp_path_factory.mktemp("video") / "grey.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for number in range(15):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 100, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def run(*args: object, code: int = 0, **settings: Any) -> Result:
    result = CliRunner(**settings).invoke(predict, [*map(str, args), "--model", "student"])
    assert result.exit_code == code, (result.stdout, result.stderr)
    return result


pytestmark = pytest.mark.usefixtures("model")


def test_a_json_line_for_each_time(video: Path) -> None:
    lines = [json.loads(line) for line in run(video, "--json-lines", "--top", 1).stdout.splitlines()]
    assert [line["time_s"] for line in lines] == [0.1, 0.3667]
    assert lines[0] == {
        "source": str(video),
        "time_s": 0.1,
        "expected_s": 0.5,
        "expected": [{"class": "golf", "probability": 0.75}],
    }


def test_plain_lines_and_what_computing_costs(video: Path) -> None:
    result = run(video, "--threshold", 0.5, "--latency")
    title, first, second, *table = result.stdout.splitlines()
    assert title == f"{video}: last frame seen → when what is expected begins"
    assert first.split() == ["0.10", "s", "→", "0.50", "s", "golf", "75.0", "%"]
    assert second.split()[:2] == ["0.37", "s"]
    assert "2, and 0 dropped" in "".join(table)
    assert "0.400 s" in "".join(table)


def test_a_table_that_moves_on_a_terminal(video: Path) -> None:
    printed = run(video, env={"FORCE_COLOR": "1", "COLUMNS": "100"}).stdout
    assert "0.37 s" in printed
    assert "golf 75.0 %" in printed


def test_a_model_that_knows_no_rate_takes_the_videos_and_says_so(
    video: Path, model: dict[str, AnticipationModel]
) -> None:
    model["model"] = dataclasses.replace(model["model"], fps=None)
    result = run(video, "--json-lines")
    assert f"so that of {video} is taken: 30. Another one: --fps." in result.stderr
    assert [json.loads(line)["time_s"] for line in result.stdout.splitlines()] == [0.1, 0.3667]
    half = run(video, "--json-lines", "--fps", 15).stdout.splitlines()
    assert json.loads(half[0])["time_s"] == 0.2


def test_a_model_of_flow_has_to_be_told_which(video: Path, model: dict[str, AnticipationModel]) -> None:
    model["model"] = dataclasses.replace(model["model"], modality="flow")
    assert "--flow-algorithm tvl1, dis or farneback" in run(video, code=1).stderr
    assert len(run(video, "--json-lines", "--flow-algorithm", "farneback").stdout.splitlines()) == 2


def test_one_source_that_fails_does_not_keep_the_others(video: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "frame_1.png")
    result = run(tmp_path, video, "--json-lines", code=1)
    assert len(result.stdout.splitlines()) == 2
    assert "has 1 frames at 30 a second" in result.stderr
    assert "1 of 2 sources could not be gone through" in result.stderr


def test_an_overlay_is_drawn_of_one_source(video: Path, tmp_path: Path) -> None:
    out = tmp_path / "over.mp4"
    assert f"Drew {out}" in run(video, "--json-lines", "--overlay", out).stderr
    with av.open(str(out)) as container:
        assert container.streams.video[0].frames == 15
    assert "--overlay is for one source" in run(video, video, "--overlay", out, code=2).stderr
    assert "--overlay is for one source" in run("rtsp://127.0.0.1:9/a", "--overlay", out, code=2).stderr


@pytest.mark.parametrize(
    "options",
    [("--stride-s", "0"), ("--top", "0"), ("--threshold", "2"), ("--fps", "0"), ("--grpc",)],
    ids=" ".join,
)
def test_wrong_usage(video: Path, options: tuple[str, ...]) -> None:
    run(video, *options, code=2)


def test_a_source_that_cannot_be_read_does_not_keep_the_others(video: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    result = run(tmp_path / "none.mp4", video, tmp_path / "empty.mp4", "--json-lines", code=1)
    assert len(result.stdout.splitlines()) == 2
    assert "none.mp4 cannot be opened as a video: No such file" in result.stderr
    assert "2 of 3 sources could not be gone through" in result.stderr
    nothing = run(tmp_path / "none.mp4", tmp_path / "empty.mp4", "--json-lines", code=1)
    assert nothing.stdout == ""
    assert nothing.stderr.splitlines()[-1] == "Error: None of the sources can be read, see above."


def test_a_network_that_answers_no_numbers_is_named_and_nothing_is_printed_of_it(
    video: Path, model: dict[str, AnticipationModel]
) -> None:
    answers = iter([[0.25, 0.75], [0.25, 0.75], [np.nan, 0.5]])
    infer = lambda clips: np.float32([next(answers)])  # noqa: E731
    model["model"] = dataclasses.replace(model["model"], infer=infer)
    result = run(video, "--json-lines", code=1)
    assert [json.loads(line)["time_s"] for line in result.stdout.splitlines()] == [0.1]
    assert (
        f"{video} at 0.37 s: constant gives outputs that are not finite for 1 of 1 clips: 0. Its"
        in result.stderr
    )


def test_an_overlay_does_not_lie_in_its_source(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "frame_1.png")
    stderr = run(tmp_path, "--overlay", tmp_path / "over.mp4", code=1).stderr
    assert "should lie apart" in stderr


@pytest.fixture
def browsers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A browser is there, asks once to see it again, and then the person presses Ctrl-C."""
    from kdant_tf.anticipation.web_server import WebServer

    states: list[str] = []

    def ask(server: WebServer) -> bool:
        states.append(server.state[1])
        if len(states) == 2:
            raise KeyboardInterrupt
        return True

    monkeypatch.setattr(WebServer, "wait_for_browser", lambda server: True)
    monkeypatch.setattr(WebServer, "wait_for_request", ask)
    return states


def test_a_live_page_says_what_the_lines_say_and_ctrl_c_ends_it_well(
    video: Path, browsers: list[str]
) -> None:
    result = run(video, "--web", "--port", 0, "--json-lines", "--top", 1)
    assert re.search(r"Open http://127\.0\.0\.1:\d+/ in a browser\. Ctrl-C ends it\.", result.stderr)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["time_s"] for line in lines][-1] == 0.3667
    told = json.loads(browsers[-1])
    assert (told["status"], told["source"]) == ("ended", str(video))
    assert told["answer"]["time_s"] == 0.3667
    assert told["answer"]["top"] == [[1, "golf", 0.75], [0, "clap", 0.25]]


def test_a_live_page_that_cannot_be(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = run(video, "--web", "--port", port, code=1)
    assert refused.stderr == (
        f"Error: Port {port} of 127.0.0.1 is in use. Choose another: --port, 0 for one that is free.\n"
    )
    assert "--port goes with --web" in run(video, "--port", 8000, code=2).stderr
    assert "--host goes with --web" in run(video, "--host", "0.0.0.0", code=2).stderr
    assert "not with --web" in run(video, "--web", "--overlay", "over.mp4", code=2).stderr
    monkeypatch.setitem(sys.modules, "kdant_tf.anticipation.web_server", None)
    assert "pip install 'kdant-tf[web]'" in run(video, "--web", code=1).stderr

"""`kdant predict --server` against a local server of TensorFlow Serving's protocol."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from kdant_cli.main import main
from model_server import GrpcServer, RestServer, ServedModel, StatusError

UNAVAILABLE = 14


def predict(*args: object) -> Result:
    result = CliRunner().invoke(main, ["predict", *map(str, args), "--json-lines"])
    assert "Traceback" not in result.stderr
    return result


def lines_of(result: Result) -> list[dict]:
    assert result.exit_code == 0, (result.stderr, result.exception)
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def video(videos: Path) -> Path:
    return sorted(videos.glob("*.mp4"))[0]


@pytest.fixture
def rest(served: ServedModel) -> Iterator[str]:
    server = RestServer(served)
    server.start()
    yield f"localhost:{server.port}"
    server.stop()


@pytest.fixture
def grpc(served: ServedModel) -> Iterator[str]:
    server = GrpcServer(served)
    server.start()
    yield f"localhost:{server.port}"
    server.stop()


def test_a_server_says_what_the_model_says(rest, grpc, video, exported):
    local = lines_of(predict(video, "--model", exported))
    assert len(local) > 3
    for options in (("--server", rest), ("--server", grpc, "--grpc")):
        given = lines_of(predict(video, "--model", exported.parent, *options))
        assert [line["time_s"] for line in given] == [line["time_s"] for line in local]
        for own, other in zip(local, given, strict=True):
            assert {each["class"]: each["probability"] for each in other["expected"]} == pytest.approx(
                {each["class"]: each["probability"] for each in own["expected"]}, abs=2e-5
            )


def test_over_rest_no_tensorflow_is_imported_and_config_json_suffices(rest, video, exported, tmp_path):
    config = tmp_path / "config.json"
    config.write_bytes((exported / "config.json").read_bytes())
    args = ["predict", str(video), "--model", str(config), "--server", rest, "--json-lines"]
    script = (
        "import sys\n"
        "from kdant_cli.main import main\n"
        f"try: main({args!r})\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 3


def test_a_server_that_is_busy_for_a_moment_is_asked_again(rest, video, exported, served):
    expected = lines_of(predict(video, "--model", exported, "--server", rest))
    busy = StatusError(UNAVAILABLE, "The batch scheduling queue is full")
    served.faults.extend([None, None, busy])
    assert lines_of(predict(video, "--model", exported, "--server", rest)) == expected
    # The first contact is not repeated, so that what is wrong with it is known at once.
    served.faults.append(busy)
    assert predict(video, "--model", exported, "--server", rest).exit_code == 1


def test_what_is_wrong_with_a_server_is_one_sentence(rest, video, exported, finished_run, tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    for message, *options in (
        ("Connection refused", "--model", exported, "--server", f"127.0.0.1:{port}"),
        ("has no model 'other' ready", "--model", exported, "--server", rest, "--model-name", "other"),
        ("no folder that kdant export wrote", "--model", tmp_path, "--server", rest),
        ("no folder that kdant export wrote", "--model", finished_run, "--server", rest),
        ("does not answer as TensorFlow Serving does", "--model", exported, "--server", rest, "--grpc"),
    ):
        result = predict(video, *options)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1
        assert message in result.stderr


@pytest.mark.parametrize(
    "options", [("--server", "nonsense"), ("--grpc",), ("--server", "a:1", "--timeout-s", "0")], ids=str
)
def test_wrong_usage(video, exported, options):
    assert predict(video, "--model", exported, *options).exit_code == 2

"""The options that name a server."""

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from kdant_cli.server import make_server, open_model, server_options

from kdant_tf.models.inference import Engine
from tf_records.errors import RunError


@pytest.fixture
def made() -> list[Any]:
    return []


@pytest.fixture
def run(made: list[Any]) -> Any:
    @click.command
    @server_options
    def command(**options: Any) -> None:
        made.append(make_server(**options))

    def invoke(*args: str) -> Result:
        return CliRunner().invoke(command, list(args))

    return invoke


def test_no_server_is_asked_for(run: Any, made: list[Any]) -> None:
    assert run().exit_code == 0
    assert made == [None]


def test_a_server_gets_what_the_options_say(run: Any, made: list[Any]) -> None:
    args = ("--server", "[::1]:8500", "--grpc", "--tls", "--ca-file", __file__, "--model-name", "m")
    assert run(*args, "--timeout-s", "2.5").exit_code == 0
    (server,) = made
    assert (str(server), server.tls, server.ca_file) == ("[::1]:8500", True, Path(__file__))
    assert (server.model_name, server.timeout_s) == ("m", 2.5)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--tls",), "--tls goes with --server HOST:PORT"),
        (("--grpc",), "--grpc goes with --server HOST:PORT"),
        (("--server", "localhost:1", "--ca-file", __file__), "--ca-file goes with --tls"),
        (("--server", "localhost"), "should be given as HOST:PORT"),
        (("--server", "localhost:1", "--timeout-s", "0"), "--timeout-s"),
    ],
)
def test_options_that_do_nothing_are_refused(run: Any, args: tuple[str, ...], words: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_server_needs_a_description_of_its_model(tmp_path: Path) -> None:
    options = {"tls": False, "ca_file": None, "model_name": "kdant", "timeout_s": 1.0}
    with pytest.raises(RunError, match="no folder that kdant export wrote"):
        open_model(tmp_path, server=("localhost", 1), grpc=False, **options)
    with pytest.raises(RunError, match="neither"):
        open_model(tmp_path, server=None, grpc=False, **options)


def test_an_engine_is_for_what_is_loaded_here(tmp_path: Path) -> None:
    options: dict[str, Any] = {"server": ("localhost", 1), "model_name": "m", "tls": False, "ca_file": None}
    with pytest.raises(click.UsageError, match="--engine and --precision go with a run"):
        open_model(tmp_path, grpc=False, timeout_s=1.0, engine=Engine(precision="bfloat16"), **options)


def test_a_network_that_was_put_in_the_runs_place_is_told(
    swapped_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = open_model(swapped_run, grpc=False, server=None, tls=False, ca_file=None)
    assert model.name == str(swapped_run)
    assert f"Warning: run {swapped_run} has another model.keras" in capsys.readouterr().err

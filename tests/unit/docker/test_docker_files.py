"""What Docker reads, checked without Docker: `make lint` has hadolint and the Compose schema beside this."""

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from model_server import RestServer, StatusError
from ruamel.yaml import YAML

REPOSITORY = Path(__file__).resolve().parents[3]
SERVING = REPOSITORY / "docker" / "serving"
# Fields of BatchingParameters in TensorFlow Serving's session_bundle_config.proto that are numbers.
BATCHING = {
    *("max_batch_size", "batch_timeout_micros", "num_batch_threads", "max_enqueued_batches"),
}


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    compose = YAML(typ="safe").load(SERVING / "compose.yaml")
    return compose["services"]["serving"]


def test_the_exported_folder_is_mounted_read_only_where_the_server_looks(service):
    mounts = {mount["target"]: mount for mount in service["volumes"]}
    served = mounts[f"/models/{service['environment']['MODEL_NAME']}"]
    assert served["source"].startswith("${SERVED")
    assert all(mount["read_only"] for mount in mounts.values())
    for target, mount in mounts.items():
        if target.startswith("/config/"):
            assert (SERVING / mount["source"]).is_file()
            assert any(flag.endswith(f"={target}") for flag in service["command"])


def test_the_image_is_pinned_and_the_model_is_asked_for_its_health(service):
    assert re.fullmatch(r"tensorflow/serving:\$\{TF_SERVING_VERSION:-\d+\.\d+\.\d+\}", service["image"])
    probe = service["healthcheck"]["test"][-1]
    assert f"/v1/models/{service['environment']['MODEL_NAME']} " in probe
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}


def test_the_configurations_are_text_protos_of_known_fields():
    lines = [line for line in (SERVING / "batching.config").read_text().splitlines() if line[:1] != "#"]
    fields = [re.fullmatch(r"(\w+) \{ value: \d+ \}", line) for line in lines]
    assert {field[1] for field in fields} == BATCHING
    assert 'prometheus_config { enable: true, path: "/metrics" }' in (
        (SERVING / "monitoring.config").read_text().splitlines()
    )


def test_docker_gets_what_the_wheel_is_made_of_and_nothing_else():
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    folders = settings["tool"]["setuptools"]["package-dir"]
    packages = {name.split(".")[0] for name in settings["tool"]["setuptools"]["packages"]}
    wanted = {folders.get(package, package) for package in packages}
    wanted |= {settings["project"]["readme"], *settings["project"]["license-files"]}
    wanted |= {"pyproject.toml", "constraints.txt"}
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert {line[1:] for line in lines if line.startswith("!")} == wanted


@pytest.mark.parametrize("target", ["image", "image-gpu", "serve"])
def test_without_an_engine_the_targets_say_so_and_succeed(tmp_path, target):
    (tmp_path / "docker").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "docker").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    made = subprocess.run(
        ["make", "--no-print-directory", target],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stdout == "No Docker engine answers here: nothing to do.\n"


def test_the_health_check_asks_for_the_model(service, served):
    probe = service["healthcheck"]["test"][1:]
    server = RestServer(served)
    server.start()

    def check() -> int:
        command = [part.replace("/8501", f"/{server.port}") for part in probe]
        return subprocess.run(command, capture_output=True, check=False).returncode

    assert check() == 0
    served.faults.append(StatusError(5, "Servable not found for request: Latest(kdant)"))
    assert check() != 0
    server.stop()
    assert check() != 0

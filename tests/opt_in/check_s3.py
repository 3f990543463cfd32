"""Records in s3://, against a local server: `make test-io`. Needs the extra `io` and moto."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

KDANT = "from kdant_cli.main import main; main(prog_name='kdant')"
CLIPS = ("--clip-frames", "8", "--offset-frames", "16", "--short-side", "64", "--shards", "4")
SMALL = ("--epochs", "1", "--width", "0.0625", "--crop", "32", "--batch-size", "4", "--devices", "cpu")
KEYS = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of an S3 server on this machine, with a bucket named kdant."""
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client(url).create_bucket(Bucket="kdant")
    yield url
    server.stop()


@pytest.fixture(scope="module")
def environment(server: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_"))}
    return {**own, **KEYS, "S3_ENDPOINT": server, "AWS_EC2_METADATA_DISABLED": "true"}


def start(environment: dict[str, str], *arguments: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", KDANT, *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )


def kdant(environment: dict[str, str], *arguments: Any) -> tuple[int, str, str]:
    process = start(environment, *arguments)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def build_arguments(videos: Path, out: object, *more: str) -> tuple[Any, ...]:
    source = ("--source", "csv", "--input", videos / "annotations.csv")
    return ("build-records", *source, "--out", out, *CLIPS, "--json", *more)


def client(server: str) -> Any:
    """Reads and writes objects without TensorFlow."""
    names = {"aws_access_key_id": "any", "aws_secret_access_key": "any", "region_name": "us-east-1"}
    return boto3.client("s3", endpoint_url=server, **names)


def objects(server: str, folder: str) -> dict[str, bytes]:
    """Name → bytes of everything below a folder of the bucket."""
    s3 = client(server)
    listed = s3.list_objects_v2(Bucket="kdant", Prefix=f"{folder}/").get("Contents", [])
    keys = [item["Key"] for item in listed if not item["Key"].endswith("/")]
    return {
        key.removeprefix(f"{folder}/"): s3.get_object(Bucket="kdant", Key=key)["Body"].read() for key in keys
    }


@pytest.fixture(scope="module")
def local_records(videos: Path, environment: dict[str, str]) -> dict[str, bytes]:
    """Of a build on this machine, in this environment."""
    out = videos.parent / "local"
    code, _, err = kdant(environment, *build_arguments(videos, out))
    assert code == 0, err
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.fixture(scope="module")
def remote_records(videos: Path, environment: dict[str, str]) -> str:
    """The URL of records that two workers built."""
    code, _, err = kdant(environment, *build_arguments(videos, "s3://kdant/records", "--workers", "2"))
    assert code == 0, err
    return "s3://kdant/records"


def test_two_workers_upload_what_a_local_build_writes(
    server: str, remote_records: str, local_records: dict[str, bytes]
) -> None:
    assert objects(server, "records") == local_records


def test_inspect_verifies_every_byte_there(environment: dict[str, str], remote_records: str) -> None:
    code, out, err = kdant(environment, "inspect", remote_records, "--verify", "--json")
    assert (code, json.loads(out)["damaged"]) == (0, []), err


def test_a_changed_object_is_named(
    server: str, environment: dict[str, str], videos: Path, local_records: dict[str, bytes]
) -> None:
    for name, content in local_records.items():
        if name == "train-00001-of-00004.tfrecord":
            content = content[:-1] + bytes([content[-1] ^ 1])
        client(server).put_object(Bucket="kdant", Key=f"damaged/{name}", Body=content)
    code, _, err = kdant(environment, "inspect", "s3://kdant/damaged", "--verify")
    assert code == 1
    assert "1 of 8 shards in s3://kdant/damaged are damaged: train-00001-of-00004.tfrecord" in err


def test_a_killed_build_resumes_to_the_same_bytes(
    server: str, environment: dict[str, str], videos: Path, local_records: dict[str, bytes]
) -> None:
    arguments = build_arguments(videos, "s3://kdant/killed")
    process = start(environment, *arguments)
    assert process.stderr is not None
    process.stderr.readline()  # the first shard is done
    process.kill()
    process.communicate()
    left = objects(server, "killed")
    assert any(name.endswith(".tfrecord") for name in left)
    assert "manifest.json" not in left
    code, _, err = kdant(environment, *arguments, "--resume", "--workers", "2")
    assert code == 0, err
    assert objects(server, "killed") == local_records


def test_a_teacher_learns_from_there_and_is_evaluated(
    environment: dict[str, str], remote_records: str, tmp_path: Path
) -> None:
    run = tmp_path / "teacher"
    code, out, err = kdant(
        environment, "train-teacher", "--records", remote_records, "--out", run, *SMALL, "--json"
    )
    assert (code, json.loads(out)["epochs"]) == (0, 1), err
    code, out, err = kdant(environment, "evaluate", run, "--records", remote_records, "--json")
    assert (code, json.loads(out)["samples"]) == (0, 8), err


def test_an_occupied_folder_is_refused_and_overwritten_on_demand(
    server: str, environment: dict[str, str], videos: Path, local_records: dict[str, bytes]
) -> None:
    for name in ("manifest.json", "train-00000-of-00009.tfrecord", "mine.txt"):
        client(server).put_object(Bucket="kdant", Key=f"old/{name}", Body=b"old")
    arguments = build_arguments(videos, "s3://kdant/old")
    code, out, err = kdant(environment, *arguments)
    assert (code, out) == (1, "")
    assert err.startswith("Error: Output folder s3://kdant/old is not empty.")
    code, _, err = kdant(environment, *arguments, "--overwrite")
    assert code == 0, err
    assert objects(server, "old") == {**local_records, "mine.txt": b"old"}


@pytest.mark.parametrize("verb", ["build-records", "inspect"])
def test_a_bucket_that_is_missing_is_named(verb: str, environment: dict[str, str], videos: Path) -> None:
    url = "s3://nowhere/records"
    arguments = ("inspect", url) if verb == "inspect" else build_arguments(videos, url)
    assert kdant(environment, *arguments) == (
        1,
        "",
        "Error: s3://nowhere/ does not exist. Correct the URL, or make the bucket.\n",
    )


def test_denied_access_asks_for_credentials(environment: dict[str, str]) -> None:
    """A server that checks credentials, and a client whose keys it does not know."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    strict = {**environment, "INITIAL_NO_AUTH_ACTION_COUNT": "0", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=strict, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        assert server.stdout is not None
        assert any(b"Running on" in line for line in server.stdout)
        url = f"http://127.0.0.1:{port}"
        done = kdant({**environment, "S3_ENDPOINT": url}, "inspect", "s3://kdant/records")
        server.kill()
    assert done == (
        1,
        "",
        "Error: Access to s3://kdant/ was denied. Set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
        "AWS_REGION.\n",
    )

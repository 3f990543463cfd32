"""Two processes on loopback train what one does; one of them is killed on the way, and both go on."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from kdant_cli.main import main

WORKER = Path(__file__).with_name("worker.py")
EPOCHS = 3
STEPS = 2  # an epoch: 16 labelled records, 8 a batch
# Two convolutions with batch normalisation, which compile in a second.
NETWORK = """
import keras
from keras import layers


def build(num_classes, input_shape):
    x = clip = layers.Input(input_shape)
    for name in ("first", "second"):
        x = layers.Conv3D(8, 3, strides=2, padding="same", use_bias=False, name=name)(x)
        x = layers.ReLU()(layers.BatchNormalization(name=f"{name}_norm")(x))
    logits = layers.Dense(num_classes, name="Logits")(layers.GlobalAveragePooling3D()(x))
    return keras.Model(clip, {"logits": logits, "maps": x})
"""
# Far above what it takes, also on a machine that is busy with other things.
TIMEOUT_S = 200


class Ended(NamedTuple):
    """How a worker ended, and the weights it had then."""

    code: int
    stdout: str
    stderr: str
    weights: dict[str, np.ndarray]


class Session(NamedTuple):
    """What happened in `folder`: two workers of which one dies, both again, and one process alone."""

    folder: Path
    died: list[Ended]
    resumed: list[Ended]
    alone: Ended


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def run_workers(
    folder: Path, outs: list[str], *options: object, die_after_step: tuple[int, ...] = (0, 0)
) -> list[Ended]:
    """Starts a worker for each of `outs`, and waits for all."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(len(outs))]
    started = []
    for index, out in enumerate(outs):
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(cluster)}
        weights = folder / f"{out}-{index}.npz"
        command = [sys.executable, WORKER, weights, die_after_step[index], "train-teacher", "--out", out]
        started.append(
            subprocess.Popen(
                [str(word) for word in (*command, *options)],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    ended = []
    for index, (process, out) in enumerate(zip(started, outs, strict=True)):
        stdout, stderr = process.communicate(timeout=TIMEOUT_S)
        weights = folder / f"{out}-{index}.npz"
        values = dict(np.load(weights)) if weights.is_file() else {}
        ended.append(Ended(process.returncode, stdout, stderr, values))
    return ended


def train_alone(folder: Path, out: str, *options: object) -> Ended:
    """The same training in this process, without others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [str(folder), *sys.path])
        patch.delenv("TF_CONFIG", raising=False)
        result = CliRunner().invoke(main, [*map(str, ("train-teacher", "--out", out, *options))])
        network = keras.saving.load_model(folder / out / "model.keras", compile=False)
    weights = {each.path.replace("/", " "): each.numpy() for each in network.weights}
    return Ended(result.exit_code, result.stdout, result.stderr, weights)


@pytest.fixture(scope="module")
def session(tmp_path_factory, record_folder: Path) -> Session:
    folder = tmp_path_factory.mktemp("workers")
    (folder / "network_of_workers.py").write_text(NETWORK)
    (folder / "rate.toml").write_text(
        "weight_decay = 0.0\nlearning_rate = 0.1\nwarmup_epochs = 0.5\nema_decay = 0.5\n"
    )
    options = (
        "--records",
        record_folder,
        "--model",
        "network_of_workers:build",
        "--config",
        "rate.toml",
        "--crop",
        32,
    )
    options += ("--batch-size", 8, "--epochs", EPOCHS, "--sync-batch-norm", "--devices", "cpu")
    died = run_workers(folder, ["run", "elsewhere"], *options, die_after_step=(0, STEPS + 1))
    resumed = run_workers(folder, ["run", "run"], *options, "--resume")
    return Session(folder, died, resumed, train_alone(folder, "alone", *options))


def test_a_worker_that_dies_stops_the_others_with_one_sentence(session):
    chief, killed = session.died
    assert killed.code == -9
    assert chief.code == 1, chief.stderr
    assert chief.stdout == ""
    last = chief.stderr.splitlines()[-1]
    assert last.startswith("Error: Another of the 2 workers has ended, or was silent for 30 s")
    assert last.endswith("Start all of them again with --resume.")
    assert "Traceback" not in chief.stderr


def test_all_go_on_from_the_last_checkpoint(session):
    for worker in session.resumed:
        assert worker.code == 0, worker.stderr
    lines = session.resumed[0].stderr.splitlines()
    assert lines[0].startswith(f"Going on from step-{STEPS:08d}")
    assert len([line for line in lines if line.startswith("teacher: epoch")]) == EPOCHS - 1


def test_two_workers_end_with_the_weights_of_one_process(session):
    assert session.alone.code == 0, session.alone.stderr
    first, second = (worker.weights for worker in session.resumed)
    assert set(first) == set(session.alone.weights)
    assert {"first_norm moving_mean", "second_norm moving_variance", "Logits kernel"} < set(first)
    for name, expected in session.alone.weights.items():
        np.testing.assert_allclose(first[name], expected, rtol=1e-5, atol=1e-5, err_msg=name)
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_two_workers_mix_as_two_devices_of_one_do(session, record_folder):
    """Each mixes its part of a batch."""
    options = (
        "--records",
        record_folder,
        "--model",
        "network_of_workers:build",
        "--config",
        "rate.toml",
        "--crop",
        32,
    )
    options += ("--batch-size", 8, "--epochs", 1, "--sync-batch-norm", "--mixup", 0.4, "--cutmix", 1)
    first, second = run_workers(session.folder, ["mixed", "mixed"], *options, "--devices", "cpu")
    one = train_alone(session.folder, "mixed-alone", *options, "--devices", "cpu:2")
    assert [worker.code for worker in (first, second, one)] == [0, 0, 0], (first.stderr, one.stderr)
    for name, expected in one.weights.items():
        np.testing.assert_allclose(first.weights[name], expected, rtol=1e-5, atol=1e-5, err_msg=name)
        np.testing.assert_array_equal(first.weights[name], second.weights[name], err_msg=name)


def test_they_learn_and_report_the_same_numbers(session):
    rows = [
        np.loadtxt(session.folder / run / "metrics.csv", delimiter=",", skiprows=1)
        for run in ("run", "alone")
    ]
    assert rows[0].shape[0] == EPOCHS
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-4, atol=1e-5)
    assert len(set(rows[0][:, 2])) == EPOCHS  # the loss changes


def test_only_the_chief_writes_and_prints(session):
    chief, other = session.resumed
    assert "Trained run" in chief.stdout
    assert other.stdout == ""
    assert other.stderr.splitlines()[-1] == "Worker 1 has finished; worker 0 wrote run."
    assert "teacher: epoch" not in other.stderr
    assert not (session.folder / "elsewhere").exists()
    # One for each time that the chief began.
    assert len(list((session.folder / "run" / "tensorboard").glob("events.*"))) == 2


def test_the_saved_network_is_a_plain_one_with_these_weights(session, monkeypatch):
    network = keras.saving.load_model(session.folder / "run" / "model.keras", compile=False)
    for weight in network.weights:
        np.testing.assert_array_equal(
            weight.numpy(), session.resumed[0].weights[weight.path.replace("/", " ")]
        )
    assert '"synchronized": true' not in network.to_json()

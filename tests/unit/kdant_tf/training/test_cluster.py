"""TF_CONFIG and what is said of one that cannot be used."""

import json
import socket

import pytest

from kdant_tf.training.strategy import ClusterError, check_port_is_free, make_strategy, read_cluster
from tf_records.errors import KdantError

TWO = ["a:1", "b:2"]


def describe(workers: object = TWO, index: object = 0, job: str = "worker", **jobs: object) -> str:
    return json.dumps({"cluster": {"worker": workers, **jobs}, "task": {"type": job, "index": index}})


@pytest.fixture
def tf_config(monkeypatch):
    return lambda text: monkeypatch.setenv("TF_CONFIG", text)


@pytest.mark.parametrize("text", [None, "", " "])
def test_without_tf_config_there_is_no_cluster(text, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    assert read_cluster() is None


def test_workers_and_ones_own_address_are_read(tf_config):
    tf_config(describe(index=1))
    cluster = read_cluster()
    assert (cluster.addresses, cluster.own_address) == (("a:1", "b:2"), "b:2")


def test_a_chief_of_its_own_comes_first(tf_config):
    tf_config(describe(index=0, chief=["c:3"]))
    cluster = read_cluster()
    assert (cluster.addresses, cluster.own_address) == (("c:3", "a:1", "b:2"), "a:1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"TF_CONFIG is no JSON: .*It should look like"),
        ("[]", r'addresses under "cluster".*Received: None'),
        ("{}", r'addresses under "cluster".*Received: None'),
        ('{"cluster": {}}', r"Received: \{\}"),
        ('{"cluster": {"ps": ["a:1"]}}', r"Received: .*ps"),
        ('{"cluster": {"worker": ["a:1"]}}', r'"task" whose "type" is worker. Received: None'),
        (describe(job="chief"), r'"type" is worker. Received: .*chief'),
        (describe(workers=[]), r"addresses of job worker.*Received: \[\]"),
        (describe(workers="a:1"), r"Received: 'a:1'"),
        (describe(workers=["a"]), r"'a' among the addresses of job worker. Give HOST:PORT"),
        (describe(workers=[7]), r"7 among the addresses"),
        (describe(workers=["a:0"]), r"'a:0' among"),
        (describe(workers=["a:65536"]), r"'a:65536' among"),
        (describe(workers=["a:1", "a:1"]), r"one address twice: a:1, a:1"),
        (describe(chief=["c:3", "d:4"]), r"one chief at most"),
        (describe(index=2), r'lists 2 of job worker.*"index" should be from 0 to 1. Received: 2'),
        (describe(index=-1), r"Received: -1"),
        (describe(index="0"), r"Received: '0'"),
        (describe(index=True), r"Received: True"),
        (describe(index=None), r"Received: None"),
    ],
)
def test_nonsense_is_refused_in_one_sentence(text, message, tf_config):
    tf_config(text)
    with pytest.raises(ClusterError, match=message):
        read_cluster()


def test_a_port_that_is_taken_is_refused(tf_config):
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        port = listener.getsockname()[1]
        tf_config(describe(workers=[f"127.0.0.1:{port}", "127.0.0.1:1"]))
        with pytest.raises(
            ClusterError, match=rf"Port {port} of 127.0.0.1:{port}.*cannot be used: it is taken"
        ):
            check_port_is_free(read_cluster())
    check_port_is_free(read_cluster())


def test_multiworker_without_tf_config_is_refused(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(KdantError, match=r"`--strategy multiworker` needs .*TF_CONFIG"):
        make_strategy("cpu", "multiworker")


def test_workers_have_one_cpu_device_each(tf_config):
    tf_config(describe())
    with pytest.raises(KdantError, match=r"one CPU device each. Received: --devices cpu:2"):
        make_strategy("cpu:2", "auto")


@pytest.mark.parametrize("strategy", ["auto", "multiworker"])
def test_one_worker_alone_is_no_cluster(strategy, tf_config):
    tf_config(describe(workers=["a:1"]))
    assert make_strategy("cpu", strategy) is make_strategy("cpu", "mirrored")


def test_tf_config_counts_only_where_it_is_asked_for(tf_config):
    tf_config("{")
    assert make_strategy("cpu").num_replicas_in_sync == 1
    with pytest.raises(ClusterError):
        make_strategy("cpu", "auto")

"""From `--devices` to a strategy; the tests' TensorFlow has two logical CPUs and no GPU."""

import pytest
import tensorflow as tf

from kdant_tf.training.strategy import make_strategy
from tf_records.errors import KdantError


@pytest.fixture(autouse=True)
def no_gpu():
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("a GPU is visible")


@pytest.mark.parametrize(("devices", "replicas"), [("auto", 1), ("cpu", 1), ("cpu:1", 1), ("cpu:2", 2)])
def test_devices_become_replicas(devices, replicas):
    strategy = make_strategy(devices)
    assert strategy.num_replicas_in_sync == replicas
    assert all("CPU" in device for device in strategy.extended.worker_devices)


@pytest.mark.parametrize("devices", ["tpu", "", "cpu:0", "cpu:-1", "cpu:two", "cpu:2 ", "CPU", "gpu:", "2"])
def test_other_texts_are_refused(devices):
    with pytest.raises(KdantError, match=r"should be auto, cpu, gpu, cpu:N or gpu:N\. Received"):
        make_strategy(devices)


@pytest.mark.parametrize("devices", ["gpu", "gpu:1", "gpu:3"])
def test_gpus_that_are_not_there_are_refused(devices):
    with pytest.raises(KdantError, match=rf"`--devices {devices}` .*GPU"):
        make_strategy(devices)


def test_more_cpus_than_tensorflow_started_with_are_refused():
    make_strategy("cpu:2")
    with pytest.raises(KdantError, match=r"fewer than 3 CPU devices.*new process"):
        make_strategy("cpu:3")


def test_the_same_devices_give_the_same_strategy():
    """Two strategies over the same devices mix up each other's collective operations."""
    assert make_strategy("cpu:2") is make_strategy("cpu:2")
    assert make_strategy("cpu:2") is not make_strategy("cpu:1")


def test_one_device_has_a_strategy_of_its_own():
    strategy = make_strategy("cpu", "one")
    assert isinstance(strategy, tf.distribute.OneDeviceStrategy)
    assert make_strategy("cpu:1", "one") is strategy
    with pytest.raises(KdantError, match=r"one` takes one device. Received: --devices cpu:2, which are 2"):
        make_strategy("cpu:2", "one")


@pytest.mark.parametrize("strategy", ["auto", "mirrored"])
def test_without_other_workers_devices_are_mirrored(strategy):
    assert make_strategy("cpu:2", strategy) is make_strategy("cpu:2")

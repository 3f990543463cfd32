"""The private names of Keras and TensorFlow that kdant uses are there, and mean what they meant."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import pytest
from keras import layers

from kdant_tf import private_apis

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def network() -> keras.Model:
    """A network in a network, and a layer that holds another."""
    inner_input = layers.Input((4,))
    inner = keras.Model(inner_input, layers.Dense(4, name="deep")(inner_input), name="inner")
    clip = layers.Input((3, 4), name="clip")
    x = layers.TimeDistributed(inner, name="each")(clip)
    x = layers.BatchNormalization(name="norm", trainable=False)(x)
    return keras.Model(clip, {"left": layers.ReLU(name="left")(x), "right": x})


def test_layers_are_found_at_every_depth(network: keras.Model) -> None:
    names = [layer.name for layer in private_apis.layers_within(network)]
    assert sorted(set(names) & {"each", "inner", "deep", "norm", "left"}) == [
        "deep",
        "each",
        "inner",
        "left",
        "norm",
    ]
    assert len(names) == len(set(names))
    assert network not in private_apis.layers_within(network)
    assert network in private_apis.layers_within(network, include_self=True)


def test_nodes_are_the_calls_of_a_network(network: keras.Model) -> None:
    nodes = private_apis.nodes_of(network)
    assert sorted(node.operation.name for node in nodes) == ["clip", "each", "left", "norm"]
    norm = next(node for node in nodes if node.operation.name == "norm")
    left = next(node for node in nodes if node.operation.name == "left")
    assert left.input_tensors[0] is norm.outputs[0]


def test_a_tensor_knows_the_call_that_made_it(network: keras.Model) -> None:
    operation, inputs, output = private_apis.call_that_made(network.output["left"])
    assert (operation.name, output) == ("left", 0)
    assert inputs[0] is network.output["right"]


def test_the_own_state_of_a_frozen_layer_is_not_its_weights(network: keras.Model) -> None:
    norm = network.get_layer("norm")
    assert [each.name for each in private_apis.own_state_of(norm)] == ["moving_mean", "moving_variance"]
    assert len(norm.non_trainable_variables) == 4


def test_a_network_is_saved_and_loaded_without_a_layer_more(
    network: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keras itself makes one for each layer that it looks at, to see what every layer has."""
    made: list[type] = []
    create = layers.Layer.__init__

    def count(self: layers.Layer, *args: Any, **options: Any) -> None:
        made.append(type(self))
        create(self, *args, **options)

    keras.backend.clear_session()
    private_apis.remember_what_is_not_saved()
    monkeypatch.setattr(layers.Layer, "__init__", count)
    network.save(tmp_path / "network.keras")
    assert made == []
    loaded = keras.saving.load_model(tmp_path / "network.keras", compile=False)
    assert layers.Layer not in made
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in network.layers]


CLUSTER = """
import socket
import tensorflow as tf
from tensorflow.python.eager import context
from kdant_tf import private_apis
with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
jobs = {"worker": [address]}
private_apis.configure_coordination_service(jobs, register_timeout_s=9, heartbeat_timeout_s=7)
config = context.context().config.experimental.coordination_config
assert (config.service_leader, config.heartbeat_timeout_in_ms) == ("/job:worker/replica:0/task:0", 7000)
assert config.cluster_register_timeout_in_ms == 9000
resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
    tf.train.ClusterSpec(jobs), task_type="worker", task_id=0, rpc_layer="grpc"
)
strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
print(private_apis.count_workers(strategy), private_apis.worker_number(strategy))
"""


def test_workers_are_counted_and_their_timeouts_set() -> None:
    done = subprocess.run([sys.executable, "-c", CLUSTER], capture_output=True, text=True)
    assert done.stdout.split() == ["1", "0"], done.stderr


def test_optimizers_add_gradients_up_in_the_method_that_summed_sgd_replaces() -> None:
    assert callable(keras.optimizers.SGD()._all_reduce_sum_gradients)

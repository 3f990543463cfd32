"""The private names of Keras and TensorFlow that kdant stands on, each with the reason.

Everything else that kdant calls of them is documented. A name here may vanish with any release: its test
in tests/unit/kdant_tf/test_private_apis.py says so. Importing this imports neither of the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


def layers_within(network: keras.layers.Layer, *, include_self: bool = False) -> list[keras.layers.Layer]:
    """Every layer in `network`, at every depth, once.

    Reason: `Model.layers` stops at the first depth, and misses the layers that a layer holds.
    """
    layers: list[keras.layers.Layer] = network._flatten_layers(include_self=include_self)
    return layers


def nodes_of(network: keras.Model) -> list[Any]:
    """The calls that a functional network is made of, each with `operation`, `input_tensors`, `outputs`.

    Reason: Keras documents no walk over a network's graph.
    """
    return [node for depth in network._nodes_by_depth.values() for node in depth]


def call_that_made(tensor: keras.KerasTensor) -> tuple[Any, Any, int]:
    """The operation whose output `tensor` is, its inputs in that call, and which output it is.

    Reason: as for `nodes_of`.
    """
    operation, call, output = tensor._keras_history
    return operation, operation._inbound_nodes[call].input_tensors, output


def own_state_of(layer: keras.layers.Layer) -> list[keras.Variable]:
    """What a layer keeps beside its weights, without the layers in it.

    Reason: `non_trainable_variables` has frozen weights and those of the layers within among them.
    """
    variables: list[keras.Variable] = layer._non_trainable_variables
    return variables


def index_in_optimizer(optimizer: keras.optimizers.Optimizer, variable: Any) -> int:
    """Place of `variable`, or of one device's copy of it, among those that `optimizer` was built with.

    Reason: Keras' own `update_step`, which is given one variable at a time, finds what belongs to it so.
    """
    index: int = optimizer._get_variable_index(variable)
    return index


def remember_what_is_not_saved() -> None:
    """Lets saving and loading a network look up once what of a layer is no part of a file.

    Reason: Keras 3 keeps these lists under another name than it looks for, so that each of the 200 layers of
    an I3D has a layer made to be listed: half the time of saving a small one, a quarter of loading it.
    """
    from keras.src.backend.common import global_state
    from keras.src.saving import saving_lib

    for kind in ("Layer", "Functional"):
        global_state.set_global_attribute(f"saving_attr_skiplist_{kind}", saving_lib.get_attr_skipset(kind))


def count_workers(strategy: tf.distribute.MultiWorkerMirroredStrategy) -> int:
    """Processes that train together.

    Reason: a cluster resolver knows addresses; what the strategy made of them is nowhere public.
    """
    count: int = strategy.extended._num_workers
    return count


def worker_number(strategy: tf.distribute.MultiWorkerMirroredStrategy) -> int:
    """This process's number among the workers, from 0; the chief's is 0.

    Reason: as for `count_workers`.
    """
    number: int = strategy.extended._id_in_cluster
    return number


def configure_coordination_service(
    jobs: Mapping[str, Iterable[str]], *, register_timeout_s: int, heartbeat_timeout_s: int
) -> None:
    """Says how long workers wait for each other; to be called before TensorFlow runs anything.

    Reason: there is no public option for it, and by default a silent worker is waited for too long.

    Args:
        jobs: name → addresses of its tasks; the first task of the first job leads.
        register_timeout_s: for all of them to come.
        heartbeat_timeout_s: after which a silent one counts as lost.
    """
    import tensorflow as tf
    from tensorflow.python.eager import context

    coordinated = tf.compat.v1.ConfigProto().experimental.coordination_config.coordinated_job_list
    for job, addresses in jobs.items():
        coordinated.add(name=job, num_tasks=len(list(addresses)))
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader=f"/job:{next(iter(jobs))}/replica:0/task:0",
        cluster_register_timeout_in_ms=register_timeout_s * 1000,
        heartbeat_timeout_in_ms=heartbeat_timeout_s * 1000,
        coordinated_jobs=list(coordinated),
    )

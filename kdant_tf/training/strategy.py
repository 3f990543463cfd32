"""From `--strategy` and `--devices` to a tf.distribute strategy."""

import functools
import os
import re

import tensorflow as tf
from tensorflow.python.eager import context

from kdant_tf.training.cluster import Cluster, ClusterError, check_port_is_free, read_cluster
from tf_records.errors import KdantError

# A worker that neither answers nor is known to have died is given up after this long. One whose process
# has ended is noticed at once, by its closed connections.
HEARTBEAT_TIMEOUT_S = 30
# How long the workers that have started wait for the others.
START_TIMEOUT_S = 600
_PATTERN = re.compile(r"(cpu|gpu)(?::([1-9]\d*))?")


def make_strategy(devices: str = "auto", strategy: str = "mirrored") -> tf.distribute.Strategy:
    """The strategy asked for; the same one whenever the same is asked for.

    Args:
        devices: "auto" (every GPU, or the CPU where there is none), "cpu", "gpu", or a number of
            them: "gpu:2", or "cpu:2" for two logical CPU devices. Of each worker, where there are several.
        strategy: "one" for OneDeviceStrategy, "mirrored" for MirroredStrategy over the devices,
            "multiworker" for MultiWorkerMirroredStrategy over the workers that TF_CONFIG lists, which has
            to be made before TensorFlow runs anything; "auto" for multiworker where TF_CONFIG lists
            several workers, else mirrored.

    Raises:
        KdantError: another text, more GPUs than there are, several devices for "one", or logical CPUs
            asked for after TensorFlow has started with another number of them.
        ClusterError: a TF_CONFIG that cannot be used, or workers that did not come.
    """
    kind, count = _parse_devices(devices)
    cluster = read_cluster() if strategy in ("auto", "multiworker") else None
    if strategy == "multiworker" and cluster is None:
        raise ClusterError(
            "`--strategy multiworker` needs the environment variable TF_CONFIG, which lists the workers. "
            "Set it on each of them, or leave --strategy out."
        )
    if cluster is not None and len(cluster.addresses) > 1:
        return _multiworker_strategy(cluster.addresses, cluster.own_address, kind, count)
    if strategy == "one" and count > 1:
        raise KdantError(
            f"`--strategy one` takes one device. Received: --devices {devices}, which are {count}."
        )
    names = tuple(f"{kind}:{i}" for i in range(count))
    if kind == "CPU":
        _make_logical_cpus(count)
    return _one_device_strategy(names[0]) if strategy == "one" else _mirrored_strategy(names)


def _parse_devices(devices: str) -> tuple[str, int]:
    """Kind and number: ("CPU", 2)."""
    found = len(tf.config.list_physical_devices("GPU"))
    if devices == "auto":
        devices = "gpu" if found else "cpu"
    match = _PATTERN.fullmatch(devices)
    if match is None:
        raise KdantError(f"`--devices` should be auto, cpu, gpu, cpu:N or gpu:N. Received: {devices!r}.")
    kind, number = match[1].upper(), match[2]
    count = int(number or (1 if kind == "CPU" else found))
    if kind == "GPU" and (count > found or count == 0):
        raise KdantError(f"`--devices {devices}` asks for more GPUs than TensorFlow sees, which are {found}.")
    return kind, count


# One strategy a set of devices: a second one would reuse the keys of the first one's collectives.
@functools.cache
def _mirrored_strategy(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    # It parses TF_CONFIG, of which it makes nothing, and fails where that is no JSON.
    ignored = os.environ.pop("TF_CONFIG", None)
    try:
        return tf.distribute.MirroredStrategy(list(devices))
    finally:
        if ignored is not None:
            os.environ["TF_CONFIG"] = ignored


@functools.cache
def _one_device_strategy(device: str) -> tf.distribute.Strategy:
    return tf.distribute.OneDeviceStrategy(f"/device:{device}")


@functools.cache
def _multiworker_strategy(
    addresses: tuple[str, ...], own_address: str, kind: str, count: int
) -> tf.distribute.Strategy:
    cluster = read_cluster()
    assert cluster is not None  # The arguments are of it.
    if kind == "CPU" and count > 1:
        raise KdantError(
            f"Several workers use one CPU device each. Received: --devices cpu:{count}. Leave it out, or "
            f"list more workers in TF_CONFIG."
        )
    check_port_is_free(cluster)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({job: list(hosts) for job, hosts in cluster.jobs.items()}),
        task_type=cluster.task_type,
        task_id=cluster.task_index,
        num_accelerators={"GPU": count} if kind == "GPU" else {},
        rpc_layer="grpc",
    )
    _configure_heartbeats(cluster)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except RuntimeError as error:
        raise ClusterError(
            "TensorFlow has started before the strategy for several workers was made. Make it in a new "
            "process, before anything else."
        ) from error
    except tf.errors.OpError as error:
        raise ClusterError(
            f"Not all of the workers {', '.join(addresses)} came within {START_TIMEOUT_S // 60} minutes. "
            f"Start the same command on each, and let them reach each other's ports."
        ) from error


def _configure_heartbeats(cluster: Cluster) -> None:
    """Sets when a silent worker is given up, for which TensorFlow has no public option."""
    jobs = tf.compat.v1.ConfigProto().experimental.coordination_config.coordinated_job_list
    for job, hosts in cluster.jobs.items():
        jobs.add(name=job, num_tasks=len(hosts))
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader=f"/job:{next(iter(cluster.jobs))}/replica:0/task:0",
        cluster_register_timeout_in_ms=START_TIMEOUT_S * 1000,
        heartbeat_timeout_in_ms=HEARTBEAT_TIMEOUT_S * 1000,
        coordinated_jobs=list(jobs),
    )


def _make_logical_cpus(count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    configured = tf.config.get_logical_device_configuration(cpu)
    if (len(configured) if configured else 1) >= count:
        return
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:
        raise KdantError(
            f"TensorFlow has started with fewer than {count} CPU devices. Ask for them in a new process."
        ) from error

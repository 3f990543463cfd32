"""Where a training runs: devices, strategy, XLA, the workers of TF_CONFIG, and what those do together."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from kdant_tf import private_apis
from kdant_tf.version import __version__
from tf_records.errors import KdantError

# A worker that neither answers nor is known to have died is given up after this long. One whose process
# has ended is noticed at once, by its closed connections.
HEARTBEAT_TIMEOUT_S = 30
# How long the workers that have started wait for the others.
START_TIMEOUT_S = 600
# What of a training step XLA compiles, and what `--xla` may be.
STEP, POOLING, NOTHING, AUTO = "step", "pooling", "nothing", "auto"
_XLA_CHOICES = (AUTO, "on", "pooling", "off")
_DEVICES = re.compile(r"(cpu|gpu)(?::([1-9]\d*))?")
# Of TF_CONFIG.
_ADDRESS = re.compile(r"(?P<host>[^\s:/]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})")
_JOBS = ("chief", "worker")
_EXAMPLE = '{"cluster": {"worker": ["HOST:PORT", "HOST:PORT"]}, "task": {"type": "worker", "index": 0}}'
_SHA256_DIGITS = 64
# What TensorFlow raises where a worker is no longer there.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


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


def choose_xla(choice: str, strategy: tf.distribute.Strategy) -> str:
    """What XLA compiles: STEP, all of a training step; POOLING, the feature loss alone; NOTHING; or AUTO.

    Args:
        choice: "on", STEP; "pooling", POOLING; "off", NOTHING; "auto", STEP on the GPUs of one machine,
            POOLING on those of several, and AUTO on CPUs, whose convolutions and matrix products oneDNN
            computes faster than XLA: POOLING for maps pooled in blocks of queries, else NOTHING.
        strategy: where the step runs.

    Raises:
        KdantError: another choice, or "on" for several CPU devices.
    """
    if choice not in _XLA_CHOICES:
        raise KdantError(f"`--xla` should be one of {', '.join(_XLA_CHOICES)}. Received: {choice!r}.")
    kinds = _device_kinds(strategy)
    if choice == "on" and kinds == {"CPU"} and strategy.num_replicas_in_sync > 1:
        raise KdantError(
            f"`--xla on` compiles for one CPU device, this training has {strategy.num_replicas_in_sync}. "
            f"Give --xla auto, or --devices cpu."
        )
    # Collectives between machines within an XLA computation are not tried.
    several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    fastest = AUTO if kinds == {"CPU"} else POOLING if several else STEP
    return {"on": STEP, "pooling": POOLING, "off": NOTHING, AUTO: fastest}[choice]


def check_precision(precision: str, strategy: tf.distribute.Strategy) -> None:
    """Refuses to train in mixed precision on a CPU.

    Raises:
        KdantError: says why.
    """
    if precision != "float32" and _device_kinds(strategy) != {"GPU"}:
        raise KdantError(
            f"`--precision {precision}` needs a GPU: in 16 bits a CPU gives filter gradients of convolutions "
            f"that are NaN. Leave it out, or give --devices gpu."
        )


def _device_kinds(strategy: tf.distribute.Strategy) -> set[str]:
    """{"CPU"} or {"GPU"}."""
    return {tf.DeviceSpec.from_string(name).device_type for name in strategy.extended.worker_devices}


def _parse_devices(devices: str) -> tuple[str, int]:
    """Kind and number: ("CPU", 2)."""
    found = len(tf.config.list_physical_devices("GPU"))
    if devices == "auto":
        devices = "gpu" if found else "cpu"
    match = _DEVICES.fullmatch(devices)
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
    private_apis.configure_coordination_service(
        cluster.jobs, register_timeout_s=START_TIMEOUT_S, heartbeat_timeout_s=HEARTBEAT_TIMEOUT_S
    )
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


class ClusterError(KdantError):
    """A TF_CONFIG that names no cluster, or one that cannot be joined."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Workers by job, and which of them this process is.

    Args:
        jobs: name → addresses "host:port"; "worker", and "chief" with one address where there is one.
        task_type, task_index: this process's job and its number there.
    """

    jobs: dict[str, tuple[str, ...]]
    task_type: str
    task_index: int

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of all workers, the chief's first."""
        return tuple(address for job in _JOBS for address in self.jobs.get(job, ()))

    @property
    def own_address(self) -> str:
        return self.jobs[self.task_type][self.task_index]


def read_cluster() -> Cluster | None:
    """The cluster that the environment's TF_CONFIG describes, or None where it is not set.

    Raises:
        ClusterError: it is no JSON, lists no workers, or this process is none of them.
    """
    text = os.environ.get("TF_CONFIG", "").strip()
    if not text:
        return None
    try:
        given = json.loads(text)
    except ValueError as error:
        raise ClusterError(f"TF_CONFIG is no JSON: {error}. It should look like {_EXAMPLE}.") from error
    jobs = _read_jobs(given)
    task = given.get("task")
    if not isinstance(task, dict) or task.get("type") not in jobs:
        raise ClusterError(
            f'TF_CONFIG should have a "task" whose "type" is {" or ".join(jobs)}. Received: {task!r}.'
        )
    task_type, index = task["type"], task.get("index")
    size = len(jobs[task_type])
    if type(index) is not int or not 0 <= index < size:
        raise ClusterError(
            f'TF_CONFIG lists {size} of job {task_type}, so its task\'s "index" should be from 0 to '
            f"{size - 1}. Received: {index!r}."
        )
    return Cluster(jobs=jobs, task_type=task_type, task_index=index)


def check_port_is_free(cluster: Cluster) -> None:
    """Refuses to start a second worker under one address: gRPC would let both listen, and mix them up.

    Raises:
        ClusterError: another process listens there.
    """
    port = int(cluster.own_address.rpartition(":")[2])
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            reason = "it is taken" if error.errno == errno.EADDRINUSE else error.strerror
            raise ClusterError(
                f"Port {port} of {cluster.own_address}, this worker's address in TF_CONFIG, cannot be used: "
                f"{reason}. End the process that listens there, or give another port to all workers."
            ) from error


def _read_jobs(given: Any) -> dict[str, tuple[str, ...]]:
    jobs = given.get("cluster") if isinstance(given, dict) else None
    if not isinstance(jobs, dict) or not jobs or not set(jobs) <= set(_JOBS):
        raise ClusterError(
            f'TF_CONFIG should list addresses under "cluster", "worker". Received: {jobs!r}. It should look '
            f"like {_EXAMPLE}."
        )
    for job, addresses in jobs.items():
        if not isinstance(addresses, list) or not addresses:
            raise ClusterError(
                f"TF_CONFIG should list the addresses of job {job}, HOST:PORT each. Received: {addresses!r}."
            )
        for address in addresses:
            match = _ADDRESS.fullmatch(address) if isinstance(address, str) else None
            if match is None or not 0 < int(match["port"]) < 65536:
                raise ClusterError(
                    f"TF_CONFIG has {address!r} among the addresses of job {job}. Give HOST:PORT."
                )
    if len(jobs.get("chief", ())) > 1:
        raise ClusterError(f"TF_CONFIG should list one chief at most. Received: {jobs['chief']!r}.")
    flat = [address for addresses in jobs.values() for address in addresses]
    if len(set(flat)) < len(flat):
        raise ClusterError(
            f"TF_CONFIG lists one address twice: {', '.join(flat)}. Give each worker its own host or port."
        )
    return {job: tuple(jobs[job]) for job in _JOBS if job in jobs}


# What the workers of one training do together; with one worker, all of it is nothing. A worker is a process;
# each has the same number of devices. The chief, worker 0, writes what a run leaves behind. Everything below
# but `is_chief`, `worker_number` and `count_workers` waits for all workers, so all have to call it in the
# same order.


class WorkerError(KdantError):
    """Workers that are gone, or do not do the same."""


def count_workers(strategy: tf.distribute.Strategy) -> int:
    """Processes that train together."""
    several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    return private_apis.count_workers(strategy) if several else 1


def worker_number(strategy: tf.distribute.Strategy) -> int:
    """This process's number among the workers, from 0; the chief's is 0."""
    return private_apis.worker_number(strategy) if count_workers(strategy) > 1 else 0


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this worker is the one that writes."""
    return worker_number(strategy) == 0


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Returns when every worker has called it."""
    _gather(strategy, [0])


def any_worker(strategy: tf.distribute.Strategy, *flags: bool) -> tuple[bool, ...]:
    """For each flag, whether it is set on any worker; the same answer on all."""
    rows = _gather(strategy, [int(flag) for flag in flags])
    return tuple(bool(column.any()) for column in rows.T)


def of_chief(strategy: tf.distribute.Strategy, number: int) -> int:
    """The chief's `number`."""
    return int(_gather(strategy, [number])[0, 0])


def check_same_on_all(strategy: tf.distribute.Strategy, values: Mapping[str, str]) -> None:
    """Refuses workers that disagree.

    Args:
        strategy: of the training.
        values: what they should agree in → what this worker has.

    Raises:
        WorkerError: another worker has something else (names all of it).
    """
    names = sorted(values)
    # First that they speak of the same things, so that the rows below are equally long.
    _compare(strategy, {"the version of kdant": f"{__version__} {names}"})
    _compare(strategy, {name: values[name] for name in names})


def _compare(strategy: tf.distribute.Strategy, values: Mapping[str, str]) -> None:
    digests = [hashlib.sha256(value.encode()).hexdigest() for value in values.values()]
    words = [int(digest[i : i + 4], 16) for digest in digests for i in range(0, _SHA256_DIGITS, 4)]
    # (workers, values, words)
    rows = _gather(strategy, words).reshape(count_workers(strategy), len(values), -1)
    differs = (rows != rows[:1]).any(axis=-1)
    if differs.any():
        names = [name for name, other in zip(values, differs.any(axis=0), strict=True) if other]
        others = [str(number) for number in np.flatnonzero(differs.any(axis=1))]
        raise WorkerError(
            f"Worker {', '.join(others)} of {len(rows)} differs from worker 0 in {', '.join(names)}. Start "
            f"the same command on the same records everywhere."
        )


@contextlib.contextmanager
def chief_first(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """The block runs on the chief, and when that has ended on the others."""
    if not is_chief(strategy):
        wait_for_all(strategy)
    yield
    if is_chief(strategy):
        wait_for_all(strategy)


@contextlib.contextmanager
def naming_lost_workers(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Says in one sentence that another worker is gone, where the block fails for that.

    Raises:
        WorkerError: in place of TensorFlow's error.
    """
    try:
        yield
    except _LOST as error:
        if count_workers(strategy) == 1:
            raise
        raise WorkerError(
            f"Another of the {count_workers(strategy)} workers has ended, or was silent for "
            f"{HEARTBEAT_TIMEOUT_S} s; its own output says why. Start all of them again with --resume."
        ) from error


def _gather(strategy: tf.distribute.Strategy, row: list[int]) -> np.ndarray:
    """Every worker's row of whole numbers below 2^24, `(workers, len(row))`."""
    workers, own = count_workers(strategy), worker_number(strategy)
    if workers == 1:
        return np.array([row])
    devices = len(strategy.extended.worker_devices)

    def rows_of(context: Any) -> tf.Tensor:
        # Zero but for this worker's row on its first device, so that the sum has each row once.
        own_row = np.zeros((workers, len(row)), np.float32)
        if context.replica_id_in_sync_group % devices == 0:
            own_row[own] = row
        return tf.constant(own_row)

    rows = strategy.experimental_distribute_values_from_function(rows_of)
    table: np.ndarray = strategy.reduce("SUM", rows, axis=None).numpy()
    return table.astype(np.int64)

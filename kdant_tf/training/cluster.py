"""Which workers train together, read from TF_CONFIG and checked before anything waits for them."""

import dataclasses
import errno
import json
import os
import re
import socket
from typing import Any

from tf_records.errors import KdantError

_ADDRESS = re.compile(r"(?P<host>[^\s:/]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})")
_JOBS = ("chief", "worker")
_EXAMPLE = '{"cluster": {"worker": ["HOST:PORT", "HOST:PORT"]}, "task": {"type": "worker", "index": 0}}'


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

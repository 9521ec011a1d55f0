"""Which processes train together: TF_CONFIG or Slurm's environment → the workers' addresses and this one's place.

Without TensorFlow, so that a worker knows which one it is before it says anything.
"""

import json
import logging
import re
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from pimms_tf.errors import InputError

log = logging.getLogger(__name__)

# Slurm names nodes but no ports; jobs on one node, and the steps of a job, take ports that lie apart.
_FIRST_PORT, _PORTS_PER_STEP, _STEPS_PER_JOB, _NUM_PORTS = 10000, 16, 8, 20000
_NUMBERS = ("SLURM_JOB_ID", "SLURM_STEP_ID")


@dataclass(frozen=True)
class Cluster:
    """The workers of a run, each `host:port`, and which of them this process is. Worker 0 is the chief."""

    workers: tuple[str, ...]
    index: int

    def named(self, indices: Iterable[int]) -> str:
        """Returns workers as a message calls them, such as "worker 1 (node2:10000)"."""
        return " and ".join(f"worker {index} ({self.workers[index]})" for index in indices)

    def meet(self, says_every_s: float = 30.0) -> None:
        """Returns when each of the others has been there; logs now and then which ones have not.

        While it waits, connections to its own port are accepted, at every address of the machine, where TensorFlow's
        server will accept them later, which knows no other way.

        Raises:
            OSError: the port is in use.
        """
        port = int(self.workers[self.index].rpartition(":")[2])
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        missing, said = [n for n in range(len(self.workers)) if n != self.index], time.monotonic()
        with socket.create_server(("", port), family=family, backlog=len(self.workers), dualstack_ipv6=both):
            while missing := [n for n in missing if not self._answers(n, 1.0)]:
                if time.monotonic() - said > says_every_s:
                    log.warning("still waiting for %s", self.named(missing))
                    said = time.monotonic()
                time.sleep(0.2)

    def unreachable(self, timeout_s: float) -> list[int]:
        """Returns the other workers whose address accepts no connection within `timeout_s` seconds each."""
        return [n for n in range(len(self.workers)) if n != self.index and not self._answers(n, timeout_s)]

    def _answers(self, index: int, timeout_s: float) -> bool:
        host, _, port = self.workers[index].rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout_s):
                return True
        except OSError:
            return False


def cluster_for(word: str, environ: Mapping[str, str]) -> Cluster | None:
    """Returns the cluster that a training with this `strategy` belongs to, None for a process by itself.

    Raises:
        InputError: a description with a mistake.
    """
    return cluster_of(environ, whole_job=word == "multi_worker") if word in ("auto", "multi_worker") else None


@contextmanager
def ranked_log(cluster: Cluster | None) -> Iterator[None]:
    """Lets a worker that is not the chief say only what goes wrong with it, and which worker it is.

    Logs of all workers often end in one file, where the progress of each would say the same.
    """
    if cluster is None or cluster.index == 0:
        yield
        return

    def ranked(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING and not hasattr(record, "worker"):
            record.msg, record.args = f"{cluster.named([cluster.index])}: {record.getMessage()}", ()
            record.worker = cluster.index
        return hasattr(record, "worker")

    handlers = list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(ranked)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(ranked)


def cluster_of(environ: Mapping[str, str], whole_job: bool = False) -> Cluster | None:
    """Returns the cluster that TF_CONFIG or else Slurm describes, None where neither does.

    Args:
        environ: the environment, as `os.environ`.
        whole_job: whether the variables of a Slurm job count, too, and not only those of a step that srun started: the
            script of a batch job carries the former though it runs once.

    Raises:
        InputError: a description with a mistake.
    """
    if environ.get("TF_CONFIG", "").strip() not in ("", "{}"):
        return _from_tf_config(environ["TF_CONFIG"])
    if "SLURM_PROCID" in environ and ("SLURM_STEP_NODELIST" in environ or whole_job):
        return _from_slurm(environ)
    return None


def _from_tf_config(text: str) -> Cluster:
    try:
        settings = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"TF_CONFIG is not JSON ({error}): {text}") from error
    example = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
    cluster = settings.get("cluster") if isinstance(settings, dict) else None
    task = settings.get("task") if isinstance(settings, dict) else None
    if not isinstance(cluster, dict) or not isinstance(task, dict):
        raise InputError(f"TF_CONFIG needs a cluster and a task, such as {example}; got {text}")
    others = set(cluster) - {"chief", "worker", "evaluator"}
    if others:
        raise InputError(
            f"TF_CONFIG lists tasks of type {', '.join(sorted(others))}: training knows chief and worker, which all "
            "learn alike"
        )
    lists = {kind: cluster.get(kind, []) for kind in ("chief", "worker")}
    for kind, addresses in lists.items():
        for address in addresses if isinstance(addresses, list) else [addresses]:
            if not isinstance(address, str) or not re.fullmatch(r".+:\d+", address):
                raise InputError(f"TF_CONFIG lists the {kind} address {address!r}, which is not of the form host:port")
        if not isinstance(addresses, list):
            raise InputError(f"TF_CONFIG gives {kind} as {addresses!r}; it is a list of addresses, such as {example}")
    workers = tuple(lists["chief"] + lists["worker"])
    if len(set(workers)) != len(workers):
        twice = next(address for address in workers if workers.count(address) > 1)
        raise InputError(f"TF_CONFIG lists the address {twice} twice; every worker has its own")
    kind, index = task.get("type"), task.get("index", 0)
    if kind not in lists or not lists[kind]:
        there = " and ".join(name for name, addresses in lists.items() if addresses) or "none"
        raise InputError(f"TF_CONFIG calls this task {kind!r}, but its cluster has tasks of type {there}")
    if not re.fullmatch(r"\d+", str(index)) or int(index) >= len(lists[kind]):
        raise InputError(
            f"TF_CONFIG calls this task {kind} {index}, but its cluster has {kind} 0 to {len(lists[kind]) - 1}"
        )
    return Cluster(workers, int(index) + (len(lists["chief"]) if kind == "worker" else 0))


def _from_slurm(environ: Mapping[str, str]) -> Cluster:
    # TensorFlow's SlurmClusterResolver sorts hosts as text, which puts n10 before n2 while Slurm numbers its tasks the
    # other way round, and asks nvidia-smi for GPUs even where there are none; hence this reading of the same variables.
    hosts = _hosts(_slurm(environ, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"))
    num = _number(environ, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS")
    index = _number(environ, "SLURM_PROCID")
    given = next((environ[key] for key in ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE") if key in environ), "")
    per_host = (
        _tasks_per_node(given) if given else [num // len(hosts) + (n < num % len(hosts)) for n in range(len(hosts))]
    )
    if len(per_host) != len(hosts) or sum(per_host) != num:
        raise InputError(
            f"Slurm gives {num} tasks, but {given or per_host} on the {len(hosts)} nodes {', '.join(hosts)}: start "
            "pimms-tf with srun, so that these agree"
        )
    if index >= num:
        raise InputError(f"SLURM_PROCID = {index}, but there are only {num} tasks, counted from 0")
    job, step = (int(text) if (text := environ.get(key, "")).isdigit() else 0 for key in _NUMBERS)
    first = _FIRST_PORT + (job * _STEPS_PER_JOB + step) * _PORTS_PER_STEP % _NUM_PORTS
    workers = [f"{host}:{first + n}" for host, tasks in zip(hosts, per_host, strict=True) for n in range(tasks)]
    return Cluster(tuple(workers), index)


def _slurm(environ: Mapping[str, str], *keys: str) -> str:
    for key in keys:
        if environ.get(key, "").strip():
            return environ[key].strip()
    raise InputError(f"SLURM_PROCID is set but {keys[0]} is not: start pimms-tf with srun, or set TF_CONFIG")


def _number(environ: Mapping[str, str], *keys: str) -> int:
    text = _slurm(environ, *keys)
    if not text.isdigit():
        raise InputError(f"{keys[0]} = {text} is not a number of tasks")
    return int(text)


def _hosts(text: str) -> list[str]:
    """Returns the hosts of Slurm's short form: "n[08-10,12],gpu3" is n08, n09, n10, n12 and gpu3."""
    hosts = []
    for part in re.findall(r"[^,\[\]]+(?:\[[^\]]*\][^,\[\]]*)?|.", text.replace(" ", "")):
        match = re.fullmatch(r"([^,\[\]]+)(?:\[([\d,-]+)\]([^,\[\]]*))?", part)
        if match is None:
            if part == ",":
                continue
            raise InputError(f"{text} is not a list of Slurm nodes, such as n[01-03],gpu1")
        prefix, ranges, suffix = match.groups()
        if ranges is None:
            hosts.append(prefix)
            continue
        for one in ranges.split(","):
            limits = re.fullmatch(r"(\d+)(?:-(\d+))?", one)
            if limits is None:
                raise InputError(f"{text} is not a list of Slurm nodes, such as n[01-03],gpu1")
            first, last = limits[1], limits[2] or limits[1]
            hosts += [f"{prefix}{n:0{len(first)}d}{suffix}" for n in range(int(first), int(last) + 1)]
    return hosts


def _tasks_per_node(text: str) -> list[int]:
    """Returns the numbers of Slurm's short form: "3(x2),1" is 3, 3, 1."""
    tasks = []
    for part in text.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if match is None:
            raise InputError(f"SLURM_STEP_TASKS_PER_NODE = {text} is not a list of numbers such as 2(x3),1")
        tasks += [int(match[1])] * int(match[2] or 1)
    return tasks

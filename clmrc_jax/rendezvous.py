"""Where the processes of a run find each other before JAX does, so that the absent have names.

`jax.distributed.initialize` hangs, or fails without saying who is missing, when a host did not
start or a port is closed. So process 0 first listens for a moment on the very port that JAX will
use, every other process says hello there, and all get one verdict. Plain sockets, JSON lines.
"""

import contextlib
import dataclasses
import json
import os
import re
import socket
import time
from collections.abc import Callable, Mapping

from clmrc_jax.files import InputError

GREETING = "clmrc_jax preflight 1"  # tells our processes from whatever else may use the port
HANDSHAKE_SECONDS = 10.0
_EXPLICIT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes of one run.

    address: "host:port" of process 0, "" when there is one process.  process: this one's index.
    hosts: host of every process, in order, where the environment tells; else empty.
    """

    address: str = ""
    processes: int = 1
    process: int = 0
    hosts: tuple[str, ...] = ()

    def __post_init__(self):
        if not 0 <= self.process < self.processes:
            raise InputError(f"process {self.process} of {self.processes}: no such process")
        if self.processes > 1 and not re.fullmatch(r".+:\d+", self.address):
            raise InputError(f"coordinator address {self.address!r}: must be HOST:PORT")

    @property
    def port(self) -> int:
        """The coordinator's port."""
        return int(self.address.rpartition(":")[2])

    @property
    def coordinator(self) -> str:
        """The coordinator's host name or IP address."""
        return self.address.rpartition(":")[0].strip("[]")

    def name(self, process: int) -> str:
        """What to call a process in a message, with its host where known."""
        host = self.hosts[process : process + 1]
        return f"process {process}" + (f" (host {host[0]})" if host else "")


@dataclasses.dataclass(frozen=True)
class Arrival:
    """One process that came.  ahead: seconds its clock is ahead of process 0's; facts: JSON."""

    process: int
    host: str
    ahead: float
    facts: dict

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return f"{self.host} (process {self.process})"


def find_cluster(timeout: float = 180.0, environment: Mapping[str, str] = os.environ) -> Cluster:
    """The cluster this process belongs to: by three variables, or by what JAX detects.

    The variables JAX_COORDINATOR_ADDRESS (HOST:PORT), JAX_NUM_PROCESSES and JAX_PROCESS_ID count
    first; else TPU slices, SLURM and Open MPI are recognised; else there is one process.
    timeout: seconds to wait for process 0's host name to resolve. Starts no JAX backend.
    """
    address, processes, process = (environment.get(name, "") for name in _EXPLICIT)
    if processes or process:
        for name in _EXPLICIT:
            if not environment.get(name):
                raise InputError(f"{name} is not set; set all of {', '.join(_EXPLICIT)}, or none")
        if not (processes.isdigit() and process.isdigit()):
            raise InputError(
                f"JAX_NUM_PROCESSES={processes}, JAX_PROCESS_ID={process}: must be integers"
            )
        return Cluster(address, int(processes), int(process))
    address, processes, process = _detected(address or None, timeout)
    if processes in (None, 1):
        return Cluster()
    return Cluster(address, processes, process, _host_names(environment, processes))


def require_one_process(command: str) -> None:
    """Raises InputError where a command that works in one process was started in several."""
    cluster = find_cluster(timeout=10.0)
    if cluster.processes > 1:
        raise InputError(
            f"{command} works in one process, and this is {cluster.name(cluster.process)} of "
            f"{cluster.processes}: start it once (srun --ntasks=1), and not on a TPU slice of several "
            "hosts. A process that is alone in spite of its environment says so with "
            "JAX_NUM_PROCESSES=1 JAX_PROCESS_ID=0 JAX_COORDINATOR_ADDRESS=localhost:1"
        )


def _detected(address, timeout):
    """(address, processes, process) as `jax.distributed.initialize` would find them, or Nones."""
    try:
        from jax._src.clusters import ClusterEnv

        detect = ClusterEnv.auto_detect_unset_distributed_params
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"this version of jax detects clusters in a way unknown here ({error}); set "
            + ", ".join(_EXPLICIT)
        ) from error
    try:
        return detect(address, None, None, None, None, int(timeout))[:3]
    except RuntimeError as error:  # the coordinator's name does not resolve
        raise InputError(f"process 0 was not found within {timeout:.0f} s: {error}") from error


def _host_names(environment, processes: int) -> tuple[str, ...]:
    names = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
    if len(names) <= 1:
        names = expand_hosts(environment.get("SLURM_STEP_NODELIST", ""))
    if not names or processes % len(names):
        return ()
    each = processes // len(names)  # block distribution, SLURM's default
    return tuple(name for name in names for _ in range(each))


def expand_hosts(text: str) -> list[str]:
    """SLURM's "node[01-03,7],login" as ["node01", "node02", "node03", "node7", "login"]."""
    names = []
    for prefix, inside in re.findall(r"([^,\[\]]+)(?:\[([^\]]*)\])?", text):
        for part in inside.split(",") if inside else [""]:
            first, _, last = part.partition("-")
            numbers = range(int(first), int(last) + 1) if last else []
            names += [f"{prefix}{n:0{len(first)}}" for n in numbers] or [prefix + part]
    return names


def meet(
    cluster: Cluster,
    facts: dict,
    judge: Callable[[list[Arrival]], list[str]],
    *,
    timeout: float,
    clock: Callable[[], float] = time.time,
) -> list[str]:
    """Waits until all processes of the cluster are here; returns their names, in order.

    facts: what this process tells about itself, JSON.  judge: called on process 0 with all
    arrivals; its list of problems reaches every process.  clock: this host's time in seconds.
    Raises InputError, the same on every process that can be reached, naming who did not come
    within `timeout` seconds, the port that is closed, or what `judge` found.
    """
    role = _host if cluster.process == 0 else _join
    verdict = role(cluster, facts, judge, time.monotonic() + timeout, timeout, clock)
    if verdict["problems"]:
        problems = "\n".join(f"  - {problem}" for problem in verdict["problems"])
        raise InputError(f"preflight of {cluster.processes} processes failed:\n{problems}")
    return verdict["names"]


def _host(cluster, facts, judge, deadline, timeout, clock) -> dict:
    """Process 0: collects the others, judges, and tells them."""
    arrivals = {0: Arrival(0, socket.gethostname(), 0.0, facts)}
    problems, lines = [], {}
    with contextlib.ExitStack() as open_lines:
        listener = open_lines.enter_context(_listen(cluster))
        while len(arrivals) < cluster.processes and (left := deadline - time.monotonic()) > 0:
            listener.settimeout(left)
            with contextlib.suppress(OSError, ValueError, KeyError):  # not one of us: next
                line = open_lines.enter_context(listener.accept()[0])
                arrival = _welcome(line, clock)
                if problem := _intruder(cluster, arrivals, arrival):
                    problems.append(problem)
                    _send(line, {"problems": problems, "names": []})
                    break
                arrivals[arrival.process], lines[arrival.process] = arrival, line
        here = [arrivals[process] for process in sorted(arrivals)]
        missing = [cluster.name(i) for i in range(cluster.processes) if i not in arrivals]
        if missing and not problems:
            problems.append(_absence(cluster, here, missing, timeout))
        problems = problems or judge(here)
        verdict = {"problems": problems, "names": [arrival.name for arrival in here]}
        for line in lines.values():
            with contextlib.suppress(OSError):  # it died meanwhile; JAX will notice
                _send(line, verdict)
    return verdict


def _listen(cluster: Cluster) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(
            ("", cluster.port), family=family, dualstack_ipv6=both, backlog=1024
        )
    except OSError as error:
        raise InputError(
            f"{socket.gethostname()}: cannot listen on port {cluster.port} ({error.strerror}): an "
            f"earlier run may still be alive. Find it (sudo lsof -i :{cluster.port}), stop it, or "
            "set JAX_COORDINATOR_PORT to another port on every host"
        ) from error


def _welcome(line: socket.socket, clock) -> Arrival:
    """Asks a caller who it is and what its clock says, as NTP does: half a round trip apart."""
    line.settimeout(HANDSHAKE_SECONDS)
    sent = clock()
    _send(line, {"greeting": GREETING})
    hello = _receive(line)
    received = clock()
    ahead = hello["clock"] - (sent + received) / 2
    return Arrival(int(hello["process"]), hello["host"], ahead, hello["facts"])


def _intruder(cluster, arrivals, new: Arrival) -> str | None:
    """What is wrong with a process's number, if anything. A restarted process may come again."""
    if not 0 <= new.process < cluster.processes:
        return (
            f"{new.name} came, but this run has {cluster.processes} processes: start the same "
            "number everywhere"
        )
    old = arrivals.get(new.process)
    if old and (old.host != new.host or new.process == 0):
        return f"two hosts say they are process {new.process}: {old.host} and {new.host}"
    return None


def _absence(cluster, here, missing, timeout) -> str:
    few = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if missing[8:] else "")
    return (
        f"{few} did not come within {timeout:.0f} s; {len(here)} of {cluster.processes} did "
        f"({', '.join(arrival.host for arrival in here[:8])}). Look whether the program started "
        f"there (on a TPU slice, process N is --worker=N), and whether {cluster.address} can be "
        "reached from there"
    )


def _join(cluster, facts, judge, deadline, timeout, clock) -> dict:
    """Any other process: calls until process 0 answers, and takes its verdict."""
    reason = "no attempt was made"
    while (left := deadline - time.monotonic()) > 0:
        try:
            where = cluster.coordinator, cluster.port
            with socket.create_connection(where, timeout=min(HANDSHAKE_SECONDS, left)) as line:
                return _introduce(line, cluster, facts, left, clock)
        except socket.gaierror as error:
            reason = f"the name {cluster.coordinator} does not resolve ({error.strerror})"
        except ConnectionRefusedError:
            reason = (
                "the host refuses the port: process 0 has not started there, or has ended; read "
                "its log"
            )
        except TimeoutError:
            reason = (
                f"no answer: a firewall closes the port, or the host is down. Open it (gcloud "
                f"compute firewall-rules create clmrc-jax --network=NETWORK --allow=tcp:"
                f"{cluster.port} --source-ranges=10.0.0.0/8), or set JAX_COORDINATOR_PORT to an "
                "open one"
            )
        except ValueError:
            reason = "another program answers there; set JAX_COORDINATOR_PORT to a free port"
        except OSError as error:
            reason = f"{error.strerror or error}; process 0 may have died: read its log"
        time.sleep(min(0.5, max(0.0, deadline - time.monotonic())))
    raise InputError(
        f"{socket.gethostname()}, process {cluster.process}: process 0 at {cluster.address} was "
        f"not reached within {timeout:.0f} s: {reason}"
    )


def _introduce(line, cluster, facts, left, clock) -> dict:
    if _receive(line).get("greeting") != GREETING:
        raise ValueError("not ours")
    hello = {"process": cluster.process, "host": socket.gethostname(), "facts": facts}
    _send(line, hello | {"clock": clock()})
    line.settimeout(left + HANDSHAKE_SECONDS)  # process 0 may have started to wait later
    return _receive(line)


def _send(line: socket.socket, message: dict) -> None:
    line.sendall(json.dumps(message).encode() + b"\n")


def _receive(line: socket.socket) -> dict:
    """One JSON line. Raises OSError when the other side has gone, ValueError for other talk."""
    with line.makefile("rb") as file:
        text = file.readline(1 << 24)
    if not text.endswith(b"\n"):
        if text:
            raise ValueError("not a line")
        raise ConnectionResetError("the line was closed")
    message = json.loads(text)
    if not isinstance(message, dict):
        raise ValueError("not an object")
    return message

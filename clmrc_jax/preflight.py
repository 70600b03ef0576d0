"""The first seconds of every run: are all hosts here, alike, and able to write?

One call, before anything else touches JAX:

    preflight.check(config, workdir)

finds the cluster, lets its processes meet, compares them, joins them with
`jax.distributed.initialize`, and looks at the devices. Whatever is wrong ends every process
within five minutes with one message that names the host, never with a silent hang.
"""

import contextlib
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

from etils import epath

from clmrc_jax.backends import chip_files
from clmrc_jax.files import InputError
from clmrc_jax.rendezvous import Arrival, Cluster, find_cluster, meet

MEET_SECONDS = 135  # with the two below: five minutes at most
JOIN_SECONDS = 60  # and 15 for jax itself to give up
DEVICE_SECONDS = 90  # a large slice takes its time
PROBE_SECONDS = 60
HEARTBEAT_SECONDS = 100  # a process silent for so long is dead, and ends all the others
PACKAGES = ("jax", "jaxlib", "libtpu", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
# Variables that change what is compiled; those that differ by process by nature are left out.
_COMPILER = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "JAX_PLATFORMS", "JAX_ENABLE_X64")
_SHOWN = 6  # differences of one kind in a message


def check(
    config: dict,
    workdir: str | os.PathLike,
    *,
    cluster: Cluster | None = None,
    timeout: float = MEET_SECONDS,
    free_gib: float = 1.0,
    max_skew: float = 60.0,
    heartbeat: int = HEARTBEAT_SECONDS,
    clock: Callable[[], float] = time.time,
) -> dict:
    """Checks hosts and workdir, and starts `jax.distributed` when there are several processes.

    config: JSON values that must be equal on all hosts.  workdir: local (then shared by all
    hosts) or gs://.  cluster: default what the environment says.  timeout: seconds that all
    processes have to come.  free_gib: disk that must be free in a local workdir.  max_skew:
    seconds that clocks may differ.  heartbeat: seconds after which a silent process counts as
    dead and ends the others.  clock: this host's time in seconds.
    returns: {"processes", "process", "hosts", "devices": {kind: count}, "seconds"}.
    Raises InputError with every problem found, the same text on every process.
    """
    begin = time.monotonic()
    cluster = cluster or find_cluster(timeout)
    with probe(workdir, cluster.process, free_gib) as problems:
        facts = {**host_facts(config), "problems": problems}

        def judge(arrivals: list[Arrival]) -> list[str]:
            return _judge(arrivals, workdir, max_skew)

        if cluster.processes > 1:
            left = max(min(timeout, 10.0), begin + timeout - time.monotonic())  # names took a part
            hosts = meet(cluster, facts, judge, timeout=left, clock=clock)
        elif problems:
            raise InputError("; ".join(problems))
        else:
            hosts = [f"{socket.gethostname()} (process 0)"]
    join(cluster, heartbeat=heartbeat)
    return {
        "processes": cluster.processes,
        "process": cluster.process,
        "hosts": hosts,
        "devices": check_devices(cluster.processes),
        "seconds": round(time.monotonic() - begin, 2),
    }


def host_facts(config: dict) -> dict:
    """What must be equal on all hosts: {"config", "package", "code", "variable"}, flat JSON."""
    packages = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            packages[name] = importlib.metadata.version(name)
    return {
        "config": _flat(config),
        "package": packages,
        "code": {"clmrc_jax": _code_hash()},
        "variable": {name: os.environ[name] for name in _COMPILER if name in os.environ},
    }


def _flat(value, path: str = "") -> dict[str, str]:
    """{"a": {"b": 1}} as {"a.b": "1"}."""
    if not isinstance(value, dict):
        return {path: repr(value)}
    flat = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{path}.{key}" if path else str(key))
    return flat


def _code_hash() -> str:
    folder = pathlib.Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()[:12]


@contextlib.contextmanager
def probe(workdir: str | os.PathLike, process: int, free_gib: float) -> Iterator[list[str]]:
    """Writes a small file into the workdir for as long as the block runs; yields the problems."""
    problems, path = [], _probe_path(workdir, process)
    try:
        with time_limit(PROBE_SECONDS, f"writing to workdir {workdir} (is its server away?)"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(socket.gethostname())
    except Exception as error:  # every file system has its own exceptions
        remedy = (
            "install '.[gcs]', check the bucket's name, and let the VM's service account write "
            "there (roles/storage.objectAdmin)"
            if "://" in str(workdir)
            else "give another --workdir, or permission to write there"
        )
        problems.append(f"cannot write to workdir {workdir} ({error}); {remedy}")
    problems += _full_disks(workdir, free_gib)
    try:
        yield problems
    finally:
        with contextlib.suppress(Exception):
            path.unlink(missing_ok=True)


def _probe_path(workdir, process: int) -> epath.Path:
    return epath.Path(workdir) / f".preflight-{process}"


def _full_disks(workdir, free_gib: float) -> list[str]:
    """Too little room in a local workdir, or for temporary files."""
    wanted = {tempfile.gettempdir(): min(free_gib, 0.5)}
    if "://" not in str(workdir) and os.path.isdir(workdir):
        wanted[os.fspath(workdir)] = free_gib
    problems = []
    for folder, gib in wanted.items():
        free = shutil.disk_usage(folder).free / 2**30
        if free < gib:
            problems.append(
                f"{folder} has {free:.1f} GiB free, {gib:g} GiB are needed; free space, use "
                "another disk, or a gs:// workdir"
            )
    return problems


def _judge(arrivals: list[Arrival], workdir, max_skew: float) -> list[str]:
    """All problems of a complete cluster; runs on process 0."""
    problems = [f"{a.name}: {text}" for a in arrivals for text in a.facts["problems"]]
    for kind in ("config", "package", "code", "variable"):
        problems += differences(kind, arrivals)
    for arrival in arrivals:
        if abs(arrival.ahead) > max_skew:
            way = "ahead of" if arrival.ahead > 0 else "behind"
            problems.append(
                f"{arrival.name}: its clock is {abs(arrival.ahead):.0f} s {way} that of "
                f"{arrivals[0].name}, {max_skew:g} s are allowed; turn on time synchronisation "
                "(sudo timedatectl set-ntp true)"
            )
    return problems or _separate_workdirs(arrivals, workdir)


def differences(kind: str, arrivals: list[Arrival]) -> list[str]:
    """One line per key of `facts[kind]` whose value is not that of process 0 on some host."""
    first, found = arrivals[0].facts[kind], []
    names = {name for arrival in arrivals for name in arrival.facts[kind]}
    for name in sorted(names):
        mine = first.get(name, "unset")
        others = [a for a in arrivals if a.facts[kind].get(name, "unset") != mine]
        if others:
            theirs = others[0].facts[kind].get(name, "unset")
            more = f" and on {len(others) - 1} more" if others[1:] else ""
            found.append(
                f"{kind} {name} differs: {mine} on {arrivals[0].name}, {theirs} on "
                f"{others[0].name}{more}"
            )
    left_out = [f"{len(found) - _SHOWN} more {kind} differences"] if found[_SHOWN:] else []
    return found[:_SHOWN] + left_out


def _separate_workdirs(arrivals, workdir) -> list[str]:
    """Names the hosts whose file in the workdir process 0 does not see."""
    waits = iter((0.5, 1.0, 2.0, 0.0))  # network file systems may show it a moment later
    absent = arrivals
    for wait in waits:
        absent = [a for a in absent if not _probe_path(workdir, a.process).exists()]
        if not absent:
            return []
        time.sleep(wait)
    return [
        f"workdir {workdir} on {arrival.name} is another folder than on {arrivals[0].name}; use "
        "gs:// or a folder that all hosts mount"
        for arrival in absent[:_SHOWN]
    ]


def join(cluster: Cluster, *, heartbeat: int = HEARTBEAT_SECONDS) -> None:
    """`jax.distributed.initialize` with a time limit; nothing for a single process.

    heartbeat: seconds without a sign of life after which a process counts as dead; the service
    then ends all the others, so that none waits in a collective for ever.
    """
    if cluster.processes == 1:
        return
    import jax

    if jax.distributed.is_initialized():
        raise RuntimeError("preflight.check must come before jax.distributed.initialize")
    what = f"joining the processes at {cluster.address}"
    with time_limit(JOIN_SECONDS + 15, what):
        try:
            jax.distributed.initialize(
                cluster.address,
                cluster.processes,
                cluster.process,
                initialization_timeout=JOIN_SECONDS,
                heartbeat_timeout_seconds=heartbeat,
            )
        except RuntimeError as error:
            raise InputError(
                f"{socket.gethostname()}, process {cluster.process}: {what} failed although all "
                f"had met there: {error}. A process died in between, or a proxy variable "
                "(http_proxy) diverts the connection: read the other logs"
            ) from error


def check_devices(processes: int) -> dict[str, int]:
    """{device kind: count} over all processes; starts the backend.

    Raises InputError when kinds are mixed, processes hold unequal numbers of devices, or a host
    with TPU chips has fallen back to its CPU, which would train for weeks at the chips' price.
    """
    import jax

    with time_limit(DEVICE_SECONDS, "starting the devices (is another program using them?)"):
        devices = jax.devices()
    chips = chip_files()
    if chips and devices[0].platform == "cpu" and not os.environ.get("JAX_PLATFORMS"):
        raise InputError(
            f"{socket.gethostname()} has accelerators ({chips[0]}), but JAX runs on its CPU: "
            "pip install '.[tpu]', and end other programs that hold the chips; to run on the CPU "
            "set JAX_PLATFORMS=cpu"
        )
    kinds, held = {}, dict.fromkeys(range(processes), 0)
    for device in devices:
        kinds[device.device_kind] = kinds.get(device.device_kind, 0) + 1
        held[device.process_index] = held.get(device.process_index, 0) + 1
    if len(kinds) > 1:
        where = {
            kind: [d.process_index for d in devices if d.device_kind == kind] for kind in kinds
        }
        shown = "; ".join(f"{kind} on process {sorted(set(at))}" for kind, at in where.items())
        raise InputError(f"devices of several kinds: {shown}. Use hosts of one kind")
    if len(held) != processes or len(set(held.values())) > 1:
        raise InputError(
            f"devices per process: {held}, expected the same number on each of {processes} "
            "processes. Restart the hosts that see fewer, and set JAX_PLATFORMS where one has "
            "fallen back to the CPU"
        )
    return kinds


@contextlib.contextmanager
def time_limit(seconds: float, what: str) -> Iterator[None]:
    """Ends the process with a message when the block takes longer: even one stuck in C++."""

    def end() -> None:
        host = socket.gethostname()
        print(f"error: {host}: {what} took over {seconds:.0f} s", file=sys.stderr, flush=True)
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()

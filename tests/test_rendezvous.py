"""Processes that meet before JAX starts; here threads with sockets of their own."""

import concurrent.futures
import os
import socket
import subprocess
import sys
import time

import pytest

from clmrc_jax.files import InputError
from clmrc_jax.rendezvous import Cluster, expand_hosts, find_cluster, meet, require_one_process


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def gather(arrivals):
    """A judge without objections, and what it saw."""
    return lambda here: arrivals.extend(here) or []


def run(*calls):
    """The result or the error's text of every call, all made at once."""

    def outcome(call):
        try:
            return call()
        except InputError as error:
            return str(error)

    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(outcome, calls))


def party(processes, present=None, port=None, judge=lambda here: [], timeout=5.0, clocks=()):
    """The outcomes of `present` processes (default all) of one meeting."""
    port = port or free_port()
    present = range(processes) if present is None else present
    clusters = [Cluster(f"localhost:{port}", processes, i) for i in present]
    clocks = dict(zip(present, clocks))
    return run(
        *(
            lambda c=c: meet(
                c, {"n": c.process}, judge, timeout=timeout, clock=clocks.get(c.process, time.time)
            )
            for c in clusters
        )
    )


def test_meet_all_come_everyone_learns_all_names():
    arrivals = []
    outcomes = party(3, judge=gather(arrivals))
    assert outcomes[0] == outcomes[1] == outcomes[2] and len(outcomes[0]) == 3
    assert [a.process for a in arrivals] == [0, 1, 2]
    assert [a.facts for a in arrivals] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert all(abs(a.ahead) < 1 for a in arrivals)


def test_meet_missing_process_is_named_to_all_who_came():
    outcomes = party(3, present=[0, 2], timeout=1.0)
    for text in outcomes:
        assert "process 1 did not come within 1 s; 2 of 3 did" in text


def test_meet_missing_host_is_named_where_the_environment_knows_it():
    cluster = Cluster(f"localhost:{free_port()}", 2, 0, ("ann", "bob"))
    with pytest.raises(InputError, match=r"process 1 \(host bob\) did not come"):
        meet(cluster, {}, lambda here: [], timeout=0.2)


def test_meet_without_process_0_says_the_port_is_refused():
    cluster = Cluster(f"localhost:{free_port()}", 2, 1)
    with pytest.raises(InputError, match="process 0 at localhost:.*refuses the port"):
        meet(cluster, {}, lambda here: [], timeout=0.3)


def test_meet_closed_port_is_named_with_the_firewall_command():
    # A listener whose queue is full drops further calls, as a firewall does.
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        callers = [socket.socket() for _ in range(8)]
        for caller in callers:
            caller.setblocking(False)
            caller.connect_ex(("127.0.0.1", port))
        with pytest.raises(InputError, match=f"firewall-rules create .*tcp:{port}"):
            meet(Cluster(f"127.0.0.1:{port}", 2, 1), {}, lambda here: [], timeout=0.5)
        for caller in callers:
            caller.close()


def test_meet_unknown_coordinator_name_is_said():
    with pytest.raises(InputError, match="nowhere.invalid does not resolve"):
        meet(Cluster("nowhere.invalid:1", 2, 1), {}, lambda here: [], timeout=0.1)


def test_meet_verdict_of_the_judge_reaches_every_process():
    outcomes = party(2, judge=lambda here: ["the moon is wrong"])
    assert all("preflight of 2 processes failed:\n  - the moon is wrong" in x for x in outcomes)


def test_meet_clock_offset_is_measured_against_process_0():
    arrivals = []
    party(2, judge=gather(arrivals), clocks=(time.time, lambda: time.time() - 3600))
    assert arrivals[1].ahead == pytest.approx(-3600, abs=1)


def test_meet_stranger_on_the_port_does_no_harm():
    port = free_port()
    clusters = [Cluster(f"localhost:{port}", 2, i) for i in range(2)]

    def stranger():
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                with socket.create_connection(("localhost", port), timeout=1) as line:
                    line.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    return "called"
            except OSError:
                time.sleep(0.02)

    def late():
        time.sleep(0.3)
        return meet(clusters[1], {}, lambda here: [], timeout=5)

    outcomes = run(lambda: meet(clusters[0], {}, lambda here: [], timeout=5), stranger, late)
    assert outcomes[1] == "called" and outcomes[0] == outcomes[2] and len(outcomes[0]) == 2


def test_meet_wrong_number_of_processes_is_an_error_on_both():
    port = free_port()
    two, three = Cluster(f"localhost:{port}", 2, 0), Cluster(f"localhost:{port}", 3, 2)
    outcomes = run(
        *(lambda c=c: meet(c, {}, lambda here: [], timeout=5) for c in (two, three)),
    )
    assert all("process 2) came, but this run has 2 processes" in text for text in outcomes)


def test_meet_busy_port_is_named():
    with socket.create_server(("", 0)) as other:
        cluster = Cluster(f"localhost:{other.getsockname()[1]}", 2, 0)
        with pytest.raises(InputError, match=f"cannot listen on port {cluster.port}.*lsof"):
            meet(cluster, {}, lambda here: [], timeout=0.2)


def test_find_cluster_reads_the_three_variables():
    given = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}
    assert find_cluster(environment=given) == Cluster("a:1", 4, 3)
    assert Cluster("[::1]:77", 2, 0).coordinator == "::1"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"JAX_NUM_PROCESSES": "4"}, "JAX_COORDINATOR_ADDRESS is not set"),
        (
            {"JAX_PROCESS_ID": "x", "JAX_NUM_PROCESSES": "4", "JAX_COORDINATOR_ADDRESS": "a:1"},
            "int",
        ),
        (
            {"JAX_PROCESS_ID": "4", "JAX_NUM_PROCESSES": "4", "JAX_COORDINATOR_ADDRESS": "a:1"},
            "no such",
        ),
        (
            {"JAX_PROCESS_ID": "0", "JAX_NUM_PROCESSES": "4", "JAX_COORDINATOR_ADDRESS": "a"},
            "HOST:PORT",
        ),
    ],
)
def test_find_cluster_bad_variables_are_named(given, message):
    with pytest.raises(InputError, match=message):
        find_cluster(environment=given)


def test_find_cluster_slurm_step_is_recognised_with_its_hosts(monkeypatch):
    step = {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NODELIST": "gpu[03-04]",
        "SLURM_NTASKS": "4",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1",
    }
    for name, value in step.items():
        monkeypatch.setenv(name, value)
    cluster = find_cluster()
    assert (cluster.coordinator, cluster.processes, cluster.process) == ("gpu03", 4, 3)
    assert cluster.hosts == ("gpu03", "gpu03", "gpu04", "gpu04")


def test_find_cluster_alone_is_one_process():
    assert find_cluster() == Cluster()


COMMANDS = {
    "ask": ["--workdir=w", "--question=Who?"],
    "read": [f"--{x}=x" for x in ("model", "data", "lang", "output")],
    "retrieve": [f"--{x}=x" for x in ("encoder", "passages", "questions", "output")],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_of_one_process_refuse_to_be_one_of_several(repository, tmp_path, name):
    script = repository / "launch" / f"{name}.py"
    several = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "2"}
    env = os.environ | {"PYTHONPATH": str(repository)} | several
    command = [sys.executable, str(script), *COMMANDS[name]]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 2 and done.stdout == "" and not list(tmp_path.iterdir())
    assert (
        f"{name}: launch/{name}.py works in one process, and this is process 2 of 4" in done.stderr
    )
    assert done.stderr.count("\n") == 1


def test_require_one_process_believes_a_process_that_says_it_is_alone(monkeypatch):
    require_one_process("it")
    alone = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}
    for key, value in alone.items():
        monkeypatch.setenv(key, value)
    require_one_process("it")


def test_expand_hosts_ranges_lists_and_plain_names():
    assert expand_hosts("node[01-03,7],login") == ["node01", "node02", "node03", "node7", "login"]
    assert expand_hosts("one") == ["one"] and expand_hosts("") == []

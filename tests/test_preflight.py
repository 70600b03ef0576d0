"""Checks before a run: alone, and with real processes that meet through a port."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from clmrc_jax import preflight
from clmrc_jax.files import InputError
from clmrc_jax.rendezvous import Arrival, Cluster

PROCESS = pathlib.Path(__file__).with_name("preflight_process.py")


def start(workdir, options, present=(0, 1)):
    """Starts `present` of two processes; options: what is special, per process."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    started = []
    for index in present:
        given = {"config": {"seed": 1}, "workdir": str(workdir), "timeout": 60} | options.get(
            index, {}
        )
        command = [sys.executable, str(PROCESS), address, "2", str(index), json.dumps(given)]
        started.append(
            subprocess.Popen(
                command,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return started


def errors(processes):
    """What each said on stderr, all of them having ended with 2 (bad input)."""
    texts = [process.communicate(timeout=90)[1] for process in processes]
    assert [process.returncode for process in processes] == [2] * len(processes), texts
    return texts


def test_check_two_processes_meet_join_and_compute(tmp_path):
    processes = start(tmp_path, {0: {"then": "sum"}, 1: {"then": "sum"}})
    outputs = [process.communicate(timeout=90) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    # Gloo prints to the same stream whenever it likes.
    lines = [line for text, _ in outputs for line in text.splitlines() if line.startswith("{")]
    reports = [json.loads(line) for line in lines]
    assert [r["process"] for r in reports] == [0, 1] and len(reports[1]["hosts"]) == 2
    assert all(r["sum"] == 3 and r["devices"] == {"cpu": 4} for r in reports)
    assert not list(tmp_path.iterdir())  # the probes are gone


def test_check_missing_process_ends_soon_and_is_named(tmp_path):
    begin = time.monotonic()
    (text,) = errors(start(tmp_path, {0: {"timeout": 2}}, present=[0]))
    assert "process 1 did not come within 2 s; 1 of 2 did" in text
    assert time.monotonic() - begin < 60 and not list(tmp_path.iterdir())


def test_check_missing_process_0_names_its_address(tmp_path):
    (text,) = errors(start(tmp_path, {1: {"timeout": 2}}, present=[1]))
    assert "process 0 at localhost:" in text and "has not started there" in text


def test_check_other_config_clock_and_workdir_are_told_to_both(tmp_path):
    other = {"config": {"seed": 2}, "skew": 3600.0, "workdir": "/proc/no", "free_gib": 1e9}
    both = errors(start(tmp_path, {1: other}))
    for text in both:
        assert "config seed differs: 1 on " in text and ", 2 on " in text
        assert "(process 1): its clock is 3600 s ahead of that of" in text
        assert "(process 1): cannot write to workdir /proc/no" in text
    assert both[0] == both[1]


def test_check_separate_folders_are_no_workdir(tmp_path):
    both = errors(start(tmp_path / "a", {1: {"workdir": str(tmp_path / "b")}}))
    assert all("workdir" in text and "another folder than on" in text for text in both)


def test_process_killed_in_the_middle_ends_the_other(tmp_path):
    """The survivor must not wait in its collective for ever: heartbeats find the dead."""
    options = {"then": "die", "heartbeat": 10}
    alive, dead = start(tmp_path, {0: options, 1: options})
    _, text = alive.communicate(timeout=90)
    dead.communicate(timeout=90)
    assert dead.returncode == -signal.SIGKILL
    assert alive.returncode not in (0, 75), text


def test_check_alone_reports_devices(tmp_path):
    report = preflight.check({}, tmp_path, cluster=Cluster())
    assert report["processes"] == 1 and report["devices"] == {"cpu": 8}


def test_host_with_chips_that_fell_back_to_its_cpu_is_refused(monkeypatch):
    monkeypatch.setattr(preflight, "chip_files", lambda: ["/dev/accel0"])
    assert preflight.check_devices(1) == {"cpu": 8}, "the tests ask for the CPU"
    monkeypatch.delenv("JAX_PLATFORMS")
    with pytest.raises(InputError, match=r"/dev/accel0.*runs on its CPU: pip install '.\[tpu\]'"):
        preflight.check_devices(1)


def test_check_alone_full_disk_is_named(tmp_path):
    with pytest.raises(InputError, match=r"GiB free, 1e\+09 GiB are needed"):
        preflight.check({}, tmp_path, cluster=Cluster(), free_gib=1e9)


def test_check_workdir_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write to workdir .*file"):
        preflight.check({}, tmp_path / "file", cluster=Cluster())


def test_differences_are_counted_and_cut():
    facts = [{"config": {f"k{i}": i for i in range(9)}}, {"config": {}}, {"config": {}}]
    here = [Arrival(i, f"host{i}", 0.0, fact) for i, fact in enumerate(facts)]
    found = preflight.differences("config", here)
    assert found[0] == (
        "config k0 differs: 0 on host0 (process 0), unset on host1 (process 1) and on 1 more"
    )
    assert len(found) == 7 and found[-1] == "3 more config differences"


def test_host_facts_are_json_and_repeatable():
    config = {"a": {"b": (1, 2)}, "c": None}
    facts = preflight.host_facts(config)
    assert facts == preflight.host_facts(config) == json.loads(json.dumps(facts))
    assert facts["config"] == {"a.b": "(1, 2)", "c": "None"} and "jax" in facts["package"]


def test_time_limit_ends_a_process_that_hangs():
    code = "import time; from clmrc_jax.preflight import time_limit\n"
    code += "with time_limit(0.2, 'counting sheep'): time.sleep(60)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "counting sheep took over 0 s" in done.stderr

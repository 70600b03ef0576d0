"""`launch/preflight.py`, as a person runs it."""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def launch(*words, **environment):
    command = [sys.executable, str(ROOT / "launch" / "preflight.py"), *words]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=90
    )


def test_preflight_on_one_host_prints_its_devices(tmp_path):
    config = f"--config={ROOT / 'configs' / 'cora.py'}:smoke"
    done = launch(config, "--config.seed=3", f"--workdir={tmp_path}", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["processes"] == 1 and report["devices"] == {"cpu": 8}


def test_preflight_without_its_coordinator_ends_with_2_and_json(tmp_path):
    cluster = {
        "JAX_COORDINATOR_ADDRESS": "localhost:1",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": "1",
    }
    done = launch(f"--workdir={tmp_path}", "--timeout=0.5", "--json", **cluster)
    assert done.returncode == 2 and "process 0 at localhost:1 was not reached" in done.stderr
    assert "refuses the port" in json.loads(done.stdout)["error"]

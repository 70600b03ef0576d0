"""The scripts that run on workers, run here by bash in a home folder of their own."""

import contextlib
import os
import subprocess
import time

import pytest

from clmrc_jax.cloud import job
from clmrc_jax.cloud.job import Outcome, Worker


@pytest.fixture
def worker(tmp_path):
    """A function that runs a script on a host that has the code installed."""
    (tmp_path / "clmrc_jax").mkdir()
    environment = os.environ | {"HOME": str(tmp_path), "HOSTNAME": "host-w-0"}

    def run(script, refused=False):
        done = subprocess.run(
            ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=30
        )
        assert (done.returncode != 0) == refused, done.stderr
        return done.stderr if refused else done.stdout

    yield run
    with contextlib.suppress(OSError, ValueError):
        os.killpg(int((tmp_path / "clmrc_job" / "pid").read_text()), 9)


def state(worker):
    (found,) = job.parse_workers(worker(job.poll_script()))
    return found


def ended(worker):
    """The state once the job has ended."""
    deadline = time.monotonic() + 20
    while (now := state(worker)).state == "running" and time.monotonic() < deadline:
        time.sleep(0.05)
    return now


def test_job_runs_in_the_code_folder_and_leaves_its_status(worker, tmp_path):
    assert state(worker) == Worker("host-w-0", "idle")
    worker(job.start_script("pwd; echo 'it''s \"fine\"'; exit 7"))
    now = ended(worker)
    assert (now.state, now.code, now.line) == ("ended", 7, 'its "fine"')
    assert str(tmp_path / "clmrc_jax") in worker(job.logs_script(10, follow=False))
    assert worker(job.command_script()).startswith("pwd; echo")


def test_job_is_not_started_twice(worker, tmp_path):
    script = job.start_script("echo once >> ../count; sleep 1")
    worker(script)
    worker(script)
    ended(worker)
    assert (tmp_path / "count").read_text() == "once\n"
    worker(script)  # it has ended: this one counts
    ended(worker)
    assert (tmp_path / "count").read_text() == "once\nonce\n"


def test_job_that_ends_while_it_is_looked_at_is_not_lost(worker, tmp_path):
    worker(job.start_script("true"))
    ended(worker)
    (tmp_path / "clmrc_job" / "exit").unlink()
    ends = 'grep() { echo 7 > "$HOME/clmrc_job/exit"; return 1; }\n'  # the look at the process
    (now,) = job.parse_workers(worker(ends + job.poll_script()))
    assert (now.state, now.code) == ("ended", 7)


def test_start_refuses_while_another_command_runs(worker):
    worker(job.start_script("sleep 30"))
    said = worker(job.start_script("echo 'its' \"own\" $HOME"), refused=True)
    assert said == (
        "ERROR: host-w-0 is busy with: sleep 30; wait for it, or launch/tpu_vm.py stop\n"
    )
    assert worker(job.command_script()) == "sleep 30\n"
    worker(job.start_script("sleep 30"))


def test_job_fails_when_a_program_in_a_pipe_does(worker):
    worker(job.start_script("sh -c 'exit 3' | cat"))
    assert ended(worker).code == 3


def test_a_process_that_got_the_id_of_a_dead_job_is_not_the_job(worker, tmp_path):
    worker(job.start_script("true"))
    ended(worker)
    folder = tmp_path / "clmrc_job"
    (folder / "exit").unlink()
    with subprocess.Popen(["sleep", "30"], start_new_session=True) as other:
        (folder / "pid").write_text(f"{other.pid}\n")
        assert state(worker).state == "lost"
        for script in (job.stop_script(), job.end_script(), job.kill_script()):
            worker(script)
        assert other.poll() is None
        other.kill()


def test_stop_lets_the_program_save_and_keeps_its_status(worker):
    program = "import signal, sys, time\n"
    program += "signal.signal(signal.SIGTERM, lambda *_: (print('saved'), sys.exit(75)))\n"
    program += "print('ready', flush=True)\ntime.sleep(30)"
    worker(job.start_script(f'python3 -c "{program}"'))
    while state(worker).line != "ready":
        time.sleep(0.05)
    worker(job.stop_script())
    now = ended(worker)
    assert (now.code, now.stopped, now.line) == (75, True, "saved")
    assert job.judge([now]) == Outcome("stopped", code=75)


PROGRAM = """
import signal, subprocess, sys, time
helper = subprocess.Popen(["sleep", "60"])
def save(*_):
    time.sleep(0.5)
    print("saved, helper", "died" if helper.poll() else "lives", flush=True)
    helper.kill()
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(30)
"""


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("python3 program.py && echo finished", 75),
        ("python3 program.py; echo next", 75),
        ("for i in 1 2; do python3 program.py; done", 75),
        ("if (cd . && python3 program.py); then echo yes; else echo no; fi", 75),
        ("bash nested.sh && echo finished", 143),  # that shell dies, but not the job with it
    ],
)
def test_stop_reaches_a_program_behind_shells_but_not_its_helpers(worker, tmp_path, command, code):
    (tmp_path / "clmrc_jax" / "program.py").write_text(PROGRAM)
    (tmp_path / "clmrc_jax" / "nested.sh").write_text("python3 program.py\necho next\n")
    worker(job.start_script(command))
    while state(worker).line != "ready":
        time.sleep(0.05)
    worker(job.stop_script())
    now = ended(worker)
    assert (now.state, now.code, now.line) == ("ended", code, "saved, helper lives")
    assert job.judge([now]) == Outcome("stopped", code=75)


def test_stop_says_where_a_job_runs(worker):
    assert job.parse_stopped(worker(job.stop_script())) == []  # a new slice
    worker(job.start_script("sleep 30"))
    assert job.parse_stopped(worker(job.stop_script())) == ["host-w-0"]


def test_end_is_no_stop_that_somebody_asked_for(worker):
    worker(job.start_script("trap 'exit 75' TERM; echo ready; sleep 30 & wait"))
    while state(worker).line != "ready":
        time.sleep(0.05)
    worker(job.end_script())
    now = ended(worker)
    assert (now.code, now.stopped) == (75, False)


def test_kill_ends_what_does_not_hear_sigterm_with_its_helpers(worker, tmp_path):
    worker(job.start_script("trap '' TERM; sleep 60 & echo ready; (sleep 60; true); true"))
    while state(worker).line != "ready":
        time.sleep(0.05)
    worker(job.end_script())
    time.sleep(0.3)
    assert state(worker).state == "running"
    worker(job.kill_script())
    assert state(worker) == Worker("host-w-0", "lost", line="ready")
    pid = (tmp_path / "clmrc_job" / "pid").read_text().strip()
    assert subprocess.run(["pgrep", "-r", "R,S,D,T", "-s", pid]).returncode == 1
    worker(job.kill_script())  # there is none: fine


def test_killed_host_is_lost(worker, tmp_path):
    worker(job.start_script("sleep 30"))
    os.killpg(int((tmp_path / "clmrc_job" / "pid").read_text()), 9)
    assert ended(worker).state == "lost"


def test_setup_replaces_the_code_and_leaves_the_runs(worker, tmp_path):
    code, programs = tmp_path / "clmrc_jax", tmp_path / ".local" / "bin"
    programs.mkdir(parents=True)
    (programs / "uv").write_text('#!/bin/sh\necho "uv $*" >> "$HOME/uv"\n')
    (programs / "uv").chmod(0o755)
    for name in ("launch/old.py", "runs/x/final"):
        (code / name).parent.mkdir(parents=True)
        (code / name).write_text("")
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "new.py").write_text("")
    subprocess.run(["tar", "-czf", job.ARCHIVE, "launch"], cwd=tmp_path, check=True)
    worker(job.setup_script("tpu,gcs"))
    assert [path.name for path in (code / "launch").iterdir()] == ["new.py"]
    assert (code / "runs" / "x" / "final").exists()
    assert (tmp_path / "uv").read_text().splitlines() == [
        "uv venv --quiet --python 3.12 .venv",
        "uv pip install --quiet --python .venv/bin/python -e .[tpu,gcs]",
    ]


def test_parse_workers_sorts_by_number_and_skips_noise():
    lines = [f"clmrc_job w-{i} running 0 0 step {i} | x" for i in (10, 9)]
    found = job.parse_workers("\n".join(["SSH: noise", *lines, "clmrc_job broken"]))
    assert [worker.host for worker in found] == ["w-9", "w-10"] and found[1].line == "step 10 | x"


RUNNING, LOST, IDLE = Worker("r", "running"), Worker("l", "lost"), Worker("i", "idle")


def end(code, **more):
    return Worker(f"e{code}", "ended", code, **more)


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        ([end(0), RUNNING], None),
        ([end(0), end(0)], Outcome("done")),
        ([end(0, stopped=True), end(0)], Outcome("done")),
        ([end(1), end(75)], Outcome("preempted", "e75", 75)),
        ([end(134), LOST], Outcome("preempted", "l", 75)),
        ([IDLE, end(134)], Outcome("preempted", "i", 75)),
        ([end(75, stopped=True), end(75)], Outcome("stopped", code=75)),
        ([end(134), end(2)], Outcome("failed", "e2", 2)),
        ([end(134), end(137)], Outcome("failed", "e137", 137)),
        ([end(0), end(134)], Outcome("failed", "e134", 134)),
    ],
)
def test_judge_names_the_cause(workers, expected):
    assert job.judge(workers) == expected

"""A cloud made of folders: the fake gcloud on the PATH, and a small checkout to send there."""

import contextlib
import json
import os
import pathlib
import signal
import stat
import subprocess
import sys
import time

import pytest

FAKE = pathlib.Path(__file__).with_name("fake_gcloud.py")
UV = """#!/bin/sh
# Makes an environment whose Python is the test's own, and notes what would be installed.
case "$1 $2" in
venv*) mkdir -p .venv/bin && ln -s {python} .venv/bin/python;;
"pip freeze") echo jax==0.10.0;;
*) echo "$@" >> "$HOME/installed";;
esac
"""


class Cloud:
    """The fake's world, from the test's side."""

    def __init__(self, folder):
        self.folder = folder
        self.world = folder / "world.json"
        self.set(hosts=2, node=None, request=None, unreachable=[])
        self.set(fail=[], refuse=[], polls=None, then={})

    def set(self, **values):
        """Changes the world."""
        known = json.loads(self.world.read_text()) if self.world.exists() else {}
        new = self.world.with_name("world.new")  # renamed: a call may be reading the old one
        new.write_text(json.dumps(known | values))
        new.replace(self.world)

    def at_poll(self, number, **values):
        """Changes the world when the launcher looks at the job for the `number`-th time."""
        self.set(polls=number, then=values)

    def state(self):
        """The world as it is."""
        return json.loads(self.world.read_text())

    def calls(self, *words):
        """The command lines so far that contain all words."""
        file = self.folder / "calls.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [call for call in map(json.loads, lines) if all(word in call for word in words)]

    def wait_for_log(self, text):
        """Waits until the job of worker 1 has printed `text`."""
        log = self.home(1) / "clmrc_job" / "log"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if log.exists() and text in log.read_text():
                return
            time.sleep(0.05)
        raise TimeoutError(text)

    def home(self, worker):
        """The home folder of a worker."""
        return self.folder / f"worker-{worker}"


def _executable(path, text):
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    """A Cloud with nothing in it and two hosts per slice; all that it started ends with the test."""
    programs, folder = tmp_path / "bin", tmp_path / "cloud"
    programs.mkdir()
    folder.mkdir()
    _executable(programs / "gcloud", f"#!{sys.executable} -S\n{FAKE.read_text()}")
    _executable(programs / "uv", UV.format(python=sys.executable))
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_CLOUD", str(folder))
    yield Cloud(folder)
    for pid in folder.glob("worker-*/clmrc_job/pid"):
        with contextlib.suppress(ProcessLookupError, ValueError):
            os.killpg(int(pid.read_text()), signal.SIGKILL)


@pytest.fixture
def checkout(tmp_path):
    """A git checkout with one committed program, `job.sh`, changed since the commit."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    git = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@e"]
    (folder / "job.sh").write_text("echo committed; exit 3\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    for key, value in (("user.name", "n"), ("user.email", "e@e")):
        subprocess.run([*git, "config", key, value], check=True)
    (folder / "job.sh").write_text('echo "from the checkout: $1"; eval "$1"\n')
    return folder

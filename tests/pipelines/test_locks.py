"""One run at a time in a folder: on a disk, and in a bucket that a stand-in plays."""

import json
import os
import threading
import time

import pytest
from etils import epath

import bucket
from clmrc_jax.files import InputError
from clmrc_jax.pipelines import locks
from clmrc_jax.pipelines.locks import folder_lock, workdir_lock


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """A folder in a bucket; the beats are fast."""
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(locks, "SILENT_SECONDS", 0.5)
    bucket.install(tmp_path / "objects")
    yield epath.Path("gs://bucket/run")
    bucket.uninstall()


def test_lock_names_the_holder_and_is_free_afterwards(tmp_path):
    with workdir_lock(tmp_path / "new"):
        assert f"process {os.getpid()}" in (tmp_path / "new" / "lock").read_text()
        with pytest.raises(InputError, match=f"process {os.getpid()} on .* is running"):
            with workdir_lock(tmp_path / "new"):
                pytest.fail("two runs in one workdir")
    with workdir_lock(tmp_path / "new"):
        pass


def test_lock_in_a_bucket_refuses_a_second_run_while_the_first_lives(remote):
    with folder_lock(remote):
        begin = time.monotonic()
        with pytest.raises(InputError, match=f"bucket/run: process {os.getpid()} on .* is running"):
            with folder_lock(remote):
                pytest.fail("two runs in one workdir")
        assert time.monotonic() - begin < 0.4  # as soon as it moves
    assert not (remote / "lock").exists()
    with folder_lock(remote):
        pass


@pytest.mark.parametrize(
    "left", [json.dumps({"holder": "process 7 on h", "token": "x", "beat": 3}), "process 7 on h"]
)
def test_lock_of_a_killed_run_is_taken_over(remote, capfd, left):
    (remote / "lock").write_text(left)
    begin = time.monotonic()
    with folder_lock(remote):
        assert time.monotonic() - begin >= 0.5
        assert "process 7 on h left its lock" in capfd.readouterr().err
        assert json.loads((remote / "lock").read_text())["token"] != "x"


def test_lock_that_vanishes_while_one_waits_is_free(remote):
    (remote / "lock").write_text("process 7 on h")
    threading.Timer(0.1, (remote / "lock").unlink).start()
    begin = time.monotonic()
    with folder_lock(remote):
        assert time.monotonic() - begin < 0.45


def test_holder_whose_folder_was_taken_ends_and_leaves_the_others_lock(remote, monkeypatch, capfd):
    ended, other = [], json.dumps({"holder": "process 8 on h", "token": "y", "beat": 0})
    monkeypatch.setattr(locks, "_end", ended.append)
    with folder_lock(remote):
        (remote / "lock").write_text(other)
        end = time.monotonic() + 20
        while not ended and time.monotonic() < end:
            time.sleep(0.01)
    assert set(ended) == {2}
    assert "process 8 on h is running in this workdir" in capfd.readouterr().err
    assert (remote / "lock").read_text() == other


def test_holder_bears_an_outage_of_the_store(remote, monkeypatch, capfd):
    real, failures = locks._read, iter(range(3))

    def failing(folder):
        if next(failures, None) is not None:
            raise OSError("503")
        return real(folder)

    with folder_lock(remote):
        monkeypatch.setattr(locks, "_read", failing)
        first = json.loads((remote / "lock").read_text())["beat"]
        end = time.monotonic() + 20
        while json.loads((remote / "lock").read_text())["beat"] == first:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert capfd.readouterr().err.count("503; trying again") == 3


def test_a_finished_run_does_not_fail_because_its_lock_cannot_be_removed(remote, monkeypatch):
    def failing(folder):
        raise OSError("503")

    with folder_lock(remote):
        monkeypatch.setattr(locks, "_read", failing)
    assert (remote / "lock").exists()

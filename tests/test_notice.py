"""SIGTERM in the places of a program where it means different things."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from clmrc_jax import notice


def tell():
    os.kill(os.getpid(), signal.SIGTERM)


def test_the_signal_ends_the_program_at_once_and_afterwards_all_is_as_before(capfd):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(notice.Preempted) as stopped, notice.heeded():
        with notice.heeded():
            pass
        tell()
        raise AssertionError("it went on")
    assert stopped.value.code == 75 and "the same command continues" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before and not notice.told()
    assert signal.set_wakeup_fd(-1) == -1


def test_raised_in_a_callback_that_swallows_it_the_signal_comes_again():
    class Deaf:
        def __del__(self):
            calls.append(1)
            tell()

    calls = []
    with pytest.raises(notice.Preempted), notice.heeded():
        Deaf()
        assert notice.told()
        time.sleep(60)
    assert len(calls) == 1


def test_what_has_something_to_save_sees_a_flag_and_ends_the_program_at_its_end():
    seen = []
    with pytest.raises(notice.Preempted), notice.heeded():
        with notice.saves_first():
            assert notice.saving() and not notice.told()
            tell()
            seen.append(notice.told())
        raise AssertionError("it went on")
    assert seen == [True] and not notice.saving()


def test_a_second_signal_disturbs_nothing():
    steps = []
    with pytest.raises(notice.Preempted), notice.heeded():
        try:
            tell()
        finally:
            tell()
            steps.append("cleaned up")
    assert steps == ["cleaned up"]


def test_the_end_of_a_program_is_left_out():
    program = """
import atexit, os, signal
from clmrc_jax import notice
atexit.register(print, "at exit")
with notice.heeded(to_the_end=True):
    print("printed")
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        print("cleaned up")
"""
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, timeout=120)
    assert done.returncode == 75 and done.stdout.split() == [b"printed", b"cleaned", b"up"]


def test_an_error_while_saving_is_not_hidden():
    with pytest.raises(KeyError), notice.heeded(), notice.saves_first():
        tell()
        raise KeyError


def test_shared_with_other_processes_the_signal_is_a_flag():
    with notice.heeded(), notice.shared():
        tell()
        with notice.saves_first():
            assert notice.told()
        assert notice.told()


def test_other_threads_heed_nothing():
    before = signal.getsignal(signal.SIGTERM)

    def run():
        with notice.heeded():
            found.append(signal.getsignal(signal.SIGTERM))

    found = []
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [before]


DEAF = """
import multiprocessing, os, signal, sys, time
from clmrc_jax import notice

def work():
    print("worker", flush=True)  # as long as it lives, stdout stays open
    time.sleep(600)

if __name__ == "__main__":
    notice.LEAVE_SECONDS = 0.1
    multiprocessing.get_context("spawn").Process(target=work).start()
    with notice.heeded():
        while True:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(600)
            except notice.Preempted:
                print("deaf", flush=True)
"""


def test_a_main_thread_that_does_not_leave_is_ended_with_its_workers(tmp_path):
    path = tmp_path / "deaf.py"
    path.write_text(DEAF)
    done = subprocess.run([sys.executable, str(path)], stdout=subprocess.PIPE, timeout=120)
    assert done.returncode == 75 and b"deaf" in done.stdout

"""From no slice to a finished run, through all that goes wrong, on a cloud made of folders."""

import dataclasses
import importlib.util
import itertools
import json
import subprocess
import threading
import time

import pytest

from clmrc_jax.cloud import tpu_vm
from clmrc_jax.cloud.gcloud import CloudError
from clmrc_jax.cloud.slices import Slice
from clmrc_jax.cloud.tpu_vm import RunOptions
from clmrc_jax.files import InputError

SLICE = Slice("s", "us-central2-b", "v4-16", spot=True)
DIRECT = dataclasses.replace(SLICE, queued=False)

SSH = "[/usr/bin/ssh] exited with return code [255]."


def options(checkout, script, **more):
    """Options whose command runs `script` in the program of the checkout."""
    settings = {"poll": 0.1, "patience": 3.0} | more
    return RunOptions(f"bash job.sh '{script}'", checkout, **settings)


@pytest.mark.parametrize("slice", [SLICE, DIRECT], ids=["queued", "direct"])
def test_run_goes_from_nothing_to_done(cloud, checkout, slice, capfd):
    assert tpu_vm.run(slice, options(checkout, "sleep 0.3; echo well done")) == 0
    for worker in range(2):
        log = (cloud.home(worker) / "clmrc_job" / "log").read_text()
        assert "from the checkout" in log and log.endswith("well done\n")  # the uncommitted change
        assert (cloud.home(worker) / "installed").read_text().strip().endswith("-e .[tpu,gcs]")
    group = "queued-resources" if slice.queued else "tpu-vm"
    assert len(cloud.calls(group, "create")) == 1 and not cloud.calls("delete")
    said = capfd.readouterr().err
    assert "running on 2 workers" in said and "the slice is still there and costs" in said


@pytest.mark.parametrize("slice", [SLICE, DIRECT], ids=["queued", "direct"])
def test_run_continues_after_preemption_on_a_new_slice(cloud, checkout, slice, tmp_path, capfd):
    taken = {"request": "SUSPENDED"} if slice.queued else {}
    cloud.at_poll(3, node="PREEMPTED", **taken)
    first = f"if mkdir {tmp_path}/begun-$HOSTNAME 2>&1; then sleep 30; fi; echo continued"
    assert tpu_vm.run(slice, options(checkout, first, delete=True)) == 0
    assert "s: preempted (s); starting again, restart 1" in capfd.readouterr().err
    group = "queued-resources" if slice.queued else "tpu-vm"
    assert len(cloud.calls(group, "create")) == 2 and len(cloud.calls(group, "delete")) == 2
    assert cloud.state()["node"] is None  # deleted when done


def test_slice_made_again_gets_the_versions_of_the_first(cloud, checkout, tmp_path):
    cloud.at_poll(3, node="PREEMPTED", request="SUSPENDED")
    first = f"if mkdir {tmp_path}/begun-$HOSTNAME 2>&1; then sleep 30; fi; echo continued"
    packages = tmp_path / "packages.txt"
    assert tpu_vm.run(SLICE, options(checkout, first, packages=packages)) == 0
    assert packages.read_text() == "jax==0.10.0\n"
    assert len(cloud.calls("queued-resources", "create")) == 2
    for worker in range(2):
        home = cloud.home(worker)  # the second slice's
        assert (home / "clmrc_packages.txt").read_text() == "jax==0.10.0\n"
        (line,) = (home / "installed").read_text().splitlines()
        assert line.endswith(f"-c {home}/clmrc_packages.txt -e .[tpu,gcs]")


def test_file_of_versions_without_a_folder_costs_nothing(cloud, checkout, tmp_path):
    missing = options(checkout, "true", packages=tmp_path / "no/packages.txt")
    with pytest.raises(InputError, match="no/packages.txt: make its folder first"):
        tpu_vm.run(SLICE, missing)
    assert not cloud.calls("create")


def test_run_continues_on_the_same_slice_after_saved_and_stopped(cloud, checkout, tmp_path):
    """75: maintenance took the hosts for a moment, the slice stayed."""
    script = f"mkdir {tmp_path}/begun-$HOSTNAME 2>/dev/null && exit 75; exit 0"
    assert tpu_vm.run(SLICE, options(checkout, script)) == 0
    assert len(cloud.calls("queued-resources", "create")) == 1


def test_run_of_code_that_cannot_be_sent_makes_no_slice(cloud, tmp_path):
    with pytest.raises(InputError, match="nowhere.*--source is a git checkout"):
        tpu_vm.run(SLICE, options(tmp_path / "nowhere", "true"))
    assert not cloud.calls("create")


def test_run_never_deletes_a_slice_that_somebody_stopped(cloud, checkout):
    cloud.set(node="STOPPED", request="ACTIVE")
    with pytest.raises(InputError, match="(?s)s is STOPPED: somebody stopped it.*tpu-vm start"):
        tpu_vm.run(SLICE, options(checkout, "true"))
    assert not cloud.calls("delete") and cloud.state()["node"] == "STOPPED"


def test_run_gives_up_after_max_restarts(cloud, checkout):
    with pytest.raises(InputError, match="preempted 2 times"):
        tpu_vm.run(SLICE, options(checkout, "exit 75", max_restarts=1))


def test_run_ends_with_the_programs_own_failure(cloud, checkout, capfd):
    script = 'case $HOSTNAME in *-0) exit 134;; *) echo "error: no such file" >&2; exit 2;; esac'
    assert tpu_vm.run(SLICE, options(checkout, script, delete=True)) == 2
    said = capfd.readouterr().err
    assert "t1v-n-fake-w-1 failed with exit status 2" in said and "error: no such file" in said
    assert cloud.state()["node"] == "READY"  # kept, so that one can look
    assert "the slice is still there and costs" in said


def test_run_ends_stragglers_when_one_worker_has_failed(cloud, checkout, capfd):
    script = "case $HOSTNAME in *-0) exit 1;; esac; exec sleep 30"
    assert tpu_vm.run(SLICE, options(checkout, script, patience=0.5)) == 1
    assert "t1v-n-fake-w-1 still running long after" in capfd.readouterr().err


def test_run_kills_stragglers_that_do_not_hear_sigterm(cloud, checkout, tmp_path, capfd):
    helper = "trap : TERM; sleep 60 & sleep 60"
    script = f"case $HOSTNAME in *-0) exit 1;; esac; trap : TERM; while true; do {helper}; done"
    assert tpu_vm.run(SLICE, options(checkout, script, patience=0.5)) == 1
    said = capfd.readouterr().err
    assert "t1v-n-fake-w-1 did not end; killing" in said
    assert "t1v-n-fake-w-0 failed with exit status 1" in said
    job = cloud.home(1) / "clmrc_job"
    left = subprocess.run(["pgrep", "-r", "R,S,D,T", "-s", (job / "pid").read_text().strip()])
    assert left.returncode == 1, "a process of the job is alive"
    assert not (job / "stopped").exists()  # nobody asked for it


def test_run_again_finds_its_job_and_refuses_another(cloud, checkout, tmp_path):
    mine = options(checkout, f"until [ -e {tmp_path}/go ]; do sleep 0.1; done; exit 5")
    first = threading.Thread(target=tpu_vm.run, args=(SLICE, mine), daemon=True)
    first.start()
    cloud.wait_for_log("from the checkout")
    with pytest.raises(InputError, match="(?s)busy with: bash job.sh .*tpu_vm.py stop"):
        tpu_vm.run(SLICE, options(checkout, "something else"))
    threading.Timer(1.0, (tmp_path / "go").touch).start()
    assert tpu_vm.run(SLICE, mine) == 5
    first.join(timeout=60)
    log = (cloud.home(0) / "clmrc_job" / "log").read_text()
    assert log.count("--- started") == 1 and len(cloud.calls("scp")) == 1


@pytest.mark.parametrize("question", ["state=idle", "job/command"])
def test_run_again_never_installs_under_a_live_job(cloud, checkout, tmp_path, question):
    """Also when the connection fails at the first look: no answer is not "no job"."""
    mine = options(checkout, f"until [ -e {tmp_path}/go ]; do sleep 0.1; done; exit 5")
    first = threading.Thread(target=tpu_vm.run, args=(SLICE, mine), daemon=True)
    first.start()
    cloud.wait_for_log("from the checkout")
    (cloud.home(0) / "clmrc_jax" / "job.sh").write_text("in use")
    rule = {"when": "tpu-vm ssh", "times": 2, "message": SSH, "code": 255}
    cloud.set(fail=[rule | {"containing": question}])
    threading.Timer(2.0, (tmp_path / "go").touch).start()
    assert tpu_vm.run(SLICE, mine) == 5
    first.join(timeout=60)
    assert len(cloud.calls("scp")) == 1
    assert (cloud.home(0) / "clmrc_jax" / "job.sh").read_text() == "in use"


def test_stop_then_run_has_one_copy_of_a_program_behind_a_shell(cloud, checkout, tmp_path):
    """A shell that dies first must neither hide that its program still saves, nor its status."""
    program = "import signal, sys, time\n"
    program += (
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), print('saved'), sys.exit(75)))"
    )
    program += "\nprint('rea' + 'dy', flush=True)\ntime.sleep(30)\n"
    (tmp_path / "program.py").write_text(program)
    command = f"mkdir {tmp_path}/begun-$HOSTNAME || exit 0; python3 {tmp_path}/program.py && true"
    command += "; echo finished"
    settings = RunOptions(command, checkout, poll=0.1, patience=10.0)

    def stop():
        cloud.wait_for_log("ready")
        tpu_vm.stop(SLICE)

    threading.Thread(target=stop).start()
    assert tpu_vm.run(SLICE, settings) == 75
    for worker in range(2):
        job = cloud.home(worker) / "clmrc_job"
        assert (job / "exit").read_text() == "75\n"
        log = (job / "log").read_text()
        assert "saved" in log and "finished" not in log
    assert tpu_vm.run(SLICE, settings) == 0


def test_stop_from_elsewhere_ends_the_launcher_with_75(cloud, checkout):
    def stop():
        cloud.wait_for_log("ready")
        tpu_vm.stop(SLICE)

    threading.Thread(target=stop).start()
    script = 'trap "echo saved; exit 75" TERM; echo "rea""dy"; sleep 30 & wait'
    assert tpu_vm.run(SLICE, options(checkout, script)) == 75
    assert cloud.state()["node"] == "READY"


def test_stop_without_a_job_says_so(cloud, checkout, capfd):
    assert tpu_vm.run(SLICE, options(checkout, "true")) == 0
    tpu_vm.stop(SLICE)
    assert "no job runs there. A launcher that is at work will start one" in capfd.readouterr().err


def test_run_waits_out_a_stockout(cloud, checkout, capfd):
    message = '{"code": 8, "message": "There is no more capacity in the zone \\"z\\""}'
    cloud.set(fail=[{"when": "tpu-vm create", "times": 2, "message": message}])
    assert tpu_vm.run(DIRECT, options(checkout, "true")) == 0
    assert capfd.readouterr().err.count("no more capacity") == 2


def test_run_queued_request_that_fails_is_made_again_only_if_that_helps(cloud, checkout):
    cloud.set(refuse=["There is no more capacity in the zone"])
    assert tpu_vm.run(SLICE, options(checkout, "true")) == 0
    assert len(cloud.calls("queued-resources", "create")) == 2
    tpu_vm.delete(SLICE)
    cloud.set(refuse=["Quota limit 'TPUV4sPerProject' has been exceeded. Limit: 0"])
    with pytest.raises(CloudError, match="queued resource FAILED: Quota limit.*\n.*quotas"):
        tpu_vm.run(SLICE, options(checkout, "true"))


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("RESOURCE_EXHAUSTED: Quota limit 'TPUV4' has been exceeded. Limit: 8", "quotas"),
        ("PERMISSION_DENIED: Permission 'tpu.nodes.create' denied", "roles/tpu.admin"),
    ],
)
def test_run_stops_where_trying_again_is_useless(cloud, checkout, message, remedy):
    cloud.set(fail=[{"when": "tpu-vm create", "times": 9, "message": message}])
    with pytest.raises(CloudError, match=remedy):
        tpu_vm.run(DIRECT, options(checkout, "true"))
    assert len(cloud.calls("tpu-vm", "create")) == 1


def test_run_waits_until_a_new_slice_accepts_connections(cloud, checkout):
    message = "[/usr/bin/ssh] exited with return code [255]."
    cloud.set(fail=[{"when": "tpu-vm ssh", "times": 3, "message": message, "code": 255}])
    assert tpu_vm.run(SLICE, options(checkout, "true")) == 0


PASSING = [
    "UNAVAILABLE: The service is currently unavailable.",
    "INTERNAL: something new",
    "There was a problem refreshing your current auth tokens: Temporary failure in name resolution. "
    "Please run: $ gcloud auth login",
]


def test_run_bears_what_passes_wherever_it_happens(cloud, checkout, tmp_path, capfd):
    calls = ("create", "describe", "delete")
    rules = [{"when": f"queued-resources {verb}", "times": 2, "after": 0} for verb in calls]
    rules += [
        {"when": "tpu-vm describe", "times": 1, "after": 0},
        {"when": "tpu-vm describe", "times": 2, "after": 3},
        {"when": "tpu-vm scp", "times": 2},
        {"when": "tpu-vm ssh", "times": 1, "containing": "tar -xzf"},
        {"when": "tpu-vm ssh", "times": 2, "containing": "setsid"},
    ]
    messages = itertools.cycle(PASSING)
    cloud.set(fail=[rule | {"message": next(messages)} for rule in rules])
    cloud.at_poll(3, node="PREEMPTED", request="SUSPENDED")
    first = f"if mkdir {tmp_path}/begun-$HOSTNAME 2>&1; then sleep 30; fi; echo continued"
    assert tpu_vm.run(SLICE, options(checkout, first, delete=True)) == 0
    assert not any(rule["times"] for rule in cloud.state()["fail"]), "not all were met"
    assert cloud.state()["node"] is None
    assert "trying again every 0.1 s" in capfd.readouterr().err


def test_run_asks_once_for_a_slice_whose_answer_was_lost(cloud, checkout):
    rule = {"when": "tpu-vm create", "times": 1, "message": PASSING[0], "done": True}
    cloud.set(fail=[rule])
    assert tpu_vm.run(DIRECT, options(checkout, "true")) == 0
    assert len(cloud.calls("tpu-vm", "create")) == 1


def test_run_watches_on_after_a_long_outage(cloud, checkout, tmp_path, capfd):
    """While Google does not answer either, silent workers say nothing about the slice."""
    rules = [
        {
            "when": "tpu-vm ssh",
            "times": 12,
            "message": SSH,
            "code": 255,
            "containing": "state=idle",
        },
        {"when": "tpu-vm describe", "times": 12, "message": PASSING[0]},
    ]
    script = f"touch {tmp_path}/begun-$HOSTNAME; until [ -e {tmp_path}/go ]; do sleep 0.1; done"

    def go():
        try:
            cloud.wait_for_log("from the checkout")
            cloud.set(fail=rules)
            deadline = time.monotonic() + 60
            while any(rule["times"] for rule in cloud.state()["fail"]):
                assert time.monotonic() < deadline
                time.sleep(0.1)
        finally:
            (tmp_path / "go").touch()

    threading.Thread(target=go, daemon=True).start()
    assert tpu_vm.run(SLICE, options(checkout, script, patience=0.4)) == 0
    assert "currently unavailable" in capfd.readouterr().err
    assert len(cloud.calls("queued-resources", "create")) == 1


def test_run_gives_up_on_an_outage_that_lasts_and_says_that_the_slice_costs(cloud, checkout, capfd):
    cloud.set(fail=[{"when": "tpu-vm describe", "times": 99, "message": PASSING[0]}])
    with pytest.raises(CloudError, match="currently unavailable"):
        tpu_vm.run(SLICE, options(checkout, "true", outage_patience=0.5))
    assert len(cloud.calls("describe")) > 2
    assert "giving up; if the slice is there, it costs" in capfd.readouterr().err


def test_run_raises_at_once_what_does_not_pass(cloud, checkout):
    message = "PERMISSION_DENIED: Permission 'tpu.nodes.get' denied"
    cloud.set(fail=[{"when": "tpu-vm describe", "times": 9, "message": message}])
    with pytest.raises(CloudError, match="roles/tpu.admin"):
        tpu_vm.run(SLICE, options(checkout, "true"))
    assert len(cloud.calls("describe")) == 1


def test_run_one_silent_worker_is_counted_and_the_remedy_given(cloud, checkout):
    cloud.at_poll(2, unreachable=[1])
    with pytest.raises(CloudError) as caught:
        tpu_vm.run(SLICE, options(checkout, "sleep 30", patience=1.0))
    assert "1 of 2 workers do not answer (those that do: t1v-n-fake-w-0)" in str(caught.value)
    assert "ssh-add" in str(caught.value)


def test_run_failed_installation_shows_its_error(cloud, checkout):
    broken = dataclasses.replace(options(checkout, "true"), extras="'; exit 9; '")
    with pytest.raises(CloudError, match="tpu-vm ssh s: .*failed with exit status 9"):
        tpu_vm.run(SLICE, broken)


def test_run_impossible_slice_starts_nothing(cloud, checkout):
    with pytest.raises(InputError, match="give --accelerator"):
        tpu_vm.run(Slice("s", "us-central2-b"), options(checkout, "true"))
    assert not cloud.calls()


def test_create_absent_and_delete_say_what_they_do(cloud, capsys):
    assert tpu_vm.look(SLICE).state == "absent"
    tpu_vm.create(SLICE)
    assert tpu_vm.look(SLICE).detail == "queued resource WAITING_FOR_RESOURCES"
    assert tpu_vm.look(SLICE) == tpu_vm.Status("ready", "READY", 2)
    with pytest.raises(CloudError, match="tpu_vm.py status"):
        tpu_vm.create(SLICE)
    tpu_vm.delete(SLICE)
    tpu_vm.delete(SLICE)
    assert "s: deleted" in (said := capsys.readouterr().err) and "nothing to delete" in said


def test_launcher_end_to_end(cloud, checkout, repository, capfd):
    spec = importlib.util.spec_from_file_location("launcher", repository / "launch" / "tpu_vm.py")
    launcher = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(launcher)

    def launch(verb, *words):
        code = launcher.main([verb, "s", "--zone=us-central2-b", *words])
        return code, *capfd.readouterr()

    flags = ["--accelerator=v4-16", f"--source={checkout}", "--poll=0.1"]
    code, _, errors = launch("run", *flags, "--", "bash", "job.sh", "echo a  b; exit 4")
    assert code == 4, errors
    shown = json.loads(launch("status", "--json")[1])
    assert shown["state"] == "ready" and [worker["code"] for worker in shown["jobs"]] == [4, 4]
    assert "t1v-n-fake-w-1: ended with 4  a b" in launch("status")[1]
    assert launch("logs", "--lines=1", "--worker=1")[1] == "a b\n"
    cloud.set(fail=[{"when": "queued-resources delete", "times": 9, "message": PASSING[0]}])
    code, _, errors = launch("delete", "--outage_patience=-1")
    assert code == 2 and "currently unavailable" in errors and cloud.state()["node"] == "READY"
    cloud.set(fail=[])
    assert launch("delete")[0] == 0
    code, _, errors = launch("stop")
    assert code == 2 and "tpu_vm: tpu-vm ssh s: ERROR" in errors and "--zone" in errors

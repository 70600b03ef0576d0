"""A TPU slice from nothing to a finished run: create, run, status, logs, stop, delete.

`run` is the launcher that survives preemption: it makes the slice, installs the code, starts the
command on every worker, and watches. When the slice is taken away, or the workers say 75
("saved, run me again"), it does all of that again with the same command, until the command
succeeds or really fails. The launcher may be killed as well: run again, it finds the job.
"""

import contextlib
import dataclasses
import pathlib
import sys
import tempfile
import time

from clmrc_jax.cloud import checkout, gcloud, job
from clmrc_jax.cloud.gcloud import CloudError, say
from clmrc_jax.cloud.patience import Patience, patiently
from clmrc_jax.cloud.slices import Slice
from clmrc_jax.files import InputError, atomic_write

WAITING = {"CREATING", "STARTING", "RESTARTING", "REPAIRING", "REIMAGING", "UPDATING"}
QUEUED = {"ACCEPTED", "CREATING", "PROVISIONING", "WAITING_FOR_RESOURCES"}
STOPPED = {"STOPPING", "STOPPED"}  # by a person: nothing took it away
MAKING = 1800  # seconds that gcloud may take to make or delete a slice
HOPELESS = ("quota", "permission", "api", "type")  # why a request failed: again would fail again


@dataclasses.dataclass(frozen=True)
class Status:
    """state: absent, waiting, ready or gone (preempted or failed: must be made anew; or stopped).

    detail: Google's own word for it.  workers: host count, when ready.
    """

    state: str
    detail: str = ""
    workers: int = 0


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """command: shell command for every worker.  source: folder of the code.

    extras: of setup.py.  poll: seconds between two looks.  patience: seconds to wait for what
    should be a matter of minutes (a new slice's ssh, workers that do not answer, stragglers).
    outage_patience: seconds to bear that Google Cloud, or the network to it, fails.
    packages: versions that every installation gets; written after the first, where it is missing.
    max_restarts: after so many preemptions, give up.  delete: delete the slice afterwards.
    """

    command: str
    source: pathlib.Path
    extras: str = "tpu,gcs"
    poll: float = 30.0
    patience: float = 300.0
    outage_patience: float = 3600.0
    max_restarts: int = 100
    delete: bool = False
    packages: pathlib.Path | None = None

    def pinned(self) -> bool:
        """Whether the versions of packages are known."""
        return self.packages is not None and self.packages.exists()

    def outage(self) -> Patience:
        """Bears what fails in Google Cloud."""
        return Patience(self.outage_patience, self.poll)


class _Lost(Exception):
    """The slice is not ready any more: taken away, or restarting."""


class _Silence:
    """Bears that workers do not answer, as long as it may pass and the slice is there."""

    def __init__(self, slice: Slice, options: RunOptions):
        self.slice, self.outage = slice, options.outage()
        self.patience = Patience(options.patience, options.poll)

    def bear(self, error: CloudError) -> None:
        """Waits until the next try. Raises _Lost without a slice, `error` when patience is over."""
        try:
            state = look(self.slice).state
        except CloudError as unknown:  # then the workers' silence says nothing about them
            self.patience.over()
            self.outage.bear(unknown)
            return
        self.outage.over()
        if state != "ready":
            raise _Lost from error
        self.patience.bear(error)

    def over(self) -> None:
        """All answered."""
        self.patience.over()
        self.outage.over()


def look(slice: Slice) -> Status:
    """What Google Cloud says about a slice."""
    node = gcloud.described(gcloud.describe_command(slice), timeout=120)
    node_state = (node or {}).get("state", "")
    if node_state == "READY":
        return Status("ready", node_state, len(node.get("networkEndpoints", ())))
    if node:
        return Status("waiting" if node_state in WAITING else "gone", node_state)
    request = gcloud.described(gcloud.describe_command(slice, queued=True), timeout=120)
    if request is None:
        return Status("absent")
    state = request.get("state", {})
    name = state.get("state", "")
    why = state.get("failedData", {}).get("error", {}).get("message", "")
    detail = f"queued resource {name}" + (f": {why}" if why else "")
    return Status("waiting" if name in QUEUED else "gone", detail)


def create(slice: Slice) -> None:
    """Makes the slice, or queues the request for it."""
    say(f"{slice.name}: creating {slice.accelerator} in {slice.zone}")
    gcloud.checked(gcloud.create_command(slice), timeout=MAKING)


def delete(slice: Slice) -> None:
    """Deletes the slice and its queued resource, whichever exist; says when there is neither."""
    request = gcloud.described(gcloud.describe_command(slice, queued=True), timeout=120)
    if request is None and gcloud.described(gcloud.describe_command(slice), timeout=120) is None:
        say(f"{slice.name}: nothing to delete")
        return
    try:
        gcloud.checked(gcloud.delete_command(slice, queued=request is not None), timeout=MAKING)
    except CloudError as error:
        if error.kind != "absent":  # gone meanwhile
            raise
    say(f"{slice.name}: deleted")


def workers(slice: Slice) -> tuple[list[job.Worker], gcloud.Done]:
    """The job on every worker that answers, and how the question itself went."""
    done = gcloud.run(gcloud.ssh_command(slice, job.poll_script()), timeout=150)
    return job.parse_workers(done.output), done


def stop(slice: Slice) -> None:
    """Asks the program on all workers to save and end (SIGTERM); the slice stays, and costs."""
    said = gcloud.checked(gcloud.ssh_command(slice, job.stop_script()), timeout=150)
    if job.parse_stopped(said):
        say(f"{slice.name}: asked to save and stop; the slice stays until you delete it")
        return
    say(
        f"{slice.name}: no job runs there. A launcher that is at work will start one: end it "
        "(Ctrl-C) first. The slice stays until you delete it"
    )


def logs_command(slice: Slice, worker: str, lines: int, follow: bool) -> list[str]:
    """Shows the log's last lines on one worker ("0", ...) or all."""
    return gcloud.ssh_command(slice, job.logs_script(lines, follow), worker)


def run(slice: Slice, options: RunOptions) -> int:
    """Runs a command on a slice until it is done; returns 0, its failure's status, or 75.

    75: it was stopped by `stop` from elsewhere.  Raises CloudError for what retrying cannot mend.
    """
    gcloud.create_command(slice)  # an impossible slice is found before anything starts,
    checkout.check(options.source)  # and code that cannot be sent before anything costs
    if options.packages and not options.packages.parent.is_dir():
        raise InputError(f"--packages={options.packages}: make its folder first")
    try:
        outcome = _until_ended(slice, options)
    except InputError:
        say(f"{slice.name}: giving up; if the slice is there, it costs: launch/tpu_vm.py status")
        raise
    if outcome.kind == "failed":
        say(f"{slice.name}: {outcome.host} failed with exit status {outcome.code}; its log ends:")
        with contextlib.suppress(CloudError):
            print(_tail(slice, outcome.host), file=sys.stderr)
    else:
        say(f"{slice.name}: {outcome.kind}")
    if options.delete and outcome.kind == "done":
        patiently(lambda: delete(slice), options.outage())
    else:
        say(f"{slice.name}: the slice is still there and costs; delete it when you need it no more")
    return outcome.code


def _until_ended(slice: Slice, options: RunOptions) -> job.Outcome:
    """Through all preemptions to the end."""
    for restart in range(options.max_restarts + 1):
        outcome = _attempt(slice, options)
        if outcome.kind != "preempted":
            return outcome
        say(f"{slice.name}: preempted ({outcome.host}); starting again, restart {restart + 1}")
        time.sleep(options.poll)
    raise InputError(
        f"{slice.name}: preempted {options.max_restarts + 1} times; look at the logs, then run "
        "the same command again or give a higher --max_restarts"
    )


def _attempt(slice: Slice, options: RunOptions) -> job.Outcome:
    """From whatever state the slice is in to the end of one start of the command.

    The job may be running already: for a launcher that has just begun, or hosts that were away.
    """
    count = ready(slice, options)
    try:
        if not _running(slice, options, count):
            _install(slice, options)
            _ask(slice, options, gcloud.ssh_command(slice, job.start_script(options.command)))
        say(f"{slice.name}: running on {count} workers: {options.command}")
        outcome = _watch(slice, options, count)
    except _Lost:
        return job.Outcome("preempted", slice.name)
    if outcome.kind == "failed":
        # Hosts of a slice that is being taken away fail before Google says so.
        time.sleep(options.poll)
        if patiently(lambda: look(slice), options.outage()).state != "ready":
            return job.Outcome("preempted", slice.name)
    return outcome


def ready(slice: Slice, options: RunOptions) -> int:
    """Waits until the slice is there, making it where necessary; returns the worker count.

    Raises CloudError for what does not pass, or not within `options.outage_patience`.
    """
    shown = ""
    # "exists": made by an attempt whose answer was lost.
    outage = Patience(options.outage_patience, options.poll, gcloud.PASSING | {"exists"})
    while True:
        try:
            status = look(slice)
            if status.state == "ready":
                return status.workers
            if f"{status.state} {status.detail}" != shown:
                shown = f"{status.state} {status.detail}"
                say(f"{slice.name}: {shown}")
            _make(slice, status)
            outage.over()
        except CloudError as error:
            if error.kind != "stockout":
                outage.bear(error)
                continue
            say(f"{error}\n  trying again in {options.poll:.0f} s")
        time.sleep(options.poll)


def _make(slice: Slice, status: Status) -> None:
    """Makes the slice where there is none, or only the remains of one."""
    if status.state == "gone":
        why = gcloud.explained(f"{slice.name}: {status.detail}")
        if why.kind in HOPELESS:
            raise why
        if status.detail in STOPPED:  # its disks are somebody's
            raise InputError(
                f"{slice.name} is {status.detail}: somebody stopped it, and making it anew would "
                "delete its disks. Start it with `gcloud compute tpus tpu-vm start`, or delete it "
                "with launch/tpu_vm.py delete; then run the same command again"
            )
        delete(slice)
    if status.state in ("absent", "gone"):
        create(slice)


def _running(slice: Slice, options: RunOptions, count: int) -> bool:
    """Whether this very command runs on the slice, by what all workers say.

    Raises InputError when another one does.
    """
    found = _answers(slice, count, _Silence(slice, options))
    running = [worker for worker in found if worker.state == "running"]
    if not running:
        return False
    ask = gcloud.ssh_command(slice, job.command_script(), _number(running[0].host))
    known = _ask(slice, options, ask).strip()
    if known != options.command.strip():
        raise InputError(
            f"{slice.name} is busy with: {known}\n  wait for it, or stop it with "
            "launch/tpu_vm.py stop"
        )
    return True


def _install(slice: Slice, options: RunOptions) -> None:
    with tempfile.TemporaryDirectory() as folder:
        archive = str(pathlib.Path(folder) / job.ARCHIVE)
        checkout.pack(options.source, archive)
        say(f"{slice.name}: copying the code and installing it")
        _ask(slice, options, gcloud.scp_command(slice, archive, job.ARCHIVE), timeout=900)
    if options.pinned():
        _ask(slice, options, gcloud.scp_command(slice, str(options.packages), job.PACKAGES))
    setup = gcloud.ssh_command(slice, job.setup_script(options.extras, options.pinned()))
    _ask(slice, options, setup, timeout=1800)
    if options.packages and not options.pinned():
        found = _ask(slice, options, gcloud.ssh_command(slice, job.packages_script(), "0"))
        with atomic_write(options.packages) as file:
            file.write(found)
        say(f"{slice.name}: wrote {options.packages}, the versions of every installation from now")


def _ask(slice: Slice, options: RunOptions, command: list[str], timeout: float = 150) -> str:
    """What a command to the workers prints, asked again while they do not answer.

    Raises _Lost when the slice went away, CloudError when the script fails or patience is over.
    """
    silence = _Silence(slice, options)
    while True:
        try:
            return gcloud.checked(command, timeout=timeout)
        except CloudError as error:
            silence.bear(error)


def _answers(slice: Slice, count: int, silence: _Silence) -> list[job.Worker]:
    """The job on all workers, once all of them answer."""
    while True:
        found, done = workers(slice)
        if len(found) >= count:
            silence.over()
            return found
        names = ", ".join(worker.host for worker in found) or "none"
        text = f"{count - len(found)} of {count} workers do not answer (those that do: {names})"
        errors = " ".join(done.errors.split("\n")[-6:])
        silence.bear(gcloud.explained(f"{slice.name}: {text}: {errors}"))


def _watch(slice: Slice, options: RunOptions, count: int) -> job.Outcome:
    """Looks at the workers until the job has ended."""
    silence = _Silence(slice, options)
    first_end, shown = None, ""
    while True:
        time.sleep(options.poll)
        found = _answers(slice, count, silence)
        if outcome := job.judge(found):
            return outcome
        if any(worker.state != "running" for worker in found):
            first_end = first_end or time.monotonic()
            if time.monotonic() - first_end > options.patience:
                return _straggling(slice, options, found)
        if found[0].line and found[0].line != shown:
            shown = found[0].line
            say(f"{found[0].host}: {shown}")


def _straggling(slice: Slice, options: RunOptions, found: list[job.Worker]) -> job.Outcome:
    """Some workers ended long ago and others still run: ends these, and says who began it.

    First with SIGTERM. What waits in a collective for those that are gone does not hear it, and
    would hold the chips, and write to the workdir, beside the next start: after `patience` it is
    killed. Returns when no worker runs the job any more.
    """
    still = [worker.host for worker in found if worker.state == "running"]
    say(f"{slice.name}: {', '.join(still)} still running long after others ended; ending them")
    _ask(slice, options, gcloud.ssh_command(slice, job.end_script()))
    began, silence = time.monotonic(), _Silence(slice, options)
    while hosts := [
        worker.host for worker in _answers(slice, len(found), silence) if worker.state == "running"
    ]:
        if time.monotonic() - began > options.patience:
            say(f"{slice.name}: {', '.join(hosts)} did not end; killing")
            _ask(slice, options, gcloud.ssh_command(slice, job.kill_script()))
        time.sleep(options.poll)
    outcome = job.judge([worker for worker in found if worker.state != "running"])
    return outcome if outcome.code else job.Outcome("failed", still[0], 1)


def _tail(slice: Slice, host: str) -> str:
    ask = gcloud.ssh_command(slice, job.logs_script(30, False), _number(host))
    return gcloud.checked(ask, timeout=150)


def _number(host: str) -> str:
    """gcloud's number of a worker: t1v-n-0123-w-10 is 10."""
    return host.rpartition("-w-")[2] if "-w-" in host else "0"

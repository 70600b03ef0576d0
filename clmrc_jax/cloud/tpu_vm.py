"""A TPU slice from nothing to a finished run: create, run, status, logs, stop, delete.

`run` is the launcher that survives preemption: it makes the slice, installs the code, starts the
command on every worker, and watches. When the slice is taken away, or the workers say 75
("saved, run me again"), it does all of that again with the same command, until the command
succeeds or really fails. The launcher may be killed as well: run again, it finds the job.
"""

import contextlib
import dataclasses
import pathlib
import shlex
import sys
import tempfile
import time

from clmrc_jax.cloud import gcloud, job
from clmrc_jax.cloud.gcloud import CloudError
from clmrc_jax.cloud.slices import Slice
from clmrc_jax.files import InputError

WAITING = {"CREATING", "STARTING", "RESTARTING", "REPAIRING", "REIMAGING", "UPDATING"}
QUEUED = {"ACCEPTED", "CREATING", "PROVISIONING", "WAITING_FOR_RESOURCES"}
STOPPED = {"STOPPING", "STOPPED"}  # by a person: nothing took it away
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
    max_restarts: after so many preemptions, give up.  delete: delete the slice afterwards.
    """

    command: str
    source: pathlib.Path
    extras: str = "tpu,gcs"
    poll: float = 30.0
    patience: float = 300.0
    max_restarts: int = 100
    delete: bool = False


def say(text: str) -> None:
    """A line about what happens, to stderr, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


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
    gcloud.checked(gcloud.create_command(slice))


def delete(slice: Slice) -> None:
    """Deletes the slice and its queued resource, whichever exist; says when there is neither."""
    request = gcloud.described(gcloud.describe_command(slice, queued=True), timeout=120)
    if request is not None:
        gcloud.checked(gcloud.delete_command(slice, queued=True))
    elif gcloud.described(gcloud.describe_command(slice), timeout=120) is not None:
        gcloud.checked(gcloud.delete_command(slice, queued=False))
    else:
        say(f"{slice.name}: nothing to delete")
        return
    say(f"{slice.name}: deleted")


def workers(slice: Slice) -> tuple[list[job.Worker], gcloud.Done]:
    """The job on every worker that answers, and how the question itself went."""
    done = gcloud.run(gcloud.ssh_command(slice, job.poll_script()), timeout=150)
    return job.parse_workers(done.output), done


def stop(slice: Slice) -> None:
    """Asks the program on all workers to save and end (SIGTERM); the slice stays, and costs."""
    gcloud.checked(gcloud.ssh_command(slice, job.stop_script()), timeout=150)
    say(f"{slice.name}: asked to save and stop; the slice stays until you delete it")


def logs_command(slice: Slice, worker: str, lines: int, follow: bool) -> list[str]:
    """Shows the log's last lines on one worker ("0", ...) or all."""
    return gcloud.ssh_command(slice, job.logs_script(lines, follow), worker)


def run(slice: Slice, options: RunOptions) -> int:
    """Runs a command on a slice until it is done; returns 0, its failure's status, or 75.

    75: it was stopped by `stop` from elsewhere.  Raises CloudError for what retrying cannot mend.
    """
    gcloud.create_command(slice)  # an impossible slice is found before anything starts
    for restart in range(options.max_restarts + 1):
        outcome = _attempt(slice, options, fresh=restart == 0)
        if outcome.kind != "preempted":
            break
        say(f"{slice.name}: preempted ({outcome.host}); starting again, restart {restart + 1}")
        time.sleep(options.poll)
    else:
        raise InputError(
            f"{slice.name}: preempted {options.max_restarts + 1} times; look at the logs, then run "
            "the same command again or give a higher --max_restarts"
        )
    if outcome.kind == "failed":
        say(f"{slice.name}: {outcome.host} failed with exit status {outcome.code}; its log ends:")
        with contextlib.suppress(CloudError):
            print(_tail(slice, outcome.host), file=sys.stderr)
    else:
        say(f"{slice.name}: {outcome.kind}")
    if options.delete and outcome.kind == "done":
        delete(slice)
    elif outcome.kind != "failed" or not options.delete:
        say(f"{slice.name}: the slice is still there and costs; delete it when you need it no more")
    return outcome.code


def _attempt(slice: Slice, options: RunOptions, fresh: bool) -> job.Outcome:
    """From whatever state the slice is in to the end of one start of the command.

    fresh: the launcher has just begun, and may find its job running already.
    """
    lost = job.Outcome("preempted", slice.name)
    count = ready(slice, options)
    try:
        if not (fresh and _running(slice, options)):
            _install(slice, options)
            _patiently(slice, options, job.start_script(options.command))
    except CloudError:
        if look(slice).state != "ready":  # taken away meanwhile
            return lost
        raise
    say(f"{slice.name}: running on {count} workers: {options.command}")
    outcome = _watch(slice, options, count)
    if outcome.kind == "failed":
        # Hosts of a slice that is being taken away fail before Google says so.
        time.sleep(options.poll)
        if look(slice).state != "ready":
            return lost
    return outcome


def ready(slice: Slice, options: RunOptions) -> int:
    """Waits until the slice is there, making it where necessary; returns the worker count."""
    shown = ""
    while (status := look(slice)).state != "ready":
        if f"{status.state} {status.detail}" != shown:
            shown = f"{status.state} {status.detail}"
            say(f"{slice.name}: {shown}")
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
            try:
                create(slice)
            except CloudError as error:
                if error.kind != "stockout":
                    raise
                say(f"{error}\n  trying again in {options.poll:.0f} s")
        time.sleep(options.poll)
    return status.workers


def _running(slice: Slice, options: RunOptions) -> bool:
    """Whether this very command runs on the slice. Raises InputError when another one does."""
    found, _ = workers(slice)
    if not any(worker.state == "running" for worker in found):
        return False
    known = gcloud.run(gcloud.ssh_command(slice, job.command_script(), "0"), timeout=150)
    if known.output.strip() != options.command.strip():
        raise InputError(
            f"{slice.name} is busy with: {known.output.strip()}\n  wait for it, or stop it with "
            "launch/tpu_vm.py stop"
        )
    return True


def _install(slice: Slice, options: RunOptions) -> None:
    with tempfile.TemporaryDirectory() as folder:
        archive = str(pathlib.Path(folder) / job.ARCHIVE)
        pack(options.source, archive)
        say(f"{slice.name}: copying the code and installing it")
        _patiently(slice, options, "true")  # until ssh answers
        gcloud.checked(gcloud.scp_command(slice, archive, job.ARCHIVE), timeout=900)
    gcloud.checked(gcloud.ssh_command(slice, job.setup_script(options.extras)), timeout=1800)


def archive_command(source: pathlib.Path, archive: str, revision: str = "HEAD") -> list[str]:
    """Packs the tracked files of a revision."""
    return [
        *("git", "-C", str(source), "archive", "--format=tar.gz", f"--output={archive}"),
        revision,
    ]


def pack(source: pathlib.Path, archive: str) -> None:
    """Packs the code as it stands, uncommitted changes to tracked files included.

    Raises InputError when `source` is not a git checkout; warns of files git does not know.
    """
    git = ["git", "-C", str(source)]
    changed = gcloud.run([*git, "stash", "create"])  # a commit of the changes; alters nothing
    if changed.code:
        raise InputError(f"{source}: {changed.errors.strip()}; run from a git checkout of the code")
    unknown = gcloud.run([*git, "ls-files", "--others", "--exclude-standard"]).output.split("\n")
    if files := [name for name in unknown if name]:
        say(f"warning: not sent, since git does not track them: {', '.join(files[:5])}")
    command = archive_command(source, archive, changed.output.strip() or "HEAD")
    packed = gcloud.run(command)
    if packed.code:
        raise InputError(f"{shlex.join(command)}: {packed.errors.strip()}")


def _patiently(slice: Slice, options: RunOptions, script: str) -> None:
    """Runs a script on all workers, again and again while they do not answer."""
    deadline = time.monotonic() + options.patience
    while True:
        try:
            gcloud.checked(gcloud.ssh_command(slice, script), timeout=150)
            return
        except CloudError as error:
            if time.monotonic() > deadline or error.kind not in ("ssh", "other"):
                raise
            if look(slice).state != "ready":
                raise
        time.sleep(options.poll)


def _watch(slice: Slice, options: RunOptions, count: int) -> job.Outcome:
    """Looks at the workers until the job has ended."""
    heard = time.monotonic()
    first_end, shown = None, ""
    while True:
        time.sleep(options.poll)
        found, done = workers(slice)
        now = time.monotonic()
        if len(found) < count:
            if look(slice).state != "ready":
                return job.Outcome("preempted", slice.name)
            if now - heard > options.patience:
                raise gcloud.failure(gcloud.ssh_command(slice, "..."), _silent(found, count, done))
            continue
        heard = now
        if outcome := job.judge(found):
            return outcome
        if any(worker.state != "running" for worker in found):
            first_end = first_end or now
            if now - first_end > options.patience:
                return _straggling(slice, found)
        if found[0].line and found[0].line != shown:
            shown = found[0].line
            say(f"{found[0].host}: {shown}")


def _silent(found, count, done: gcloud.Done) -> gcloud.Done:
    names = ", ".join(worker.host for worker in found) or "none"
    text = f"{count - len(found)} of {count} workers do not answer (those that do: {names})"
    errors = " ".join(done.errors.split("\n")[-6:])
    return dataclasses.replace(done, errors=f"ERROR: {text}: {errors}")


def _straggling(slice: Slice, found) -> job.Outcome:
    """Some workers ended long ago and others still run: ends these, and says who began it."""
    still = [worker.host for worker in found if worker.state == "running"]
    say(f"{slice.name}: {', '.join(still)} still running long after others ended; stopping them")
    gcloud.run(gcloud.ssh_command(slice, job.stop_script()), timeout=150)
    ended = [worker for worker in found if worker.state != "running"]
    outcome = job.judge(ended)
    return outcome if outcome.code else job.Outcome("failed", still[0], 1)


def _tail(slice: Slice, host: str) -> str:
    worker = host.rpartition("-w-")[2] if "-w-" in host else "0"
    return gcloud.checked(
        gcloud.ssh_command(slice, job.logs_script(30, False), worker), timeout=150
    )


def plan(verb: str, slice: Slice, options: RunOptions | None = None) -> list[str]:
    """The exact commands of a verb, as lines of shell with comments; nothing is run."""
    describe = [gcloud.describe_command(slice), gcloud.describe_command(slice, queued=True)]
    poll = gcloud.ssh_command(slice, job.poll_script())
    if verb == "create":
        steps = [("", gcloud.create_command(slice))]
    elif verb == "delete":
        steps = [("", gcloud.delete_command(slice, queued=slice.queued))]
    elif verb == "stop":
        steps = [("", gcloud.ssh_command(slice, job.stop_script()))]
    elif verb == "status":
        steps = [("", describe[0]), ("if it is not READY", describe[1]), ("the job", poll)]
    else:
        install = job.setup_script(options.extras)
        steps = [
            ("is it there?", describe[0]),
            ("if it is not READY", describe[1]),
            ("if there is none", gcloud.create_command(slice)),
            ("once it is READY: the code", archive_command(options.source, job.ARCHIVE)),
            ("", gcloud.scp_command(slice, job.ARCHIVE, job.ARCHIVE)),
            ("the environment", gcloud.ssh_command(slice, install)),
            ("start", gcloud.ssh_command(slice, job.start_script(options.command))),
            (f"every {options.poll:g} s, until all workers have ended", poll),
            (
                "after a preemption, then all of this again",
                gcloud.delete_command(slice, queued=slice.queued),
            ),
        ]
    return [f"# {note}\n{shlex.join(line)}" if note else shlex.join(line) for note, line in steps]

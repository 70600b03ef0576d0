"""gcloud: its command lines as pure functions, running them, and what its errors mean."""

import dataclasses
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from clmrc_jax.cloud.slices import Slice, accelerator
from clmrc_jax.files import InputError

TIMED_OUT = 124
PASSING = frozenset({"ssh", "outage", "other"})  # kinds of errors that may pass by themselves


class CloudError(InputError):
    """gcloud failed; `kind` is a key of the table below, "script" (that ran), or "other"."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


@dataclasses.dataclass(frozen=True)
class Done:
    """A command that ended.  code: exit status, 124 when it took too long."""

    code: int
    output: str
    errors: str


# (kind, what gcloud prints, remedy); the first row that matches counts.
_ERRORS = (
    (
        "ssh",
        r"exited with return code \[255\]|publickey|host key verification|ssh-add",
        "a new slice takes a minute to accept connections: try again. Else add the key to the "
        "agent (ssh-add ~/.ssh/google_compute_engine), open port 22, or give --ssh_flags="
        "--internal-ip inside the VPC",
    ),
    (
        "stockout",
        r"no more capacity|insufficient (reserved )?capacity|stockout|resource_pool_exhausted",
        "the zone has no such chips free now. Wait in the queue (leave --direct out), take --spot, "
        "or try another zone",
    ),
    (  # before quota (of requests per minute) and login: without a network, gcloud asks to log in
        "outage",
        r"name resolution|name or service not known|nodename nor servname|could not resolve|"
        r"unable to find the server|network is unreachable|max retries exceeded|timed out|"
        r"connection (refused|reset|aborted)|deadline.exceeded|gave no answer|per.minute|"
        r"rate.?limit|too many requests|unavailable:|(service|currently) unavailable|"
        r"(internal|backend) error|(http|error|code|status)\W{0,3}(429|5\d\d)\b",
        "the network here or Google Cloud fails at the moment",
    ),
    (
        "quota",
        r"quota limit|quota '.*exhausted|quota.*exceeded",
        "the project may not use so many chips of this kind (spot and on-demand count apart, and "
        "failed or suspended queued resources too: gcloud compute tpus queued-resources list). "
        "Ask for quota at https://console.cloud.google.com/iam-admin/quotas, or take a smaller "
        "slice, another zone or --spot",
    ),
    (
        "api",
        r"api has not been used|serviceusage|service_disabled",
        "turn the API on: gcloud services enable tpu.googleapis.com",
    ),
    (
        "type",
        r"accelerator.?type|runtime.?version|tpu software version",
        "what a zone has: gcloud compute tpus accelerator-types list --zone=ZONE, and versions "
        "list --zone=ZONE for --runtime",
    ),
    (
        "usage",
        r"unrecognized arguments|invalid choice|argument --|invalid_argument",
        "gcloud does not take this; --create_flags and --ssh_flags go to it as they are",
    ),
    (
        "login",
        r"active account|reauthentication|gcloud auth login|invalid_grant",
        "log in: gcloud auth login",
    ),
    (
        "project",
        r"\[(core/)?project\]",
        "give --project, or: gcloud config set project PROJECT",
    ),
    (
        "permission",
        r"permission_denied|permission .*denied|required '.*' permission|does not have permission|"
        r"forbidden",
        "ask the project's owner for roles/tpu.admin and roles/iam.serviceAccountUser, and check "
        "--project and --zone",
    ),
    (
        "absent",
        r"not_found|was not found",
        "check name, --zone and --project: gcloud compute tpus tpu-vm list --zone=ZONE; make it "
        "with: launch/tpu_vm.py create",
    ),
    (
        "exists",
        r"already_exists|already exists",
        "it is there already: launch/tpu_vm.py status; or delete it first",
    ),
)


def say(text: str) -> None:
    """A line about what happens, to stderr, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _command(group: str, verb: str, slice: Slice, *rest: str) -> list[str]:
    where = [f"--zone={slice.zone}"] + [f"--project={slice.project}"] * bool(slice.project)
    return ["gcloud", "compute", "tpus", group, verb, slice.name, *where, "--quiet", *rest]


def create_command(slice: Slice) -> list[str]:
    """Makes the slice, or queues the request for it. Raises InputError without accelerator."""
    if not slice.accelerator:
        raise InputError(f"slice {slice.name}: give --accelerator, e.g. v4-8 or v5e-16")
    kind = accelerator(slice.accelerator)
    runtime, spot = slice.runtime or kind.runtime, ["--spot"] * slice.spot
    flags = [f"--accelerator-type={kind.type}", *spot, *slice.create_flags]
    if not slice.queued:
        return _command("tpu-vm", "create", slice, f"--version={runtime}", *flags)
    request = [f"--node-id={slice.name}", f"--runtime-version={runtime}", "--async"]
    return _command("queued-resources", "create", slice, *request, *flags)


def describe_command(slice: Slice, *, queued: bool = False) -> list[str]:
    """Tells about the TPU VM, or (queued) about the request for it, as JSON."""
    group = "queued-resources" if queued else "tpu-vm"
    return _command(group, "describe", slice, "--format=json")


def delete_command(slice: Slice, *, queued: bool) -> list[str]:
    """Deletes the TPU VM, or (queued) the request and the TPU VM with it."""
    if queued:
        return _command("queued-resources", "delete", slice, "--force")
    return _command("tpu-vm", "delete", slice)


def ssh_command(slice: Slice, script: str, worker: str = "all") -> list[str]:
    """Runs a shell script on one worker ("0", "1", ...) or all of them at once."""
    rest = [f"--worker={worker}", *slice.ssh_flags, f"--command={script}"]
    return _command("tpu-vm", "ssh", slice, *rest)


def scp_command(slice: Slice, file: str, target: str) -> list[str]:
    """Copies a local file to `target` (relative to the home folder) on all workers."""
    where = [f"--zone={slice.zone}"] + [f"--project={slice.project}"] * bool(slice.project)
    copy = ["gcloud", "compute", "tpus", "tpu-vm", "scp", file, f"{slice.name}:{target}"]
    return [*copy, *where, "--quiet", "--worker=all", *slice.ssh_flags]


def run(command: Sequence[str], *, timeout: float | None = None, show: bool = False) -> Done:
    """Runs a command to its end, or kills it and all it started after `timeout` seconds.

    show: its output goes to the terminal instead. Raises CloudError when there is no gcloud.
    """
    pipe = None if show else subprocess.PIPE
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            text=True,
            start_new_session=not show,  # so that its ssh processes can be killed with it
        )
    except FileNotFoundError as error:
        remedy = "install it"
        if command[0] == "gcloud":
            remedy = "see https://cloud.google.com/sdk/docs/install, then: gcloud auth login"
        missing = f"{command[0]} is not installed here or not on the PATH; {remedy}"
        raise CloudError("no gcloud", missing) from error
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        return Done(TIMED_OUT, output, f"{errors}\ngave no answer for {timeout:.0f} s")
    except BaseException:
        process.kill()
        raise
    return Done(process.returncode, output or "", errors or "")


def failure(command: Sequence[str], done: Done) -> CloudError:
    """The error of a failed command: what gcloud says, and what to do about it.

    Its kind is "script" when ssh worked and the script failed: gcloud ends with its status then.
    """
    text = done.errors.strip() or done.output.strip() or f"exit status {done.code}"
    said = [line for line in text.splitlines() if line.startswith("ERROR")] or text.splitlines()
    message = f"{' '.join(command[3:5])} {command[5]}: {' '.join(said[-3:])}"
    ours = re.search(r"^ERROR: (\(gcloud\.|gcloud crashed)", text, re.MULTILINE)
    if command[4] == "ssh" and not ours and done.code not in (TIMED_OUT, 255):
        return CloudError("script", message)
    return explained(message, text)


def explained(what: str, text: str = "") -> CloudError:
    """An error with its kind and remedy.  what: the message.  text: what tells the kind, if more."""
    for kind, pattern, remedy in _ERRORS:
        if re.search(pattern, text or what, re.IGNORECASE):
            return CloudError(kind, f"{what}\n  {remedy}")
    return CloudError("other", what)


def checked(command: Sequence[str], *, timeout: float | None = None) -> str:
    """Runs a command; returns its standard output. Raises CloudError when it fails."""
    done = run(command, timeout=timeout)
    if done.code:
        raise failure(command, done)
    return done.output


def described(command: Sequence[str], *, timeout: float | None = None) -> dict | None:
    """The JSON of a describe command, or None when there is no such thing."""
    try:
        text = checked(command, timeout=timeout)
    except CloudError as error:
        if error.kind == "absent":
            return None
        raise
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise CloudError(
            "other", f"{shlex.join(command)}: no JSON came back: {text!r:.200}"
        ) from error

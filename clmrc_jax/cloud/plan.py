"""What a verb of the launcher would do: its commands, as shell that could be run."""

import re
import shlex

from clmrc_jax.cloud import checkout, gcloud, job
from clmrc_jax.cloud.slices import Slice
from clmrc_jax.cloud.tpu_vm import RunOptions


def plan(verb: str, slice: Slice, options: RunOptions | None = None) -> list[str]:
    """The exact commands of a verb, as lines of shell with comments; nothing is run.

    options: needed for "run".
    """
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
        steps = [
            ("is it there?", describe[0]),
            ("if it is not READY", describe[1]),
            ("if there is none", gcloud.create_command(slice)),
            ("once it is READY: when the job runs there already, it is only watched", poll),
            *_installation(slice, options),
            ("start", gcloud.ssh_command(slice, job.start_script(options.command))),
            (f"every {options.poll:g} s, until all workers have ended", poll),
            (
                "after a preemption, then all of this again",
                gcloud.delete_command(slice, queued=slice.queued),
            ),
        ]
        if options.delete:
            steps += [("when it has succeeded", gcloud.delete_command(slice, queued=slice.queued))]
    lines = [(note, line if isinstance(line, str) else shlex.join(line)) for note, line in steps]
    return [f"# {note}\n{line}" if note else line for note, line in lines]


def _installation(slice: Slice, options: RunOptions) -> list[tuple[str, str | list[str]]]:
    """Packs the code as it stands into a folder that is removed afterwards, and installs it."""
    archive = f"$folder/{job.ARCHIVE}"
    commit = (
        f"commit=$({shlex.join(checkout.snapshot_command(options.source))}) && folder=$(mktemp -d)"
        " || exit"
    )
    pack = checkout.archive_command(options.source, archive, "${commit:-HEAD}")
    copy = gcloud.scp_command(slice, archive, job.ARCHIVE)
    setup = gcloud.ssh_command(slice, job.setup_script(options.extras, options.pinned()))
    before, after = [], []
    if options.pinned():
        before = [gcloud.scp_command(slice, str(options.packages), job.PACKAGES)]
    elif options.packages:
        freeze = gcloud.ssh_command(slice, job.packages_script(), "0")
        after = [f"{shlex.join(freeze)} > {shlex.quote(str(options.packages))}"]
    return [
        ("the code as it stands: its uncommitted changes as a commit that no branch has", commit),
        ("", _with_variables(pack)),
        ("", _with_variables(copy)),
        ("", 'rm -r "$folder"'),
        *(("the versions of its packages", line) for line in before),
        ("the environment", setup),
        *(("the versions that it got, for the installations after it", line) for line in after),
    ]


def _with_variables(command: list[str]) -> str:
    """The command line, in which $name and ${name} are variables of the shell."""
    return re.sub(r"'([\w=/-]*\$[{\w][\w}:/.-]*)'", r'"\1"', shlex.join(command))

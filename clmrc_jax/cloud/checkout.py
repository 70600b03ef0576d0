"""The code that goes to the workers: a git checkout as it stands, packed."""

import pathlib
import shlex

from clmrc_jax.cloud import gcloud
from clmrc_jax.files import InputError


def snapshot_command(source: pathlib.Path) -> list[str]:
    """Prints a commit of the changes to tracked files, or nothing without any; alters nothing."""
    return ["git", "-C", str(source), "stash", "create"]


def archive_command(source: pathlib.Path, archive: str, revision: str) -> list[str]:
    """Packs the tracked files of a revision."""
    return [
        *("git", "-C", str(source), "archive", "--format=tar.gz", f"--output={archive}"),
        revision,
    ]


def pack(source: pathlib.Path, archive: str) -> None:
    """Packs the code as it stands, uncommitted changes to tracked files included.

    Raises InputError when `source` is not a git checkout; warns of files git does not know.
    """
    changed = gcloud.run(snapshot_command(source))
    if changed.code:
        raise InputError(f"{source}: {changed.errors.strip()}; run from a git checkout of the code")
    listing = ["git", "-C", str(source), "ls-files", "--others", "--exclude-standard"]
    if files := [name for name in gcloud.run(listing).output.split("\n") if name]:
        gcloud.say(f"warning: not sent, since git does not track them: {', '.join(files[:5])}")
    command = archive_command(source, archive, changed.output.strip() or "HEAD")
    packed = gcloud.run(command)
    if packed.code:
        raise InputError(f"{shlex.join(command)}: {packed.errors.strip()}")

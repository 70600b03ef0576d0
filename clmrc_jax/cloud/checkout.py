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


def check(source: pathlib.Path) -> None:
    """Warns of files git does not know. Raises InputError when `source` is not a git checkout."""
    listing = ["git", "-C", str(source), "ls-files", "--others", "--exclude-standard"]
    found = gcloud.run(listing)
    if found.code:
        raise InputError(
            f"{source}: {found.errors.strip()}; --source is a git checkout of the code"
        )
    if files := [name for name in found.output.split("\n") if name]:
        gcloud.say(f"warning: not sent, since git does not track them: {', '.join(files[:5])}")


def pack(source: pathlib.Path, archive: str) -> None:
    """Packs the code of a checkout as it stands, uncommitted changes to tracked files included.

    Raises InputError with git's words where it cannot, as with a file half added (`git add -N`).
    """
    changes = _git(snapshot_command(source))
    _git(archive_command(source, archive, changes or "HEAD"))


def _git(command: list[str]) -> str:
    done = gcloud.run(command)
    if done.code:
        said = done.errors.strip() or done.output.strip()
        raise InputError(f"{shlex.join(command)}: {said}")
    return done.output.strip()

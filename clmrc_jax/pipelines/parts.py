"""A long list worked off part by part: memory for one part, and a place to go on.

A part is a JSON-lines file with a row per item, which appears when the last of them is done. The
same command works on what is in no part yet.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from etils import epath

from clmrc_jax import hosts
from clmrc_jax.files import InputError, JsonlRows, read_json, write_json, write_jsonl

MADE_BY = "made_by.json"
Item = TypeVar("Item")


def work_in_parts(
    items: Iterable[Item],
    work: Callable[[list[Item]], Sequence[dict]],
    folder: epath.Path,
    *,
    size: int,
    made_by: dict,
) -> None:
    """Works on all items, into `part_files(folder)`; all processes call it together.

    items: in the same order in every process and whenever the command is run again.
    work: a row per item; all processes call it with the same items, and process 0 writes the rows.
    size: items per part; may change when continuing.   made_by: a JSON object that must not.
    Raises InputError for parts made by another.
    """
    done = hosts.on_first(f"{folder.name} done before?", lambda: _begin(folder, made_by))
    left = itertools.islice(items, done, None)
    for number in itertools.count(len(part_files(folder)) if hosts.is_first() else 0):
        part = list(itertools.islice(left, size))
        if not part:
            return
        rows = work(part)
        if len(rows) != len(part):
            raise ValueError(f"{len(part)} items, and {len(rows)} rows of them")
        if hosts.is_first():
            write_jsonl(folder / f"part-{number:06d}.jsonl", rows)


def part_files(folder: epath.Path) -> list[epath.Path]:
    """The parts that are done, in order."""
    return sorted(folder.glob("part-*.jsonl"))


def _begin(folder: epath.Path, made_by: dict) -> int:
    """How many items are done in `folder`, which belongs to `made_by` from now on."""
    path, made_by = folder / MADE_BY, json.loads(json.dumps(made_by))
    if not path.exists() or not part_files(folder):
        write_json(path, made_by)
    elif read_json(path) != made_by:
        raise InputError(
            f"{folder}: its parts were made with other settings, or from other rows; use the old "
            "settings, or another --workdir (--output), or delete this folder"
        )
    return sum(len(JsonlRows(part)) for part in part_files(folder))

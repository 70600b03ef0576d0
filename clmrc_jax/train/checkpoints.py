"""Checkpoints: Orbax behind four functions, `open`, `save`, `restore_latest`, `close`.

A step's folder holds three items: `state` (arrays), `data` (the input iterator's state) and
`config` (what made it, and the shape of every array), plus `checksums.json`, written when
Orbax has committed the rest. Orbax alone may restore a truncated array file without an error;
the checksums see it, and a checkpoint without them was interrupted. Nothing is pickled.
"""

import contextlib
import dataclasses
import os
import sys
import threading
import zlib

import jax
import orbax.checkpoint as ocp
from etils import epath

from clmrc_jax import hosts
from clmrc_jax.files import InputError, read_json, write_json
from clmrc_jax.sharding import flatten_paths

_CHECKSUMS = "checksums.json"
_ITEMS = {"state", "data", "config"}
_MARKS = {_CHECKSUMS, "commit_success.txt", "_CHECKPOINT_METADATA"}
_INTERRUPTED = "interrupted while it was written"
_CRC_LIMIT = 64 * 2**20  # larger files are checked by size alone: a CRC costs about 1 s per GB
_FULL_DISK = ("no space left", "enospc", "disk quota", "file too large", "resource_exhausted")


@dataclasses.dataclass
class Checkpoints:
    """An open folder of checkpoints. background: saving goes on while training continues."""

    folder: epath.Path
    manager: ocp.CheckpointManager
    background: bool
    sealing: threading.Thread | None = None
    error: BaseException | None = None
    failed: bool = False


@dataclasses.dataclass
class Restored:
    """One restored checkpoint. data, config: the JSON objects given to `save`."""

    step: int
    state: object
    data: dict
    config: dict


def open(
    folder: str | os.PathLike,
    keep: int = 2,
    background: bool | None = None,
    newest: int | None = None,
) -> Checkpoints:
    """Opens (and creates) a folder of checkpoints; leftovers of interrupted saves go away.

    keep: newest checkpoints that stay, at least 2, so that a damaged one has a predecessor.
    background: default on accelerators only; on the CPU the arrays being written would share
    memory with those the next step overwrites.  newest: later checkpoints are removed.
    """
    if keep < 2:
        raise InputError(f"keep={keep}: at least 2 checkpoints must stay, one may be damaged")
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, cleanup_tmp_directories=True, enable_async_checkpointing=True
    )
    folder = epath.Path(folder)
    if "://" not in str(folder):
        folder = folder.absolute()  # Orbax asks for it
    if background is None:
        background = jax.default_backend() != "cpu"
    manager = ocp.CheckpointManager(folder, options=options, item_handlers=_handlers())
    for step in manager.all_steps() if newest is not None else ():
        if step > newest:
            manager.delete(step)
    return Checkpoints(folder, manager, background)


def save(checkpoints: Checkpoints, step: int, state, data: dict, config: dict) -> None:
    """Saves one checkpoint; in the background, except that a second save waits for the first.

    state: pytree of arrays. data, config: JSON objects. An intact checkpoint of this step that
    is there already is kept. Raises InputError when the disk is full, with nothing left behind.
    """
    _wait(checkpoints)
    if step in checkpoints.manager.all_steps():
        if _damage(checkpoints.folder / str(step)) is None:
            return
        checkpoints.manager.delete(step)
    record = {"config": config, "arrays": _arrays_table(state)}
    items = ocp.args.Composite(
        state=ocp.args.PyTreeSave(state),
        data=ocp.args.JsonSave(data),
        config=ocp.args.JsonSave(record),
    )
    with _disk_errors(checkpoints, step):
        checkpoints.manager.save(step, args=items)
    name = f"checkpoint {checkpoints.folder / str(step)}"
    checkpoints.sealing = threading.Thread(target=_seal, args=(checkpoints, step), name=name)
    checkpoints.sealing.start()
    if not checkpoints.background:
        _wait(checkpoints)


def restore_latest(checkpoints: Checkpoints, abstract_state, config: dict) -> Restored | None:
    """The newest intact checkpoint, or None when there is none yet.

    abstract_state: ShapeDtypeStructs with shardings; the mesh may differ from the one saved on.
    A damaged checkpoint is passed over for the one before it, with a line on stderr.
    Raises InputError for a checkpoint of another configuration or other arrays (naming the
    first difference), and when every checkpoint is damaged.
    """
    # One process looks for all, before any of them removes what was rejected.
    step, rejected = hosts.on_first("checkpoints", lambda: _newest_intact(checkpoints))
    if step is None:
        _discard(checkpoints, rejected, "starting from the beginning")
        return None
    restored = _restore(checkpoints, step, abstract_state, config)
    _discard(checkpoints, rejected, f"continuing from step {step}")
    return restored


def close(checkpoints: Checkpoints) -> None:
    """Waits until everything is on disk, and lets go of the folder."""
    try:
        _wait(checkpoints)
    finally:
        # Orbax repeats at closing the error of a failed save, which was raised already.
        with contextlib.suppress(*[Exception] * checkpoints.failed):
            checkpoints.manager.close()


def _handlers() -> dict[str, ocp.CheckpointHandler]:
    """How each item is written.

    Replicas share the writing of arrays from 1 MiB per slice on: below, compiling the slices
    takes longer than writing them (Orbax would compile one per shape and replica).
    """
    arrays = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=2**20)
    registry = ocp.type_handlers.create_type_handler_registry((jax.Array, arrays))
    return {
        "state": ocp.PyTreeCheckpointHandler(type_handler_registry=registry),
        "data": ocp.JsonCheckpointHandler(),
        "config": ocp.JsonCheckpointHandler(),
    }


def _newest_intact(checkpoints) -> tuple[int | None, list[tuple[int, str]]]:
    """Its step, and (step, what is wrong) of those after it. Raises as `restore_latest` does."""
    rejected = []
    for step in sorted(checkpoints.manager.all_steps(), reverse=True):
        folder = checkpoints.folder / str(step)
        if not _is_ours(folder):
            raise InputError(f"{folder} is not a checkpoint of this program; use another workdir")
        problem = _damage(folder)
        if problem is None:
            return step, rejected
        rejected.append((step, problem))
    if any(problem != _INTERRUPTED for _, problem in rejected):
        step, problem = rejected[0]
        raise InputError(
            f"{checkpoints.folder / str(step)}: {problem}, and no earlier checkpoint is intact; "
            f"remove {checkpoints.folder.parent} to start this training again"
        )
    return None, rejected


def _is_ours(folder) -> bool:
    """Whether nothing but our items lies there: perhaps not all, when its removal was killed."""
    names = {path.name for path in folder.iterdir()}
    return names <= _ITEMS | _MARKS and (bool(names & _ITEMS) or not names)


def _wait(checkpoints):
    if checkpoints.sealing is not None:
        checkpoints.sealing.join()
        hosts.wait_for_all(checkpoints.sealing.name)  # process 0 has written the checksums
        checkpoints.sealing = None
    error, checkpoints.error = checkpoints.error, None
    if error is not None:
        checkpoints.failed = True
        raise error


def _seal(checkpoints, step):
    """Waits for the commit of `step`, then writes its checksums; keeps any error for `_wait`."""
    try:
        with _disk_errors(checkpoints, step):
            checkpoints.manager.wait_until_finished()
            if jax.process_index() == 0:
                folder = checkpoints.folder / str(step)
                write_json(folder / _CHECKSUMS, {"files": _fingerprints(folder)})
    except BaseException as error:
        checkpoints.error = error


@contextlib.contextmanager
def _disk_errors(checkpoints, step):
    try:
        yield
    except Exception as error:
        for part in checkpoints.folder.glob(f"{step}.*tmp*"):
            part.rmtree(missing_ok=True)
        if any(sign in str(error).lower() for sign in _FULL_DISK):
            raise InputError(
                f"{checkpoints.folder}: the disk is full, step {step} was not saved; free space "
                f"(or choose a larger save_every) and run the same command again to continue"
            ) from error
        raise


def _fingerprints(folder) -> dict[str, list[int]]:
    """Relative path -> [size, CRC-32 or -1 for large files] of every array file."""
    found = {}
    for path in _files(folder / "state"):
        size = path.stat().length
        crc = zlib.crc32(path.read_bytes()) if size <= _CRC_LIMIT else -1
        found[str(path.relative_to(folder))] = [size, crc]
    return found


def _files(folder):
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _damage(folder) -> str | None:
    """What is wrong with a checkpoint's files, or None."""
    if not (folder / _CHECKSUMS).exists():
        return _INTERRUPTED
    try:
        expected = read_json(folder / _CHECKSUMS)["files"]
        found = _fingerprints(folder)
    except (InputError, KeyError, OSError) as error:
        return f"unreadable ({error})"
    for name, fingerprint in expected.items():
        if name not in found:
            return f"file {name} is missing"
        if found[name] != fingerprint:
            size, was = found[name][0], fingerprint[0]
            how = f"{size} bytes instead of {was}" if size != was else "its content changed"
            return f"file {name} is corrupt ({how})"
    return None


def _restore(checkpoints, step, abstract_state, config) -> Restored:
    items = ocp.args.Composite(data=ocp.args.JsonRestore(), config=ocp.args.JsonRestore())
    loaded = checkpoints.manager.restore(step, args=items)
    folder = checkpoints.folder / str(step)
    _check_arrays(folder, loaded.config["arrays"], _arrays_table(abstract_state))
    _check_config(folder, loaded.config["config"], config)
    places = ocp.checkpoint_utils.construct_restore_args(abstract_state)
    items = ocp.args.Composite(state=ocp.args.PyTreeRestore(abstract_state, places))
    state = checkpoints.manager.restore(step, args=items).state
    return Restored(step, state, loaded.data, loaded.config["config"])


def _discard(checkpoints, rejected, then):
    for step, problem in rejected:
        folder = checkpoints.folder / str(step)
        print(f"{folder}: {problem}; removing it, {then}", file=sys.stderr)
        checkpoints.manager.delete(step)


def _arrays_table(tree) -> dict[str, list]:
    """{path: [shape, dtype]} of a tree of arrays, as JSON."""
    return {path: [list(x.shape), str(x.dtype)] for path, x in flatten_paths(tree).items()}


def _check_arrays(folder, saved, wanted):
    remedy = "use the model and optimizer it was made with, or another workdir"
    for path in sorted({*saved, *wanted}, key=lambda path: (not path.startswith("params"), path)):
        if path not in saved:
            raise InputError(f"{folder}: the checkpoint has no {path}; {remedy}")
        if path not in wanted:
            raise InputError(f"{folder}: the checkpoint has {path}, the model has not; {remedy}")
        if saved[path] != wanted[path]:
            raise InputError(
                f"{folder}: {path} is {_describe(saved[path])} in the checkpoint, but "
                f"{_describe(wanted[path])} in the model; {remedy}"
            )


def _describe(row) -> str:
    shape, dtype = row
    return f"{dtype}{shape}"


def _check_config(folder, saved, wanted):
    saved, wanted = flatten_paths(saved), flatten_paths(wanted)
    for key in sorted({*saved, *wanted}):
        if saved.get(key) != wanted.get(key):
            raise InputError(
                f"{folder} was made with {key}={saved.get(key)!r}, now {key}={wanted.get(key)!r}; "
                f"use the old value, or another workdir"
            )

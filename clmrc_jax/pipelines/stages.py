"""Stages of a run: done once, recognised by their manifest, never repeated.

A stage writes into its own folder; when it returns, a manifest with its settings, counts,
package versions and time is written atomically. The same command run again skips what has a
manifest and continues the rest. With several processes, process 0 decides what is done, and
writes the manifest when all have come to the end of the stage.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable

from etils import epath

from clmrc_jax import hosts
from clmrc_jax.files import InputError, read_json, remove_leftovers, write_json
from clmrc_jax.pipelines.run_identity import identity

MANIFEST = "stage.json"
PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "sentencepiece", "babel")


class Run:
    """One run in one workdir: its stages and their times."""

    def __init__(self, workdir: str | os.PathLike, *, quiet: bool = False):
        self.workdir = epath.Path(workdir)
        self.quiet = quiet
        self.seconds: dict[str, float] = {}

    def path(self, *parts: str) -> epath.Path:
        """A path inside the workdir."""
        return self.workdir.joinpath(*parts)

    def say(self, text: str) -> None:
        """A line about the run's progress, to stderr of process 0."""
        if not self.quiet and hosts.is_first():
            print(text, file=sys.stderr, flush=True)

    def stage(
        self,
        name: str,
        settings: dict,
        work: Callable[[epath.Path], dict | None],
        *,
        alone: bool = False,
    ) -> dict:
        """Runs `work(folder)` unless the manifest in workdir/name says that it is done.

        settings: everything the result depends on (config values, seed, earlier stages'
        fingerprints); a finished stage with other settings is an InputError, not silently reused.
        Those that change only speed and memory (`run_identity`) are recorded, not compared.
        alone: process 0 runs `work` while the others wait; else all processes run it together,
        and it writes what is single on `hosts.is_first()` only.
        returns: the counts that `work` returned on process 0, now or when it ran.
        """
        folder = self.path(name)
        fingerprint = settings_fingerprint(settings, name)
        manifest = hosts.on_first(f"{name} done?", lambda: _read_manifest(folder))
        if manifest:
            changed = ""
            if manifest["fingerprint"] != fingerprint:  # or one of all settings, as they once were
                both = (manifest["settings"], _as_read(settings))
                changed = _differences(*(identity(values, stage=name) for values in both))
            if changed:
                raise InputError(
                    f"{folder}: this stage was made with other settings ({changed}). "
                    "Use another --workdir, or delete this folder and those of later stages."
                )
            self.seconds[name] = manifest["seconds"]
            self.say(f"{name}: done before ({manifest['seconds']:.1f} s)")
            return manifest["counts"]
        self.say(f"{name}:")
        begin = time.monotonic()

        def finish(counts: dict) -> dict:
            self.seconds[name] = time.monotonic() - begin
            _write_manifest(folder, name, settings, counts, self.seconds[name])
            return counts

        if alone:
            counts = hosts.on_first(name, lambda: finish(work(folder) or {}))
        else:
            counts = work(folder) or {}
            hosts.wait_for_all(name)
            counts = hosts.on_first(name, lambda: finish(counts))
        self.seconds.setdefault(name, time.monotonic() - begin)
        shown = ", ".join(f"{k} {_short(v)}" for k, v in counts.items() if not isinstance(v, dict))
        self.say(f"{name}: {shown or 'done'} ({self.seconds[name]:.1f} s)")
        return counts


def _read_manifest(folder: epath.Path) -> dict | None:
    """The manifest of a finished stage; None for another, which is made ready to begin."""
    path = folder / MANIFEST
    if path.exists():
        return read_json(path)
    remove_leftovers(folder)  # the run holds the workdir, and no process of it has begun
    return None


def _write_manifest(folder, name: str, settings: dict, counts: dict, seconds: float) -> None:
    manifest = {
        "stage": name,
        "fingerprint": settings_fingerprint(settings, name),
        "settings": settings,
        "counts": counts,
        "seconds": seconds,
        "packages": package_versions(),
    }
    write_json(folder / MANIFEST, manifest)


def _short(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def settings_fingerprint(settings: dict, stage: str = "") -> str:
    """Hash of the plain settings that a stage's results depend on, equal in every process."""
    text = json.dumps(identity(settings, stage=stage), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _as_read(settings: dict) -> dict:
    """Settings as a manifest has them: tuples became lists."""
    return json.loads(json.dumps(settings))


def _differences(old: dict, new: dict, prefix: str = "") -> str:
    found = []
    for key in sorted(set(old) | set(new)):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found.append(_differences(a, b, f"{prefix}{key}."))
        elif a != b:
            found.append(f"{prefix}{key}: {a!r:.60} then, {b!r:.60} now")
    return "; ".join(filter(None, found))


def package_versions() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions

"""What `launch/tpu_train.py` runs: one config, one workdir, from start or from where it stopped."""

import os
import time

import jax

from clmrc_jax.files import write_json
from clmrc_jax.pipelines.cora import Cora
from clmrc_jax.pipelines.results import finish
from clmrc_jax.pipelines.settings import CoraSettings, cora_settings, plain
from clmrc_jax.pipelines.stages import MANIFEST, Run, workdir_lock


def main(config, workdir: str, *, dry_run: bool = False, as_json: bool = False) -> dict:
    """Runs (or plans) the experiment of a config; returns the report or the plan.

    Raises InputError for bad configs, bad data, and a workdir that is in use.
    """
    settings = cora_settings(config)
    if dry_run:
        from clmrc_jax.pipelines.plan import print_plan

        return print_plan(settings, as_json=as_json)
    begin = time.monotonic()
    run = Run(workdir)
    with workdir_lock(workdir):
        use_compilation_cache(run.path("compilation_cache"))
        record_settings(settings, run)
        cora = Cora(settings, run)
        cora.train()
        return finish(cora, time.monotonic() - begin, as_json=as_json)


def record_settings(settings: CoraSettings, run: Run) -> None:
    """Writes workdir/config.json, from which `ask` rebuilds the run.

    The first model fixes it: a later start with other settings, which the stages refuse, must
    not change what the finished rounds are read with.
    """
    path = run.path("config.json")
    if not (path.exists() and run.path("round_0", "mdpr", MANIFEST).exists()):
        write_json(path, plain(settings))


def use_compilation_cache(folder) -> None:
    """Keeps compiled programs for the next start, unless the user chose a place already."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", os.fspath(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

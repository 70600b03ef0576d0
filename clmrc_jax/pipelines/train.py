"""What `launch/tpu_train.py` runs: one config, one workdir, from start or from where it stopped."""

import os
import time

import jax

from clmrc_jax.pipelines.cora import Cora
from clmrc_jax.pipelines.results import finish
from clmrc_jax.pipelines.settings import cora_settings
from clmrc_jax.pipelines.stages import Run, workdir_lock


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
        cora = Cora(settings, run)
        cora.train()
        return finish(cora, time.monotonic() - begin, as_json=as_json)


def use_compilation_cache(folder) -> None:
    """Keeps compiled programs for the next start, unless the user chose a place already."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", os.fspath(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

"""What `launch/tpu_train.py` runs: one config, one workdir, from start or from where it stopped.

A config's `task` says which pipeline it belongs to: "cora" (default), "clmrc" or "translator".
"""

import contextlib
import os
import time

import jax

from clmrc_jax import hosts, maintenance, notice, preflight
from clmrc_jax.files import InputError, write_json
from clmrc_jax.pipelines.locks import workdir_lock
from clmrc_jax.pipelines.settings import plain
from clmrc_jax.pipelines.stages import MANIFEST, Run


def main(
    config, workdir: str, *, dry_run: bool = False, topology: str = "", as_json: bool = False
) -> dict:
    """Runs (or plans) the experiment of a config; returns the report or the plan.

    topology: a slice to plan for, with dry_run.
    Raises InputError for bad configs, bad data, and a workdir that is in use.
    """
    task = config.get("task", "cora")
    if task not in TASKS:
        raise InputError(f"config task {task!r}: choose one of {', '.join(TASKS)}")
    if topology and not dry_run:
        raise InputError(f"--topology={topology} plans for a slice, and needs --dry_run")
    return TASKS[task](config, None if dry_run else workdir, topology, as_json)


def _cora(config, workdir: str | None, topology: str, as_json: bool) -> dict:
    from clmrc_jax.pipelines.cora import Cora
    from clmrc_jax.pipelines.results import finish
    from clmrc_jax.pipelines.settings import cora_settings

    settings = cora_settings(config)
    if workdir is None:
        from clmrc_jax.pipelines import plan, plan_tables

        return plan_tables.print_plan(plan.make_plan(settings, topology), as_json)
    return _run(settings, workdir, Cora, finish, ("round_0", "mdpr"), as_json)


def _clmrc(config, workdir: str | None, topology: str, as_json: bool) -> dict:
    from clmrc_jax.pipelines.clmrc import Clmrc
    from clmrc_jax.pipelines.clmrc_report import finish
    from clmrc_jax.pipelines.clmrc_settings import clmrc_settings

    settings = clmrc_settings(config)
    if workdir is None:
        from clmrc_jax.pipelines import clmrc_plan, plan_tables

        return plan_tables.print_plan(clmrc_plan.make_plan(settings, topology), as_json)
    return _run(settings, workdir, Clmrc, finish, ("source",), as_json)


def _translator(config, workdir: str | None, topology: str, as_json: bool) -> dict:
    from clmrc_jax.pipelines.translator import Translation, finish, print_plan
    from clmrc_jax.pipelines.translator_settings import translator_settings

    settings = translator_settings(config)
    if workdir is None:
        return print_plan(settings, topology, as_json=as_json)
    return _run(settings, workdir, Translation, finish, ("model",), as_json)


TASKS = {"cora": _cora, "clmrc": _clmrc, "translator": _translator}


def _run(settings, workdir: str, pipeline, finish, first_model, as_json: bool) -> dict:
    begin = time.monotonic()
    with notice.heeded(), contextlib.ExitStack() as stack:
        if not jax.distributed.is_initialized():  # joins the other hosts, where there are any
            # SIGTERM is ours: JAX's service hears it only where the program asks for it.
            jax.config.update("jax_enable_preemption_service", False)
            preflight.check(plain(settings), workdir)
        stack.enter_context(maintenance.watched(jax.default_backend() == "tpu"))
        stack.enter_context(hosts.share_failures())
        stack.enter_context(workdir_lock(workdir))
        run = Run(workdir)
        use_compilation_cache(run.path("compilation_cache"))
        if hosts.is_first():
            record_settings(settings, run, first_model)
        made = pipeline(settings, run)
        made.train()
        seconds = time.monotonic() - begin
        report = finish(made, seconds, as_json=as_json) if hosts.is_first() else {}
        hosts.wait_for_all("report")
        return report


def record_settings(settings, run: Run, first_model=("round_0", "mdpr")) -> None:
    """Writes workdir/config.json, from which `ask` rebuilds the run.

    The first model, in the folder `first_model`, fixes it: a later start with other settings,
    which the stages refuse, must not change what the finished rounds are read with.
    """
    path = run.path("config.json")
    if not (path.exists() and run.path(*first_model, MANIFEST).exists()):
        write_json(path, plain(settings))


def use_compilation_cache(folder) -> None:
    """Keeps compiled programs for the next start, unless the user chose a place already."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", os.fspath(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

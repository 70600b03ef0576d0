#!/usr/bin/env python3
"""Runs many settings of a config and puts them into one table.

python launch/sweep.py --config=configs/dual_bert.py --sweep=table2 --workdir=runs/table2
python launch/sweep.py --config=configs/cora.py:demo --workdir=runs/rates \\
    --sweep='{"retriever_optimizer.learning_rate": [2e-4, 5e-4], "seed": [0, 1, 2]}'

Lists are alternatives and keys multiply; {"zip": {"a": [..], "b": [..]}} walks lists together,
"preset" names presets, a list of blocks joins them (clmrc_jax/pipelines/sweep_points.py). Any
further --config.key=value holds for all runs. Run the same command again to continue, or to try
failed runs again. Exit status: 0, 1 when runs failed, 2 for bad input, 75 when stopped.
"""

import argparse
import json
import pathlib
import shlex
import sys

from clmrc_jax.files import InputError
from clmrc_jax.pipelines import sweep, sweep_table
from clmrc_jax.pipelines.sweep_points import load_sweep, share_translations
from clmrc_jax.rendezvous import require_one_process

LAUNCH = pathlib.Path(__file__).resolve().parent
JOB, TRAINER = "launch/tpu_vm.py run", "launch/tpu_train.py"


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options, rest = _parser().parse_known_args(arguments)
    try:
        plan = load_sweep(options.config, options.sweep, _overrides(rest))
        plan = share_translations(plan, options.workdir)
        sweep.check(plan, options.workdir)
        if options.dry_run or options.emit:
            return _print_plan(plan, options)
        failures = [] if options.collect else _run(plan, options)
        sweep.report_failures(failures, _say)
        _print_table(plan, options, shlex.join(["launch/sweep.py", *arguments]))
    except (InputError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except sweep.Stopped as stopped:
        _say(f"stopped in {stopped.name}; the same command continues from there")
        return stopped.code
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help="config file, or file:preset")
    parser.add_argument("--sweep", required=True, help="a name in the file's SWEEPS, or JSON")
    parser.add_argument("--workdir", required=True, help="folder of all runs, local or gs://")
    parser.add_argument("--metrics", default="", help="columns: dotted names, with commas")
    parser.add_argument("--baseline", default="", help="row to test the others against")
    parser.add_argument("--sort", default="", metavar="METRIC", help="largest first")
    parser.add_argument(
        "--emit",
        choices=("jobs", "commands"),
        help="run nothing; print one command per unfinished run, for TPU VMs or any queue",
    )
    parser.add_argument(
        "--tpu_vm",
        default="",
        metavar="FLAGS",
        help="for --emit=jobs, what launch/tpu_vm.py run needs: 'NAME-{number} --zone=ZONE "
        "--accelerator=v4-8'; {number} becomes the run's number, without it one slice serves all",
    )
    parser.add_argument("--collect", action="store_true", help="only make the table")
    parser.add_argument("--dry_run", action="store_true", help="list the runs and their state")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    parser.add_argument("--quiet", action="store_true", help="keep the runs' output in their logs")
    return parser


def _overrides(rest: list[str]) -> list[tuple[str, str]]:
    """(dotted key, text) of every `--config.key=value`."""
    found = []
    for argument in rest:
        key, equals, text = argument.removeprefix("--config.").partition("=")
        if not (argument.startswith("--config.") and equals):
            raise InputError(f"{argument}: unknown argument; see launch/sweep.py --help")
        found.append((key, text))
    return found


def _print_plan(plan, options) -> int:
    if options.dry_run:
        for point in plan.points:
            state = "finished" if sweep_table.is_finished(options.workdir, point) else "to run"
            print(f"{state:8}  {point.name}  {shlex.join(point.flags())}")
        return 0
    launcher = []
    if options.emit == "jobs":
        if not options.tpu_vm:
            raise InputError(
                "--emit=jobs needs --tpu_vm='NAME-{number} --zone=.. --accelerator=..'"
            )
        try:
            words = shlex.split(options.tpu_vm)
        except ValueError as error:  # an open quote
            raise InputError(f"--tpu_vm={options.tpu_vm}: {error}") from error
        launcher = ["python", *JOB.split(), *words, "--"]
        if "://" not in options.workdir:
            _say(
                f"warning: --workdir={options.workdir} is a folder of each slice: lost with it, and "
                "not seen by --collect here; use gs://"
            )
    sweep.record(plan, options.workdir)
    for line in sweep.commands(plan, options.workdir, ["python", *TRAINER.split()], launcher):
        print(line)
    return 0


def _run(plan, options) -> list[sweep.Failure]:
    require_one_process("launch/sweep.py")
    trainer = [sys.executable, str(LAUNCH.parent / TRAINER)]
    return sweep.run(plan, options.workdir, trainer, say=_say, echo=not options.quiet)


def _print_table(plan, options, command: str) -> None:
    table = sweep_table.collect(
        plan,
        options.workdir,
        metrics=[name for name in options.metrics.split(",") if name],
        baseline=options.baseline,
        sort=options.sort,
    )
    text = sweep_table.write_table(options.workdir, table, command)
    print(json.dumps(table.to_json(), ensure_ascii=False) if options.json else text)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Makes a Cloud TPU slice and runs a command on it until the command is done.

python launch/tpu_vm.py run NAME --zone=us-central2-b --accelerator=v4-32 --spot -- \\
    python launch/tpu_train.py --config=configs/cora.py:paper --workdir=gs://BUCKET/cora
python launch/tpu_vm.py status|logs|stop|delete NAME --zone=us-central2-b

`run` makes the slice where there is none, installs this checkout on all of its hosts, starts the
command there and watches it; after a preemption it does so again, and the command continues from
its last checkpoint. Run the same line again whenever the launcher itself was stopped. Exit status:
0 done, 75 stopped by `stop` (saved), 2 bad input or a cloud error, else the command's own.
docs/tpu.md is the guide; --dry_run prints the commands and runs none.
"""

import argparse
import dataclasses
import json
import pathlib
import re
import shlex
import sys

from clmrc_jax.cloud import gcloud, tpu_vm
from clmrc_jax.cloud.patience import Patience, patiently
from clmrc_jax.cloud.plan import plan
from clmrc_jax.cloud.slices import Slice
from clmrc_jax.files import InputError

_VERBS = {
    "create": "make the slice (or queue the request) and return",
    "run": "run a command to its end, through preemptions",
    "status": "the slice, and the job on every host",
    "logs": "the output of the job",
    "stop": "ask the job to save and end; the slice stays",
    "delete": "delete the slice",
}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code (see above)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    own, command = arguments, []
    if "--" in arguments:
        cut = arguments.index("--")
        own, command = arguments[:cut], arguments[cut + 1 :]
    flags = _parser().parse_args(own)
    try:
        return _run(flags, command)
    except KeyboardInterrupt:
        print("\nleft; what runs on the slice goes on (and costs)", file=sys.stderr)
        return 130
    except InputError as error:
        print(f"tpu_vm: {error}", file=sys.stderr)
        return 2


def _run(flags, command: list[str]) -> int:
    slice = _slice(flags)
    options = _options(flags, command) if flags.verb == "run" else None
    if flags.verb == "logs":
        command = tpu_vm.logs_command(slice, flags.worker, flags.lines, flags.follow)
        if not flags.dry_run:
            return gcloud.run(command, show=True).code
        print(shlex.join(command))
        return 0
    if flags.dry_run:
        print("\n".join(plan(flags.verb, slice, options)))
        return 0
    if flags.verb == "run":
        return tpu_vm.run(slice, options)
    if flags.verb == "status":
        return _status(slice, flags.json)
    if flags.verb == "delete":  # what is not deleted goes on costing
        patiently(lambda: tpu_vm.delete(slice), Patience(flags.outage_patience, poll=30))
    else:
        {"create": tpu_vm.create, "stop": tpu_vm.stop}[flags.verb](slice)
    return 0


def _slice(flags) -> Slice:
    """The slice that the flags describe; verbs that do not make it know less about it."""
    names = {field.name for field in dataclasses.fields(Slice)}
    values = {name: value for name, value in vars(flags).items() if name in names}
    for name in ("create_flags", "ssh_flags"):
        try:
            values[name] = tuple(shlex.split(values.get(name, "")))
        except ValueError as error:  # an open quote
            raise InputError(f"--{name}={values[name]}: {error}") from error
    return Slice(queued=not flags.direct, **values)


def _options(flags, command: list[str]) -> tpu_vm.RunOptions:
    if not command:
        raise InputError("run: give the command after --, e.g. -- python launch/tpu_train.py ...")
    for name in ("poll", "patience", "outage_patience", "max_restarts"):
        if getattr(flags, name) < 0 or (name == "poll" and not flags.poll):
            raise InputError(f"--{name}={getattr(flags, name):g}: must be positive")
    text = command[0] if len(command) == 1 else shlex.join(command)
    for workdir in re.findall(r"--workdir(?:=|\s+)(\S+)", text):
        if (flags.spot or flags.delete) and "://" not in workdir:
            why = "with a spot slice" if flags.spot else "when --delete deletes the slice"
            warning = f"tpu_vm: warning: --workdir={workdir} is lost {why}; use gs://"
            print(warning, file=sys.stderr)
    source = pathlib.Path(flags.source) if flags.source else pathlib.Path(__file__).parent.parent
    names = ("extras", "poll", "patience", "outage_patience", "max_restarts", "delete")
    packages = pathlib.Path(flags.packages) if flags.packages else None
    given = {name: getattr(flags, name) for name in names}
    return tpu_vm.RunOptions(text, source, packages=packages, **given)


def _status(slice: Slice, as_json: bool) -> int:
    status = tpu_vm.look(slice)
    workers, done = tpu_vm.workers(slice) if status.state == "ready" else ([], None)
    if as_json:
        jobs = [dataclasses.asdict(worker) for worker in workers]
        print(json.dumps(dataclasses.asdict(status) | {"jobs": jobs}, indent=1))
        return 0
    print(f"{slice.name}: {status.state}" + (f" ({status.detail})" if status.detail else ""))
    for worker in workers:
        ended = f" with {worker.code}" if worker.state == "ended" else ""
        print(f"  {worker.host}: {worker.state}{ended}  {worker.line}".rstrip())
    if done and len(workers) < status.workers:
        print(f"  {status.workers - len(workers)} of {status.workers} workers do not answer")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="|".join(_VERBS))
    made = {name: verbs.add_parser(name, help=text) for name, text in _VERBS.items()}
    for name, verb in made.items():
        verb.add_argument("name", help="name of the slice")
        verb.add_argument("--zone", required=True, help="e.g. us-central2-b")
        verb.add_argument("--project", default="", help="default: gcloud's")
        verb.add_argument("--dry_run", action="store_true", help="print the commands, run none")
        verb.add_argument(
            "--direct", action="store_true", help="no queued resource: now, or an error"
        )
        if name in ("run", "delete"):
            verb.add_argument(
                "--outage_patience",
                type=float,
                default=3600,
                help="seconds to bear that Google Cloud or the network fails (default 3600)",
            )
        if name in ("create", "run"):
            _add_making(verb)
        if name not in ("create", "delete"):
            verb.add_argument("--ssh_flags", default="", help='for gcloud ssh: "--internal-ip"')
    _add_running(made["run"])
    made["status"].add_argument("--json", action="store_true", help="print JSON")
    made["logs"].add_argument("--worker", default="0", help="a number or all (default 0)")
    made["logs"].add_argument("--lines", type=int, default=100, help="how many (default 100)")
    made["logs"].add_argument("--follow", action="store_true", help="go on as the log grows")
    return parser


def _add_making(verb) -> None:
    verb.add_argument("--accelerator", required=True, help="v4-8, v5e-16, v5p-128, v6e-8, ...")
    verb.add_argument("--spot", action="store_true", help="cheaper, can be taken away")
    verb.add_argument("--runtime", default="", help="VM image, where not the usual one")
    verb.add_argument("--create_flags", default="", help='more for gcloud: "--network=NET"')


def _add_running(verb) -> None:
    verb.add_argument("--source", default="", help="git checkout to send (default: this one)")
    verb.add_argument("--extras", default="tpu,gcs", help="of setup.py (default tpu,gcs)")
    verb.add_argument(
        "--packages",
        default="",
        help="file with the versions to install; where it is missing the first installation "
        "writes it, so that a slice made again gets the same",
    )
    verb.add_argument("--poll", type=float, default=30, help="seconds between looks (default 30)")
    verb.add_argument(
        "--patience", type=float, default=300, help="seconds for silent hosts (default 300)"
    )
    verb.add_argument("--max_restarts", type=int, default=100, help="preemptions to bear")
    verb.add_argument("--delete", action="store_true", help="delete the slice when done")


if __name__ == "__main__":
    sys.exit(main())

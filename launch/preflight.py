"""Checks hosts, config, versions, workdir, disk, clocks and devices before a long run.

    python launch/preflight.py --config=configs/cora.py:paper --workdir=gs://BUCKET/cora [--json]

Start it on every host at once, with the flags of the run. It ends within five minutes: exit
status 0 when all is well, 2 with every problem and its host otherwise. Every run of
launch/tpu_train.py makes the same checks in its first seconds. TPU slices, SLURM and Open MPI are
recognised; elsewhere set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.
"""

import json
import os
import sys

from absl import app, flags
from ml_collections import config_flags

from clmrc_jax import command_line, preflight
from clmrc_jax.backends import skip_absent_tpu
from clmrc_jax.files import InputError

_CONFIG = config_flags.DEFINE_config_file("config", None, "the run's config file and preset")
_WORKDIR = flags.DEFINE_string("workdir", None, "the run's folder, shared by all hosts, or gs://")
_TIMEOUT = flags.DEFINE_float("timeout", preflight.MEET_SECONDS, "seconds for all hosts to come")
_FREE_GIB = flags.DEFINE_float("free_gib", 1.0, "disk that a local workdir must have free")
_JSON = flags.DEFINE_bool("json", False, "print the result as JSON")


def _own_stdout():
    """A stream to stdout that is ours alone: C++ libraries (Gloo) that print go to stderr."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return out


def main(argv):
    """Runs the checks; returns the exit code."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    config = _CONFIG.value.to_dict() if _CONFIG.value else {}
    out = _own_stdout() if _JSON.value else sys.stdout
    try:
        report = preflight.check(
            config, _WORKDIR.value, timeout=_TIMEOUT.value, free_gib=_FREE_GIB.value
        )
    except InputError as error:
        if _JSON.value:
            print(json.dumps({"error": str(error)}), file=out)
        print(f"error: {error}", file=sys.stderr)
        return 2
    if _JSON.value:
        print(json.dumps(report, indent=1), file=out)
    elif report["process"] == 0:
        devices = ", ".join(f"{count} x {kind}" for kind, count in report["devices"].items())
        print(f"all is well: {report['processes']} processes, {devices}, {report['seconds']} s")
        print("\n".join(f"  {host}" for host in report["hosts"]))
    return 0


if __name__ == "__main__":
    skip_absent_tpu()
    flags.mark_flag_as_required("workdir")
    command_line.run(main)

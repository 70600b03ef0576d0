"""One of the processes of a preflight: `preflight_process.py ADDRESS PROCESSES INDEX JSON`.

JSON: keyword arguments of `check` ("config", "workdir", ...), "skew": seconds by which this host's
clock is wrong, and "then": "sum" (add numbers over all processes) or "die" (process 1 kills itself
while process 0 waits for it in a sum). Prints the report; exits with 2 for an InputError.
"""

import json
import os
import signal
import sys
import time

from clmrc_jax import preflight
from clmrc_jax.files import InputError
from clmrc_jax.rendezvous import Cluster


def total(process):
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    assert jax.process_index() == process
    return int(multihost_utils.process_allgather(np.asarray(process + 1)).sum())


def main(address, processes, index, text):
    options = json.loads(text)
    then, skew = options.pop("then", ""), options.pop("skew", 0.0)
    cluster = Cluster(address, int(processes), int(index))
    clock = lambda: time.time() + skew  # noqa: E731
    try:
        report = preflight.check(cluster=cluster, clock=clock, **options)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    if then == "sum":
        report["sum"] = total(cluster.process)
    if then == "die":
        total(cluster.process)  # both are in the middle of their work
        if cluster.process == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        total(cluster.process)
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])

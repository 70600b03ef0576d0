"""Trains, answers, scores and reports, from one config.

    python launch/tpu_train.py --config=configs/cora.py --workdir=runs/demo

Run the same command again to continue a run that was stopped (SIGTERM: it saves and ends with
status 75) or killed.
"""

import os
import sys

from absl import app, flags
from ml_collections import config_flags

from clmrc_jax import command_line, notice
from clmrc_jax.backends import skip_absent_tpu
from clmrc_jax.files import InputError
from clmrc_jax.huge_pages import use_huge_pages

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "config file and preset, e.g. configs/cora.py:demo", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run, local or gs://")
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "print parameters, memory, disk and time; train nothing"
)
_TOPOLOGY = flags.DEFINE_string(
    "topology", "", "with --dry_run: plan for this slice, e.g. v4-32, instead of this machine"
)
_JSON = flags.DEFINE_bool("json", False, "print the final scores (or the plan) as JSON on stdout")


def main(argv):
    """Checks the flags and hands over to the pipeline."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    from clmrc_jax.pipelines import train

    try:
        train.main(
            _CONFIG.value,
            _WORKDIR.value,
            dry_run=_DRY_RUN.value,
            topology=_TOPOLOGY.value,
            as_json=_JSON.value,
        )
    except (InputError, ImportError) as error:  # ImportError: a package of an extra is missing
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    use_huge_pages()
    skip_absent_tpu()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    flags.mark_flags_as_required(["config", "workdir"])
    with notice.heeded(to_the_end=True):  # also while it starts
        command_line.run(main)

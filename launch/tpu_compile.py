"""Compiles every step of a run for a TPU slice, on a machine without one; needs libtpu.

    python launch/tpu_compile.py --config=configs/cora.py:paper --topology=v4-8

Prints memory against the chip's capacity, collectives, and roofline times. Exit status 0 when
everything fits, 1 when something does not (with what would make it fit), 2 for bad input.
"""

import os
import sys

from absl import app, flags
from ml_collections import config_flags

from clmrc_jax import command_line
from clmrc_jax.files import InputError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "config file and preset, e.g. configs/cora.py:paper", lock_config=True
)
_TOPOLOGY = flags.DEFINE_string(
    "topology", None, "slice to compile for: v4-8, v5e-16, v5p-8, v6e-8, ..."
)
_STEPS = flags.DEFINE_list("steps", [], "compile these steps only, e.g. 'train mDPR,generate'")
_JSON = flags.DEFINE_bool("json", False, "print the report as one JSON object on stdout")
_MARKDOWN = flags.DEFINE_bool("markdown", False, "print the tables as Markdown")
_SCALING = flags.DEFINE_bool(
    "scaling", False, "carry the updates to 8 .. 1024 chips, on paper (data parallelism only)"
)


def main(argv):
    """Checks the flags and hands over to the pipeline."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    from clmrc_jax.pipelines import compile

    output = "json" if _JSON.value else "markdown" if _MARKDOWN.value else "table"
    try:
        fits = compile.main(
            _CONFIG.value,
            _TOPOLOGY.value,
            steps=_STEPS.value,
            output=output,
            scale=_SCALING.value,
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if fits else 1


if __name__ == "__main__":
    # Arrays and tracing live on the CPU; the TPU is only described.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    flags.mark_flags_as_required(["config", "topology"])
    command_line.run(main)

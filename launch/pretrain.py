"""Makes the tiny pretrained models that ship with the package.

python launch/pretrain.py --config=configs/pretrain.py --workdir=runs/pretrain --output=OUT
"""

import sys

from absl import app, flags
from ml_collections import config_flags

from clmrc_jax import command_line
from clmrc_jax.backends import skip_absent_tpu
from clmrc_jax.files import InputError
from clmrc_jax.huge_pages import use_huge_pages

_CONFIG = config_flags.DEFINE_config_file("config", None, "configs/pretrain.py")
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of checkpoints and logs")
_OUTPUT = flags.DEFINE_string("output", None, "folder that receives mbert/ and mt5/")


def main(argv):
    """Checks the flags and hands over to the pipeline."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    from clmrc_jax.pipelines import pretrain

    try:
        pretrain.main(_CONFIG.value, _WORKDIR.value, _OUTPUT.value)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    use_huge_pages()
    skip_absent_tpu()
    flags.mark_flags_as_required(["config", "workdir", "output"])
    command_line.run(main)

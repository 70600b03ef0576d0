#!/usr/bin/env python3
"""Makes a reader's folder from a checkpoint of the released TensorFlow code.

python launch/import_reader.py --variables=dual_bert.npz \\
    --bert=google-bert/bert-base-multilingual-cased --output=readers/dual_bert

variables: one array per variable under its TensorFlow name, written where TensorFlow is installed:

    r = tf.train.load_checkpoint(path)
    numpy.savez(out, **{name: r.get_tensor(name) for name in r.get_variable_to_shape_map()})

The folder is what launch/read.py takes as --model and, for a plain reader (`cls/squad/...`, as
run_squad.py leaves it), configs/dual_bert.py as --config.source_model.
"""

import argparse
import sys

from clmrc_jax.backends import skip_absent_tpu
from clmrc_jax.files import InputError
from clmrc_jax.pipelines.import_reader import import_reader
from clmrc_jax.rendezvous import require_one_process


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code: 0, or 2 for bad input (one line on stderr)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variables", required=True, help=".npz of the checkpoint's variables")
    parser.add_argument("--bert", required=True, help="folder or hub id of its encoder")
    parser.add_argument("--output", required=True, help="folder to write")
    options = parser.parse_args(arguments)
    try:
        require_one_process("launch/import_reader.py")
        made = import_reader(options.variables, options.bert, options.output)
    except (InputError, ImportError, OSError) as error:
        print(f"import_reader: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print("{output}: a reader of kind {kind}".format(**made))
    return 0


if __name__ == "__main__":
    skip_absent_tpu()
    sys.exit(main())

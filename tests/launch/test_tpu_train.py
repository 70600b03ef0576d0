"""The training command's own part: what it says when something is missing."""

import subprocess
import sys

SCRIPT = """
import runpy, sys
from clmrc_jax.pipelines import train

def main(*args, **kwargs):
    raise ImportError('needs MeCab; run: pip install "clmrc_jax[segment]"')

train.main = main
sys.argv = ["tpu_train.py", "--config=configs/dual_bert.py:smoke", "--workdir=unused"]
runpy.run_path("launch/tpu_train.py", run_name="__main__")
"""


def test_missing_package_is_one_line_and_status_2(repository):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=repository, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1] == (
        'error: needs MeCab; run: pip install "clmrc_jax[segment]"'
    )
    assert "Traceback" not in done.stderr

"""The printed plan is what a run does: its commands can be run as they are."""

import subprocess

import pytest

from clmrc_jax.cloud.plan import plan
from clmrc_jax.cloud.slices import Slice
from clmrc_jax.cloud.tpu_vm import RunOptions

SLICE = Slice("s", "us-central2-b", "v4-16", queued=False)


@pytest.mark.parametrize("committed", [False, True])
def test_plan_of_run_installs_the_code_as_it_stands(cloud, checkout, tmp_path, committed):
    if committed:
        subprocess.run(["git", "-C", checkout, "commit", "-qam", "y"], check=True)
    lines = plan("run", SLICE, RunOptions("bash job.sh 'exit 5'", checkout))
    script = "\n".join(lines)
    begin, end = script.index("gcloud compute tpus tpu-vm create"), script.index("# every 30 s")
    made = tmp_path / "temporary"
    made.mkdir()
    done = subprocess.run(
        ["bash", "-c", f"set -e; export TMPDIR={made}\n{script[begin:end]}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    cloud.wait_for_log("from the checkout")
    assert not list(made.iterdir()) and not list(tmp_path.glob("*.tar.gz"))
    status = ["git", "-C", checkout, "status", "--porcelain"]
    assert subprocess.run(status, capture_output=True, text=True).stdout == " M job.sh\n" * (
        not committed
    )


def test_plan_of_other_verbs_is_their_command():
    assert plan("delete", SLICE) == [
        "gcloud compute tpus tpu-vm delete s --zone=us-central2-b --quiet"
    ]
    assert len(plan("status", SLICE)) == 3

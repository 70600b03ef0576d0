"""The printed plan is what a run does: its commands can be run as they are."""

import subprocess

import pytest

from clmrc_jax.cloud import tpu_vm
from clmrc_jax.cloud.plan import plan
from clmrc_jax.cloud.slices import Slice
from clmrc_jax.cloud.tpu_vm import RunOptions

SLICE = Slice("s", "us-central2-b", "v4-16", queued=False)


def _installed(plan_lines, folder):
    """Runs the part of a plan from making the slice to the start of the command."""
    script = "\n".join(plan_lines)
    begin, end = script.index("gcloud compute tpus tpu-vm create"), script.index("# every 30 s")
    text = f"set -e; export TMPDIR={folder}\n{script[begin:end]}"
    return subprocess.run(["bash", "-c", text], capture_output=True, text=True, cwd=folder.parent)


def test_plan_with_packages_writes_their_versions_or_takes_them(cloud, checkout, tmp_path):
    packages, made = tmp_path / "my packages.txt", tmp_path / "temporary"
    made.mkdir()
    for last in ("-e .[tpu,gcs]", f"-c {cloud.home(1)}/clmrc_packages.txt -e .[tpu,gcs]"):
        lines = plan("run", SLICE, RunOptions("bash job.sh 'exit 5'", checkout, packages=packages))
        done = _installed(lines, made)
        assert done.returncode == 0, done.stderr
        cloud.wait_for_log("from the checkout")
        assert (cloud.home(1) / "installed").read_text().splitlines()[-1].endswith(last)
        assert packages.read_text() == "jax==0.10.0\n"
        tpu_vm.delete(SLICE)


@pytest.mark.parametrize("committed", [False, True])
def test_plan_of_run_installs_the_code_as_it_stands(cloud, checkout, tmp_path, committed):
    if committed:
        subprocess.run(["git", "-C", checkout, "commit", "-qam", "y"], check=True)
    lines = plan("run", SLICE, RunOptions("bash job.sh 'exit 5'", checkout))
    made = tmp_path / "temporary"
    made.mkdir()
    done = _installed(lines, made)
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


def test_plan_of_run_deletes_at_the_end_only_where_asked(checkout):
    kept, deleted = (
        plan("run", SLICE, RunOptions("true", checkout, delete=delete)) for delete in (False, True)
    )
    assert deleted == [*kept, f"# when it has succeeded\n{plan('delete', SLICE)[0]}"]


def test_plan_stops_where_git_cannot_say_what_changed(checkout, tmp_path):
    (checkout / "new.py").write_text("")
    subprocess.run(["git", "-C", checkout, "add", "-N", "new.py"], check=True)
    lines = plan("run", SLICE, RunOptions("true", checkout))
    line = next(line for line in lines if "stash create" in line)
    done = subprocess.run(["bash", "-c", f"{line}\necho on"], capture_output=True, text=True)
    assert done.returncode == 1 and "on" not in done.stdout.split()

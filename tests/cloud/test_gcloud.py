"""gcloud's command lines, and what its errors mean to a user."""

import shlex

import pytest

from clmrc_jax.cloud import gcloud
from clmrc_jax.cloud.slices import Slice
from clmrc_jax.files import InputError

SLICE = Slice("s", "us-east5-b", "v5e-16", project="p", spot=True)


def text(command):
    return shlex.join(command)


def test_create_command_queues_a_request_for_a_node_of_the_same_name():
    assert text(gcloud.create_command(SLICE)) == (
        "gcloud compute tpus queued-resources create s --zone=us-east5-b --project=p --quiet "
        "--node-id=s --runtime-version=v2-alpha-tpuv5-lite --async "
        "--accelerator-type=v5litepod-16 --spot"
    )


def test_create_command_direct_makes_the_tpu_vm():
    direct = Slice("s", "us-central2-b", "v4-8", queued=False, create_flags=("--network=n",))
    assert text(gcloud.create_command(direct)) == (
        "gcloud compute tpus tpu-vm create s --zone=us-central2-b --quiet "
        "--version=tpu-ubuntu2204-base --accelerator-type=v4-8 --network=n"
    )


def test_create_command_without_accelerator_asks_for_one():
    with pytest.raises(InputError, match="give --accelerator"):
        gcloud.create_command(Slice("s", "us-east5-b"))


def test_other_commands_name_the_slice_and_its_place():
    where = "s --zone=us-east5-b --project=p --quiet"
    tpus = "gcloud compute tpus"
    assert text(gcloud.describe_command(SLICE)) == f"{tpus} tpu-vm describe {where} --format=json"
    assert text(gcloud.delete_command(SLICE, queued=False)) == f"{tpus} tpu-vm delete {where}"
    assert text(gcloud.delete_command(SLICE, queued=True)) == (
        f"{tpus} queued-resources delete {where} --force"
    )
    assert text(gcloud.ssh_command(SLICE, "echo 'a b'", "3")) == (
        f"{tpus} tpu-vm ssh {where} --worker=3 " + shlex.quote("--command=echo 'a b'")
    )
    assert text(gcloud.scp_command(SLICE, "/t/x", "x")) == (
        f"{tpus} tpu-vm scp /t/x s:x --zone=us-east5-b --project=p --quiet --worker=all"
    )


@pytest.mark.parametrize(
    ("said", "kind", "remedy"),
    [
        (
            "RESOURCE_EXHAUSTED: Quota limit 'TPUV5sLitepodPerProjectPerZoneForTPUAPI' has been "
            "exceeded. Limit: 4 in zone us-east5-a.",
            "quota",
            "iam-admin/quotas",
        ),
        (
            '{"code": 8, "message": "There is no more capacity in the zone \\"us-central1-c\\"; you '
            'can try in another zone where Cloud TPU Nodes are offered"}',
            "stockout",
            "another zone",
        ),
        (
            "PERMISSION_DENIED: Permission 'tpu.nodes.create' denied on 'projects/p'",
            "permission",
            "roles/tpu.admin",
        ),
        (
            "PERMISSION_DENIED: Cloud TPU API has not been used in project 1 before or it is "
            "disabled.",
            "api",
            "gcloud services enable tpu.googleapis.com",
        ),
        ("NOT_FOUND: Resource 'projects/p/locations/z/nodes/s' was not found", "absent", "--zone"),
        ("ALREADY_EXISTS: Resource 'projects/p' already exists", "exists", "status"),
        ("The required property [project] is not currently set.", "project", "config set project"),
        ("You do not currently have an active account selected.", "login", "gcloud auth login"),
        (
            'INVALID_ARGUMENT: Accelerator type "v5litepod-16" is not available in zone "z"',
            "type",
            "accelerator-types list",
        ),
        ("[/usr/bin/ssh] exited with return code [255].", "ssh", "ssh-add"),
        (
            "There was a problem refreshing your current auth tokens: HTTPSConnectionPool(host="
            "'oauth2.googleapis.com', port=443): Max retries exceeded with url: /token (Caused by "
            "NewConnectionError('[Errno -3] Temporary failure in name resolution')) Please run:\n"
            "  $ gcloud auth login\nto obtain new credentials.",
            "outage",
            "the network here",
        ),
        (
            "There was a problem refreshing your current auth tokens: Reauthentication failed. cannot "
            "prompt during non-interactive execution. Please run: $ gcloud auth login",
            "login",
            "log in:",
        ),
        ("UNAVAILABLE: The service is currently unavailable.", "outage", "fails at the moment"),
        ("Error 503 (Service Unavailable)!!1", "outage", "fails at the moment"),
        ("HTTPError 502: Bad Gateway", "outage", "fails at the moment"),
        ("gave no answer for 120 s", "outage", "fails at the moment"),
        (
            "RESOURCE_EXHAUSTED: Quota exceeded for quota metric 'Read requests' and limit 'Read "
            "requests per minute' of service 'tpu.googleapis.com'",
            "outage",
            "fails at the moment",
        ),
        ("Could not fetch resource: - Internal error. Please try again", "outage", "try again"),
        (
            "Could not fetch resource: - Required 'tpu.nodes.get' permission for 'projects/p'",
            "permission",
            "roles/tpu.admin",
        ),
        ("INVALID_ARGUMENT: network 'n' does not exist", "usage", "--create_flags"),
        ("INTERNAL: something new", "other", "something new"),
    ],
)
def test_failure_says_what_gcloud_said_and_what_to_do(said, kind, remedy):
    command = gcloud.describe_command(SLICE)
    noise = "WARNING: something\nERROR: (gcloud.compute.tpus.tpu-vm.create) "
    error = gcloud.failure(command, gcloud.Done(1, "", noise + said))
    assert error.kind == kind and remedy in str(error)
    assert "tpu-vm describe s: ERROR" in str(error) and "WARNING" not in str(error)


@pytest.mark.parametrize(
    ("code", "said", "kind"),
    [
        (9, "error: No space left on device", "script"),
        (1, "##### Command execution on worker 1 failed with exit status 1. Continuing.", "script"),
        (2, "uv: Temporary failure in name resolution", "script"),  # a worker's, not ours
        (255, "Retrying: SSH command error: [/usr/bin/ssh] exited with return code [255].", "ssh"),
        (1, "ERROR: (gcloud.compute.tpus.tpu-vm.ssh) exited with return code [255].", "ssh"),
        (1, "ERROR: gcloud crashed (TransportError): x", "other"),
        (gcloud.TIMED_OUT, "gave no answer for 150 s", "outage"),
    ],
)
def test_failure_of_a_script_is_told_from_that_of_the_connection(code, said, kind):
    command = gcloud.ssh_command(SLICE, "true")
    assert gcloud.failure(command, gcloud.Done(code, "", said)).kind == kind


def test_run_without_gcloud_says_where_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(gcloud.CloudError, match="sdk/docs/install"):
        gcloud.run(gcloud.describe_command(SLICE))


def test_run_kills_a_command_and_its_children_when_time_is_up():
    done = gcloud.run(["bash", "-c", "echo begun; sleep 60 & wait"], timeout=0.5)
    assert done.code == gcloud.TIMED_OUT and done.output == "begun\n"
    assert "gave no answer" in done.errors


def test_described_absent_thing_is_none_and_other_errors_are_raised(cloud):
    assert gcloud.described(gcloud.describe_command(SLICE)) is None
    rule = {"when": "tpu-vm describe", "times": 1, "message": "PERMISSION_DENIED: no"}
    cloud.set(fail=[rule])
    with pytest.raises(gcloud.CloudError, match="roles/tpu.admin"):
        gcloud.described(gcloud.describe_command(SLICE))

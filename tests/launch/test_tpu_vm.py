"""`launch/tpu_vm.py`: its flags and what --dry_run prints; the rest is in tests/cloud."""

import importlib.util
import pathlib
import shlex

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "launch" / "tpu_vm.py"
PLACE = ["s", "--zone=us-central2-b"]
TRAIN = ["python", "launch/tpu_train.py", "--config=configs/cora.py", "--workdir=gs://b/run 1"]


@pytest.fixture(autouse=True)
def no_programs(monkeypatch, tmp_path):
    """Nothing here may run gcloud or git."""
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture(scope="module")
def launch():
    spec = importlib.util.spec_from_file_location("launch_tpu_vm", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def commands(text):
    """The command lines of a dry run, comments left out."""
    return shlex.split(text, comments=True)


def test_dry_run_of_run_prints_every_command_in_order(launch, capsys):
    flags = ["--accelerator=v5e-16", "--spot", "--dry_run"]
    assert launch(["run", *PLACE, *flags, "--", *TRAIN]) == 0
    text = capsys.readouterr().out
    words = commands(text)
    verbs = [words[i + 3 : i + 5] for i, word in enumerate(words) if word == "gcloud"]
    assert verbs == [
        ["tpu-vm", "describe"],
        ["queued-resources", "describe"],
        ["queued-resources", "create"],
        ["tpu-vm", "ssh"],
        ["tpu-vm", "scp"],
        ["tpu-vm", "ssh"],
        ["tpu-vm", "ssh"],
        ["tpu-vm", "ssh"],
        ["queued-resources", "delete"],
    ]
    assert "--accelerator-type=v5litepod-16" in words and "--spot" in words
    assert "git" in words and "archive" in words and words.count("--worker=all") == 5
    assert "'--workdir=gs://b/run 1'" in text.replace("'\"'\"'", "'")
    assert "every 30 s, until all workers have ended" in text


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        ("status", "tpu-vm describe s"),
        ("stop", "kill -TERM"),
        ("delete", "queued-resources delete s"),
        ("logs --lines=7 --worker=3", "--worker=3 '--command=tail -n 7"),
    ],
)
def test_dry_run_of_other_verbs(launch, capsys, verb, expected):
    assert launch([*verb.split(), *PLACE, "--dry_run"]) == 0
    assert expected in capsys.readouterr().out


def test_create_dry_run_direct_is_a_tpu_vm(launch, capsys):
    flags = ["--accelerator=v4-8", "--direct", "--create_flags=--network=n --tags=a,b", "--dry_run"]
    assert launch(["create", *PLACE, *flags]) == 0
    assert capsys.readouterr().out.strip() == (
        "gcloud compute tpus tpu-vm create s --zone=us-central2-b --quiet "
        "--version=tpu-ubuntu2204-base --accelerator-type=v4-8 --network=n --tags=a,b"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", *PLACE, "--accelerator=v4-8"], "give the command after --"),
        (["run", *PLACE, "--accelerator=v4-9", "--", "true"], "v4 has the sizes"),
        (["run", *PLACE, "--accelerator=v4-8", "--poll=-5", "--", "true"], "--poll=-5: must be"),
        (["run", *PLACE, "--accelerator=v4-8", "--poll=0", "--", "true"], "--poll=0: must be"),
        (["create", "S", "--zone=us-central2-b", "--accelerator=v4-8"], "slice name"),
        (["status", "s", "--zone=moon"], "expected one like us-central2-b"),
        (["status", *PLACE], "gcloud is not installed here"),
    ],
)
def test_bad_input_ends_with_2_and_a_remedy(launch, capsys, words, message):
    assert launch(words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--spot", "--delete"])
@pytest.mark.parametrize(
    "command",
    [
        ["python", "x.py", "--workdir=runs/x"],
        ["python", "x.py", "--workdir", "runs/x"],
        ["python x.py --workdir runs/x && echo finished"],
    ],
)
def test_local_workdir_that_goes_with_the_slice_is_warned_of(launch, capsys, flag, command):
    launch(["run", *PLACE, "--accelerator=v4-8", flag, "--dry_run", "--", *command])
    assert "warning: --workdir=runs/x is lost w" in capsys.readouterr().err


@pytest.mark.parametrize("workdir", [["--workdir", "gs://b/x"], ["--workdir=gs://b/x"], []])
def test_workdir_in_a_bucket_is_no_matter_of_warning(launch, capsys, workdir):
    flags = ["--accelerator=v4-8", "--spot", "--dry_run"]
    launch(["run", *PLACE, *flags, "--", "python", "x.py", *workdir, "--seed=1"])
    assert not capsys.readouterr().err

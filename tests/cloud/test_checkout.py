"""Packing a git checkout as it stands."""

import subprocess

import pytest

from clmrc_jax.cloud import checkout as checkouts
from clmrc_jax.files import InputError


def test_check_outside_git_says_so_and_warns_of_untracked_files(tmp_path, checkout, capsys):
    with pytest.raises(InputError, match="not a git repository.*--source is a git checkout"):
        checkouts.check(tmp_path)
    (checkout / "new.py").write_text("")
    checkouts.check(checkout)
    assert "git does not track them: new.py" in capsys.readouterr().err


def test_pack_sends_the_code_with_its_changes(tmp_path, checkout):
    checkouts.pack(checkout, str(tmp_path / "x.tar.gz"))
    unpacked = subprocess.run(
        ["tar", "-xzOf", tmp_path / "x.tar.gz", "job.sh"], capture_output=True, text=True
    )
    assert "from the checkout" in unpacked.stdout


def test_pack_of_changes_that_git_cannot_take_sends_nothing(tmp_path, checkout):
    (checkout / "new.py").write_text("")
    subprocess.run(["git", "-C", checkout, "add", "-N", "new.py"], check=True)
    with pytest.raises(InputError, match="stash create: .*new.py"):
        checkouts.pack(checkout, str(tmp_path / "x.tar.gz"))
    assert not (tmp_path / "x.tar.gz").exists()

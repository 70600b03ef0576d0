"""Packing a git checkout as it stands."""

import subprocess

import pytest

from clmrc_jax.cloud import checkout as checkouts
from clmrc_jax.files import InputError


def test_pack_outside_git_says_so_and_warns_of_untracked_files(tmp_path, checkout, capsys):
    with pytest.raises(InputError, match="not a git repository"):
        checkouts.pack(tmp_path, str(tmp_path / "x"))
    (checkout / "new.py").write_text("")
    checkouts.pack(checkout, str(tmp_path / "x.tar.gz"))
    assert "git does not track them: new.py" in capsys.readouterr().err
    unpacked = subprocess.run(
        ["tar", "-xzOf", tmp_path / "x.tar.gz", "job.sh"], capture_output=True, text=True
    )
    assert "from the checkout" in unpacked.stdout

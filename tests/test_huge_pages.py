import pathlib
import subprocess
import sys

import pytest

from clmrc_jax.huge_pages import SETTING, with_huge_pages

GLIBC = ("glibc", "2.36")
PROGRAM = """
import os, sys
from clmrc_jax.huge_pages import use_huge_pages
print("start", os.getpid(), *sys.argv[1:], flush=True)
use_huge_pages()
print("main", os.environ.get("GLIBC_TUNABLES", ""))
"""


@pytest.fixture
def setting(tmp_path):
    path = tmp_path / "enabled"
    path.write_text("always [madvise] never\n")
    return path


def test_with_huge_pages_keeps_the_other_tunables(setting):
    assert with_huge_pages({"A": "b"}, setting, GLIBC) == {
        "A": "b",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    }
    found = with_huge_pages({"GLIBC_TUNABLES": "glibc.malloc.check=1"}, setting, GLIBC)
    assert found["GLIBC_TUNABLES"] == "glibc.malloc.check=1:glibc.malloc.hugetlb=1"


@pytest.mark.parametrize("libc", [("glibc", "2.34"), ("", ""), ("musl", "1.2")])
def test_with_huge_pages_needs_a_library_that_knows_them(setting, libc):
    assert with_huge_pages({}, setting, libc) is None


def test_with_huge_pages_leaves_what_is_set_and_what_cannot_help(setting, tmp_path):
    assert with_huge_pages({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, setting, GLIBC) is None
    assert with_huge_pages({}, tmp_path / "missing", GLIBC) is None
    for text in ("[always] madvise never", "always madvise [never]"):
        setting.write_text(text)
        assert with_huge_pages({}, setting, GLIBC) is None


def test_use_huge_pages_starts_the_same_program_again_once(tmp_path, monkeypatch):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    command = [sys.executable, str(program), "--flag=a b"]
    monkeypatch.setenv("PYTHONPATH", str(pathlib.Path(__file__).parents[1]))
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    if not SETTING.exists() or "[madvise]" not in SETTING.read_text():
        pytest.skip("this kernel does not give huge pages to those who ask")
    assert lines[0] == lines[1] and lines[0].endswith(" --flag=a b")
    assert lines[2:] == ["main glibc.malloc.hugetlb=1"]

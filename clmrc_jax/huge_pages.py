"""Huge memory pages for a process on Linux.

XLA asks for the arrays of every step anew. In pages of 4 KiB the kernel hands out a million of
them per step of a full-size model, which costs a third of the step on a CPU; in pages of 2 MiB it
costs little. Where the kernel gives huge pages to those who ask, glibc asks when told so in the
environment, which it reads once, when a process starts.
"""

import os
import pathlib
import platform
import sys

SETTING = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
TUNABLE = "glibc.malloc.hugetlb"
_GLIBC = (2, 35)  # the first one that knows the tunable


def use_huge_pages() -> None:
    """Starts this program again with huge pages, if that is possible and not yet so.

    Call it first in a program's main block: what was done before is done twice. The process
    keeps its id. Setting GLIBC_TUNABLES=glibc.malloc.hugetlb=0 leaves all as it is.
    """
    environment = with_huge_pages(os.environ, SETTING, platform.libc_ver())
    if environment:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def with_huge_pages(environment, setting: pathlib.Path, libc: tuple[str, str]) -> dict | None:
    """The environment that asks for huge pages, or None where that is done or can do nothing.

    setting: the kernel's file.   libc: name and version of the C library.
    """
    name, version = libc
    if name != "glibc" or tuple(map(int, version.split(".")[:2])) < _GLIBC:
        return None
    tunables = environment.get("GLIBC_TUNABLES", "")
    if TUNABLE in tunables or not setting.exists() or "[madvise]" not in setting.read_text():
        return None
    joined = ":".join(x for x in (tunables, f"{TUNABLE}=1") if x)
    return {**environment, "GLIBC_TUNABLES": joined}

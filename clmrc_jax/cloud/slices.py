"""TPU slices by the names people use, and what Google Cloud calls them."""

import dataclasses
import re
from collections.abc import Iterable

from clmrc_jax.files import InputError


@dataclasses.dataclass(frozen=True)
class Generation:
    """One TPU generation.

    prefix: of the accelerator type.  runtime: VM image for JAX (Cloud TPU documentation, "TPU
    software versions").  cores: what the number in the name counts per chip.
    sizes: numbers that exist; beyond them the multiples of `step` up to `most`.
    """

    prefix: str
    runtime: str
    cores: int
    sizes: tuple[int, ...]
    step: int = 0
    most: int = 0

    def has(self, size: int) -> bool:
        """Whether a slice of that number exists."""
        return size in self.sizes or bool(self.step and size % self.step == 0 < size <= self.most)

    def shown(self) -> str:
        """The numbers, for a message."""
        more = f", multiples of {self.step} up to {self.most}" if self.step else ""
        return ", ".join(map(str, self.sizes)) + more


_UBUNTU = "tpu-ubuntu2204-base"
GENERATIONS = {
    "v2": Generation("v2", _UBUNTU, 2, (8, 32, 128, 256, 512)),
    "v3": Generation("v3", _UBUNTU, 2, (8, 32, 64, 128, 256, 512, 1024, 2048)),
    "v4": Generation("v4", _UBUNTU, 2, (8, 16, 32, 64), step=128, most=4096),
    "v5e": Generation("v5litepod", "v2-alpha-tpuv5-lite", 1, (1, 4, 8, 16, 32, 64, 128, 256)),
    "v5p": Generation("v5p", "v2-alpha-tpuv5", 2, (8, 16, 32, 64), step=128, most=12288),
    "v6e": Generation("v6e", "v2-alpha-tpuv6e", 1, (1, 4, 8, 16, 32, 64, 128, 256)),
}


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """type: gcloud's accelerator type.  runtime: VM image.  chips: TPU chips of the slice."""

    type: str
    runtime: str
    chips: int


def accelerator(name: str) -> Accelerator:
    """The accelerator of "v4-32", "v5e-16" or "v5litepod-16", ...

    Raises InputError for one that does not exist, with those that do.
    """
    generation, number = size_of(name)
    row = GENERATIONS[generation]
    return Accelerator(f"{row.prefix}-{number}", row.runtime, number // row.cores)


def size_of(name: str) -> tuple[str, int]:
    """Generation and number: ("v5e", 16) of "v5e-16" or "v5litepod-16".

    Raises InputError for a slice that does not exist, with those that do.
    """
    prefix, _, number = name.partition("-")
    for generation, row in GENERATIONS.items():
        if prefix in (generation, row.prefix) and number.isdecimal():
            if row.has(int(number)):
                return generation, int(number)
            raise InputError(f"accelerator {name!r}: {generation} has the sizes {row.shown()}")
    raise InputError(f"accelerator {name!r} does not exist; known are {listed(GENERATIONS)}")


def listed(generations: Iterable[str]) -> str:
    """The slices of some generations, for a message."""
    return "; ".join(f"{name}-N, N = {GENERATIONS[name].shown()}" for name in generations)


@dataclasses.dataclass(frozen=True)
class Slice:
    """One slice: its name, where it is, and how it is to be made.

    accelerator: "v4-32" and the like; needed to make it.  project: "" for gcloud's default.
    runtime: VM image, "" for the generation's.  spot: cheap, may be taken away at any time.
    queued: wait in Google's queue for capacity (a queued resource of the same name), instead of
    failing when there is none.  create_flags, ssh_flags: handed to gcloud as they are.
    """

    name: str
    zone: str
    accelerator: str = ""
    project: str = ""
    runtime: str = ""
    spot: bool = False
    queued: bool = True
    create_flags: tuple[str, ...] = ()
    ssh_flags: tuple[str, ...] = ()

    def __post_init__(self):
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", self.name):
            raise InputError(
                f"slice name {self.name!r}: lower-case letters, digits and hyphens, a letter first, "
                "63 characters at most"
            )
        if not re.fullmatch(r"[a-z]+-[a-z]+\d+-[a-z]", self.zone):
            raise InputError(f"zone {self.zone!r}: expected one like us-central2-b")
        if self.accelerator:
            accelerator(self.accelerator)

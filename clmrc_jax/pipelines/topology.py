"""TPU slices by their Cloud names: what the vendor publishes of them, and a mesh without the chips.

`libtpu` compiles on any Linux machine for a slice that is not there; `slice_devices` gives the
slice's devices as descriptions. `mesh` axes, shardings and `jit(..).lower(..).compile()` work on
them as on real ones; only arrays cannot be placed.
"""

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import math
import os

from clmrc_jax.files import InputError
from clmrc_jax.train.metrics import PEAK_TFLOPS

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published figures of one chip.

    kind: JAX's `device_kind`, under which `train.metrics` has the bfloat16 peak.
    hbm_bytes: capacity.   usable_bytes: what the compiler gives to programs, as it says itself
        (libtpu 0.0.52) when one is too large.   hbm_bandwidth: bytes/s.
    link_bandwidth: bytes/s out of the chip over one of its inter-chip links: the published total
        of the chip, one direction, over its number of links (6 in a 3D, 4 in a 2D torus).
    cores_in_name: TensorCores per chip where the slice's name counts them (v4-8: 4 chips), else 1.
    options: what `topologies.get_topology_desc` needs besides the shape.
    """

    kind: str
    hbm_bytes: int
    usable_bytes: int
    hbm_bandwidth: float
    link_bandwidth: float
    cores_in_name: int
    shapes: tuple[tuple[int, ...], ...]
    options: dict = dataclasses.field(default_factory=dict)

    @property
    def peak_flops(self) -> float:
        """Dense bfloat16 operations per second."""
        return PEAK_TFLOPS[self.kind] * 1e12


_CUBES = (
    *((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4), (4, 4, 4)),
    *((4, 4, 8), (4, 8, 8), (8, 8, 8), (8, 8, 16), (8, 16, 16)),
)
_SQUARES = ((2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))

# Google Cloud documentation, pages "TPU v4", "TPU v5e", "TPU v5p", "TPU v6e" (key specifications
# per chip, supported slice shapes); v4's links: Jouppi et al., "TPU v4: An Optically
# Reconfigurable Supercomputer" (ISCA 2023), table 4: 6 links of 50 GB/s. Bidirectional totals
# there: v5e 400, v5p 1200, v6e 800 GB/s, halved here and divided by the links.
CHIPS = {
    # Megacore: the two TensorCores of a chip are one device.
    "v4": Chip(
        *("TPU v4", 32 * GIB, int(30.75 * GIB), 1200e9, 50e9, 2, _CUBES),
        options={"chip_config_name": "megacore"},
    ),
    "v5e": Chip("TPU v5 lite", 16 * GIB, int(15.75 * GIB), 800e9, 50e9, 1, _SQUARES),
    "v5p": Chip("TPU v5", 95 * GIB, 95 * GIB, 2765e9, 100e9, 2, _CUBES),
    "v6e": Chip("TPU v6 lite", 32 * GIB, int(31.24 * GIB), 1600e9, 100e9, 1, _SQUARES),
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice: its Cloud name, its chips and the shape of their torus or mesh."""

    name: str
    chip: Chip
    shape: tuple[int, ...]

    @property
    def chips(self) -> int:
        """Number of chips, which is the number of JAX devices."""
        return math.prod(self.shape)

    @property
    def host(self) -> "Slice":
        """The chips of one host (VM) as a slice: 4, or all 8 of a v5e-8 or v6e-8."""
        if self.chips <= 8 and len(self.shape) == 2:
            return self
        shape = (2, 2, 1)[: len(self.shape)]
        return next(x for x in _slices().values() if x.shape == shape and x.chip is self.chip)

    @property
    def ici_bandwidth(self) -> float:
        """Bytes/s out of one chip over all of its links that end in the slice.

        An axis of 2 chips has one link per chip, a longer one two. Without wrap-around the ends
        of an axis lack one; rings through several axes make up for it, so it is not deducted.
        """
        links = sum(min(extent - 1, 2) for extent in self.shape)
        return links * self.chip.link_bandwidth

    @property
    def axis_bandwidth(self) -> float:
        """Bytes/s out of one chip along one axis: what a part of the slice can count on."""
        return min(max(self.shape) - 1, 2) * self.chip.link_bandwidth


def slice_of(name: str) -> Slice:
    """The slice of a Cloud accelerator type such as "v4-8", "v5e-16", "v5litepod-16", "v5p-8".

    Raises InputError for an unknown one, listing those that exist.
    """
    known = _slices()
    wanted = name.strip().lower().replace("v5litepod", "v5e")
    if wanted not in known:
        rows = {g: [n for n in known if n.startswith(f"{g}-")] for g in CHIPS}
        listed = "; ".join(", ".join(names) for names in rows.values())
        raise InputError(
            f"--topology={name}: there is no such slice. The number counts TensorCores for v4 and "
            f"v5p (two per chip) and chips for v5e and v6e. Known: {listed}"
        )
    return known[wanted]


def slices_like(wanted: Slice) -> list[Slice]:
    """The slices of the same generation, small ones first."""
    return [found for found in _slices().values() if found.chip is wanted.chip]


def _slices() -> dict[str, Slice]:
    found = {}
    for generation, chip in CHIPS.items():
        for shape in chip.shapes:
            name = f"{generation}-{math.prod(shape) * chip.cores_in_name}"
            found[name] = Slice(name, chip, shape)
    return found


def libtpu_version() -> str:
    """Of the TPU compiler, "" where there is none."""
    try:
        return importlib.metadata.version("libtpu")
    except importlib.metadata.PackageNotFoundError:
        return ""


def can_compile() -> bool:
    """Whether `libtpu`, the TPU compiler, is installed."""
    return importlib.util.find_spec("libtpu") is not None


def slice_devices(wanted: Slice) -> list:
    """Descriptions of the devices of a slice, which jit can compile for.

    Raises InputError without `libtpu`, or when it does not know the slice.
    """
    if not can_compile():
        raise InputError(
            "compiling for TPUs needs the package libtpu (Linux, x86-64): pip install 'jax[tpu]'"
        )
    from jax.experimental import topologies

    generation = wanted.name.split("-")[0]
    shape = "x".join(map(str, wanted.shape))
    with _quiet_environment():
        try:
            found = topologies.get_topology_desc(
                f"{generation}:{shape}", platform="tpu", **wanted.chip.options
            )
        except Exception as error:  # the plug-in raises several kinds
            raise InputError(
                f"libtpu cannot describe {wanted.name} ({shape}): {error}; install the libtpu that "
                f"belongs to this jax (pip install 'jax[tpu]')"
            ) from error
    devices = list(found.devices)
    if len(devices) != wanted.chips or devices[0].device_kind != wanted.chip.kind:
        raise InputError(
            f"libtpu describes {wanted.name} as {len(devices)} x {devices[0].device_kind!r}, not "
            f"{wanted.chips} x {wanted.chip.kind!r}; install the libtpu that belongs to this jax"
        )
    return devices


@contextlib.contextmanager
def _quiet_environment():
    """No search for a TPU or its metadata server, no lock, no log lines about either."""
    wanted = {
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_ACCELERATOR_TYPE": "v4-8",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "TPU_MIN_LOG_LEVEL": "3",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update({name: before[name] or value for name, value in wanted.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]

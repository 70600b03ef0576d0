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

from clmrc_jax.cloud.slices import GENERATIONS, listed, size_of
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
    axes: of the torus or mesh of chips, 2 or 3.
    options: what `topologies.get_topology_desc` needs besides the shape.
    """

    kind: str
    hbm_bytes: int
    usable_bytes: int
    hbm_bandwidth: float
    link_bandwidth: float
    axes: int
    options: dict = dataclasses.field(default_factory=dict)

    @property
    def peak_flops(self) -> float:
        """Dense bfloat16 operations per second."""
        return PEAK_TFLOPS[self.kind] * 1e12


# Google Cloud documentation, pages "TPU v4", "TPU v5e", "TPU v5p", "TPU v6e" (key specifications
# per chip, supported slice shapes); v4's links: Jouppi et al., "TPU v4: An Optically
# Reconfigurable Supercomputer" (ISCA 2023), table 4: 6 links of 50 GB/s. Bidirectional totals
# there: v5e 400, v5p 1200, v6e 800 GB/s, halved here and divided by the links.
CHIPS = {
    # Megacore: the two TensorCores of a chip are one device.
    "v4": Chip(
        *("TPU v4", 32 * GIB, int(30.75 * GIB), 1200e9, 50e9, 3),
        options={"chip_config_name": "megacore"},
    ),
    "v5e": Chip("TPU v5 lite", 16 * GIB, int(15.75 * GIB), 800e9, 50e9, 2),
    "v5p": Chip("TPU v5", 95 * GIB, 95 * GIB, 2765e9, 100e9, 3),
    "v6e": Chip("TPU v6 lite", 32 * GIB, int(31.24 * GIB), 1600e9, 100e9, 2),
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice: its Cloud name, its chips and the shape of their torus or mesh."""

    name: str
    chip: Chip
    shape: tuple[int, ...]

    @property
    def generation(self) -> str:
        """ "v4", "v5e", ...: a key of CHIPS."""
        return self.name.split("-")[0]

    @property
    def chips(self) -> int:
        """Number of chips, which is the number of JAX devices."""
        return math.prod(self.shape)

    @property
    def host(self) -> "Slice":
        """The chips of one host (VM) as a slice: 4, or all of a v5e or v6e of up to 8."""
        small = self.chips <= 8 and self.chip.axes == 2
        return self if small else _slice(self.generation, 4)

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
    try:
        generation, size = size_of(name.strip().lower())
    except InputError:
        generation, size = "", 0
    if generation not in CHIPS:
        raise InputError(
            f"--topology={name}: there is no such slice to compile for. The number counts "
            f"TensorCores for v4 and v5p (two per chip) and chips for v5e and v6e. Known: "
            f"{listed(CHIPS)}"
        )
    return _slice(generation, size // GENERATIONS[generation].cores)


def doublings(wanted: Slice, fewest: int, most: int) -> list[Slice]:
    """Slices of the same generation with `fewest` chips, twice as many, ... up to `most`."""
    generation = GENERATIONS[wanted.generation]
    counts = (2**n for n in range(fewest.bit_length() - 1, most.bit_length()))
    return [_slice(wanted.generation, n) for n in counts if generation.has(n * generation.cores)]


def _slice(generation: str, chips: int) -> Slice:
    name = f"{generation}-{chips * GENERATIONS[generation].cores}"
    chip = CHIPS[generation]
    return Slice(name, chip, (_square if chip.axes == 2 else _cube)(chips))


def _square(chips: int) -> tuple[int, int]:
    """Of a power of two: 2 x 4, 4 x 4, 4 x 8, ..."""
    short = 2 ** ((chips.bit_length() - 1) // 2)
    return short, chips // short


def _cube(chips: int) -> tuple[int, int, int]:
    """One cube of 4 x 4 x 4 or a part of it, or the most compact block of such cubes."""
    if chips < 64:
        return {4: (2, 2, 1), 8: (2, 2, 2), 16: (2, 2, 4), 32: (2, 4, 4)}[chips]
    cubes, extents = chips // 64, range(1, chips // 64 + 1)
    blocks = [(a, b, cubes // (a * b)) for a in extents for b in extents if cubes % (a * b) == 0]
    return tuple(4 * n for n in sorted(min(blocks, key=sum)))


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

    options = dict(wanted.chip.options)
    if wanted.chips == 1:  # libtpu thinks of hosts of 2 x 2
        options["chips_per_host_bounds"] = (1, 1, 1)
    shape = "x".join(map(str, wanted.shape))
    with _quiet_environment():
        try:
            found = topologies.get_topology_desc(
                f"{wanted.generation}:{shape}", platform="tpu", **options
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

"""Which accelerators JAX looks for."""

import importlib.metadata
import importlib.util
import os
import pathlib

DEVICES = pathlib.Path("/sys/bus/pci/devices")
_GOOGLE = "0x1ae0"  # vendor of every TPU chip


def skip_absent_tpu() -> None:
    """Keeps JAX from starting libtpu on a machine without TPU chips.

    libtpu is there to compile for slices (launch/tpu_compile.py). Started without a chip it finds
    nothing, but complains on stderr in words that look like an error of the run. Call it before
    JAX looks for devices.
    """
    others = importlib.metadata.entry_points(group="jax_plugins")
    if others or chip_files() or not importlib.util.find_spec("libtpu"):
        return
    if no_tpu(os.environ, DEVICES):  # of containers it may be that they show no devices
        os.environ["JAX_PLATFORMS"] = "cpu"


def chip_files(folder: pathlib.Path = pathlib.Path("/dev")) -> list[str]:
    """The device files of TPU chips: /dev/accel0 ... up to v4 and v5p, /dev/vfio/0 ... since."""
    found = [*folder.glob("accel[0-9]*"), *folder.glob("vfio/[0-9]*")]
    return sorted(map(str, found))


def no_tpu(environment, devices: pathlib.Path) -> bool:
    """Whether nobody asked for a platform and no PCI device is Google's; False where unknown.

    devices: the kernel's folder of PCI devices.
    """
    if environment.get("JAX_PLATFORMS") or not devices.is_dir():
        return False
    return not any(x.read_text().strip() == _GOOGLE for x in devices.glob("*/vendor"))

"""The devices that a plan is for: those of this machine, more of them, or a TPU slice."""

import os

import jax
from jax.sharding import AbstractMesh

from clmrc_jax.files import InputError
from clmrc_jax.pipelines.topology import slice_of
from clmrc_jax.train.metrics import PEAK_TFLOPS

# Share of the peak that each kind of work reaches, all at full length; on an accelerator decoding
# waits for memory, not arithmetic. Those of the CPU were measured with the demo.
UTILISATION = {"train": 0.4, "encode": 0.5, "search": 0.3, "generate": 0.03}
CPU_UTILISATION = {"train": 0.6, "encode": 0.6, "search": 0.3, "generate": 0.7}
CPU_GFLOPS = 64.0  # of a core: 32 float32 operations per cycle (AVX2) at 2 GHz
SLICE_HOST_CORES = 56  # the least of a TPU VM with four chips: v5e's 112 hyperthreads


def host_flops(devices: dict) -> float:
    """Peak operations per second of a host's cores."""
    return CPU_GFLOPS * 1e9 * devices["host_cores"]


def planned_mesh(sizes: dict, topology: str = "") -> AbstractMesh:
    """The mesh of the config on this machine or a slice; it may also be larger than the machine.

    Raises InputError for an unknown slice, and for a mesh that is not all of it.
    """
    data, model = sizes.get("data", -1), sizes.get("model", 1)
    present = slice_of(topology).chips if topology else jax.device_count()
    if data == -1:
        data = max(1, present // max(1, model))
    if min(data, model) < 1:
        raise InputError(f"mesh {sizes}: sizes must be positive (data may be -1, all devices)")
    if topology and data * model != present:
        raise InputError(f"mesh {sizes} is not of the {present} chips of {topology}")
    axis_types = (jax.sharding.AxisType.Auto,) * 2
    return AbstractMesh((data, model), ("data", "model"), axis_types)


def planned_devices(mesh: AbstractMesh, topology: str = "") -> dict:
    """What is known of the devices: kind, number, peak operations per second, memory."""
    known = {"planned": mesh.size, "present": jax.device_count(), "mesh": dict(mesh.shape)}
    known["host_cores"] = SLICE_HOST_CORES if topology else os.cpu_count() or 1
    if topology:
        chip = slice_of(topology).chip
        return known | {
            "kind": chip.kind,
            "topology": slice_of(topology).name,
            "peak_flops": chip.peak_flops,
            "memory_bytes": chip.usable_bytes,
            "utilisation": UTILISATION,
        }
    device = jax.devices()[0]
    if device.platform == "cpu":
        peak = host_flops(known) / jax.device_count()
    else:
        tera = PEAK_TFLOPS.get(device.device_kind)
        peak = tera and tera * 1e12
    return known | {
        "kind": device.device_kind,
        "peak_flops": peak,
        "memory_bytes": (device.memory_stats() or {}).get("bytes_limit"),
        "utilisation": CPU_UTILISATION if device.platform == "cpu" else UTILISATION,
    }


def device_notes(devices: dict, seconds: float | None) -> list[str]:
    """What was assumed of the devices, and the chip-hours of a slice. seconds: of all stages."""
    if name := devices.get("topology"):
        if seconds is None:
            return [f"no chip-hours of {name}: the time of a stage is unknown"]
        hours = devices["planned"] * seconds / 3600
        cores = f"{devices['host_cores']} cores of one host where the host works"
        return [f"{name}: {devices['planned']} chips, {hours:,.1f} chip-hours; {cores}"]
    notes = []
    if devices["kind"] == "cpu":
        notes.append(f"CPU peak: {CPU_GFLOPS:.0f} GFLOP/s per core, {os.cpu_count()} cores")
    elif devices["peak_flops"] is None:
        notes.append(f"no time: the peak of {devices['kind']!r} is not in train/metrics.py")
    if devices["planned"] != devices["present"]:
        notes.append(f"planned for {devices['planned']} devices, {devices['present']} present")
    return notes

"""What a training reports: one JSON line per logged step, timers, and shares of the peak."""

import json
import math
import os
import time

import jax
import numpy as np
from etils import epath

from clmrc_jax.files import InputError, is_remote, write_jsonl

# Dense bfloat16 peak of one chip, TFLOP/s, by `device_kind`, from the vendors' pages:
# cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e} ("peak compute per chip (bf16)"; v2 and v3:
# .../system-architecture-tpu-vm) and the data sheets of NVIDIA's A100, L4, L40S, H100, H200,
# without sparsity. JAX counts a v2 or v3 chip as two devices, each with half its peak.
PEAK_TFLOPS = {
    "TPU v2": 22.5,
    "TPU v3": 61.5,
    "TPU v4": 275.0,
    "TPU v5 lite": 197.0,
    "TPU v5e": 197.0,
    "TPU v5": 459.0,
    "TPU v5p": 459.0,
    "TPU v6 lite": 918.0,
    "TPU v6e": 918.0,
    "NVIDIA A100-SXM4-40GB": 312.0,
    "NVIDIA A100-SXM4-80GB": 312.0,
    "NVIDIA L4": 121.0,
    "NVIDIA L40S": 362.0,
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA H100 80GB HBM3": 989.0,
    "NVIDIA H200": 989.0,
}

SECONDS_BETWEEN_UPLOADS = 60.0


class MetricWriter:
    """Appends `{"step": .., name: value}` lines to a JSONL file, each flushed at once.

    restored_step: lines of later steps, and a last line cut short, are dropped on opening, so
        that a resumed training writes every step once.
    tensorboard: also write event files beside it (needs the package tensorboardX).
    Only process 0 writes. A file in a bucket cannot grow: there it is written anew, whole, when
    `flush` or `close` asks for it, and with a line that comes a minute after the last time.
    """

    def __init__(self, path: str | os.PathLike, restored_step: int = 0, tensorboard: bool = False):
        self.path = epath.Path(path)
        self._file = self._rows = self._board = None
        if jax.process_index() == 0:
            self._board = _open_tensorboard(self.path.parent) if tensorboard else None
            kept = [row for row in _whole_lines(self.path) if row["step"] <= restored_step]
            if is_remote(self.path):
                self._rows = kept
                self._rewrite()
            else:
                write_jsonl(self.path, kept)
                self._file = self.path.open("a")

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes one line; a NaN or infinity becomes null, since JSON has neither."""
        values = {name: float(value) for name, value in values.items()}
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        if self._rows is not None:
            self._rows.append({"step": step, **finite})
            if time.monotonic() - self._rewritten >= SECONDS_BETWEEN_UPLOADS:
                self._rewrite()
        if self._file is not None:
            try:
                self._file.write(json.dumps({"step": step, **finite}, ensure_ascii=False) + "\n")
                self._file.flush()
            except OSError as error:
                raise InputError(
                    f"{self.path}: cannot write ({error}); free space and run the same command "
                    f"again to continue"
                ) from error
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def flush(self) -> None:
        """Brings all lines to the file: before a checkpoint, whose step a resume starts from."""
        if self._rows is not None and len(self._rows) > self._uploaded:
            self._rewrite()

    def _rewrite(self) -> None:
        self._uploaded = write_jsonl(self.path, self._rows)
        self._rewritten = time.monotonic()

    def close(self) -> None:
        self.flush()
        for file in (self._file, self._board):
            if file is not None:
                file.close()


def _whole_lines(path) -> list[dict]:
    rows = []
    for line in path.read_text().split("\n") if path.exists() else ():
        try:
            rows += [json.loads(line)] if line.strip() else []
        except json.JSONDecodeError:
            break  # the process was killed within this line
    return rows


def _open_tensorboard(folder):
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise InputError(
            "tensorboard=True needs the package tensorboardX: pip install tensorboardX, "
            "or leave it off (metrics.jsonl is always written)"
        ) from error
    return SummaryWriter(str(folder / "tensorboard"))


class Timers:
    """Speed over a window of steps: step time, throughput, data wait, padding, FLOP/s.

    flops_per_batch: model FLOPs of one step over the global batch (forward and backward), or
    None. devices: those of the mesh. The first step of a training, which compiles, is left out
    of the averages and given as `first_step_seconds`.
    """

    def __init__(self, flops_per_batch: float | None = None, devices=()):
        self._flops = flops_per_batch
        self._devices = list(devices)
        self._first = None
        self._reset(time.perf_counter())

    def _reset(self, now):
        self._start, self._paused = now, 0.0
        self._steps = self._examples = self._tokens = self._masked = 0
        self._wait = 0.0

    def batch(self, batch: dict[str, np.ndarray], waited: float, slices: int = 1) -> None:
        """Counts one step's batch and the seconds spent waiting for it.

        batch: this process's rows.   slices: so many of them make the global batch, as
        `sharding.batch_slice` says.
        """
        self._steps += 1
        self._wait += waited
        self._examples += slices * len(next(iter(batch.values())))
        for name, array in batch.items():
            # A span mask says where an answer may lie; tokens it leaves out are no padding.
            if name.endswith("_mask") and not name.endswith("span_mask"):
                self._tokens += array.size
                self._masked += array.size - int(np.count_nonzero(array))

    def pause(self, seconds: float) -> None:
        """Takes time that was not training (saving, validation) out of the step time."""
        self._paused += seconds

    def first_step(self) -> None:
        """Marks the end of the first step, compilation included."""
        now = time.perf_counter()
        self._first = now - self._start
        self._reset(now)

    def window(self) -> dict[str, float]:
        """The averages since the last call; then starts a new window."""
        now = time.perf_counter()
        values = {} if self._first is None else {"first_step_seconds": self._first}
        if self._steps:
            step = max(1e-9, (now - self._start - self._paused) / self._steps)
            values["step_seconds"] = step
            values["examples_per_second"] = self._examples / self._steps / step
            values["data_wait_seconds"] = self._wait / self._steps
            values |= {"padding_waste": self._masked / self._tokens} if self._tokens else {}
            values |= flop_rates(self._flops, step, self._devices)
        self._first = None
        self._reset(now)
        return values


def flop_rates(flops: float | None, seconds: float, devices) -> dict[str, float]:
    """{"tflops": total TFLOP/s, "mfu": share of the devices' peak}; mfu only where it is known.

    flops: of one step, over all devices; None gives {}.
    """
    if flops is None:
        return {}
    values = {"tflops": flops / seconds / 1e12}
    peaks = [PEAK_TFLOPS.get(device.device_kind) for device in devices]
    if peaks and None not in peaks:
        values["mfu"] = values["tflops"] / sum(peaks)
    return values

#!/usr/bin/env python3
"""The steps of the paper's runs on one GPU: examples per second, MFU, and PyTorch on the same card.

python benchmarks/gpu.py [--torch_python=PYTHON_WITH_TORCH --only='train mDPR,encode' --compile]

Measures training mDPR, encoding passages (of 192 to 256 tokens, and "encode 180" of 180 in the
bucket of 192), training mGEN, decoding with 4 beams and training Dual BERT: our jitted functions as
the runs call them (benchmarks/gpu_cases.py), random weights of the published sizes, random tokens,
bfloat16, the rows of the paper's runs. Medians; compilation and warming up are outside. Nothing is
downloaded. `--tiny` tries the program with two small layers on a CPU.

PyTorch with transformers (benchmarks/gpu_torch.py) gets the same sizes and the same batches, and runs
first, each measurement in a process of its own, because JAX keeps the card's memory once it has it.
Where torch or transformers cannot be imported ours is measured alone. Both sides' FLOPs are those that
the mathematics needs at full length, so recomputation lowers MFU and padding does not.
Exit status 1 when a measurement failed, e.g. for want of memory.
"""

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import jax
import numpy as np
from clock import seconds_per_call
from gpu_cases import Case, make_cases

from clmrc_jax import sharding
from clmrc_jax.train.metrics import flop_rates

COLUMNS = ("ms", "examples/s", "TFLOP/s", "MFU")


def main() -> int:
    """Measures, prints the table or JSON; returns the exit status."""
    options, cases = _arguments()
    has_torch = _has_torch(options.torch_python)
    if not has_torch:
        _say(f"{options.torch_python} has no torch and transformers: ours is measured alone")
    theirs = {case.name: _torch(case, options) for case in cases if has_torch}
    device = jax.devices()[0]
    if device.platform == "cpu" and not options.tiny:
        sys.exit("JAX finds no accelerator: pip install 'jax[cuda12]', or try it out with --tiny")
    mesh = sharding.make_mesh(devices=[device])
    rows = []
    for case in cases:
        row = {"name": case.name, "shape": case.shape}
        row["ours"] = _rates(case, _ours(case, mesh, options), device)
        row["torch"] = _rates(case, theirs[case.name], device) if has_torch else None
        rows.append(row)
    result = {"device": device.device_kind, "jax": jax.__version__, "rows": rows}
    print(json.dumps(result, allow_nan=False) if options.json else _table(result))
    return int(any("error" in (row[side] or {}) for row in rows for side in ("ours", "torch")))


def _arguments() -> tuple[argparse.Namespace, list[Case]]:
    """The flags, and the cases that `--only` leaves."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="measurements by name, with commas between")
    parser.add_argument("--torch_python", default=sys.executable, help="interpreter with torch")
    parser.add_argument("--compile", action="store_true", help="torch.compile, but for decoding")
    parser.add_argument("--repeats", type=int, default=5, help="their median counts")
    parser.add_argument("--calls", type=int, default=5, help="per repeat, waited for together")
    parser.add_argument("--rows", type=int, default=0, help="of every batch, e.g. on a small card")
    parser.add_argument("--tiny", action="store_true", help="two small layers, float32")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    options = parser.parse_args()
    if min(options.repeats, options.calls) < 1 or options.rows < 0:
        parser.error("--repeats and --calls must be at least 1, --rows at least 0")
    cases = {case.name: case for case in make_cases(options.tiny, options.rows)}
    names = [name.strip() for name in options.only.split(",")] if options.only else list(cases)
    for name in names:
        if name not in cases:
            parser.error(f"--only={name}: no such measurement; choose of {', '.join(cases)}")
    return options, [cases[name] for name in names]


def _has_torch(python: str) -> bool:
    try:
        tried = subprocess.run([python, "-c", "import torch, transformers"], capture_output=True)
    except OSError as error:
        sys.exit(f"--torch_python={python}: {error}")
    return tried.returncode == 0


def _ours(case: Case, mesh, options) -> dict:
    """{"seconds": of a call, every repeat} or {"error"}."""
    try:
        call = case.start(mesh)
        result = call()
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(result))):
            return {"error": f"the result is not finite: {result}"}
        seconds = seconds_per_call(call, jax.block_until_ready, options.repeats, options.calls)
    except jax.errors.JaxRuntimeError as error:
        return {"error": str(error).splitlines()[0]}
    _say(f"{case.name}: {1e3 * statistics.median(seconds):.1f} ms")
    return {"seconds": seconds}


def _torch(case: Case, options) -> dict:
    """What benchmarks/gpu_torch.py answers, or {"error"}."""
    how = {"repeats": options.repeats, "calls": options.calls, "compile": options.compile}
    script = pathlib.Path(__file__).with_name("gpu_torch.py")
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/batch.npz", **case.batch)
        pathlib.Path(f"{folder}/case.json").write_text(json.dumps(case.torch | how))
        command = [options.torch_python, str(script), folder]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return {"error": f"PyTorch ended with status {done.returncode} (message above)"}
    found = json.loads(done.stdout.splitlines()[-1])
    _say(f"{case.name}: PyTorch {1e3 * statistics.median(found['seconds']):.1f} ms")
    return found


def _rates(case: Case, measured: dict, device) -> dict:
    """Adds the median, examples per second, TFLOP/s and, where the peak is known, MFU."""
    if "error" in measured:
        return measured
    median = statistics.median(measured["seconds"])
    rates = {"median": median, "examples_per_second": case.rows / median}
    return measured | rates | flop_rates(case.flops, median, [device])


def _table(result: dict) -> str:
    """The rows as Markdown, PyTorch's columns behind ours."""
    rows, sides = result["rows"], {"": "ours"}
    theirs = [row["torch"] for row in rows if row["torch"] and "error" not in row["torch"]]
    text = [f"jax {result['jax']} on {result['device']}"]
    if any(row["torch"] for row in rows):
        sides["torch "] = "torch"
        found = {f"torch {x['version']} on {x['device']}" for x in theirs}
        text[0] += "".join(f"; {x}" for x in sorted(found))
    head = ["step", "shape", *(prefix + column for prefix in sides for column in COLUMNS)]
    head += ["x torch"] * (len(sides) - 1)
    text += ["", _line(head), _line(["---"] * len(head))]
    for row in rows:
        cells = [cell for side in sides.values() for cell in _cells(row[side])]
        times = [row[side].get("median", math.nan) for side in sides.values()]
        ratio = [f"{times[1] / times[0]:.2f}"] if len(times) == 2 else []
        text.append(_line([row["name"], row["shape"], *cells, *ratio]))
    for row in rows:
        for side in sides.values():
            if "error" in row[side]:
                text.append(f"{row['name']}, {side}: {row[side]['error']}")
    return "\n".join(text)


def _line(cells) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(side: dict) -> list[str]:
    if "error" in side:
        return ["failed", "", "", ""]
    mfu = f"{100 * side['mfu']:.1f}%" if "mfu" in side else "peak unknown"
    speed = f"{side['examples_per_second']:,.0f}"
    return [f"{1e3 * side['median']:.1f}", speed, f"{side['tflops']:.1f}", mfu]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    # PyTorch has left the card when JAX takes its share, by default three quarters.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")
    sys.exit(main())

"""Compiles every step of a run for a TPU slice that is not there, and says whether it fits.

    python launch/tpu_compile.py --config=configs/cora.py:paper --topology=v4-8

Memory comes from the compiler, operations from our own count, collectives and HBM traffic from
the compiled program; times are those of a roofline: the slowest of arithmetic, HBM and
interconnect at their published peaks, as if the other two hid behind it.
"""

import json
import math
import re
import time
from collections.abc import Callable, Collection

import jax

from clmrc_jax.files import InputError
from clmrc_jax.pipelines import compile_advice, compile_tables, flops, hlo, scaling
from clmrc_jax.pipelines.compile_steps import TASKS, Meshes, Step
from clmrc_jax.pipelines.topology import Slice, libtpu_version, slice_devices, slice_of
from clmrc_jax.sharding import make_mesh

# "Used 41.6G of 15.7G hbm", or "HLO temporaries (41.6G) exceeds available HBM (15.7G)".
_OVERFLOW = re.compile(r"([\d.]+)([KMGT]?)\)? (?:of|exceeds available HBM) \(?([\d.]+)([KMGT]?)")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def main(
    config,
    topology: str,
    *,
    steps: Collection[str] = (),
    output: str = "table",
    scale: bool = False,
) -> bool:
    """Compiles and prints; whether everything fits.

    output: "table", "json" or "markdown".   scale: add the scaling of the updates on paper.
    Raises InputError for an unknown slice or step, and for a mesh that does not suit the run.
    """
    report = make_report(config, topology, steps=steps, say=_say if output == "table" else None)
    if scale:
        report["scaling"] = scaling.scaling(report)
    if output == "json":
        print(json.dumps(report, indent=1))
    elif output == "markdown":
        print(compile_tables.markdown(report))
    else:
        compile_tables.show(report)
    return report["fits"]


def _say(text: str) -> None:
    print(text, flush=True)


def make_report(
    config, topology: str, *, steps: Collection[str] = (), say: Callable | None = None
) -> dict:
    """The table as plain JSON values: bytes, operations, seconds, per step.

    config: ConfigDict or dict of a run.   steps: names of the steps wanted; empty for all.
    say: told what happens, compiling takes a while.
    """
    wanted = slice_of(topology)
    task = config.get("task", "cora")
    if task not in TASKS or "mesh" not in config:
        known = ", ".join(TASKS)
        raise InputError(
            f"a config with a mesh and one of the tasks {known} is needed, not {task!r}"
        )
    meshes = make_meshes(dict(config["mesh"]), wanted)
    found = _select(TASKS[task](config, meshes), steps)
    rows = []
    for step in found:
        part = wanted if step.mesh.size == wanted.chips else wanted.host
        if say:
            say(f"compiling {step.name} ({step.shape}) for {part.chips} chips ...")
        rows.append(compile_step(step, part))
    return {
        "name": config["name"],
        "topology": wanted.name,
        "chips": wanted.chips,
        "shape": list(wanted.shape),
        "mesh": dict(meshes.whole.shape),
        "host_chips": meshes.host.size,
        "chip": {
            "kind": wanted.chip.kind,
            "hbm_bytes": wanted.chip.hbm_bytes,
            "peak_flops": wanted.chip.peak_flops,
            "hbm_bandwidth": wanted.chip.hbm_bandwidth,
            "ici_bandwidth": wanted.ici_bandwidth,
        },
        "jax": jax.__version__,
        "libtpu": libtpu_version(),
        "steps": rows,
        "fits": all(row["fits"] for row in rows),
    }


def make_meshes(sizes: dict, wanted: Slice) -> Meshes:
    """The mesh of a slice and that of one of its hosts, as `sharding.local_mesh` would cut it."""
    whole = make_mesh(**sizes, devices=slice_devices(wanted))
    if wanted.host == wanted:
        return Meshes(whole, whole)
    model = math.gcd(whole.shape["model"], wanted.host.chips)
    return Meshes(whole, make_mesh(-1, model, slice_devices(wanted.host)))


def _select(steps: list[Step], names: Collection[str]) -> list[Step]:
    known = [step.name for step in steps]
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise InputError(f"--steps: {unknown[0]!r} is no step of this run; it has {known}")
    return [step for step in steps if not names or step.name in names]


def compile_step(step: Step, wanted: Slice) -> dict:
    """One row of the report; wanted: the slice of the step's mesh, its own or that of a host."""
    begin = time.monotonic()
    with step.context():
        traced = step.program.trace(*step.arguments, **step.keywords)
        lowered = traced.lower()
    operations = flops.count(traced.jaxpr, step.trips)
    row = {
        "step": step.name,
        "shape": step.shape,
        "chips": wanted.chips,
        "rows": step.rows,
        "model_flops": step.model_flops,
        "flops": operations.flops,
    }
    try:
        compiled = lowered.compile()
        text = compiled.as_text()
    except jax.errors.JaxRuntimeError as error:
        row |= {"memory": _overflow(error, step, wanted), "collectives": None, "seconds": None}
    else:
        traffic = hlo.traffic(text, wanted.chips, step.trips)
        row |= {
            "memory": _memory(compiled.memory_analysis(), step, wanted),
            "collectives": traffic.collectives,
            "hbm_bytes": traffic.hbm_bytes,
            "seconds": roofline(operations, traffic, wanted),
        }
        row |= _rates(row, wanted)
    memory = row["memory"]
    row["fits"] = memory["peak"] <= memory["capacity"]
    options = compile_advice.best_first(step.advice, memory["fixed"], memory["capacity"])
    row["options"] = [] if row["fits"] else [[x.change, x.effect] for x in options]
    return row | {"compile_seconds": time.monotonic() - begin}


def _memory(analysis, step: Step, wanted: Slice) -> dict:
    """Bytes on one chip. The arguments' buffers take the outputs that alias them.

    held: what the run keeps there beside this program.   program: its instructions.
    """
    arguments, program = analysis.argument_size_in_bytes, analysis.generated_code_size_in_bytes
    return {
        "arguments": arguments,
        "outputs": analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        "temporaries": analysis.temp_size_in_bytes,
        "program": program,
        "held": step.held,
        "fixed": arguments + step.held,
        "peak": analysis.peak_memory_in_bytes + program + step.held,
        "capacity": wanted.chip.usable_bytes,
    }


def _overflow(error: Exception, step: Step, wanted: Slice) -> dict:
    """The memory of a program that the compiler refused for want of it.

    Raises InputError for other errors: a libtpu that does not belong to this jax has had them.
    """
    found = _OVERFLOW.search(str(error))
    if found is None:
        raise InputError(
            f"{step.name} cannot be compiled for {wanted.name} by libtpu {libtpu_version()} under "
            f"jax {jax.__version__}; install the pair that belongs together: pip install 'jax[tpu]'. "
            f"The compiler says: {' '.join(str(error).split())[:500]}"
        ) from error
    used, capacity = (
        float(number) * _UNITS[unit] for number, unit in (found.groups()[:2], found.groups()[2:])
    )
    leaves = (x for x in jax.tree.leaves(step.arguments) if hasattr(x, "sharding"))
    arguments = sum(_bytes_on_chip(leaf) for leaf in leaves)
    return {
        "arguments": arguments,
        "outputs": None,
        "temporaries": int(used) - arguments,
        "program": None,
        "held": step.held,
        "fixed": arguments + step.held,
        "peak": int(used) + step.held,
        "capacity": min(int(capacity), wanted.chip.usable_bytes),
    }


def _bytes_on_chip(leaf: jax.ShapeDtypeStruct) -> int:
    shape = leaf.shape if leaf.sharding is None else leaf.sharding.shard_shape(leaf.shape)
    return math.prod(shape) * getattr(leaf.dtype, "itemsize", 4)


def roofline(operations: flops.Operations, traffic: hlo.Traffic, wanted: Slice) -> dict:
    """Seconds of one call at the published peaks, and which of them binds.

    Collectives over all chips use all links of a chip, those over a part one axis of the slice.
    """
    parts = sum(row["sent_in_part"] for row in traffic.collectives.values())
    rest = sum(row["sent"] for row in traffic.collectives.values()) - parts
    moving = 0.0  # of one chip: nothing moves, over no link
    if parts or rest:
        moving = rest / wanted.ici_bandwidth + parts / wanted.axis_bandwidth
    seconds = {
        "compute": operations.passes / wanted.chips / wanted.chip.peak_flops,
        "hbm": traffic.hbm_bytes / wanted.chip.hbm_bandwidth,
        "interconnect": moving,
    }
    bound = max(seconds, key=seconds.get)
    return seconds | {"step": seconds[bound], "bound": bound}


def _rates(row: dict, wanted: Slice) -> dict:
    """The best throughput and utilisation that the roofline leaves."""
    seconds = row["seconds"]["step"]
    peak = wanted.chips * wanted.chip.peak_flops
    return {"rows_per_second": row["rows"] / seconds, "mfu": row["model_flops"] / seconds / peak}

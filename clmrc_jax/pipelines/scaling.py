"""How the updates of a run scale, on paper: one compiled program, carried to other slices.

Weak scaling of pure data parallelism, the rows per chip staying what they are. Then arithmetic
and HBM traffic per chip stay, the all-reduce of the gradients keeps its size, and what is
gathered (one side's vectors, for in-batch negatives) grows with the global batch. Left out: the scores
of a larger batch, and the latency of a collective, about a microsecond per hop.
"""

from clmrc_jax.files import InputError
from clmrc_jax.pipelines.topology import Slice, doublings, slice_of

FEWEST, MOST = 8, 1024  # chips


def scaling(report: dict) -> list[dict]:
    """Rows {"step", "topology", "chips", "rows", seconds...} for slices of the same generation.

    report: of `compile.make_report`.   hidden, exposed: share of the step in which the chips
    compute if communication hides behind arithmetic entirely, and if not at all.
    Raises InputError when the mesh is not one of pure data parallelism, or is of one chip.
    """
    base = slice_of(report["topology"])
    if base.chips == 1:
        raise InputError(
            f"--scaling needs the collectives of several chips, and {base.name} has one: give a "
            f"larger --topology"
        )
    rows = [x for x in report["steps"] if x["step"].startswith("train ") and x["seconds"]]
    if report["mesh"]["model"] > 1 or any(_gathers_weights(row) for row in rows):
        raise InputError(
            "--scaling is for data parallelism alone (mesh.model=1, no FSDP rule): other programs "
            "must be compiled for each slice"
        )
    slices = doublings(base, FEWEST, MOST)
    return [_scaled(row, base, wanted) for row in rows for wanted in slices]


def _gathers_weights(row: dict) -> bool:
    """Whether the all-gathers are of FSDP: there is one for each weight, not one per batch."""
    return row["collectives"].get("all-gather", {"count": 0})["count"] > 8


def _scaled(row: dict, base: Slice, wanted: Slice) -> dict:
    sent = 0.0
    for kind, x in row["collectives"].items():
        grown = wanted.chips / base.chips if kind in ("all-gather", "reduce-scatter") else 1.0
        # (n - 1) / n of an array leaves each chip, twice that for an all-reduce.
        sent += x["sent"] * grown * _share(wanted.chips) / _share(base.chips)
    busy = max(row["seconds"]["compute"], row["seconds"]["hbm"])
    moving = sent / wanted.ici_bandwidth
    return {
        "step": row["step"],
        "topology": wanted.name,
        "chips": wanted.chips,
        "rows": row["rows"] * wanted.chips // base.chips,
        "busy": busy,
        "sent": sent,
        "interconnect": moving,
        "step_seconds": max(busy, moving),
        "hidden": row["seconds"]["compute"] / max(busy, moving),
        "exposed": row["seconds"]["compute"] / (busy + moving),
    }


def _share(chips: int) -> float:
    return (chips - 1) / chips

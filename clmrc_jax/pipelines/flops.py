"""Operations of a traced function: its matrix products, counted in the jaxpr, loops unrolled.

This is our own count of what is executed, backward pass and recomputation included. The
models' `forward_flops` count what the mathematics needs; the two agree where nothing is
recomputed, and a test holds them to it.
"""

import dataclasses
import math

import jax


@dataclasses.dataclass(frozen=True)
class Operations:
    """2 per multiply-add, over all devices. passes: the same, times the passes of each product
    through a bfloat16 unit (float32 at Precision.HIGHEST takes 6, at HIGH 3)."""

    flops: float = 0.0
    passes: float = 0.0

    def __add__(self, other: "Operations") -> "Operations":
        return Operations(self.flops + other.flops, self.passes + other.passes)

    def __mul__(self, times: float) -> "Operations":
        return Operations(self.flops * times, self.passes * times)


def count(jaxpr, trips: int = 1) -> Operations:
    """Operations of a (closed) jaxpr.

    trips: how often the body of a `while_loop` runs. Of the branches of a `cond` the largest
    counts. Bodies of `shard_map` are written for one device and count once per device.
    """
    total = Operations()
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name, parameters = equation.primitive.name, equation.params
        if name == "dot_general":
            total += _product(equation)
        elif name == "scan":
            total += count(parameters["jaxpr"], trips) * parameters["length"]
        elif name == "while":
            total += count(parameters["body_jaxpr"], trips) * trips
        elif name == "cond":
            branches = [count(branch, trips) for branch in parameters["branches"]]
            total += max(branches, key=lambda branch: branch.flops)
        elif name == "shard_map":
            total += count(parameters["jaxpr"], trips) * parameters["mesh"].size
        else:
            for inner in _jaxprs(parameters):
                total += count(inner, trips)
    return total


def _jaxprs(parameters: dict) -> list:
    """Jaxprs that an equation runs once: jit, remat, custom derivatives (the primal alone)."""
    values = (v for key, v in parameters.items() if not key.startswith(("fwd", "bwd", "jvp")))
    return [v for v in values if hasattr(v, "eqns") or hasattr(v, "jaxpr")]


def _product(equation) -> Operations:
    left, right = (variable.aval for variable in equation.invars)
    (contracted, _), _ = equation.params["dimension_numbers"]
    inner = math.prod(left.shape[axis] for axis in contracted)
    flops = 2.0 * math.prod(equation.outvars[0].aval.shape) * inner
    single = left.dtype == right.dtype == jax.numpy.float32
    return Operations(flops, flops * (_passes(equation.params["precision"]) if single else 1))


def _passes(precision) -> int:
    values = precision if isinstance(precision, tuple) else (precision,)
    if jax.lax.Precision.HIGHEST in values:
        return 6
    return 3 if jax.lax.Precision.HIGH in values else 1

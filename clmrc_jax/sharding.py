"""Where every array lives: the mesh, the logical axis rules, and the tables joined and checked.

Two tables decide placement. A model's PARAM_AXES names the logical axes of every parameter,
`(path regex, ("embed", "heads", "kv"))`; the config's rules map a logical axis to mesh axes,
`{"heads": "model"}`. Joining them gives one PartitionSpec per parameter, or an error that names
the parameter. FSDP is the rule `{"embed": "data"}`; tensor parallelism is a `model` axis > 1.
"""

import contextlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from clmrc_jax.files import InputError

Rules = Mapping[str, str | tuple[str, ...] | None]
ParamAxes = Sequence[tuple[str, tuple[str | None, ...]]]

DEFAULT_RULES: Rules = {
    "batch": "data",
    "heads": "model",
    "mlp": "model",
    "vocab": "model",
    "embed": None,
    "kv": None,
    "length": None,
    "relpos_buckets": None,
}


def make_mesh(data: int = -1, model: int = 1, devices: Sequence | None = None) -> Mesh:
    """The (data, model) mesh, with Auto axes: the compiler inserts the collectives.

    data, model: devices along each axis; one of them may be -1, "all that remain".
    devices: default all devices of all processes. Raises InputError when the sizes do not fit.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = {"data": data, "model": model}
    free = [name for name, size in sizes.items() if size == -1]
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if len(free) > 1 or any(size < 1 and size != -1 for size in sizes.values()):
        raise InputError(f"mesh {sizes}: sizes must be positive, and at most one may be -1")
    if free and len(devices) % fixed == 0:
        sizes[free[0]] = len(devices) // fixed
    if math.prod(sizes.values()) != len(devices):
        raise InputError(
            f"mesh data={data}, model={model} does not fit {len(devices)} devices: "
            f"data * model must equal the number of devices (-1 means all that remain)"
        )
    axis_types = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types, devices=devices)


@contextlib.contextmanager
def activate(mesh: Mesh, rules: Rules = DEFAULT_RULES) -> Iterator[None]:
    """Makes the models' `with_logical_constraint` calls mean `rules` on `mesh`.

    Stands around the *call* of a jitted function, not inside it.
    """
    with jax.set_mesh(mesh), nn.logical_axis_rules(tuple(rules.items())):
        yield


def flatten_paths(tree) -> dict[str, object]:
    """A pytree as {"layers_0/attention/query/kernel": leaf}, in tree order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def param_specs(abstract_params, param_axes: ParamAxes, rules: Rules = DEFAULT_RULES, mesh=None):
    """A tree of PartitionSpecs shaped like `abstract_params`, every one of them checked.

    abstract_params: arrays or ShapeDtypeStructs. A row of `param_axes` matches a parameter
    when its regex matches the end of the path from a name on ("query/kernel" matches
    "layers_0/attention/query/kernel"), so one model's table serves models that contain it.
    mesh: when given, every sharded dimension must divide by its mesh axes.
    Raises InputError naming the parameter when no row or several rows match, for a wrong
    number of axes, an axis without a rule, a mesh axis used twice, or an indivisible size.
    """
    rows = [(re.compile(rf"(?:.*/)?(?:{regex})"), regex, axes) for regex, axes in param_axes]
    specs = []
    for path, leaf in flatten_paths(abstract_params).items():
        axes = _matching_axes(path, leaf.shape, rows)
        spec = PartitionSpec(*(_mesh_axes(path, axis, rules) for axis in axes))
        _check_spec(path, leaf.shape, axes, spec, mesh)
        specs.append(spec)
    return jax.tree.unflatten(jax.tree.structure(abstract_params), specs)


def _matching_axes(path, shape, rows):
    found = [(regex, axes) for pattern, regex, axes in rows if pattern.fullmatch(path)]
    if len(found) != 1:
        what = "no row" if not found else f"{len(found)} rows {[regex for regex, _ in found]}"
        raise InputError(
            f"parameter {path} {tuple(shape)}: {what} of the model's axes table match it; "
            f"exactly one must. Add or narrow a row"
        )
    regex, axes = found[0]
    if len(axes) != len(shape):
        raise InputError(
            f"parameter {path} has {len(shape)} dimensions {tuple(shape)}, but row {regex!r} of "
            f"the axes table names {len(axes)}: {axes}"
        )
    return axes


def _mesh_axes(path, axis, rules):
    if axis is not None and axis not in rules:
        raise InputError(
            f"parameter {path}: logical axis {axis!r} has no rule; add {axis!r} to the axis "
            f"rules, with None to replicate it (rules known: {', '.join(sorted(rules))})"
        )
    entry = None if axis is None else rules[axis]
    return tuple(entry) if isinstance(entry, list) else entry


def _names(entry) -> tuple[str, ...]:
    """The mesh axes of one PartitionSpec entry."""
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)


def _check_spec(path, shape, axes, spec, mesh):
    used = [name for entry in spec for name in _names(entry)]
    twice = {name for name in used if used.count(name) > 1}
    if twice:
        raise InputError(
            f"parameter {path} with axes {axes} would use mesh axis {sorted(twice)[0]!r} twice; "
            f"map one of these logical axes to None in the axis rules"
        )
    for size, axis, entry in zip(shape, axes, spec):
        unknown = [name for name in _names(entry) if mesh is not None and name not in mesh.shape]
        if unknown:
            raise InputError(
                f"axis rule {axis!r} -> {unknown[0]!r}: the mesh has only {tuple(mesh.shape)}"
            )
        ways = math.prod(mesh.shape[name] for name in _names(entry)) if mesh is not None else 1
        if size % ways:
            raise InputError(
                f"parameter {path} {tuple(shape)}: axis {axis!r} of size {size} does not divide "
                f"over {ways} devices ({entry!r}); use a mesh whose {entry!r} size divides {size}, "
                f"pad the model, or map {axis!r} to None in the axis rules"
            )


def param_shardings(mesh: Mesh, abstract_params, param_axes, rules: Rules = DEFAULT_RULES):
    """A tree of NamedShardings shaped like `abstract_params`; checks as in `param_specs`."""
    specs = param_specs(abstract_params, param_axes, rules, mesh)
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


def state_shardings(mesh: Mesh, abstract_state, abstract_params, shardings):
    """Shardings of an optimizer state: every statistic lies where its parameter lies.

    A state leaf belongs to the parameter whose path ends its own path ("0/mu/dense/kernel").
    Same shape: same sharding. One dimension less (Adafactor's row and column sums): that
    dimension dropped from the spec. Anything else (step counters) is replicated.
    """
    shapes = {path: leaf.shape for path, leaf in flatten_paths(abstract_params).items()}
    specs = {path: sharding.spec for path, sharding in flatten_paths(shardings).items()}
    placed = []
    for path, leaf in flatten_paths(abstract_state).items():
        parts = path.split("/")
        suffixes = ("/".join(parts[i:]) for i in range(len(parts)))
        owner = next((suffix for suffix in suffixes if suffix in shapes), None)
        spec = PartitionSpec()
        if owner is not None:
            spec = _statistic_spec(leaf.shape, shapes[owner], specs[owner])
        placed.append(NamedSharding(mesh, spec))
    return jax.tree.unflatten(jax.tree.structure(abstract_state), placed)


def _statistic_spec(shape, param_shape, spec) -> PartitionSpec:
    entries = tuple(spec) + (None,) * (len(param_shape) - len(spec))
    if shape == param_shape:
        return PartitionSpec(*entries)
    candidates = {
        entries[:i] + entries[i + 1 :]
        for i in range(len(param_shape))
        if param_shape[:i] + param_shape[i + 1 :] == shape
    }
    # A square kernel leaves open which dimension was summed away: replicate these small vectors.
    return PartitionSpec(*candidates.pop()) if len(candidates) == 1 else PartitionSpec()


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: dimension 0 over the `data` axis, replicated over `model`."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def place_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Global arrays from this process's rows of a batch.

    batch: name -> [local rows, ...]; the global batch joins the rows of all processes.
    Raises InputError when the global rows do not divide over the data axis.
    """
    ways, processes = mesh.shape["data"], jax.process_count()
    for name, array in batch.items():
        if array.ndim == 0 or array.shape[0] * processes % ways:
            rows = "no rows" if array.ndim == 0 else f"{array.shape[0] * processes} rows"
            raise InputError(
                f"batch array {name!r} has {rows}, which do not divide over the {ways} devices of "
                f"the data axis; use a batch size that is a multiple of {ways}, or a smaller data axis"
            )
    sharding = batch_sharding(mesh)
    if processes == 1:  # the same result as below, in one call for all arrays
        return jax.device_put(dict(batch), sharding)
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}

"""Where every array lives: the mesh, the logical axis rules, and the tables joined and checked.

Two tables decide placement. A model's PARAM_AXES names the logical axes of every parameter,
`(path regex, ("embed", "heads", "kv"))`; the config's rules map a logical axis to mesh axes,
`{"heads": "model"}`. Joining them gives one PartitionSpec per parameter, or an error that names
the parameter. FSDP is the rule `{"embed": "data"}`, on the
command line `--config.rules="(('embed', 'data'),)"`; tensor parallelism is a `model` axis > 1.

With several processes the mesh spans them all. Training uses the whole mesh; inference runs on
`local_mesh`, every process alone with its share of the work and its `local_view` of the weights.
"""

import contextlib
import functools
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from clmrc_jax.files import InputError

_log = logging.getLogger(__name__)

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
MESH_AXES = ("data", "model")
# A vocabulary has as many rows as its texts needed, mBERT's 105,879: nobody can choose a mesh
# that divides it. Then the table is cut along its other dimension, see `param_specs`.
VOCABULARY = "vocab"


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


def parse_rules(rules) -> dict[str, str | tuple[str, ...] | None]:
    """A config's rules, changes of DEFAULT_RULES, as a checked dict.

    rules: a mapping {"embed": "data"}, or pairs (("embed", "data"),), as a command line has them;
    mesh axes are one of MESH_AXES, several, or None.
    Raises InputError for anything else, naming what is known.
    """
    pairs = rules.items() if isinstance(rules, Mapping) else rules
    found = {}
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(
                f"rules has {pair!r}, which is no pair (logical axis, mesh axis); write "
                "--config.rules=\"(('embed', 'data'),)\""
            )
        axis, entry = pair
        if axis not in DEFAULT_RULES or axis in found:
            what = "stands there twice" if axis in found else "is no logical axis"
            raise InputError(f"rules: {axis!r} {what}; known: {', '.join(DEFAULT_RULES)}")
        unknown = [name for name in _names(entry) if name not in MESH_AXES]
        if unknown:
            raise InputError(
                f"rules: {axis!r} -> {unknown[0]!r} is no mesh axis; known: "
                f"{', '.join(MESH_AXES)}, or None for a whole copy on every device"
            )
        found[axis] = tuple(entry) if isinstance(entry, list) else entry
    return found


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
    mesh: when given, every sharded dimension must divide by its mesh axes. A vocabulary alone
    may fail to: its mesh axes move to another dimension of the same parameter (the columns of
    an embedding table), or the parameter stays whole, and the log says so.
    Raises InputError naming the parameter when no row or several rows match, for a wrong
    number of axes, an axis without a rule, a mesh axis used twice, or an indivisible size.
    """
    rows = [(re.compile(rf"(?:.*/)?(?:{regex})"), regex, axes) for regex, axes in param_axes]
    specs = []
    for path, leaf in flatten_paths(abstract_params).items():
        axes = _matching_axes(path, leaf.shape, rows)
        spec = PartitionSpec(*(_mesh_axes(path, axis, rules) for axis in axes))
        spec = _turn_vocabulary(path, leaf.shape, axes, spec, mesh)
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
    """The mesh axes of one rule or PartitionSpec entry."""
    return () if entry is None else tuple(entry) if isinstance(entry, tuple | list) else (entry,)


def _turn_vocabulary(path, shape, axes, spec, mesh) -> PartitionSpec:
    """`spec`, the mesh axes of an indivisible vocabulary moved to a dimension that they divide."""
    if mesh is None or VOCABULARY not in axes:
        return spec
    at = axes.index(VOCABULARY)
    moved = _names(spec[at])
    if shape[at] % _ways(mesh, moved) == 0:
        return spec
    entries, place = [*spec], "held whole by every device"
    entries[at] = None
    for i, axis in enumerate(axes):
        together = (*_names(spec[i]), *moved)
        if i != at and shape[i] % _ways(mesh, together) == 0:
            entries[i], place = together, f"cut along {axis!r} ({shape[i]}) instead"
            break
    _note(f"{path}: {shape[at]} rows of vocabulary do not divide over {moved}, {place}")
    return PartitionSpec(*entries)


@functools.cache
def _note(text: str) -> None:
    """A warning that is given once, however often the specs are computed."""
    _log.warning(text)


def _ways(mesh, names) -> int:
    """Devices along these mesh axes; axes that the mesh lacks are `_check_spec`'s to report."""
    return math.prod(mesh.shape.get(name, 1) for name in names)


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
        ways = 1 if mesh is None else _ways(mesh, _names(entry))
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


def batch_slice(mesh: Mesh) -> tuple[int, int]:
    """(index, count): which of `count` equal slices of a global batch this process reads.

    Usually (process index, process count). Where the `model` axis reaches over processes, those
    that hold the same rows of the batch read the same slice.
    Raises InputError when processes share some of their rows only.
    """
    rows = np.vectorize(lambda device: device.process_index)(mesh.devices)
    held = [frozenset(np.nonzero(rows == p)[0].tolist()) for p in range(jax.process_count())]
    slices = sorted(set(held), key=min)
    if sum(map(len, slices)) != mesh.shape["data"] or len({len(part) for part in slices}) > 1:
        raise InputError(
            f"mesh {dict(mesh.shape)}: its 'model' axis cuts across hosts of "
            f"{jax.local_device_count()} devices; use a model size that divides the devices of a "
            f"host, or is a multiple of them"
        )
    return slices.index(held[jax.process_index()]), len(slices)


def place_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Global arrays from this process's rows of a batch.

    batch: name -> [local rows, ...], its `batch_slice`; the global batch joins all slices.
    Raises InputError when the global rows do not divide over the data axis.
    """
    ways, slices = mesh.shape["data"], batch_slice(mesh)[1]
    for name, array in batch.items():
        if array.ndim == 0 or array.shape[0] * slices % ways:
            rows = "no rows" if array.ndim == 0 else f"{array.shape[0] * slices} rows"
            raise InputError(
                f"batch array {name!r} has {rows}, which do not divide over the {ways} devices of "
                f"the data axis; use a batch size that is a multiple of {ways}, or a smaller data axis"
            )
    sharding = batch_sharding(mesh)
    if jax.process_count() == 1:  # the same result as below, in one call for all arrays
        return jax.device_put(dict(batch), sharding)
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}


def place(tree, shardings, *, may_alias: bool | None = None):
    """A tree of arrays on the devices, each leaf as the tree `shardings` says.

    Host values must be equal on all processes, each of which copies its own devices' parts and
    no more. may_alias: False for copies of what already is in its place, as in `jax.device_put`.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings, may_alias=may_alias)

    def one(leaf, sharding):
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.device_put(leaf, sharding, may_alias=may_alias)
        host = np.asarray(leaf, jax.dtypes.canonicalize_dtype(np.result_type(leaf)))
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(one, tree, shardings)


def fetch(tree):
    """A tree of whole numpy arrays, wherever they lie; all processes must call it together."""

    def one(leaf):
        if isinstance(leaf, jax.Array) and not (
            leaf.is_fully_addressable or leaf.is_fully_replicated
        ):
            leaf = multihost_utils.process_allgather(leaf, tiled=True)
        return np.asarray(leaf)

    return jax.tree.map(one, tree)


def local_mesh(mesh: Mesh) -> Mesh:
    """The part of a mesh that this process's devices form; with one process all of it."""
    return mesh if jax.process_count() == 1 else mesh.local_mesh


def local_view(tree, mesh: Mesh):
    """Arrays on `mesh` as arrays on `local_mesh(mesh)`, for programs of this process alone.

    What several processes hold parts of (FSDP) is gathered first, over the devices; the rest is
    the same memory, so the view must be dropped before the arrays are donated. All processes
    must call it together; what is local already, or with one process anything, is returned.
    """
    leaves = jax.tree.leaves(tree)
    if all(not isinstance(leaf, jax.Array) or leaf.is_fully_addressable for leaf in leaves):
        return tree
    local = local_mesh(mesh)
    inside = {name for name in mesh.shape if mesh.shape[name] == local.shape[name]}

    def kept(leaf) -> PartitionSpec:
        names = (tuple(n for n in _names(entry) if n in inside) for entry in leaf.sharding.spec)
        return PartitionSpec(*(part or None for part in names))

    def view(leaf):
        parts = [shard.data for shard in leaf.addressable_shards]
        sharding = NamedSharding(local, leaf.sharding.spec)
        return jax.make_array_from_single_device_arrays(leaf.shape, sharding, parts)

    places = jax.tree.map(lambda x: NamedSharding(mesh, kept(x)), tree)
    # One program for all leaves: several with collectives in flight can deadlock on the CPU.
    gathered = jax.block_until_ready(jax.jit(lambda x: x, out_shardings=places)(tree))
    return jax.tree.map(view, gathered)

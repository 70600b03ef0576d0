"""What a sweep runs: points, each a config file with a preset and the values that replace its own.

A sweep is a block, or a list of blocks whose points are joined (a point that comes twice runs
once). A block is `{"dotted.key": [alternatives], ...}`: the product over its keys, in their
order, a value that is no list standing for itself. A value that is a tuple in the config is a
list inside the list of alternatives (or a Python tuple). Two keys mean more:

    "preset"  names of presets, of this config file or as `other.py:NAME` of one beside it
    "zip"     a block whose lists are walked together; a list of such blocks walks each apart

A config file may name sweeps beside its presets: `SWEEPS = {"table2": block}` (or functions
that return one); `{"points": block, "metrics": [...], "baseline": PRESET}` also says how its
table looks. `PUBLISHED = {preset: {metric: value}}` has the numbers to compare with.
"""

import ast
import dataclasses
import hashlib
import importlib.util
import inspect
import itertools
import json
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ml_collections import ConfigDict

from clmrc_jax.files import InputError

LONGEST_NAME = 120  # a file name has 255 bytes, and tools add endings


@dataclasses.dataclass(frozen=True)
class Point:
    """One run of a sweep.

    name: its folder, `preset,key=value,...`.   source: `configs/x.py:preset` for `--config`.
    preset: as the sweep names it, else the file's default.   values: {dotted key: value} of the
    sweep.   fixed: the same of the command line, equal in all points.
    config: {dotted key: plain JSON value}, everything the run will see.
    published: {metric: number} of the preset.
    """

    name: str
    source: str
    preset: str
    values: dict[str, object]
    fixed: dict[str, object]
    config: dict[str, object]
    published: dict[str, float]

    def flags(self) -> list[str]:
        """The flags that make `launch/tpu_train.py` run this point, except the workdir."""
        changed = self.fixed | self.values
        return [f"--config={self.source}", *(f"--config.{k}={v}" for k, v in changed.items())]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """name: of the sweep, or "sweep".   metrics, baseline: for the table; empty for defaults."""

    name: str
    points: tuple[Point, ...]
    metrics: tuple[str, ...] = ()
    baseline: str = ""


def load_sweep(config: str, sweep: str, overrides: Sequence[tuple[str, str]] = ()) -> Sweep:
    """Reads and checks a sweep.

    config: "configs/dual_bert.py" or "configs/dual_bert.py:PRESET".   sweep: the name of one in
    the file's SWEEPS, or JSON.   overrides: (dotted key, text) of the command line, for all points.
    Raises InputError: no such file, preset, sweep or key; a value of another type; no points.
    """
    file = _ConfigFile(config.partition(":")[0])
    block, table = _find_block(file, sweep)
    name = "sweep" if sweep.lstrip()[:1] in ("{", "[") else sweep
    points, seen = [], set()
    for values in expand(block, name):
        point = _point(file, config.partition(":")[2], values, overrides, name)
        if point.name not in seen:
            points.append(point)
        seen.add(point.name)
    return Sweep(name, tuple(points), tuple(table.get("metrics", ())), table.get("baseline", ""))


def share_translations(sweep: Sweep, workdir: str | os.PathLike) -> Sweep:
    """The sweep with one cache of translations, WORKDIR/translations, for all of its points.

    Else every run would translate, and pay for, what the one before it has. Points that name a
    cache of their own, or translate nothing, stay as they are.
    """
    shared = {"translation.cache": os.path.join(os.fspath(workdir), "translations")}

    def shares(point: Point) -> bool:
        translates = point.config.get("translation.forward") or point.config.get(
            "translation.backward"
        )
        return bool(translates) and not point.config["translation.cache"]

    points = (
        dataclasses.replace(x, fixed=x.fixed | shared, config=x.config | shared) if shares(x) else x
        for x in sweep.points
    )
    return dataclasses.replace(sweep, points=tuple(points))


class _ConfigFile:
    """A config file as a module: its presets, sweeps and published numbers."""

    def __init__(self, path: str):
        self.path = path
        if not os.path.isfile(path):
            raise InputError(f"{path}: no such config file")
        spec = importlib.util.spec_from_file_location(f"sweep_{pathlib.Path(path).stem}", path)
        if spec is None:
            raise InputError(f"{path}: no Python file; a config file is needed")
        self.module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(self.module)
        except Exception as error:  # the file is a program of the user's
            raise InputError(f"{path}: {type(error).__name__}: {error}") from error
        if not hasattr(self.module, "get_config"):
            raise InputError(f"{path}: has no function get_config; it is no config file")

    def beside(self, name: str) -> "_ConfigFile":
        """Another config file, by its name relative to this one's folder."""
        return _ConfigFile(os.path.join(os.path.dirname(self.path), name))

    def default_preset(self) -> str:
        """The preset that `get_config()` gives, "" for a file without presets."""
        for parameter in inspect.signature(self.module.get_config).parameters.values():
            return parameter.default if isinstance(parameter.default, str) else ""
        return ""

    def published(self, preset: str) -> Mapping[str, float]:
        """{metric: number} of a preset in PUBLISHED."""
        return getattr(self.module, "PUBLISHED", {}).get(preset, {})

    def config(self, preset: str) -> ConfigDict:
        """A fresh config of a preset ("" for the default)."""
        try:
            config = self.module.get_config(preset) if preset else self.module.get_config()
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.path}:{preset}: {error}") from error
        if not isinstance(config, ConfigDict):
            raise InputError(f"{self.path}:{preset}: get_config returned {type(config).__name__}")
        return config


def _find_block(file: _ConfigFile, sweep: str) -> tuple[object, dict]:
    """(block, what the sweep says about its table)."""
    if sweep.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(sweep, object_pairs_hook=_unique_keys), {}
        except json.JSONDecodeError as error:
            raise InputError(f"--sweep: not valid JSON ({error})") from error
    named = getattr(file.module, "SWEEPS", {})
    named = named() if callable(named) else named
    if sweep not in named:
        known = f"choose {', '.join(named)}" if named else "it defines none in SWEEPS"
        raise InputError(
            f"{file.path} has no sweep {sweep!r}: {known}, or give JSON such as "
            "'{\"seed\": [0, 1, 2]}'"
        )
    block = named[sweep]() if callable(named[sweep]) else named[sweep]
    if isinstance(block, Mapping) and "points" in block:
        table = {k: v for k, v in block.items() if k != "points"}
        if unknown := sorted(set(table) - {"metrics", "baseline"}):
            raise InputError(
                f"sweep {sweep}: {', '.join(unknown)} beside points; known: metrics, baseline"
            )
        return block["points"], table
    return block, {}


def _unique_keys(pairs):
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise InputError(
                f"--sweep: {key!r} stands twice in one block; put its values in one list"
            )
    return dict(pairs)


def expand(block, where: str = "sweep") -> list[dict]:
    """The points of a block or a list of blocks, each {key: value}; see the module.

    Raises InputError for an empty list, lists of different lengths in a zip, a key that stands
    both inside and outside a zip, and anything that is no block.
    """
    if isinstance(block, list):
        points = [point for part in block for point in expand(part, where)]
        if not points:
            raise InputError(f"sweep {where}: an empty list of points")
        return points
    if not isinstance(block, Mapping):
        raise InputError(
            f"sweep {where}: expected {{key: [values]}} or a list of such, got {block!r:.60}"
        )
    axes = []
    for key, value in block.items():
        if key == "zip":
            axes += [_zipped(z, where) for z in (value if isinstance(value, list) else [value])]
        else:
            axes.append([{key: each} for each in _alternatives(key, value, where)])
    points = []
    for parts in itertools.product(*axes):
        merged = [item for part in parts for item in part.items()]
        keys = [key for key, _ in merged]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise InputError(
                f"sweep {where}: {twice[0]!r} is swept twice, inside and outside a zip"
            )
        points.append(dict(merged))
    return points


def _alternatives(key, value, where) -> list:
    if isinstance(value, list | range):
        if not value:
            raise InputError(f"sweep {where}: {key!r} has an empty list of values")
        return list(value)
    return [value]


def _zipped(block, where) -> list[dict]:
    if not isinstance(block, Mapping) or not block:
        raise InputError(f"sweep {where}: zip needs {{key: [values], ...}}, got {block!r:.60}")
    columns = {key: _alternatives(key, value, where) for key, value in block.items()}
    lengths = {key: len(values) for key, values in columns.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{key}: {n}" for key, n in lengths.items())
        raise InputError(f"sweep {where}: the lists of a zip differ in length ({shown})")
    return [dict(zip(columns, values)) for values in zip(*columns.values())]


def _point(file, preset, values, overrides, where) -> Point:
    values = dict(_flat(values))
    given = values.pop("preset", preset)
    if not isinstance(given, str):
        raise InputError(f"sweep {where}: preset {given!r} is not a name")
    numbers = dict(file.published(given or file.default_preset()))
    file, preset, label = _system(file, given)
    source = f"{file.path}:{preset}" if preset else file.path
    config = file.config(preset)
    where = f"sweep {where}, {source}"
    fixed = {key: _set(config, key, text, where, parse=True) for key, text in overrides}
    values = {key: _set(config, key, value, where) for key, value in values.items()}
    flat = {key: json.loads(json.dumps(value)) for key, value in _flat(config.to_dict())}
    numbers = numbers or dict(file.published(preset or file.default_preset()))
    name = point_name(label, values, flat)
    return Point(name, source, label, values, fixed, flat, numbers)


def _system(file: _ConfigFile, given: str) -> tuple[_ConfigFile, str, str]:
    """(config file, its preset, label) of a preset as the sweep gives it."""
    if ".py" in given:
        other, _, preset = given.partition(":")
        file = file.beside(other)
        label = [pathlib.Path(other).stem, preset or file.default_preset()]
        return file, preset, ".".join(filter(None, label))
    return file, given, given or file.default_preset() or pathlib.Path(file.path).stem


def _flat(values: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    """(dotted key, leaf) of nested mappings; an empty mapping is a leaf."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _set(config: ConfigDict, key: str, value, where: str, parse: bool = False):
    """Sets a dotted key of the config; returns the value in the config's type."""
    *sections, leaf = key.split(".")
    holder, path = config, []
    for name in (*sections, leaf):
        known = list(holder) if isinstance(holder, ConfigDict) else ["nothing"]
        if name not in known:
            inside = f" inside {'.'.join(path)}" if path else ""
            raise InputError(f"{where}: {key} does not exist; known{inside}: {', '.join(known)}")
        path.append(name)
        holder, before = holder[name], holder
    kind = before.get_type(leaf)  # also of a placeholder, whose value is None
    value = _parsed(value, kind) if parse else value
    fitted = _fitted(value, kind)
    if fitted is None:
        raise InputError(
            f"{where}: {key} is {_kind(kind)} ({holder!r:.50}); {value!r:.50} does not fit"
            + _tuple_hint(holder)
        )
    before[leaf] = fitted
    return fitted


def _parsed(text: str, kind: type):
    """A value from the command line; text stays text where the config has text."""
    if issubclass(kind, str):
        return text
    if issubclass(kind, bool) and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text) if issubclass(kind, float) else ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _fitted(value, kind: type):
    """`value` in the type of the config's value; None where it has another type.

    What the command line of the trainer cannot set (None, lists) never fits.
    """
    if issubclass(kind, tuple):
        return _as_tuple(value) if isinstance(value, list | tuple) else None
    if issubclass(kind, bool) or isinstance(value, bool):
        return value if issubclass(kind, bool) and isinstance(value, bool) else None
    if issubclass(kind, float) and isinstance(value, int | float):
        return float(value)
    return value if issubclass(kind, int | str) and isinstance(value, kind) else None


def _as_tuple(value):
    return tuple(map(_as_tuple, value)) if isinstance(value, list | tuple) else value


def _kind(kind: type) -> str:
    return "a section" if issubclass(kind, ConfigDict) else kind.__name__


def _tuple_hint(present) -> str:
    if isinstance(present, tuple):
        return "; a list of alternatives holds lists here: [[1, 2], [3, 4]]"
    return f"; set one of {', '.join(present)}" if isinstance(present, ConfigDict) else ""


def point_name(label: str, values: Mapping[str, object], keys: Iterable[str]) -> str:
    """`label,key=value,...`: safe as a file name and in a shell, and different for other values.

    keys: all dotted keys of the config; the shortest ending that only one of them has stands
    for it, so that a name does not depend on what else is swept. Text that a file name cannot
    carry is simplified, and six hexadecimal digits of its hash keep it apart.
    """
    keys = list(keys)
    parts = [label, *(f"{_short_key(k, keys)}={value_text(v)}" for k, v in values.items())]
    name = re.sub(r"[^\w.,=+-]+", "_", ",".join(parts), flags=re.ASCII)
    if name == ",".join(parts) and len(name) <= LONGEST_NAME:
        return name
    text = json.dumps([label, values], sort_keys=True, ensure_ascii=False)
    return f"{name[: LONGEST_NAME - 7]}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def short_keys(points: Sequence[Point]) -> dict[str, str]:
    """{dotted key: its short name} of all keys that the points sweep, in their order."""
    return {key: _short_key(key, list(p.config)) for p in points for key in p.values}


def _short_key(key: str, keys: list[str]) -> str:
    names = key.split(".")
    for start in reversed(range(1, len(names))):
        ending = ".".join(names[start:])
        if sum(f".{other}".endswith(f".{ending}") for other in keys) == 1:
            return ending
    return key


def value_text(value) -> str:
    """A config's value as names and tables show it: 2e-5, 80+60."""
    if isinstance(value, tuple | list):
        return "+".join(map(value_text, value))
    return re.sub(r"e-0(?=\d)", "e-", repr(value)) if isinstance(value, float) else str(value)

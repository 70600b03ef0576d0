"""What a compiled program moves: collectives and HBM traffic, read from its HLO text.

XLA's own cost analysis counts the body of a loop once and does not list collectives, so the text
is walked from ENTRY down, every loop body as often as it runs. All numbers are those of one
device: the text is the SPMD program that each device runs.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

COLLECTIVES = (
    *("all-reduce", "all-gather", "reduce-scatter", "all-to-all"),
    *("ragged-all-to-all", "collective-permute", "collective-broadcast"),
)
_WIDTH = {"pred": 1, "s4": 0.5, "u4": 0.5, "token": 0, "opaque": 0, "c64": 8, "c128": 16}
# No memory moves here: names for what is there already, control flow (its bodies are walked),
# and the second halves of asynchronous operations.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "bitcast-convert"),
    *("while", "call", "conditional", "after-all", "partition-id", "replica-id", "opt-barrier"),
    *("async-start", "async-update", "iota"),
}
_ARRAY = re.compile(r"([a-z]+\d*[a-z0-9]*)\[([\d,]*)\](\{[^}]*\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of an instruction's result. hbm: it lies in HBM, not in on-chip memory."""

    bytes: float
    hbm: bool


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation; `attributes` is the text after the operands."""

    name: str
    opcode: str
    result: tuple[Array, ...]
    operands: tuple[str, ...]
    attributes: str
    literal: str
    root: bool

    @property
    def bytes(self) -> float:
        """Size of the result."""
        return sum(array.bytes for array in self.result)

    @property
    def hbm_bytes(self) -> float:
        """Size of the part of the result that lies in HBM."""
        return sum(array.bytes for array in self.result if array.hbm)

    def called(self, attribute: str | None = None) -> list[str]:
        """Names of the computations it calls; only those of one attribute when it is given."""
        if attribute:
            return re.findall(rf"{attribute}=%?([\w.\-]+)", self.attributes)
        branches = re.search(r"branch_computations=\{([^}]*)\}", self.attributes)
        names = re.findall(r"%?([\w.\-]+)", branches[1]) if branches else []
        return names + _CALLED.findall(self.attributes)


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Totals of one run of the program on one device.

    collectives: kind -> {"count", "bytes" (of the arrays), "sent" (bytes out of the device by the
        best algorithm on a ring), "sent_in_part" (of these, within groups smaller than all)}.
    hbm_bytes: read from and written to HBM.   unknown_loops: loops taken to run `trips` times.
    """

    collectives: dict[str, dict[str, float]]
    hbm_bytes: float
    unknown_loops: int


def traffic(text: str, devices: int, trips: int = 1) -> Traffic:
    """Traffic of a compiled program.

    text: `compiled.as_text()`.   devices: of the mesh.   trips: how often a loop runs whose
    condition is more than a comparison of its counter with a constant (decoding's early end).
    """
    program = parse(text)
    found = collections.defaultdict(lambda: dict.fromkeys(_COUNTED, 0.0))
    moved, unknown, seen = 0.0, 0, set()
    for instruction, times, operands in _executed(program, trips):
        if instruction.opcode == "while":
            unknown += _loop_trips(program, instruction) is None
        kind, source = _collective(program, instruction)
        if kind and not _continues(program, instruction, source, seen):
            _add_collective(found[kind], kind, source, times, devices)
        moved += times * _moved(program, instruction, operands)
    rows = {kind: {k: int(v) for k, v in row.items()} for kind, row in sorted(found.items())}
    return Traffic(rows, moved, unknown)


def parse(text: str) -> dict[str, list[Instruction]]:
    """Computation name -> instructions; the entry computation also under the name "ENTRY"."""
    program, current = {}, None
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            current = program.setdefault(header[2], [])
            if header[1]:
                program["ENTRY"] = current
        elif line.startswith("}"):
            current = None
        elif current is not None and " = " in line:
            current.append(_instruction(line.strip()))
    return program


def _instruction(line: str) -> Instruction:
    root = line.startswith("ROOT ")
    name, _, rest = line.removeprefix("ROOT ").partition(" = ")
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    arrays = tuple(_arrays(rest[:end]))
    opcode, _, _ = rest[end:].strip().partition("(")
    begin = rest.index("(", end)
    close = _closing(rest, begin)
    inside = rest[begin + 1 : close]
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    attributes = rest[close + 1 :]
    return Instruction(name.lstrip("%"), opcode.strip(), arrays, operands, attributes, inside, root)


def _closing(text: str, start: int) -> int:
    """Index of the bracket that closes the one at `start`."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place
    raise ValueError(f"HLO text: no bracket closes {text[start : start + 80]!r}")


def _arrays(text: str) -> Iterator[Array]:
    for kind, sizes, layout in _ARRAY.findall(text):
        digits = re.search(r"\d+", kind)
        width = _WIDTH.get(kind, int(digits[0]) / 8 if digits else 0)
        count = math.prod(int(size) for size in sizes.split(",") if size)
        yield Array(count * width, re.search(r"S\([1-9]", layout) is None)


def _executed(program: dict, trips: int) -> Iterator[tuple[Instruction, float, dict]]:
    """(instruction, how often it runs, its computation by name), fusions not entered."""
    stack = [("ENTRY", 1.0)]
    while stack:
        name, times = stack.pop()
        by_name = {instruction.name: instruction for instruction in program.get(name, ())}
        for instruction in by_name.values():
            yield instruction, times, by_name
            if instruction.opcode == "while":
                count = _loop_trips(program, instruction)
                count = trips if count is None else count
                stack += [(body, times * count) for body in instruction.called("body")]
            elif instruction.opcode in ("call", "conditional", "async-start"):
                stack += [(called, times) for called in instruction.called()]


def _loop_trips(program: dict, loop: Instruction) -> int | None:
    """Trips of a loop that counts from 0 to a constant (every `lax.scan`); None for others."""
    known = re.search(r'known_trip_count[^\d]*"?(\d+)', loop.attributes)
    if known:
        return int(known[1])
    condition = program.get(next(iter(loop.called("condition")), ""), [])
    by_name = {instruction.name: instruction for instruction in condition}
    root = next((instruction for instruction in condition if instruction.root), None)
    if root is None or root.opcode != "compare" or "direction=LT" not in root.attributes:
        return None
    limit = by_name.get(root.operands[-1])
    return int(limit.literal) if limit is not None and limit.opcode == "constant" else None


_COUNTED = ("count", "bytes", "sent", "sent_in_part")


def _collective(program: dict, instruction: Instruction) -> tuple[str, Instruction | None]:
    """(kind, the instruction that describes it), or ("", None). Fusions are looked into.

    TPU programs write reduce-scatter as a fusion of all-reduce and dynamic-slice.
    """
    opcode = instruction.opcode.removesuffix("-start")
    if opcode in COLLECTIVES:
        return opcode, instruction
    if instruction.opcode == "fusion":
        inside = [x for name in instruction.called() for x in program.get(name, ())]
        for x in inside:
            if x.opcode in COLLECTIVES:
                scatter = x.opcode == "all-reduce" and any(
                    y.opcode == "dynamic-slice" for y in inside
                )
                return ("reduce-scatter" if scatter else x.opcode), x
    return "", None


def _continues(program: dict, instruction: Instruction, source: Instruction, seen: set) -> bool:
    """Whether a fusion goes on with a collective that another one has begun, as in `seen`.

    One that runs behind other work stands in every fusion that it is overlapped with, under the
    channel of the first. Outside fusions a channel says nothing: `shard_map` gives several one.
    """
    channel = re.search(r"channel_id=(\d+)", source.attributes)
    if instruction.opcode != "fusion" or channel is None:
        return False
    inside = (x for name in instruction.called() for x in program.get(name, ()))
    begins = any('"AsyncCollectiveStart"' in x.attributes for x in inside)
    again = channel[1] in seen and not begins
    seen.add(channel[1])
    return again


def _add_collective(row: dict, kind: str, source: Instruction, times: float, devices: int) -> None:
    """Adds one collective to a row of `Traffic.collectives`."""
    size = source.bytes
    if source.opcode.endswith("-start") and len(source.result) > 1:
        size = max(array.bytes for array in source.result)  # (operand, result) of the first half
    group = _group_size(source.attributes, devices)
    whole = size * group if source.opcode == "reduce-scatter" else size
    share = (group - 1) / group
    factor = {"all-reduce": 2 * share, "collective-permute": 1.0, "collective-broadcast": 1.0}
    sent = times * whole * factor.get(kind, share)
    row["count"] += times
    row["bytes"] += times * whole
    row["sent"] += sent
    row["sent_in_part"] += sent if group < devices else 0.0


def _group_size(attributes: str, devices: int) -> int:
    """Devices that take part in one collective, from any of the three ways to write them."""
    text = attributes.partition("replica_groups=")[2]
    if listed := re.match(r"\{\{([\d,]*)\}", text):
        return len(listed[1].split(","))
    if table := re.match(r"\[(\d+),(\d+)\]", text):
        return int(table[2])
    if named := re.match(r"mesh\[([^\]]*)\]\s*\{([^}]*)\}", text):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", named[1]))
        parts = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", named[2])
        return math.prod(int(part or sizes[axis]) for axis, part in parts)
    return devices


def _moved(program: dict, instruction: Instruction, by_name: dict) -> float:
    """HBM bytes that one run of an instruction reads and writes."""
    opcode = instruction.opcode
    if opcode in _FREE or opcode.endswith(("-done", "-update")):
        return 0.0
    if opcode in ("copy-start", "slice-start"):
        # result: (destination, source, semaphore) or ((sources), destination, semaphore)
        copied = instruction.result[0 if opcode == "copy-start" else 1]
        return copied.bytes * sum(array.hbm for array in instruction.result[:2])
    operands = [by_name[name] for name in instruction.operands if name in by_name]
    if opcode == "fusion":
        body = program.get(next(iter(instruction.called("calls")), ""), [])
        read = sum(
            min(operand.hbm_bytes, _read(program, body, place)) if operand.hbm_bytes else 0.0
            for place, operand in enumerate(operands)
        )
        return read + min(instruction.hbm_bytes, _written(body, instruction))
    return instruction.hbm_bytes + sum(operand.hbm_bytes for operand in operands)


def _read(program: dict, body: list[Instruction], place: int) -> float:
    """Bytes that a fusion reads of its operand number `place`: slices and gathers take a part."""
    names = {x.name for x in body if x.opcode == "parameter" and x.literal == str(place)}
    total = 0.0
    for x in body:
        used = [i for i, operand in enumerate(x.operands) if operand in names]
        if not used:
            continue
        if x.opcode == "bitcast":
            names.add(x.name)
        elif x.opcode in ("dynamic-slice", "slice", "gather") and used[0] == 0:
            total += x.bytes
        elif x.opcode == "fusion":
            inner = program.get(next(iter(x.called("calls")), ""), [])
            total += sum(_read(program, inner, i) for i in used)
        elif x.opcode == "tuple" or x.opcode in COLLECTIVES:
            continue  # handed on; what a collective moves is counted as such
        elif not (x.opcode == "dynamic-update-slice" and used[0] == 0):
            return math.inf
    return total


def _written(body: list[Instruction], fusion: Instruction) -> float:
    """Bytes that a fusion writes to HBM. Several results are the elements of its root tuple."""
    by_name = {x.name: x for x in body}
    root = next((x for x in body if x.root), None)
    if root is None:
        return fusion.hbm_bytes
    results = [by_name[x] for x in root.operands] if root.opcode == "tuple" else [root]
    if len(results) != len(fusion.result):
        return fusion.hbm_bytes
    return sum(_result(by_name, x) for x, place in zip(results, fusion.result) if place.hbm)


def _result(by_name: dict, x: Instruction) -> float:
    """Bytes that one result costs: none if handed on, the slice if updated in place."""
    while x.opcode == "bitcast" and x.operands[0] in by_name:
        x = by_name[x.operands[0]]
    if x.opcode == "dynamic-update-slice" and x.operands[1] in by_name:
        return by_name[x.operands[1]].bytes
    return 0.0 if x.opcode == "parameter" else x.bytes

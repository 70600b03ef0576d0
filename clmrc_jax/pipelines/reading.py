"""A span reader's n-best answers to many questions, in parts (`parts`)."""

from collections.abc import Callable, Mapping, Sequence

from etils import epath

from clmrc_jax import hosts
from clmrc_jax.data.mrc_examples import MrcExample
from clmrc_jax.files import read_jsonl
from clmrc_jax.pipelines.parts import part_files, work_in_parts

NBest = Mapping[str, list[dict]]  # id -> its answers, best first
PARTS = "parts"  # ending of the folder of a set's answers until all are there


def read_in_parts(
    examples: Sequence[MrcExample],
    read: Callable[[list[MrcExample], str], NBest],
    folder: epath.Path,
    *,
    size: int,
    made_by: dict,
) -> dict[str, list[dict]]:
    """n-best answers of all examples, in their order; all processes call it together and get all.

    read(part, which): all processes call it with the same examples; which: words that tell the
        part, for its progress, "" where it is the only one.
    folder: of the parts, to be removed once the answers are safe elsewhere.
    size: questions whose windows are in memory at once, and read again after a kill at most.
    made_by: what the answers depend on. Raises InputError for parts made by another.
    """
    places = {example.id: place for place, example in enumerate(examples)}

    def work(part: list[MrcExample]) -> list[dict]:
        first, last = (places[part[end].id] + 1 for end in (0, -1))
        alone = len(part) == len(examples)
        found = read(part, "" if alone else f", {first:,}-{last:,} of {len(examples):,}")
        return [{"id": example.id, "n_best": found[example.id]} for example in part]

    work_in_parts(examples, work, folder, size=size, made_by=made_by)
    hosts.wait_for_all(f"{folder.name} read")  # the last part is written
    rows = (row for path in part_files(folder) for _, row in read_jsonl(path))
    return {row["id"]: row["n_best"] for row in rows}

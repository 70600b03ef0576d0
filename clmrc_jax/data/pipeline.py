"""Batches for training and inference: seeded, random access, one slice per host.

The order of a training is one endless line of examples: epoch after epoch, each a seeded
permutation of the source. Global batch `b` is places `b * batch_size` and on of that line, so
any batch can be computed alone (which makes resuming exact), no example is lost at the end of
an epoch, and the number of hosts changes who reads a row, never which rows form a batch.

Rows of like size can share batches, which leaves little padding: then the permutation is sorted by
size in stretches of `STRETCH` batches, whose order stays random.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterable, Sequence

import grain
import numpy as np

from clmrc_jax.files import InputError

Transform = Callable[..., dict[str, np.ndarray]]
STRETCH = 50  # batches among which rows are exchanged for rows of their own size


def make_dataset(
    source: Sequence,
    *,
    batch_size: int,
    seed: int,
    transform: Transform,
    host_index: int = 0,
    host_count: int = 1,
    shuffle: bool = True,
    epochs: int | None = None,
    epoch_length: int | None = None,
    sizes: Sequence[int] | None = None,
) -> grain.MapDataset:
    """Batches of a source, as a random-access Grain dataset.

    source: anything with len() and [index].  batch_size: rows of the global batch; this host
    gets `batch_size / host_count` of them, the `host_index`-th slice.
    transform(rows, rngs, epoch) -> dict of arrays [rows, ...]: makes the arrays. rngs: one
    generator per row, seeded by `seed` and the row's place on the line, so that what is drawn
    for a row does not depend on the number of hosts. epoch counts from 0 and is that of the
    global batch's first row (a batch may run over into the next epoch).
    epoch_length: rows that `transform` counts as an epoch; default all of the source.
    sizes: size class of every row, small numbers. Rows of a class share batches as far as they
    can, and `transform` gets a fourth argument, the largest class in the global batch, so that
    all hosts pad to one length.
    epochs: None for endless; else the last batch is filled up from the following epoch.
    Raises InputError for an empty source and for sizes that do not divide.
    """
    if len(source) == 0:
        raise InputError(
            "the training data are empty: no example was read, or a filter dropped all"
        )
    if batch_size < 1 or batch_size % host_count:
        raise InputError(
            f"batch_size {batch_size} does not divide over {host_count} hosts; use a multiple of it"
        )
    if not 0 <= host_index < host_count:
        raise InputError(f"host_index {host_index} is outside 0..{host_count - 1}")
    sizes = None if sizes is None else np.asarray(sizes)
    batches = _Batches(
        source,
        batch_size,
        _orders(len(source), batch_size, seed, sizes) if shuffle else None,
        seed,
        transform,
        host_index,
        host_count,
        epochs,
        epoch_length or len(source),
        sizes,
    )
    return grain.MapDataset.source(batches)


@dataclasses.dataclass(frozen=True)
class _Batches:
    """The endless line of examples, cut into batches; a Grain data source."""

    source: Sequence
    batch_size: int
    order: Callable[[int], np.ndarray] | None
    seed: int
    transform: Transform
    host_index: int
    host_count: int
    epochs: int | None
    epoch_length: int
    sizes: np.ndarray | None

    def __len__(self) -> int:
        if self.epochs is None:
            return sys.maxsize
        return -(-len(self.source) * self.epochs // self.batch_size)

    def __getitem__(self, batch: int) -> dict[str, np.ndarray]:
        batch = int(batch)
        rows = self.batch_size // self.host_count
        first = batch * self.batch_size
        start = first + self.host_index * rows
        chosen = [self.source[self.row(place)] for place in range(start, start + rows)]
        rngs = row_generators(self.seed, range(start, start + rows))
        epoch = first // self.epoch_length
        if self.sizes is None:
            return self.transform(chosen, rngs, epoch)
        all_rows = [self.row(place) for place in range(first, first + self.batch_size)]
        return self.transform(chosen, rngs, epoch, int(self.sizes[all_rows].max()))

    def row(self, place: int) -> int:
        """The source row at a place of the endless line."""
        epoch, index = divmod(place, len(self.source))
        return int(self.order(epoch)[index]) if self.order else index


def row_generators(seed: int, places: Iterable[int]) -> list[np.random.Generator]:
    """One random generator per row, of a seed and the row's place on the endless line."""
    return [np.random.default_rng((seed, place)) for place in places]


def _orders(count: int, batch_size: int, seed: int, sizes) -> Callable[[int], np.ndarray]:
    """epoch -> the order of its rows, [count]; 4 bytes per row, kept for the last few epochs.

    grain.experimental.index_shuffle needs no memory, but 0.3 ms per row of a small source.
    """

    @functools.lru_cache(maxsize=4)
    def order(epoch):
        rng = np.random.default_rng((seed, epoch))
        rows = rng.permutation(count).astype(np.int32 if count < 2**31 else np.int64)
        if sizes is None or sizes.min() == sizes.max():
            return rows
        # The first rows of an epoch may fill up the last batch of the epoch before.
        begin = -epoch * count % batch_size
        end = begin + max(0, count - begin) // batch_size * batch_size
        rows[begin:end] = _by_size(rows[begin:end], sizes, batch_size, rng)
        return rows

    return order


def _by_size(rows, sizes, batch_size, rng) -> np.ndarray:
    """Whole batches of rows, each stretch of them sorted by size and its batches shuffled."""
    stretch = STRETCH * batch_size
    parts = [rows[first : first + stretch] for first in range(0, len(rows), stretch)]
    sorted_parts = (part[np.argsort(sizes[part], kind="stable")] for part in parts)
    shuffled = [rng.permutation(part.reshape(-1, batch_size)).ravel() for part in sorted_parts]
    return np.concatenate([rows[:0], *shuffled])


def pad_to_bucket(
    sequences: Sequence[Sequence[int]], buckets: Sequence[int], pad_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pads token ids to the smallest bucket that holds the longest of them.

    buckets: allowed lengths, ascending. Few lengths mean few compilations. On several hosts a
    training needs a single bucket, or the hosts would choose different lengths.
    returns: ids [batch, length] int32 and mask [batch, length] bool, true on tokens.
    Raises InputError for a sequence longer than the last bucket: truncation is the caller's.
    """
    longest = max((len(sequence) for sequence in sequences), default=0)
    length = next((bucket for bucket in buckets if bucket >= longest), None)
    if length is None:
        raise InputError(
            f"a sequence has {longest} tokens, the longest bucket holds {buckets[-1]}; "
            f"truncate it first, or add a longer bucket"
        )
    ids = np.full((len(sequences), length), pad_id, np.int32)
    mask = np.zeros((len(sequences), length), bool)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = True
    return ids, mask

"""Batches for training and inference: seeded, random access, one slice per host.

The order of a training is one endless line of examples: epoch after epoch, each a seeded
permutation of the source. Global batch `b` is places `b * batch_size` and on of that line, so
any batch can be computed alone (which makes resuming exact), no example is lost at the end of
an epoch, and the number of hosts changes who reads a row, never which rows form a batch.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import grain
import numpy as np

from clmrc_jax.files import InputError

Transform = Callable[[list, list[np.random.Generator], int], dict[str, np.ndarray]]


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
) -> grain.MapDataset:
    """Batches of a source, as a random-access Grain dataset.

    source: anything with len() and [index].  batch_size: rows of the global batch; this host
    gets `batch_size / host_count` of them, the `host_index`-th slice.
    transform(rows, rngs, epoch) -> dict of arrays [rows, ...]: makes the arrays. rngs: one
    generator per row, seeded by `seed` and the row's place on the line, so that what is drawn
    for a row does not depend on the number of hosts. epoch counts from 0 and is that of the
    global batch's first row (a batch may run over into the next epoch).
    epoch_length: rows that `transform` counts as an epoch; default all of the source.
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
    batches = _Batches(
        source,
        batch_size,
        seed,
        transform,
        host_index,
        host_count,
        shuffle,
        epochs,
        epoch_length or len(source),
    )
    return grain.MapDataset.source(batches)


@dataclasses.dataclass(frozen=True)
class _Batches:
    """The endless line of examples, cut into batches; a Grain data source."""

    source: Sequence
    batch_size: int
    seed: int
    transform: Transform
    host_index: int
    host_count: int
    shuffle: bool
    epochs: int | None
    epoch_length: int

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
        return self.transform(chosen, rngs, first // self.epoch_length)

    def row(self, place: int) -> int:
        """The source row at a place of the endless line."""
        epoch, index = divmod(place, len(self.source))
        if not self.shuffle:
            return index
        return int(_permutation(len(self.source), self.seed, epoch)[index])


def row_generators(seed: int, places: Iterable[int]) -> list[np.random.Generator]:
    """One random generator per row, of a seed and the row's place on the endless line."""
    return [np.random.default_rng((seed, place)) for place in places]


@functools.lru_cache(maxsize=4)
def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of one epoch; 4 bytes per row, kept for the epochs that batches may touch.

    grain.experimental.index_shuffle needs no memory, but 0.3 ms per row of a small source.
    """
    order = np.random.default_rng((seed, epoch)).permutation(count)
    return order.astype(np.int32 if count < 2**31 else np.int64)


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


def batches_for_inference(count: int, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Row numbers of `count` rows in order, in batches of one shape.

    yields: (rows [batch_size] int64, valid). The last batch repeats the last row up to
    batch_size; only its first `valid` rows count.
    """
    for start in range(0, count, batch_size):
        rows = np.minimum(np.arange(start, start + batch_size), count - 1)
        yield rows, min(batch_size, count - start)

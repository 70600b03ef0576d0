"""Token batches for encoding: parallel tokenisation, length buckets, few fixed shapes.

Nothing here imports jax: the worker processes load this module and a tokenizer, no more.
"""

import collections
import concurrent.futures
import dataclasses
import multiprocessing
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from clmrc_jax.data.passages import Passage
from clmrc_jax.data.retriever_features import RetrieverFormat
from clmrc_jax.data.tokenization import load_tokenizer
from clmrc_jax.files import InputError


@dataclasses.dataclass(frozen=True)
class BatchPlan:
    """Which batch shapes exist. One compiled program per bucket, no more.

    batch_size: rows of a batch of the longest bucket.
    buckets: padded lengths, ascending; tokens beyond the last one are cut by the tokenizer.
    constant_tokens: shorter buckets take more rows, so that every batch costs about the same.
    multiple: rows are a multiple of this, the number of data shards of the mesh.
    """

    batch_size: int = 32
    buckets: tuple[int, ...] = (32, 64, 96, 128, 160, 192, 224, 256)
    constant_tokens: bool = True
    multiple: int = 1

    def __post_init__(self):
        if not self.buckets or list(self.buckets) != sorted(set(self.buckets)):
            raise InputError(f"length buckets must ascend without repeats, got {self.buckets}")
        if self.buckets[0] < 1 or self.batch_size < 1 or self.multiple < 1:
            raise InputError("batch_size, buckets and multiple must be positive")

    def length(self, tokens: int) -> int:
        """The smallest bucket that holds `tokens`. Raises InputError beyond the last."""
        for bucket in self.buckets:
            if tokens <= bucket:
                return bucket
        raise InputError(
            f"a text of {tokens} tokens does not fit the longest bucket {self.buckets[-1]}: "
            "let the tokenizer truncate there, or add a longer bucket"
        )

    def rows(self, length: int) -> int:
        """Rows of a batch of this padded length."""
        scale = self.buckets[-1] // length if self.constant_tokens else 1
        return -(-self.batch_size * scale // self.multiple) * self.multiple


@dataclasses.dataclass(frozen=True)
class TokenBatch:
    """ids [b, L] int32, mask [b, L] bool; rows [r <= b] are the places of the first r rows."""

    ids: np.ndarray
    mask: np.ndarray
    rows: np.ndarray


@dataclasses.dataclass(frozen=True)
class Ragged:
    """Token ids of several texts end to end; text i is ids[offsets[i] : offsets[i + 1]]."""

    ids: np.ndarray
    offsets: np.ndarray

    @classmethod
    def join(cls, texts: Sequence[Sequence[int]]) -> "Ragged":
        lengths = np.fromiter((len(text) for text in texts), np.int64, len(texts))
        ids = [np.asarray(text, np.int32) for text in texts]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return cls(np.concatenate(ids) if ids else np.zeros(0, np.int32), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.ids[self.offsets[index] : self.offsets[index + 1]]


@dataclasses.dataclass(frozen=True)
class PassageTokens:
    """Passages -> token ids, as a specification that a worker process can be sent.

    tokenizer: folder, file or hub id for `load_tokenizer`, loaded on first use in each process.
    """

    tokenizer: str
    format: RetrieverFormat

    def __call__(self, passages: Sequence[Passage]) -> list[list[int]]:
        pairs = [(passage.title, passage.text) for passage in passages]
        return self.format.passages(load_tokenizer(self.tokenizer), pairs)


def make_batches(texts: Ragged | Sequence[Sequence[int]], plan: BatchPlan) -> Iterator[TokenBatch]:
    """Cuts texts (token ids) into batches of the plan's shapes, longest first.

    Sorted by falling length, a batch takes the bucket of its longest text and fills itself with
    the next ones: every batch but the last is full. The last one is filled up with empty rows,
    and where it is the only one it shrinks to the next power of two (one question is cheap).
    """
    texts = texts if isinstance(texts, Ragged) else Ragged.join(texts)
    lengths = np.diff(texts.offsets)
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        length = plan.length(int(lengths[order[start]]))
        size = plan.rows(length)
        rows = order[start : start + size]
        if start == 0 and len(rows) < size:
            smallest = 1 << (len(rows) - 1).bit_length()
            size = min(size, -(-smallest // plan.multiple) * plan.multiple)
        yield _pad(texts, rows, size, length)
        start += len(rows)


def _pad(texts: Ragged, rows: np.ndarray, size: int, length: int) -> TokenBatch:
    ids = np.zeros((size, length), np.int32)
    mask = np.zeros((size, length), bool)
    for i, row in enumerate(rows):
        tokens = texts[row]
        ids[i, : len(tokens)] = tokens
        mask[i, : len(tokens)] = True
    mask[len(rows) :, 0] = True  # an empty row attends to one token: no division by zero
    return TokenBatch(ids, mask, rows)


def tokenize_ranges(
    store, tokenize: Callable, ranges: Sequence[tuple[int, int]], workers: int = 0
) -> Iterator[Ragged]:
    """Tokenises rows of a passage store ahead of the reader, in order.

    store: len() and get_many(rows).   tokenize: list of passages -> list of token id lists.
    ranges: (start, stop) row ranges.   yields: one Ragged per range.
    workers: processes, each with its own copy of store and tokenize, which must then pickle
    (a specification that loads itself on first use, not a loaded model); 0 = one thread.
    At most 2 ranges per worker wait, so memory stays bounded.
    """
    with _Tokenizing(store, tokenize, workers) as tokenizing:
        waiting = collections.deque()
        for start, stop in ranges:
            waiting.append(tokenizing.submit(start, stop))
            if len(waiting) > 2 * max(workers, 1):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class _Tokenizing:
    """A pool that tokenises row ranges: spawned processes (jax dislikes forks), or a thread."""

    def __init__(self, store, tokenize: Callable, workers: int):
        if workers:
            self._pool = concurrent.futures.ProcessPoolExecutor(
                workers, multiprocessing.get_context("spawn"), _start_worker, (store, tokenize)
            )
            self._task = _tokenize_in_worker
        else:
            self._pool = concurrent.futures.ThreadPoolExecutor(1)
            self._task = lambda start, stop: _tokenize_rows(store, tokenize, start, stop)

    def __enter__(self) -> "_Tokenizing":
        return self

    def __exit__(self, kind, value, trace) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, start: int, stop: int) -> concurrent.futures.Future:
        return self._pool.submit(self._task, start, stop)


def _tokenize_rows(store, tokenize: Callable, start: int, stop: int) -> Ragged:
    texts = tokenize(store.get_many(range(start, stop)))
    if len(texts) != stop - start:
        raise ValueError(f"tokenizer returned {len(texts)} texts for {stop - start} passages")
    return Ragged.join(texts)


_worker_source = None  # (store, tokenize) of a worker process, set once when it starts


def _start_worker(store, tokenize: Callable) -> None:
    global _worker_source
    _worker_source = store, tokenize


def _tokenize_in_worker(start: int, stop: int) -> Ragged:
    return _tokenize_rows(*_worker_source, start, stop)

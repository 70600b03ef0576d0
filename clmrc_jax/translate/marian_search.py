"""Beam search over many sentences: batches of similar length, few compiled shapes."""

import collections
import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from clmrc_jax import sharding
from clmrc_jax.data.pipeline import pad_to_bucket
from clmrc_jax.models import marian
from clmrc_jax.models.marian import MarianConfig, MarianSearch

SOURCE_BUCKETS = (16, 32, 64, 128, 256, 512)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _generate(config, params, tokens, mask, search):
    """[rows, max_length] tokens; one compilation per shape for all searchers of a model."""
    return marian.generate(config, params, tokens, mask, search).tokens[:, 0]


class BatchSearch:
    """Translates token ids with the parameters of any training step.

    search.max_length is large (512), real translations are short: the first search may use twice
    the source and 32 tokens, and what fills them is searched again with all of max_length.
    """

    def __init__(
        self,
        config: MarianConfig,
        search: MarianSearch,
        *,
        batch_size: int = 32,
        mesh: jax.sharding.Mesh | None = None,
    ):
        """batch_size: sentences at once.   mesh: of this process; default its own devices."""
        self.config, self.search = config, search
        self.mesh = mesh or sharding.make_mesh(devices=jax.local_devices())
        ways = self.mesh.shape["data"]
        self._sizes = [ways]  # row counts: doubling from one row per device
        while self._sizes[-1] < batch_size:
            self._sizes.append(2 * self._sizes[-1])

    def place(self, params):
        """Parameters as `__call__` wants them: on every device of the mesh."""
        return jax.device_put(params, sharding.replicated(self.mesh))

    def __call__(self, params, sources: Sequence[Sequence[int]]) -> list[list[int]]:
        """Token ids of the translations, without start, end and padding.

        sources: token ids, end token included, at most the last of SOURCE_BUCKETS.
        """
        found: list[list[int]] = [[] for _ in sources]
        cut = []
        for row, ids, filled in self._search(params, sources, range(len(sources)), short=True):
            found[row] = ids
            cut += [row] if filled else []
        for row, ids, _ in self._search(params, sources, cut, short=False):
            found[row] = ids
        return found

    def _search(self, params, sources, rows, *, short: bool):
        """Yields (row, ids, whether they fill a limit below max_length)."""
        flying = collections.deque()  # one batch ahead: the device never waits for the host
        for chosen, tokens, mask in self._batches(sources, rows):
            limit = 2 * tokens.shape[1] + 32 if short else self.search.max_length
            limit = min(limit, self.search.max_length)
            search = dataclasses.replace(self.search, max_length=limit)
            arrays = jax.device_put((tokens, mask), sharding.batch_sharding(self.mesh))
            flying.append((chosen, limit, _generate(self.config, params, *arrays, search)))
            if len(flying) > 1:
                yield from self._land(*flying.popleft())
        while flying:
            yield from self._land(*flying.popleft())

    def _land(self, rows, limit, tokens):
        for row, ids in zip(rows, np.asarray(tokens)):
            ids = ids[1:].tolist()
            eos = self.config.eos_token_id
            length = ids.index(eos) if eos in ids else len(ids)
            filled = length + 2 >= limit and limit < self.search.max_length
            yield row, ids[:length], filled

    def _batches(self, sources, rows) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
        """(rows, tokens, mask), longest sentences first; the last batch repeats its first row."""
        order = sorted(rows, key=lambda row: -len(sources[row]))
        for start in range(0, len(order), self._sizes[-1]):
            chosen = order[start : start + self._sizes[-1]]
            size = next(size for size in self._sizes if size >= len(chosen))
            ids = [sources[row] for row in chosen]
            ids += [ids[0]] * (size - len(ids))
            yield chosen, *pad_to_bucket(ids, SOURCE_BUCKETS, self.config.pad_token_id)

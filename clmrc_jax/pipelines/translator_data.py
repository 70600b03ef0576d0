"""The parallel text of a translator's training, one part per direction."""

import dataclasses
from collections.abc import Sequence

from clmrc_jax.data.parallel_text import ParallelText, hold_out, read_parallel
from clmrc_jax.data.world_facts.corpus import load_world_facts
from clmrc_jax.data.world_facts.parallel import parallel_statements
from clmrc_jax.files import InputError
from clmrc_jax.pipelines.translator_settings import TranslatorSettings

Pairs = list[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Direction:
    """languages: (source, target).   tag: token before every source, "" for none.

    train, valid, test: pairs (source, target); no sentence of the last two is in the first.
    """

    languages: tuple[str, str]
    tag: str
    train: Pairs
    valid: Pairs
    test: Pairs

    def tagged(self, pair: tuple[str, str]) -> tuple[str, str]:
        """The pair with the language token before its source."""
        return (f"{self.tag} {pair[0]}", pair[1]) if self.tag else pair


def read_directions(settings: TranslatorSettings) -> list[Direction]:
    """All text of a training. Raises InputError for a direction without text."""
    codes = [tuple(name.split("-")) for name in settings.directions]
    several = len({target for _, target in codes}) > 1
    corpora = {
        part: [read_parallel(*corpus) for corpus in getattr(settings, part)]
        for part in ("train", "valid", "test")
    }
    made = []
    for source, target in codes:
        tag = f">>{target}<<" if several else ""
        if settings.train:
            parts = _from_files(settings, corpora, source, target)
        else:
            world = load_world_facts("full")
            splits = ("train", "dev", "test")
            parts = [parallel_statements(world, split, source, target) for split in splits]
        made.append(Direction((source, target), tag, *parts))
    return made


def _from_files(settings, corpora, source: str, target: str) -> list[Pairs]:
    # In one order of the languages, so that both directions hold the same pairs out.
    first, second = sorted((source, target))
    train = _pairs(corpora["train"], first, second, settings.max_pairs)
    if not train:
        raise InputError(
            f"direction {source}-{target}: no training corpus is of these two languages; "
            f"add ('{source}-{target}', FILE) to train"
        )
    parts = []
    for part in ("valid", "test"):
        pairs = _pairs(corpora[part], first, second)
        if not pairs:
            train, pairs = hold_out(train, settings.held_out, part)
        if not train or not pairs:
            raise InputError(
                f"direction {source}-{target}: held_out={settings.held_out} leaves nothing for "
                f"training or for {part}; give more text, or a {part} corpus"
            )
        parts.append(pairs)
    seen = {side for pairs in parts for pair in pairs for side in pair}
    parts.insert(0, [pair for pair in train if not seen & set(pair)])
    return parts if source == first else [[(b, a) for a, b in pairs] for pairs in parts]


def _pairs(corpora: Sequence[ParallelText], source: str, target: str, most: int = 0) -> Pairs:
    found: dict[tuple[str, str], None] = {}
    for corpus in corpora:
        pairs = corpus.towards(source, target)
        if most:  # evenly spaced: the files are sorted by length
            pairs = pairs[:: -(-len(pairs) // most) or 1]
        found.update(dict.fromkeys(pairs))
    return list(found)

"""How large a corpus is, before it is prepared: counted where it is at hand, else assumed."""

import collections
import dataclasses
import json
from collections.abc import Iterable

from etils import epath

from clmrc_jax.data import datasets, qa_examples, sources
from clmrc_jax.data.world_facts import corpus as world_facts
from clmrc_jax.files import InputError, open_text
from clmrc_jax.pipelines.corpora import CorpusSettings

PASSAGE_BYTES = 600  # of a stored 100-word passage: 26 GB of text for 43.6M passages
EXACTLY_COUNTED = 64 * 2**20  # bytes; of larger files the rows are estimated from the first ones
_SAMPLE_ROWS = 10_000


@dataclasses.dataclass(frozen=True)
class Counts:
    """Passages, their mean stored bytes, questions by split, annotated English rows, origin."""

    passages: int
    passage_bytes: float
    train: int
    dev: int
    test: int
    english: int
    origin: str

    @property
    def questions(self) -> int:
        return self.train + self.dev + self.test


# 43.6M passages; 76,635 NQ and 61,360 XOR-TyDi training questions (MIA release), and MKQA's
# 6,758 questions in 26 languages (CORA, section 4.1).
PAPER = Counts(43_600_000, PASSAGE_BYTES, 137_995, 0, 175_708, 76_635, "the paper's, assumed")
XQUAD = Counts(2_640, 900, 7_800, 790, 4_500, 780, "XQuAD in 11 languages, assumed")


def corpus_counts(c: CorpusSettings) -> Counts:
    """Counts of the corpus: real where it is at hand, else assumed, and `origin` says which.

    Raises InputError for files that are named but cannot be read.
    """
    if c.kind == "world_facts":
        return _count_world_facts(c)
    if c.kind == "squads":
        return _count_squads(c) if c.squads else XQUAD
    return _count_files(c)


def _sampled(questions: Iterable, c: CorpusSettings) -> int:
    by_language = collections.Counter(question.lang for question in questions)
    return sum(min(n, c.max_questions or n) for n in by_language.values())


def _mean_bytes(passages: Iterable) -> tuple[int, float]:
    """Number of passages, and mean UTF-8 bytes of a stored row (text, title, ids and keys)."""
    sizes = [len(json.dumps(dataclasses.asdict(p), ensure_ascii=False).encode()) for p in passages]
    return len(sizes), sum(sizes) / max(1, len(sizes))


def _count_world_facts(c: CorpusSettings) -> Counts:
    world = world_facts.load_world_facts(c.size)
    splits = [_sampled(world_facts.questions(world, x), c) for x in ("train", "dev", "test")]
    english = sum(q.lang == "en" for q in world_facts.questions(world, "train"))
    return Counts(*_mean_bytes(world_facts.passages(world)), *splits, english, "counted")


def _count_squads(c: CorpusSettings) -> Counts:
    corpus = sources.read_squads(c.squads, "corpus.squads")
    train, test = corpus.split(c.train_share, c.split_by)
    questions, dev = _sampled(train.questions, c), len(train.questions) // 10
    english = sum(q.lang == "en" for q in train.questions)
    splits = (questions - dev, dev, _sampled(test.questions, c))
    return Counts(*_mean_bytes(corpus.passages), *splits, english, "counted")


def _count_files(c: CorpusSettings) -> Counts:
    """Rows of the files that are named; the paper's counts for those that are not."""
    found = {}
    for name in ("passages", "train", "dev", "test"):
        parsed = sources.parse(getattr(c, name), f"corpus.{name}")
        rows = [_count_source(source, name) for source in parsed]
        if rows and None not in rows:
            found[name] = sum(count for count, _ in rows)
            if name == "passages":
                total = sum(count * size for count, size in rows)
                found["passage_bytes"] = total / max(1, found[name])
    named = ", ".join(name for name in found if name != "passage_bytes")
    origin = f"counted: {named}; others are {PAPER.origin}" if found else PAPER.origin
    return dataclasses.replace(PAPER, **found, origin=origin)


def _count_source(source: sources.Source, name: str) -> tuple[int, float] | None:
    """Rows of a file or prepared folder and their mean bytes; None for sets known by name alone."""
    path = source.path
    if path.startswith(datasets.TFDS) or datasets.is_prepared(path):
        return datasets.prepared_size(path)
    rows, size = _count_rows(path)
    several = name != "passages" and not source.lang and qa_examples.mkqa_languages(path)
    return rows * (several or 1), size


def _count_rows(path: str) -> tuple[int, float]:
    """Lines of a text file and their mean bytes; of a large one estimated from the first lines."""
    size = epath.Path(path).stat().length if epath.Path(path).exists() else 0
    if not size:
        raise InputError(f"{path}: no such file, or empty; correct its path in config.corpus")
    exact = size <= EXACTLY_COUNTED or path.endswith(".gz")
    rows = read = 0
    with open_text(path) as file:
        for rows, line in enumerate(file, start=1):
            read += len(line.encode())
            if not exact and rows == _SAMPLE_ROWS:
                break
    mean = read / rows
    return (rows if exact else round(size / mean)), mean

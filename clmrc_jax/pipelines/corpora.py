"""The corpus stage: whatever the source, it leaves the same files for the rounds.

passages.array_record (+ side files)   the passage store
links.sqlite                           language links (may be empty)
annotated.jsonl, dev.jsonl             DPR rows: B(1) of algorithm 1, and for validation
questions.{train,dev,test}.jsonl       id, question, lang, answers
"""

import dataclasses
import random
from collections.abc import Callable, Iterable

from etils import epath

from clmrc_jax.data import (
    language_links,
    passages,
    qa_examples,
    setting_checks,
    sources,
    squad_corpus,
)
from clmrc_jax.data.passage_names import by_id, by_id_or_text
from clmrc_jax.data.world_facts import corpus as world_facts
from clmrc_jax.files import InputError, JsonlRows, read_json, write_json, write_jsonl
from clmrc_jax.pipelines.corpus_files import SPLITS, corpus_of_files

SOURCES = ("passages", *SPLITS, "annotated", "dev_annotated", "english_answers")
GOLD = "gold.json"


@dataclasses.dataclass(frozen=True)
class CorpusSettings:
    """Where passages and questions come from.

    kind: "world_facts" (embedded), "squads" (SQuAD-style files), "files" (prepared files).
    size: of world facts: "smoke", "demo" or "full".
    squads: (path, language) pairs; train_share of their articles train, the rest is the test;
        a tenth of the training questions validates. split_by: "hash" or "first".
    passages, train, dev, test, annotated, dev_annotated, links: files of kind "files": passages
        JSONL/TSV, questions JSONL, DPR rows (for validation: dev_annotated), link rows {id, titles};
        dev, test, dev_annotated and links may be "". All but links are values of
        `data/sources.py`: a path, (path, language), "tfds:NAME/SPLIT", or a tuple of pairs.
    english_answers: of kind "files", questions of `train` (by id) whose answers are English, as
        XOR-TyDi's list xor_train_retrieve_eng_span.jsonl names them.
    keep_evaluated: of kind "files", also train on questions that `dev` or `test` asks.
    max_questions: most questions per split and language (a seeded sample); 0 for all.
    """

    kind: str = "world_facts"
    size: str = "demo"
    squads: tuple = ()
    train_share: float = 2 / 3
    split_by: str = "hash"
    passages: str | tuple = ""
    train: str | tuple = ""
    dev: str | tuple = ""
    test: str | tuple = ""
    annotated: str | tuple = ""
    dev_annotated: str | tuple = ""
    links: str = ""
    english_answers: str | tuple = ""
    keep_evaluated: bool = False
    max_questions: int = 0
    seed: int = 0

    def __post_init__(self):
        if self.kind not in _BUILDERS:
            raise InputError(f"corpus.kind {self.kind!r}: choose one of {', '.join(_BUILDERS)}")
        setting_checks.choice("corpus.split_by", self.split_by, ("hash", "first"))
        setting_checks.at_least(self, 0, "max_questions", prefix="corpus.")
        if not 0 < self.train_share < 1:
            raise InputError(
                f"corpus.train_share is {self.train_share}; it must be between 0 and 1"
            )
        for name in SOURCES:
            training = name.endswith("annotated")
            sources.parse(getattr(self, name), f"corpus.{name}", training=training)
        sources.parse_squads(self.squads, "corpus.squads")

    @property
    def passage_names(self) -> Callable[[dict], tuple[str, ...]]:
        """Which passages are the same: gold passages in DPR files may have foreign ids."""
        return by_id_or_text if self.kind == "files" else by_id


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The prepared files, opened; nothing that scales is in memory."""

    folder: epath.Path
    store: passages.PassageStore
    links: language_links.LanguageLinks

    @classmethod
    def open(cls, folder) -> "Corpus":
        """Opens what `prepare` has written."""
        folder = epath.Path(folder)
        return cls(
            folder,
            passages.PassageStore(folder),
            language_links.LanguageLinks(folder / "links.sqlite"),
        )

    def questions(self, split: str) -> list[qa_examples.Question]:
        """Questions of a split; none where the corpus has no such split."""
        path = self.folder / f"questions.{split}.jsonl"
        return list(qa_examples.read_questions(path)) if path.stat().length else []

    def rows(self, name: str) -> JsonlRows:
        """DPR rows `annotated` or `dev`, read at random."""
        return JsonlRows(self.folder / f"{name}.jsonl")

    def gold(self) -> dict[str, list[str]] | None:
        """Question id -> ids of its paragraph in all languages; None where nobody said."""
        path = self.folder / GOLD
        return read_json(path) if path.exists() else None

    def linked_article(self, ctx: dict) -> str:
        """Name of a passage's article, equal for articles linked across languages."""
        entity = self.links.entity(ctx["lang"], ctx["title"]) if ctx["title"] else None
        return entity or ctx.get("article_id") or ""


def prepare(settings: CorpusSettings, folder: epath.Path) -> dict:
    """Writes the corpus files; returns their counts. Raises InputError for an empty corpus."""
    folder.mkdir(parents=True, exist_ok=True)
    source = _BUILDERS[settings.kind](settings)
    counts = {"passages": 0}
    # The passages last: a mistake in another file is found before hours of work.
    for name in ("annotated", "dev"):
        counts[name] = write_jsonl(folder / f"{name}.jsonl", source[name])
    if not counts["annotated"]:
        raise InputError("no annotated training row: mDPR needs questions with a gold passage")
    for split in SPLITS:
        kept = _sample(source["questions"][split], settings)
        path = folder / f"questions.{split}.jsonl"
        counts[f"{split} questions"] = qa_examples.write_questions(path, kept)
    if "gold" in source:
        write_json(folder / GOLD, source["gold"])
    language_links.build_language_links(folder / "links.sqlite", source["links"])
    counts["passages"] = passages.write_passage_store(folder, source["passages"])
    store = passages.PassageStore(folder)
    return counts | {"languages": store.language_counts(), "inputs": _input_sizes(settings)}


def _input_sizes(settings: CorpusSettings) -> dict[str, int]:
    """Path -> bytes of the files that the corpus is made from."""
    names = ("squads", *SOURCES)
    values = (sources.parse(getattr(settings, name), name, training=True) for name in names)
    found = [source.path for group in values for source in group]
    paths = [epath.Path(path) for path in (*found, settings.links) if path]
    return {str(path): path.stat().length for path in paths if path.is_file()}


def check_inputs(sizes: dict[str, int], folder: epath.Path) -> None:
    """Raises InputError when a file has changed since the corpus in `folder` was made from it.

    sizes: the "inputs" of `prepare`'s counts. A file that is gone is not missed.
    """
    for path, size in sizes.items():
        now = epath.Path(path).stat().length if epath.Path(path).is_file() else size
        if now != size:
            raise InputError(
                f"{path} has {now:,} bytes, and had {size:,} when {folder} was made from it. "
                "Use another --workdir for the new file, or put the old one back"
            )


def _sample(questions: Iterable, settings: CorpusSettings) -> list:
    questions = list(questions)
    if not settings.max_questions:
        return questions
    by_language: dict[str, list[int]] = {}
    for i, question in enumerate(questions):
        by_language.setdefault(question.lang, []).append(i)
    rng = random.Random(settings.seed)
    kept = set()
    for rows in by_language.values():
        kept.update(rng.sample(rows, min(len(rows), settings.max_questions)))
    return [question for i, question in enumerate(questions) if i in kept]


def _world_facts(settings: CorpusSettings) -> dict:
    world = world_facts.load_world_facts(settings.size)
    return {
        "passages": world_facts.passages(world),
        "links": world_facts.language_link_rows(world),
        "annotated": world_facts.annotated_rows(world, "train"),
        "dev": world_facts.annotated_rows(world, "dev"),
        "questions": {split: world_facts.questions(world, split) for split in SPLITS},
    }


def _squads(settings: CorpusSettings) -> dict:
    if not settings.squads:
        raise InputError(
            "corpus.squads is empty: give --config.corpus.squads=\"(('FILE.json', 'en'), ...)\""
        )
    everything = sources.read_squads(settings.squads, "corpus.squads")
    train, test = everything.split(settings.train_share, settings.split_by)
    # Translations of one question go to the same side, or training would show the answers of dev.
    facts = list(dict.fromkeys(map(squad_corpus.fact_id, train.questions)))
    held_out = set(random.Random(settings.seed).sample(facts, len(facts) // 10))
    sides: dict[bool, list] = {False: [], True: []}
    for example in train.examples():
        sides[squad_corpus.fact_id(example.question) in held_out].append(example)
    return {
        "passages": everything.passages,
        "links": (),
        "annotated": map(qa_examples.dpr_row, sides[False]),
        "dev": map(qa_examples.dpr_row, sides[True]),
        "questions": {
            "train": [example.question for example in sides[False]],
            "dev": [example.question for example in sides[True]],
            "test": test.questions,
        },
        "gold": everything.parallel_gold(),
    }


_BUILDERS: dict[str, Callable[[CorpusSettings], dict]] = {
    "world_facts": _world_facts,
    "squads": _squads,
    "files": corpus_of_files,
}

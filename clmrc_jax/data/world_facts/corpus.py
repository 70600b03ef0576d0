"""The embedded corpus: encyclopedia-like articles in 13 languages, questions in 26.

Every choice (which articles exist, which facts an article leaves out, which paraphrase is used,
which facts are asked in training) is `stable_fraction` of a string written here, so the corpus is
the same everywhere and a fact of the test split is never asked in training, in any language.
"""

import functools
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

from clmrc_jax.data.languages import CORPUS_LANGUAGES, SEEN, in_category
from clmrc_jax.data.passages import Passage
from clmrc_jax.data.qa_examples import Question
from clmrc_jax.data.world_facts.cldr import (
    QUESTION_LANGUAGES,
    Entity,
    Fact,
    WorldFacts,
    load_world_facts,
    stable_fraction,
)
from clmrc_jax.files import InputError

__all__ = (
    "Corpus",
    "compose",
    "language_link_rows",
    "load_world_facts",
    "passages",
    "question_templates",
    "questions",
    "sentence_templates",
    "split_of",
    "annotated_rows",
)

SPLITS = ("train", "dev", "test")
TEST_SHARE, DEV_SHARE = 0.20, 0.08
ENGLISH_COVERAGE, OTHER_COVERAGE = 0.85, 0.60  # share of entities with an article
LEFT_OUT = 0.12  # share of an article's facts that it does not state
MIN_STATEMENTS = 2  # languages in which every fact is stated at least
SEEN_QUESTION_SHARE = 0.5  # of training facts, in each seen language other than English
HARD_NEGATIVES = 4
LISTED_LANGUAGES = 6  # that a script's article names
_COMMAS = {"ar": "، ", "ja": "、", "th": " "}


@functools.cache
def sentence_templates() -> dict:
    """sentences.json: relations, articles_only, intro and filler, each by language (13)."""
    return _read("sentences.json")


@functools.cache
def question_templates() -> dict[str, dict[str, list[str]]]:
    """questions.json: relation -> language (26) -> paraphrases with {x}."""
    return _read("questions.json")


def _read(name: str):
    return json.loads(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))


def compose(kind: str, lang: str, name: str, statement: str, choose: Callable[[int], int]) -> str:
    """A passage's text: the statement with an introduction of `name` before or filler behind it.

    kind: one of KINDS.   choose(n): picks one of n paraphrases.
    Two sentences a passage (introduction and filler where there is no statement) keep the
    sources short, so that a demo run reads many of them in its few minutes.
    """
    templates = sentence_templates()
    intros, fillers = templates["intro"][kind][lang], templates["filler"][kind][lang]
    introduction = intros[choose(len(intros))].replace("{x}", name)
    filler = fillers[choose(len(fillers))]
    if not statement:
        sentences = (introduction, filler)
    elif choose(2):
        sentences = (introduction, statement)
    else:
        sentences = (statement, filler)
    return ("" if lang == "ja" else " ").join(sentences)


def _chooser(key: str) -> Callable[[int], int]:
    """Choices that depend on `key` and on their number alone."""
    count = iter(range(1_000_000))
    return lambda options: int(stable_fraction(f"{key}|{next(count)}") * options)


@dataclass(frozen=True)
class _Section:
    """One passage and the fact that it states (None: introduction and filler only)."""

    passage: Passage
    fact: Fact | None


class Corpus:
    """All articles of a world, and which passage states which fact.

    sections: article id ("T:JP/ja") -> its sections in order.
    """

    def __init__(self, world: WorldFacts):
        self.world = world
        self.sections: dict[str, list[_Section]] = {}
        self._stating: dict[tuple[Fact, str], Passage] = {}
        self._by_relation: dict[tuple[str, str], list[_Section]] = defaultdict(list)
        self._facts_of = defaultdict(list)
        for fact in world.facts:
            self._facts_of[fact.subject].append(fact)
        for entity in world.entities.values():
            self._write_articles(entity)

    def passages(self) -> Iterator[Passage]:
        """Every passage, article by article."""
        for sections in self.sections.values():
            for section in sections:
                yield section.passage

    def stating(self, fact: Fact, lang: str) -> Passage | None:
        """The passage of the subject's article in `lang` that states the fact, if any does."""
        return self._stating.get((fact, lang))

    def hard_negatives(self, fact: Fact, positive: Passage) -> list[Passage]:
        """Up to 4 passages that do not answer the question about `fact`.

        First the rest of the positive's article, then passages that state the same relation of
        other subjects, with other objects, in the positive's language.
        """
        article = [x.passage for x in self.sections[positive.article_id]]
        found = [x for x in article if x.id != positive.id][: HARD_NEGATIVES // 2]
        pool = self._by_relation[fact.relation, positive.lang]
        start = int(stable_fraction(f"negatives|{positive.id}") * len(pool))
        for section in pool[start:] + pool[:start]:
            if len(found) == HARD_NEGATIVES:
                break
            if section.fact.subject != fact.subject and section.fact.object != fact.object:
                found.append(section.passage)
        return found

    def _write_articles(self, entity: Entity):
        languages = _article_languages(entity.id)
        facts = self._facts_of[entity.id]
        stated = {fact: _stating_languages(fact, languages) for fact in facts}
        for lang in languages:
            article_id = f"{entity.id}/{lang}"
            here = [(fact, self.statement(fact, lang)[0]) for fact in facts if lang in stated[fact]]
            here += [(None, text) for text in self._unasked_statements(entity, lang)]
            here += [(None, "")] * (2 - len(here))
            self.sections[article_id] = [
                self._section(entity, lang, number, fact, text)
                for number, (fact, text) in enumerate(here)
            ]

    def _section(self, entity: Entity, lang: str, number: int, fact, statement: str) -> _Section:
        article_id, title = f"{entity.id}/{lang}", entity.names[lang]
        identity = f"{article_id}/{number}"
        text = compose(entity.kind, lang, title, statement, _chooser(f"text|{identity}"))
        section = _Section(Passage(identity, lang, article_id, title, text), fact)
        if fact:
            self._stating[fact, lang] = section.passage
            self._by_relation[fact.relation, lang].append(section)
        return section

    def statement(self, fact: Fact, lang: str) -> tuple[str, int]:
        """The sentence that states the fact in articles of `lang`, and where its answer starts."""
        templates = sentence_templates()["relations"][fact.relation][lang]
        chosen = _pick(templates, f"statement|{fact.relation}|{fact.subject}|{lang}")
        before, after = chosen.replace("{x}", self.world.entities[fact.subject].names[lang]).split(
            "{y}"
        )
        return before + self.world.answers(fact, lang)[0] + after, len(before)

    def subjects_stating(self, relation: str, lang: str) -> list[Fact]:
        """Facts of a relation that articles of `lang` state, in the articles' order."""
        return [section.fact for section in self._by_relation[relation, lang]]

    def _unasked_statements(self, entity: Entity, lang: str) -> list[str]:
        """Statements of a script's article: its code, and languages written in it."""
        if entity.kind != "S":
            return []
        users = [x.subject for x in self.world.facts if x.object == entity.id]
        users.sort(key=lambda x: stable_fraction(f"listed|{x}|{entity.id}|{lang}"))
        names = [self.world.entities[x].names[lang] for x in users[:LISTED_LANGUAGES]]
        values = {
            "script_code": entity.code,
            "script_languages": _COMMAS.get(lang, ", ").join(names),
        }
        templates = sentence_templates()["articles_only"]
        return [
            _pick(templates[name][lang], f"statement|{name}|{entity.id}|{lang}")
            .replace("{x}", entity.names[lang])
            .replace("{y}", value)
            for name, value in values.items()
        ]


def _pick(options: Sequence[str], key: str) -> str:
    return options[int(stable_fraction(key) * len(options))]


def _article_languages(entity_id: str) -> list[str]:
    """Corpus languages with an article on the entity: at least two, in table order."""
    draws = {x: stable_fraction(f"article|{entity_id}|{x}") for x in CORPUS_LANGUAGES}
    share = {x: ENGLISH_COVERAGE if x == "en" else OTHER_COVERAGE for x in CORPUS_LANGUAGES}
    written = {x for x in CORPUS_LANGUAGES if draws[x] < share[x]}
    if len(written) < MIN_STATEMENTS:
        written |= set(sorted(draws, key=draws.get)[:MIN_STATEMENTS])
    return [x for x in CORPUS_LANGUAGES if x in written]


def _stating_languages(fact: Fact, languages: list[str]) -> set[str]:
    """Languages whose article states the fact: at least two."""
    draws = {x: stable_fraction(f"drop|{fact.relation}|{fact.subject}|{x}") for x in languages}
    stating = {x for x in languages if draws[x] >= LEFT_OUT}
    if len(stating) < MIN_STATEMENTS:
        stating |= set(sorted(draws, key=draws.get)[-MIN_STATEMENTS:])
    return stating


def passages(world: WorldFacts) -> Iterator[Passage]:
    """The corpus: one article per entity and corpus language, of 2-3 short passages each.

    Article ids are "T:JP/ja", passage ids "T:JP/ja/0"; the title is the entity's name. Each
    passage is about that entity and states one fact at most. English covers about 85% of the
    entities, other languages about 60%, and articles leave out about 12% of the facts.
    """
    yield from Corpus(world).passages()


def split_of(fact: Fact) -> str:
    """The split of a fact: test 20%, dev 8%, else train, by "split|<relation>|<subject>"."""
    draw = stable_fraction(f"split|{fact.relation}|{fact.subject}")
    return "test" if draw < TEST_SHARE else "dev" if draw < TEST_SHARE + DEV_SHARE else "train"


def questions(
    world: WorldFacts, split: str, languages: Collection[str] | None = None
) -> list[Question]:
    """Questions of one split, fact by fact.

    languages: codes to keep (default: all that the split offers). Dev and test ask every fact in
    26 languages. Train asks only in the 8 seen languages: always in English, in each other one
    with probability 1/2. Ids are "<relation>-<subject>_<lang>", e.g. "currency-T.JP_ja".
    Answers are names in the question's language, or the literal.
    Raises InputError for an unknown split or a language without question templates.
    """
    if split not in SPLITS:
        raise InputError(f"world facts: unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    unknown = set(languages or ()) - set(QUESTION_LANGUAGES)
    if unknown:
        raise InputError(
            f"world facts: no questions in {', '.join(sorted(unknown))}; "
            f"choose from {', '.join(QUESTION_LANGUAGES)}"
        )
    rows = []
    for fact in world.facts:
        if split_of(fact) == split:
            asked = _asked_languages(fact) if split == "train" else QUESTION_LANGUAGES
            kept = [x for x in asked if languages is None or x in languages]
            rows += [_question(world, fact, lang) for lang in kept]
    return rows


def _asked_languages(fact: Fact) -> list[str]:
    draws = {
        x: stable_fraction(f"ask|{fact.relation}|{fact.subject}|{x}") for x in in_category(SEEN)
    }
    return [x for x, draw in draws.items() if x == "en" or draw < SEEN_QUESTION_SHARE]


def _question(world: WorldFacts, fact: Fact, lang: str) -> Question:
    templates = question_templates()[fact.relation][lang]
    chosen = _pick(templates, f"paraphrase|{fact.relation}|{fact.subject}|{lang}")
    text = chosen.replace("{x}", world.entities[fact.subject].names[lang])
    identity = f"{fact.relation}-{fact.subject.replace(':', '.')}_{lang}"
    return Question(identity, text, lang, world.answers(fact, lang))


def annotated_rows(world: WorldFacts, split: str = "train") -> Iterator[dict]:
    """Annotated retriever data: DPR rows for a split's questions in the seen languages.

    The positive is the passage of the subject's article in the question's language, else the
    English one; a question with neither is skipped (XOR-TyDi's annotators looked there, too).
    Hard negatives: `Corpus.hard_negatives`.
    """
    corpus = Corpus(world)
    for fact in world.facts:
        if split_of(fact) != split:
            continue
        for lang in _asked_languages(fact):
            positive = corpus.stating(fact, lang) or corpus.stating(fact, "en")
            if positive is None:
                continue
            question = _question(world, fact, lang)
            yield {
                "q_id": question.id,
                "question": question.question,
                "lang": lang,
                "answers": list(question.answers),
                "positive_ctxs": [vars(positive).copy()],
                "hard_negative_ctxs": [
                    vars(x).copy() for x in corpus.hard_negatives(fact, positive)
                ],
            }


def language_link_rows(world: WorldFacts) -> Iterator[dict]:
    """Rows {"id": "T:JP", "titles": {language: article title}} for all 26 question languages."""
    for entity in world.entities.values():
        yield {"id": entity.id, "titles": dict(entity.names)}

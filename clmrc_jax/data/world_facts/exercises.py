"""Pre-training exercises: invented facts that teach how to read and to search, never what is true.

Real names appear in random pairings only, and never in the true one, so a model pre-trained here
knows how the 26 languages write the names, not a single answer of the embedded corpus. Example
i depends on (seed, i) alone, so the exercises are an endless data set with random access.
"""

import random
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from clmrc_jax.data.languages import CORPUS_LANGUAGES, SEEN, in_category
from clmrc_jax.data.passages import Passage
from clmrc_jax.data.world_facts.cldr import KINDS, QUESTION_LANGUAGES, RELATIONS, WorldFacts
from clmrc_jax.data.world_facts.corpus import compose, question_templates, sentence_templates

GLOSSARY_SHARE = 0.2  # of statements
INVENTED_SHARE = 0.5  # of reading exercises
CROSS_LINGUAL_SHARE = 0.5  # of reading exercises: the passage is in any passage language
OTHER_LANGUAGE_SHARE = 0.25  # of negatives: in any passage language, not in the positive's
OWN_LANGUAGE_SHARE = 0.5  # of further positives: in the question's language where it has passages
SAME_SUBJECT_SHARE = 0.4  # of negatives: another relation of the subject
SIMILAR_SHARE = 0.5  # of the other negatives: a subject whose name looks like the subject's
SIMILAR_AMONG = 12  # names of which the most similar one is taken
REAL_CODE_SHARE = 0.5  # of currency codes: another currency's; the rest are random letters
YEARS = (1700, 2030)
_UPPERCASE = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_BRACKETS = frozenset("()[]（）")
# Thai vowels written before their consonant; virama of Bengali and Telugu; the joiners.
_BINDS_NEXT = frozenset("เแโใไ\u09cd\u0c4d\u200c\u200d")
# Spaces, joiners, Thai vowels written after their consonant, Japanese small kana and long mark.
_BOUND_TO_PREVIOUS = frozenset(" \u200c\u200dะาำๅๆャュョッァィゥェォゃゅょっー")


class Exercises:
    """Statements for language modelling and reading exercises for retriever and generator.

    world: the full world, whose names are drawn on.   seed: of all random choices.
    languages: of the questions of reading exercises; the 8 seen ones if empty.
    passage_languages: of their passages; the 13 corpus languages if empty.
    """

    def __init__(
        self,
        world: WorldFacts,
        seed: int = 0,
        languages: tuple[str, ...] = (),
        passage_languages: tuple[str, ...] = (),
    ):
        self.world, self.seed = world, seed
        self._asked = tuple(languages) or in_category(SEEN)
        self._told_in = tuple(passage_languages) or CORPUS_LANGUAGES
        self._ids = {k: [x.id for x in world.entities.values() if x.kind == k] for k in KINDS}
        self._codes = [x[2:] for x in self._ids["C"]]
        facts = [(x.subject, x.object) for x in world.facts]
        self._joined = {*facts, *((y, x) for x, y in facts)}
        self._relations = tuple(RELATIONS)
        self._first_pieces, self._further_pieces = defaultdict(list), defaultdict(list)
        self._real_names = set()
        for entity in world.entities.values():
            for lang, name in entity.names.items():
                self._real_names.add(name)
                if _BRACKETS & set(name):
                    continue  # One half of a pair would look odd in a new name.
                first, *further = name_pieces(name)
                self._first_pieces[entity.kind, lang].append(first)
                self._further_pieces[entity.kind, lang] += further

    def statement(self, i: int) -> tuple[str, str]:
        """Text number i as (language, text); a glossary's language is that of its first name.

        One in five is a glossary: one entity's name in 4-6 languages joined by " = ". Others
        state an untrue fact: a passage in a corpus language, a question with its answer in others.
        """
        rng = random.Random(f"{self.seed}/statement/{i}")
        if rng.random() < GLOSSARY_SHARE:
            return self._glossary(rng)
        lang = rng.choice(QUESTION_LANGUAGES)
        relation = rng.choice(self._relations)
        subject = rng.choice(self._ids[RELATIONS[relation][0]])
        answer = self._written(self._untrue_object(rng, relation, subject), lang)
        name = self.world.entities[subject].names[lang]
        if lang in CORPUS_LANGUAGES:
            return lang, self._text(rng, relation, lang, name, answer)
        question = rng.choice(question_templates()[relation][lang]).replace("{x}", name)
        return lang, f"{question} {answer}"

    def naming(self, i: int) -> tuple[str, str, str]:
        """Naming exercise number i: (name, language, the same entity's name in that language).

        As likely for one kind of entity as for another; the first name is in any language.
        """
        rng = random.Random(f"{self.seed}/naming/{i}")
        names = self.world.entities[rng.choice(self._ids[rng.choice(KINDS)])].names
        lang = rng.choice(QUESTION_LANGUAGES)
        return names[rng.choice(QUESTION_LANGUAGES)], lang, names[lang]

    def reading(self, i: int, passages: int = 8, positives: int = 1) -> dict:
        """Exercise number i: {question, lang, answer, positives, negatives}.

        question, answer: text in `lang`, one of the exercise's question languages.
        positives: Passages that state the answer, half of the time in any passage language.
        negatives: `passages` - `positives` Passages that state other relations of the same
        subject, or the same relation of other subjects, some with similar names; always with
        other objects.
        In half of the exercises subject, object or both have invented names, written in the
        question as in the passages.
        """
        rng = random.Random(f"{self.seed}/reading/{i}")
        lang = rng.choice(self._asked)
        told = self._random_told(rng, lang)
        question = rng.choice(question_templates()[told.relation][lang])
        again = [self._told_again(rng, told, lang) for _ in range(positives - 1)]
        others = self._negatives(rng, told, passages - positives)
        return {
            "question": question.replace("{x}", self._written(told.subject, lang)),
            "lang": lang,
            "answer": self._written(told.object, lang),
            "positives": [self._passage(rng, f"{i}/p{n}", x) for n, x in enumerate((told, *again))],
            "negatives": [self._passage(rng, f"{i}/n{n}", x) for n, x in enumerate(others)],
        }

    def _random_told(self, rng: random.Random, question_lang: str) -> "_Told":
        own = question_lang in self._told_in
        cross_lingual = not own or rng.random() < CROSS_LINGUAL_SHARE
        lang = rng.choice(self._told_in) if cross_lingual else question_lang
        new = (False, False)
        if rng.random() < INVENTED_SHARE:
            new = rng.choice(((True, True), (True, False), (False, True)))
        relation = rng.choice(self._relations)
        subject = self._subject(rng, relation, lang, new[0])
        return _Told(
            lang, relation, subject, self._object(rng, relation, subject, lang, new[1]), new
        )

    def _told_again(self, rng: random.Random, told: "_Told", question_lang: str) -> "_Told":
        own = question_lang in self._told_in and rng.random() < OWN_LANGUAGE_SHARE
        lang = question_lang if own else rng.choice(self._told_in)
        return replace(told, lang=lang)

    def _negatives(self, rng: random.Random, told: "_Told", count: int) -> Iterator["_Told"]:
        """Other relations of the subject, each once, and the relation of other subjects."""
        kind = RELATIONS[told.relation][0]
        others = [x for x in self._relations if RELATIONS[x][0] == kind and x != told.relation]
        rng.shuffle(others)
        for _ in range(count):
            lang = told.lang
            if rng.random() < OTHER_LANGUAGE_SHARE:
                lang = rng.choice(self._told_in)
            relation, subject, value = told.relation, told.subject, told.object
            if others and rng.random() < SAME_SUBJECT_SHARE:
                relation = others.pop()
            else:
                subject = self._other_subject(rng, told, lang)
            while value == told.object:
                value = self._object(rng, relation, subject, lang, told.new[1])
            yield _Told(lang, relation, subject, value, told.new)

    def _other_subject(self, rng: random.Random, told: "_Told", lang: str) -> str:
        """Another subject of the relation; sometimes the most similar name of several."""
        among = SIMILAR_AMONG if rng.random() < SIMILAR_SHARE else 1
        drawn = [self._subject(rng, told.relation, lang, told.new[0]) for _ in range(among)]
        name = self._written(told.subject, lang)
        found = max(
            drawn, key=lambda x: (x != told.subject, _likeness(self._written(x, lang), name))
        )
        return found if found != told.subject else self._other_subject(rng, told, lang)

    def _subject(self, rng: random.Random, relation: str, lang: str, invented: bool) -> str:
        kind = RELATIONS[relation][0]
        return self._invented_name(rng, kind, lang) if invented else rng.choice(self._ids[kind])

    def _object(
        self, rng: random.Random, relation: str, subject: str, lang: str, invented: bool
    ) -> str:
        kind = RELATIONS[relation][1]
        if kind and invented:
            return self._invented_name(rng, kind, lang)
        return self._untrue_object(rng, relation, subject)

    def _untrue_object(self, rng: random.Random, relation: str, subject: str) -> str:
        """A random entity id or literal that no fact joins to the subject, either way round."""
        while True:
            value = self._random_object(rng, relation)
            if (subject, value) not in self._joined:
                return value

    def _random_object(self, rng: random.Random, relation: str) -> str:
        kind = RELATIONS[relation][1]
        if kind:
            return rng.choice(self._ids[kind])
        if relation == "currency_since":
            return str(rng.randrange(*YEARS))
        real = rng.random() < REAL_CODE_SHARE
        return rng.choice(self._codes) if real else "".join(rng.choices(_UPPERCASE, k=3))

    def _written(self, value: str, lang: str) -> str:
        """An entity's name in a language; invented names and literals as they are."""
        entity = self.world.entities.get(value)
        return entity.names[lang] if entity else value

    def _passage(self, rng: random.Random, number: str, told: "_Told") -> Passage:
        name = self._written(told.subject, told.lang)
        answer = self._written(told.object, told.lang)
        text = self._text(rng, told.relation, told.lang, name, answer)
        article_id = f"exercise/{told.subject}/{told.lang}"
        return Passage(f"exercise/{number}", told.lang, article_id, name, text)

    def _text(self, rng: random.Random, relation: str, lang: str, name: str, answer: str) -> str:
        template = rng.choice(sentence_templates()["relations"][relation][lang])
        statement = template.replace("{x}", name).replace("{y}", answer)
        return compose(RELATIONS[relation][0], lang, name, statement, rng.randrange)

    def _glossary(self, rng: random.Random) -> tuple[str, str]:
        entity = self.world.entities[rng.choice(self._ids[rng.choice(KINDS)])]
        languages = rng.sample(QUESTION_LANGUAGES, rng.randint(4, 6))
        return languages[0], " = ".join(entity.names[x] for x in languages)

    def _invented_name(self, rng: random.Random, kind: str, lang: str) -> str:
        """The beginning of a real name and 1-2 further pieces, put together to a new name."""
        first, rest = self._first_pieces[kind, lang], self._further_pieces[kind, lang]
        while True:
            name = "".join((rng.choice(first), *rng.choices(rest, k=rng.choice((1, 2))))).strip()
            if name not in self._real_names:
                return name


@dataclass(frozen=True)
class _Told:
    """What one passage tells: subject and object are entity ids, literals or invented names.

    new: whether subject and object have invented names.
    """

    lang: str
    relation: str
    subject: str
    object: str
    new: tuple[bool, bool]


def _likeness(a: str, b: str) -> float:
    """Jaccard similarity of the names' pairs of neighbouring letters."""
    pairs = [{x[i : i + 2] for i in range(len(x) - 1)} for x in (f" {a} ", f" {b} ")]
    return len(pairs[0] & pairs[1]) / len(pairs[0] | pairs[1])


def name_pieces(name: str) -> list[str]:
    """Cuts a name into pieces of about one syllable that may be recombined; joined, they give it.

    A piece never starts with a mark that needs a letter before it, and the space after a word
    stays with the word's last piece.
    """
    letters = []
    for character in name:
        if letters and _continues(letters[-1], character):
            letters[-1] += character
        else:
            letters.append(character)
    # From U+0900 on (Indic scripts, Thai, kana, Han, Hangul) a letter is more than a sound.
    step = 2 if any(character >= "\u0900" for character in name) else 3
    return ["".join(letters[start : start + step]) for start in range(0, len(letters), step)]


def _continues(letter: str, character: str) -> bool:
    if unicodedata.category(character)[0] == "M" or character in _BOUND_TO_PREVIOUS:
        return True
    return letter[-1] in _BINDS_NEXT

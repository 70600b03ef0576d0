"""SQuAD-style files of several languages as one retrieval corpus: passages, questions, gold.

A paragraph becomes a passage, a question knows the passage it was written for. Read: every form of
`squad_json` (SQuAD 1.1 and 2.0, XQuAD, JaQuAD, DRCD, KorQuAD, CMRC 2018, IDK-MRC, MLQA ...).

Sets overlap (XQuAD's paragraphs are SQuAD's dev paragraphs, in every language), so articles that
share a question id or a title in one language form one group: it is the `article_id` of its
passages, and a split never divides it.
"""

import collections
import dataclasses
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence

from clmrc_jax.data.fields import known_language
from clmrc_jax.data.passages import Passage
from clmrc_jax.data.qa_examples import Question, RetrieverExample
from clmrc_jax.data.squad_json import read_paragraphs
from clmrc_jax.files import InputError

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """One paragraph of a file as it stands there.

    title: of its article, "" if the file names none.
    article: number of the article in the file, from 0.
    questions: answerable ones, with the file's own ids.   unanswerable: how many were left out.
    """

    lang: str
    article: int
    title: str
    text: str
    questions: tuple[Question, ...]
    unanswerable: int = 0


@dataclasses.dataclass(frozen=True)
class SquadCorpus:
    """Passages and questions of several files.

    Question ids are "<id in the file>_<lang>". gold: question id -> id of its passage.
    """

    passages: tuple[Passage, ...]
    questions: tuple[Question, ...]
    gold: dict[str, str]

    def parallel_gold(self) -> dict[str, tuple[str, ...]]:
        """Question id -> ids of its passage in every language that has the question, own first."""
        by_fact = collections.defaultdict(list)
        for question in self.questions:
            by_fact[fact_id(question)].append(self.gold[question.id])
        return {
            question.id: tuple(dict.fromkeys([self.gold[question.id], *by_fact[fact_id(question)]]))
            for question in self.questions
        }

    def split(self, train: float, by: str = "hash") -> tuple["SquadCorpus", "SquadCorpus"]:
        """Two corpora without a common article: a share `train` of the article groups, the rest.

        by: "hash" takes groups by a hash of their name (the same for any order and set of files),
        "first" the first ones in file order. Raises InputError if a side would be empty.
        """
        groups = list(dict.fromkeys(passage.article_id for passage in self.passages))
        if by == "hash":
            taken = {group for group in groups if _unit_hash(group) < train}
        elif by == "first":
            taken = set(groups[: round(train * len(groups))])
        else:
            raise InputError(f"split by {by!r}: it must be 'hash' or 'first'")
        if not 0 < len(taken) < len(groups):
            raise InputError(
                f"a train share of {train} of {len(groups)} article groups leaves one side "
                "empty; choose another share, or by='first', or add files"
            )
        return self._part(taken), self._part(set(groups) - taken)

    def _part(self, groups: set[str]) -> "SquadCorpus":
        passages = tuple(p for p in self.passages if p.article_id in groups)
        kept = {passage.id for passage in passages}
        gold = {question: passage for question, passage in self.gold.items() if passage in kept}
        return SquadCorpus(passages, tuple(q for q in self.questions if q.id in gold), gold)

    def examples(self) -> Iterator[RetrieverExample]:
        """Retriever training rows: every question with its passage, no hard negatives."""
        passages = {passage.id: passage for passage in self.passages}
        for question in self.questions:
            yield RetrieverExample(question, (passages[self.gold[question.id]],))


def fact_id(question: Question) -> str:
    """The id that translations of one question share: its id without "_<lang>"."""
    return question.id.removesuffix(f"_{question.lang}")


def build_corpus(read: Sequence[tuple[str, Paragraph]]) -> SquadCorpus:
    """One corpus of (name of the source, paragraph) pairs; logs what was left out and overlaps.

    Equal paragraphs of one language become one passage; a question that stands in several sources
    of one language is kept once.
    """
    groups = _article_groups(read)
    passages, questions, gold = {}, {}, {}
    repeated = collections.Counter()
    for path, paragraph in read:
        group = groups[_article_key(path, paragraph)]
        passage = _passage(paragraph, group)
        passages.setdefault(passage.id, passage)
        for question in paragraph.questions:
            question = dataclasses.replace(question, id=f"{question.id}_{paragraph.lang}")
            if question.id in questions:
                repeated[path] += 1
                continue
            questions[question.id], gold[question.id] = question, passage.id
    corpus = SquadCorpus(tuple(passages.values()), tuple(questions.values()), gold)
    _log_read(corpus, sum(paragraph.unanswerable for _, paragraph in read), repeated)
    return corpus


def _log_read(corpus: SquadCorpus, unanswerable: int, repeated: collections.Counter) -> None:
    for path, count in repeated.items():
        _log.warning(
            "%s: %d questions were read before, from an overlapping file of the same language; "
            "kept once",
            path,
            count,
        )
    if unanswerable:
        _log.warning("left out %d questions without an answer", unanswerable)
    facts = collections.Counter(fact_id(question) for question in corpus.questions)
    parallel = sum(count > 1 for count in facts.values())
    if parallel:
        _log.info("%d questions exist in several languages; splits keep them together", parallel)


def overlapping_questions(train: SquadCorpus, test: SquadCorpus) -> int:
    """How many test questions (in any language) are training questions too; warns if any.

    For corpora read separately; the two sides of `split` have none.
    """
    facts = {fact_id(question) for question in train.questions}
    shared = sum(fact_id(question) in facts for question in test.questions)
    if shared:
        _log.warning(
            "%d of %d test questions have the id of a training question (XQuAD lies in SQuAD's "
            "dev set): the test result would be too good",
            shared,
            len(test.questions),
        )
    return shared


def _passage(paragraph: Paragraph, group: str) -> Passage:
    # Made from the text: equal in every run and file, whatever else is read beside it.
    digest = hashlib.sha1(paragraph.text.encode()).hexdigest()[:16]
    return Passage(
        f"{paragraph.lang}-{digest}", paragraph.lang, group, paragraph.title, paragraph.text
    )


def _article_key(path: str, paragraph: Paragraph) -> tuple:
    if paragraph.title:
        return ("title", paragraph.lang, paragraph.title)
    return ("untitled", path, paragraph.article)


def _article_groups(read: Sequence[tuple[str, Paragraph]]) -> dict[tuple, str]:
    """The group name of every article key: connected by common question ids or equal texts."""
    parent: dict[tuple, tuple] = {}

    def root(key: tuple) -> tuple:
        while (above := parent.setdefault(key, key)) != key:
            parent[key] = key = parent.setdefault(above, above)  # halves the way for next time
        return key

    for path, paragraph in read:
        article = _article_key(path, paragraph)
        links = [("question", question.id) for question in paragraph.questions]
        for link in [*links, ("text", paragraph.lang, paragraph.text)]:
            parent[root(link)] = root(article)
    names: dict[tuple, str] = {}
    for path, paragraph in read:  # a group is named after its first article
        name = paragraph.title or f"{os.path.basename(path)}#{paragraph.article}"
        names.setdefault(root(_article_key(path, paragraph)), f"{paragraph.lang}:{name}")
    keys = {_article_key(path, paragraph) for path, paragraph in read}
    return {key: names[root(key)] for key in keys}


def _unit_hash(text: str) -> float:
    return int.from_bytes(hashlib.sha1(text.encode()).digest()[:8], "big") / 2**64


def read_squad(path: str | os.PathLike, lang: str) -> Iterator[Paragraph]:
    """The paragraphs of one SQuAD-style file, in file order.

    lang: the language of the file. Blank answers (machine-translated sets have them) are dropped; a
    question without any left counts as unanswerable. Raises InputError naming file and JSON path:
    another form, a missing or wrong field, an unknown language, no paragraph at all.
    """
    lang = known_language(lang, os.fspath(path))
    for row in read_paragraphs(path):
        questions = tuple(
            Question(asked.id, asked.question, lang, tuple(dict.fromkeys(texts)))
            for asked in row.questions
            if (texts := [answer.text for answer in asked.answers])
        )
        unanswerable = len(row.questions) - len(questions)
        yield Paragraph(lang, row.article, row.title, row.context, questions, unanswerable)

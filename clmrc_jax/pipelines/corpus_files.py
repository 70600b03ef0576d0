"""A corpus of prepared files (kind "files"): what has to agree between them.

* Training rows without ids get that of the same question among the training questions, so that
  mining unites what it finds with the annotated passages.
* Questions that are evaluated are not trained on: those of Natural Questions and TyDi QA from which
  MKQA and XOR-TyDi QA were made stand in their training files too (CORA, section 3.2).
* XOR-TyDi's training questions have English answers where its list `xor_train_retrieve_eng_span`
  has them; the file itself does not say so.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Collection, Iterable, Iterator

from etils import epath

from clmrc_jax.data import language_links, qa_examples, sources
from clmrc_jax.data.qa_examples import Question, RetrieverExample
from clmrc_jax.evaluate.normalize import normalize
from clmrc_jax.files import InputError

SPLITS = ("train", "dev", "test")
EVALUATED = ("dev", "test")
_log = logging.getLogger(__name__)


def corpus_of_files(settings) -> dict:
    """Passages, links, rows and questions of `CorpusSettings` with kind "files".

    Raises InputError for what is missing, before anything long is read.
    """
    _check_files(settings)
    questions = {split: _questions(settings, split) for split in SPLITS}
    evaluated: frozenset[bytes] = frozenset()
    if not settings.keep_evaluated:
        evaluated = frozenset(_key(q) for split in EVALUATED for q in questions[split])
    questions["train"] = list(_apart(questions["train"], evaluated, "corpus.train"))
    if not questions["train"]:
        raise InputError(
            "corpus.train has no question that is not in corpus.dev or corpus.test as well; give "
            "other files, or train on them all with --config.corpus.keep_evaluated=True"
        )
    ids = {_key(question): question.id for question in questions["train"]}
    return {
        "passages": sources.read_passages(settings.passages, "corpus.passages"),
        "links": language_links.read_link_rows(settings.links) if settings.links else (),
        "annotated": _rows(settings, "annotated", ids, evaluated),
        "dev": _rows(settings, "dev_annotated", {}, frozenset()),
        "questions": questions,
    }


def _check_files(settings) -> None:
    for name in ("passages", "train", "annotated"):
        if not getattr(settings, name):
            raise InputError(f"corpus.{name} is empty: kind 'files' needs the path of that file")
    names = ("passages", *SPLITS, "annotated", "dev_annotated", "english_answers")
    for name in names:
        for source in sources.parse(getattr(settings, name), f"corpus.{name}", training=True):
            sources.existing(source.path)
    if settings.links and not epath.Path(settings.links).exists():
        raise InputError(f"corpus.links: {settings.links}: no such file")


def _questions(settings, split: str) -> list[Question]:
    train = split == "train"
    found = list(
        sources.read_questions(getattr(settings, split), f"corpus.{split}", need_answers=train)
    )
    if not (train and settings.english_answers):
        return found
    key = "corpus.english_answers"
    english = {question.id for question in sources.read_questions(settings.english_answers, key)}
    if english.isdisjoint(question.id for question in found):
        raise InputError(
            f"{key}: none of its {len(english)} ids is that of a question in corpus.train"
        )
    return list(qa_examples.with_english_answers(found, english))


def _rows(
    settings, name: str, ids: dict[bytes, str], evaluated: Collection[bytes]
) -> Iterator[dict]:
    """DPR rows as JSON; `ids`: of the training questions, which a row of the same question gets."""
    examples = sources.read_examples(getattr(settings, name), f"corpus.{name}")
    count = matched = 0
    for example in _apart(examples, evaluated, f"corpus.{name}"):
        count += 1
        known = ids.get(_key(example.question))
        matched += known is not None
        question = dataclasses.replace(example.question, id=known or example.question.id)
        yield qa_examples.dpr_row(dataclasses.replace(example, question=question))
    if ids and matched < count:
        _log.warning(
            "corpus.%s: %d of %d rows are of questions that corpus.train has not; no passages are "
            "mined for these from retrieval",
            *(name, count - matched, count),
        )


def _apart(
    items: Iterable[Question | RetrieverExample], evaluated: Collection[bytes], key: str
) -> Iterator:
    """The items whose question is not evaluated; says how many were left out."""
    count = dropped = 0
    for item in items:
        count += 1
        if _key(item.question if isinstance(item, RetrieverExample) else item) in evaluated:
            dropped += 1
        else:
            yield item
    if dropped:
        _log.warning(
            "%s: left out %d of %d questions, which stand in corpus.dev or corpus.test as well",
            *(key, dropped, count),
        )


def _key(question: Question) -> bytes:
    """Equal for questions with the same words: case, blanks and punctuation do not matter."""
    text = f"{question.lang}\n{normalize(question.question, question.lang)}"
    return hashlib.sha1(text.encode()).digest()[:8]

"""Cross-lingual data mining (CORA section 2.2.2, lines 4-8 of algorithm 1).

Candidates are the passages that mDPR retrieved for every training question and, for English
questions, all passages of the articles that language links reach from the gold article. mGEN
reads each candidate ALONE; a passage from which it generates the answer is a positive, any
other a negative.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

from clmrc_jax.data.language_links import without_disambiguation
from clmrc_jax.data.passage_names import by_id
from clmrc_jax.evaluate.answer_match import contains_answer, searchable
from clmrc_jax.evaluate.normalize import normalized_match

LINK = ">"  # in the id of a link-expanded question, before its language
POSITIVE, NEGATIVE, MATCHED = "positive", "negative", "matched"
Names = Callable[[dict], tuple[str, ...]]  # which passages are the same: data.passage_names


@dataclasses.dataclass(frozen=True)
class MiningRules:
    """The rules of section 2.2.2, each by name.

    retrieved: best-ranked passages per training question that become candidates; 0 for none.
    language_links: expand English questions by language links.
    link_languages: target languages of the links; empty for every corpus language.
    passages_per_article: most candidates from one linked article.
    strip_disambiguation: a title serves as an answer without Wikipedia's note on which of several
        things it is: "タイタニック (映画)" -> "タイタニック". Off where brackets belong to the names.
    copy_numbers: an answer without letters (a year) is the same in every language; the paper
        says only that links cannot translate non-entity answers.
    match: "normalized" equality of prediction and answer, or "exact" (the released script).
    unsure: what a passage is that holds the answer string but from which mGEN generated
        something else: "negative" (paper) or "dropped", with the first one as only positive of a
        question without any (released script).
    max_positives, max_negatives: per question; the best-ranked ones stay.
    """

    retrieved: int = 20
    language_links: bool = True
    link_languages: tuple[str, ...] = ()
    passages_per_article: int = 50
    strip_disambiguation: bool = True
    copy_numbers: bool = True
    match: str = "normalized"
    unsure: str = "negative"
    max_positives: int = 10
    max_negatives: int = 30

    def __post_init__(self):
        for name, known in (
            ("match", ("normalized", "exact")),
            ("unsure", ("negative", "dropped")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"mining.{name} must be one of {known}, got {getattr(self, name)!r}"
                )


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A passage (ctx row) that may answer a question.

    lang: tag of the question for mDPR.   answer_lang: language of the answers, the tag for mGEN.
    origin: "retrieved" or "language_link".
    """

    q_id: str
    question: str
    lang: str
    answers: tuple[str, ...]
    answer_lang: str
    ctx: dict
    origin: str


def translate_answer(links, rules: MiningRules, answer: str, target: str) -> str | None:
    """The English answer in another language, by the links of the page of that name."""
    if rules.copy_numbers and answer and not any(c.isalpha() for c in answer):
        return answer
    title = links.translate(answer, "en", target)
    return without_disambiguation(title) if title and rules.strip_disambiguation else title


def retrieved_candidates(run: Iterable[dict], rules: MiningRules) -> Iterator[Candidate]:
    """Line 4: the passages retrieved for every training question. run: retrieval run rows."""
    for row in run:
        lang, answers = row["lang"], tuple(row["answers"])
        answer_lang = row.get("answer_lang") or lang
        for ctx in row["ctxs"][: rules.retrieved]:
            yield Candidate(
                row["q_id"], row["question"], lang, answers, answer_lang, ctx, "retrieved"
            )


def linked_candidates(
    rows: Iterable[dict], store, links, rules: MiningRules
) -> Iterator[Candidate]:
    """Line 6: passages of the linked articles, for English questions with a gold passage.

    rows: annotated DPR rows. The question stays English; its tag becomes the target language.
    """
    targets = rules.link_languages or tuple(x for x in store.language_counts() if x != "en")
    for row in rows:
        gold = row["positive_ctxs"][0] if row["positive_ctxs"] else None
        if row["lang"] != "en" or gold is None or not row["answers"]:
            continue
        for target in targets:
            answer = translate_answer(links, rules, row["answers"][0], target)
            title = links.translate(gold["title"], gold["lang"], target)
            if answer is None or title is None:
                continue
            found = list(store.article_rows(target, title))[: rules.passages_per_article]
            for passage in store.get_many(found):
                yield Candidate(
                    f"{row['q_id']}{LINK}{target}",
                    row["question"],
                    target,
                    (answer,),
                    target,
                    dataclasses.asdict(passage),
                    "language_link",
                )


def all_candidates(run: Iterable[dict], corpus, rules: MiningRules) -> Iterator[Candidate]:
    """Those of lines 4 and 6. run: retrieval run rows.   corpus: its annotated rows, links, store."""
    yield from retrieved_candidates(run, rules)
    if rules.language_links:
        yield from linked_candidates(corpus.rows("annotated"), corpus.store, corpus.links, rules)


def label(candidate: Candidate, prediction: str, rules: MiningRules) -> str:
    """Lines 7-8: POSITIVE where mGEN's prediction from this passage alone is the answer."""
    if rules.match == "exact":
        right = prediction in candidate.answers
    else:
        right = normalized_match(prediction, candidate.answers, candidate.answer_lang)
    if right:
        return POSITIVE
    if rules.unsure == "dropped":
        text = f"{candidate.ctx['title']} {candidate.ctx['text']}"
        if contains_answer(searchable(candidate.answers), text, candidate.answer_lang):
            return MATCHED
    return NEGATIVE


def mined_rows(
    candidates: Sequence[Candidate],
    predictions: Sequence[str],
    rules: MiningRules,
    round: int,
    names: Names = by_id,
) -> Iterator[dict]:
    """Labelled candidates -> DPR rows, one per question and language that has a positive.

    Every passage keeps its audit fields: `prediction` (as generated), `origin`, `round`.
    """
    questions: dict[str, dict] = {}
    for candidate, prediction in zip(candidates, predictions, strict=True):
        row = questions.setdefault(candidate.q_id, {"first": candidate, "seen": set()})
        if not _is_new(candidate.ctx, row["seen"], names):
            continue
        audit = {"prediction": prediction, "origin": candidate.origin, "round": round}
        row.setdefault(label(candidate, prediction, rules), []).append(candidate.ctx | audit)
    for q_id, row in questions.items():
        positives = row.get(POSITIVE) or row.get(MATCHED, [])[:1]
        if positives:
            first = row["first"]
            other = first.answer_lang != first.lang
            yield {
                "q_id": q_id,
                "question": first.question,
                "lang": first.lang,
                "answers": list(first.answers),
                **({"answer_lang": first.answer_lang} if other else {}),
                "positive_ctxs": positives[: rules.max_positives],
                "hard_negative_ctxs": row.get(NEGATIVE, [])[: rules.max_negatives],
            }


def merge(
    old: Iterable[dict], mined: Sequence[dict], rules: MiningRules, names: Names = by_id
) -> Iterator[dict]:
    """B(t+1) = B(t) + mined (line 8); rows of one question become one row.

    Positives are united, oldest first (the annotated passage stays); a passage that is a
    positive anywhere is no negative; newest negatives come first, being the harder ones. Of the
    mined rows, one per question, ids alone are in memory.
    """
    new = {row["q_id"]: number for number, row in enumerate(mined)}
    for row in old:
        number = new.pop(row["q_id"], None)
        yield row if number is None else _united(row, mined[number], rules, names)
    yield from (mined[number] for number in new.values())


def _united(old: dict, new: dict, rules: MiningRules, names: Names) -> dict:
    seen: set[str] = set()
    positives = _distinct(old["positive_ctxs"] + new["positive_ctxs"], seen, names)
    negatives = _distinct(new["hard_negative_ctxs"] + old["hard_negative_ctxs"], seen, names)
    return old | {
        "positive_ctxs": positives[: rules.max_positives],
        "hard_negative_ctxs": negatives[: rules.max_negatives],
    }


def _distinct(ctxs: Iterable[dict], seen: set[str], names: Names) -> list[dict]:
    return [ctx for ctx in ctxs if _is_new(ctx, seen, names)]


def _is_new(ctx: dict, seen: set[str], names: Names) -> bool:
    """Whether the passage is none of those seen, which it joins."""
    found = names(ctx)
    new = seen.isdisjoint(found)
    seen.update(found)
    return new

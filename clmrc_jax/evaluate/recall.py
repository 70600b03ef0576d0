"""Retrieval metrics: R^L@k, R^multi@k, MRR@k, the language matrix, and XOR-Retrieve's R@2kt, R@5kt.

R^L@k (CORA, section 4.3) is the share of questions with an answer string in the question's
language in one of the first k passages; R^multi@k the same with the answers of all parallel
questions (same id without "_" + lang). The rule of "contains" is `answer_match`'s, on
title + " " + text; `yes` and `no` are left out, and a question with nothing else is not counted.
The paper published no rule; ours is stated there so that numbers can be compared.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from os import PathLike

from clmrc_jax.evaluate.answer_match import contains_answer, searchable
from clmrc_jax.evaluate.golds import (
    Gold,
    answers_by_fact,
    fact_id,
    gold_of,
    language_code,
    unique,
)
from clmrc_jax.evaluate.scores import Scores, average
from clmrc_jax.evaluate.segment import english_tokens
from clmrc_jax.files import InputError, read_jsonl


def score_retrieval(
    run: Iterable[Mapping],
    golds: Iterable[Gold] | None = None,
    k: int = 10,
    mode: str = "substring",
) -> Scores:
    """R^L@k (`r_l@k`), R^multi@k (`r_multi@k`) and MRR@k of both, in percent, per language.

    run: rows {q_id, lang, answers, ctxs: [{title, text, lang}, best first]}; it is read twice and
    its texts are not kept, so one in a file (`files.JsonlRows`) may have any length.
    golds: questions whose answers join (or, by id, replace) the run's; parallel questions in
    other languages count for R^multi, and those without a row in the run only there (`missing`).
    None uses the run's own rows.   mode: `substring` or `dpr`.
    `extras["matrix"]` is `language_matrix(run, k)`.
    """
    run = list(run) if isinstance(run, Iterator) else run
    own = {
        str(row["q_id"]): Gold(str(row["q_id"]), row["lang"], tuple(row["answers"])) for row in run
    }
    golds = list(golds or ())
    known = own | {str(gold.id): gold for gold in golds if gold.answers}
    facts = answers_by_fact(known.values())
    rows, skipped, counts = [], 0, {}
    for row in run:
        _count_languages(counts, row, k)
        gold = known[str(row["q_id"])]
        by_language = facts[fact_id(gold.id, gold.lang)]
        wanted = {code: searchable(answers) for code, answers in by_language.items()}
        mine = {gold.lang: searchable(gold.answers)}
        if not mine[gold.lang]:
            skipped += 1
            continue
        texts = [passage_text(passage) for passage in row["ctxs"][:k]]
        rows.append({"id": gold.id, "lang": gold.lang} | _ranks(texts, mine, wanted, k, mode))
    languages, macro = average(rows, (f"r_l@{k}", f"r_multi@{k}", f"mrr_l@{k}", f"mrr_multi@{k}"))
    missing = sum(str(gold.id) not in own for gold in golds)
    foreign = len(own.keys() - {str(gold.id) for gold in golds}) if golds else 0
    extras = {"matrix": _shares(counts)}
    return Scores(languages, macro, rows, missing, foreign, skipped, extras)


def first_hit(
    texts: Sequence[str], answers: Mapping[str, Sequence[str]], mode: str = "substring"
) -> int | None:
    """Rank from 1 of the first text that contains an answer, None without one.

    answers: {lang: answer strings}; each is looked for under its own language's rule.
    """
    for rank, text in enumerate(texts, start=1):
        if any(contains_answer(strings, text, lang, mode) for lang, strings in answers.items()):
            return rank
    return None


def passage_text(passage: Mapping) -> str:
    """What is searched: title, blank, text."""
    return f"{passage.get('title') or ''} {passage['text']}".strip()


def _ranks(texts: list[str], mine: Mapping, union: Mapping, k: int, mode: str) -> dict:
    """The four values in [0, 1] of one question."""
    rank_l, rank_multi = first_hit(texts, mine, mode), first_hit(texts, union, mode)
    return {
        f"r_l@{k}": float(rank_l is not None),
        f"r_multi@{k}": float(rank_multi is not None),
        f"mrr_l@{k}": 1 / rank_l if rank_l else 0.0,
        f"mrr_multi@{k}": 1 / rank_multi if rank_multi else 0.0,
    }


def language_matrix(run: Iterable[Mapping], k: int = 10) -> dict[str, dict[str, float]]:
    """Shares of passage languages among the first k, per question language (CORA, Figure 3).

    Returns {question language: {passage language: percent}}; each row sums to 100.
    """
    counts: dict[str, Counter] = {}
    for row in run:
        _count_languages(counts, row, k)
    return _shares(counts)


def _count_languages(counts: dict[str, Counter], row: Mapping, k: int) -> None:
    """Adds the passage languages of one row to those of its question language."""
    languages = counts.setdefault(row["lang"], Counter())
    languages.update(passage["lang"] for passage in row["ctxs"][:k])


def _shares(counts: Mapping[str, Counter]) -> dict[str, dict[str, float]]:
    """Counts as percent of their question language."""
    return {
        asked: {lang: 100 * n / row.total() for lang, n in row.most_common()}
        for asked, row in counts.items()
    }


def score_token_recall(
    run: Iterable[Mapping],
    budgets: Sequence[int] = (2000, 5000),
    tokenize: Callable[[str], list[str]] = english_tokens,
) -> Scores:
    """XOR-Retrieve's R@2kt and R@5kt over English passages (metrics `r@2kt`, `r@5kt`), in percent.

    The tokens of the passage texts (no titles) in rank order are cut at the budget and joined
    with blanks; hit if a gold answer is a raw, case-sensitive substring. Questions with only
    yes/no answers are skipped. tokenize: text -> tokens; another than NLTK's is not comparable.
    """
    rows, skipped = [], 0
    names = [f"r@{budget // 1000}kt" if budget >= 1000 else f"r@{budget}t" for budget in budgets]
    for row in run:
        answers = [answer for answer in row["answers"] if answer not in ("yes", "no")]
        if not answers:
            skipped += 1
            continue
        tokens: list[str] = []
        for passage in row["ctxs"]:
            if len(tokens) >= max(budgets):
                break
            tokens += tokenize(passage["text"])
        texts = [" ".join(tokens[:budget]) for budget in budgets]
        hits = [float(any(answer in text for answer in answers)) for text in texts]
        rows.append({"id": str(row["q_id"]), "lang": row["lang"]} | dict(zip(names, hits)))
    languages, macro = average(rows, names)
    return Scores(languages, macro, rows, skipped=skipped)


def read_run(path: str | PathLike) -> list[dict]:
    """Reads a retrieval run, JSON lines {q_id, lang, answers, ctxs: [{lang, title, text}]}.

    Raises InputError naming line, passage and field of what is wrong.
    """
    run, golds = [], []
    for line, row in read_jsonl(path):
        where = f"{path}, line {line}"
        gold = gold_of({"answers": []} | row, where, id_field="q_id")
        passages = row.get("ctxs")
        if not isinstance(passages, list):
            raise InputError(f"{where}: field 'ctxs' must be a list of passages")
        for number, passage in enumerate(passages):
            here = f"{where}, ctxs[{number}]"
            if not isinstance(passage, dict) or not isinstance(passage.get("text"), str):
                raise InputError(f"{here}: needs a string field 'text'")
            passage["lang"] = language_code(passage.get("lang"), here)
        golds.append(gold)
        run.append(row | {"q_id": gold.id, "lang": gold.lang, "answers": list(gold.answers)})
    unique(golds, path)
    return run

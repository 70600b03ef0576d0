"""Exact match and F1 of reading comprehension: CMRC 2018, DRCD, SQuAD 1.1 and 2.0, XQuAD.

A row of `RULES` says how one prediction is compared with its references under each mode: `legacy`
is the official evaluator, `fixed` has its defects mended (see mrc_cmrc.py and mrc_squad.py).
Everything else is common: a question counts its best reference, a question without a prediction
counts 0 and stays in the denominator.
"""

from collections.abc import Callable, Iterable, Mapping

from clmrc_jax.evaluate import mrc_cmrc, mrc_squad
from clmrc_jax.evaluate.golds import Gold, foreign_ids, string_keys
from clmrc_jax.evaluate.scores import Scores, average, mean
from clmrc_jax.files import InputError

METRICS = ("em", "f1")
MODES = ("legacy", "fixed")
# (prediction, answers, lang) -> (EM, F1) in [0, 1]
Rule = Callable[[str, tuple[str, ...], str], tuple[float, float]]
RULES: dict[str, dict[str, Rule]] = {
    "cmrc": {"legacy": mrc_cmrc.legacy_scores, "fixed": mrc_cmrc.fixed_scores},
    "squad": {"legacy": mrc_squad.squad_legacy, "fixed": mrc_squad.fixed_scores},
    "squad2": {"legacy": mrc_squad.squad2_legacy, "fixed": mrc_squad.fixed_scores},
    "squad_ja_fr": {"legacy": mrc_squad.ja_fr_legacy, "fixed": mrc_squad.fixed_scores},
}


def score_cmrc(
    golds: Iterable[Gold], predictions: Mapping[str, str], mode: str = "legacy"
) -> Scores:
    """CMRC 2018 and DRCD, in percent; `extras` holds em, f1, their `average`, and count.

    golds: objects with `id`, `lang`, `answers`; those without answers are skipped.
    predictions: {id: answer}, ids as strings or integers.   mode: `legacy` or `fixed`.
    Raises InputError when no question has an answer, ImportError without NLTK (`legacy`).
    """
    scores = _score(golds, predictions, RULES["cmrc"][mode])
    scores.extras["average"] = (scores.extras["em"] + scores.extras["f1"]) / 2
    return scores


def score_squad(
    golds: Iterable[Gold], predictions: Mapping[str, str], mode: str = "legacy"
) -> Scores:
    """SQuAD 1.1 and, in the language of each question, XQuAD. As `score_cmrc`.

    `legacy` is English in every language; `fixed` goes by `lang`.
    """
    return _score(golds, predictions, RULES["squad"][mode])


def score_ja_fr(
    golds: Iterable[Gold], predictions: Mapping[str, str], mode: str = "legacy"
) -> Scores:
    """The Japanese and French SQuAD, `legacy` by the metric of its authors. As `score_cmrc`."""
    return _score(golds, predictions, RULES["squad_ja_fr"][mode])


def score_squad2(
    golds: Iterable[Gold],
    predictions: Mapping[str, str],
    mode: str = "legacy",
    null_scores: Mapping[str, float] | None = None,
) -> Scores:
    """SQuAD 2.0: a question without answers is unanswerable, and only "" answers it.

    As `score_cmrc`; `extras["parts"]` splits the scores by `has_answer` and `no_answer`.
    null_scores: {id: score of "no answer"}, 0 where absent. With them `extras` gets `best_em`,
    `best_f1` and their thresholds: a prediction whose null score exceeds the threshold counts
    as "" (the scores themselves stay without any). The official script cannot score an incomplete file; here a missing answer counts 0.
    """
    golds = list(golds)
    scores = _score(golds, predictions, RULES["squad2"][mode], unanswerable=True)
    answerable = {str(gold.id): bool(gold.answers) for gold in golds}
    scores.extras["parts"] = {
        name: _percent([row for row in scores.questions if answerable[row["id"]] is wanted])
        for name, wanted in (("has_answer", True), ("no_answer", False))
    }
    if null_scores is not None:
        scores.extras |= _best_thresholds(scores.questions, string_keys(null_scores))
    return scores


def _score(golds, predictions, rule: Rule, unanswerable: bool = False) -> Scores:
    """One row per question, and the means. unanswerable: questions without answers count too."""
    golds, predictions = list(golds), string_keys(predictions)
    scored = [gold for gold in golds if gold.answers or unanswerable]
    if not scored:
        raise InputError(
            f"none of the {len(golds)} questions has an answer to compare with; give --data with "
            "a labelled file (hidden test sets are scored by their organisers)"
        )
    rows = []
    for gold in scored:
        prediction = predictions.get(str(gold.id))
        answers = tuple(gold.answers)
        em, f1 = (0.0, 0.0) if prediction is None else rule(prediction, answers, gold.lang)
        row = {"id": str(gold.id), "lang": gold.lang, "prediction": prediction}
        rows.append(row | {"answers": list(answers), "em": em, "f1": f1})
    languages, macro = average(rows, METRICS)
    missing = sum(row["prediction"] is None for row in rows)
    foreign = len(foreign_ids(golds, predictions))
    skipped = len(golds) - len(scored)
    return Scores(languages, macro, rows, missing, foreign, skipped, _percent(rows))


def _percent(rows: list[dict]) -> dict[str, float]:
    """Means over all rows, in percent, and their number."""
    means = {metric: 100 * mean([row[metric] for row in rows]) for metric in METRICS}
    return means | {"count": len(rows)}


def _best_thresholds(rows: list[dict], null_scores: Mapping[str, float]) -> dict[str, float]:
    """For each metric the threshold of silence that serves it best, and the score there.

    SQuAD 2.0's sweep: starts from silence everywhere, right for every unanswerable question, and
    lets answers in by rising null score: an answerable one adds its score, a non-empty one to an
    unanswerable question costs 1; equal null scores one by one, as the official script does.
    A missing prediction gains nothing either way.
    """
    present = [row for row in rows if row["prediction"] is not None]
    present.sort(key=lambda row: null_scores.get(row["id"], 0.0))
    lowest = min((null_scores.get(row["id"], 0.0) for row in present), default=0.0)
    found = {}
    for metric in METRICS:
        total = best = sum(not row["answers"] for row in present)
        threshold = 0.0 if lowest > 0 else lowest - 1  # officially 0, which silences not all
        for row in present:
            total += row[metric] if row["answers"] else -bool(row["prediction"])
            if total > best:
                best, threshold = total, null_scores.get(row["id"], 0.0)
        found |= {f"best_{metric}": 100 * best / len(rows), f"best_{metric}_threshold": threshold}
    return found

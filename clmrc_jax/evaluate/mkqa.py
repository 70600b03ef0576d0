"""MKQA: its native records, CORA's way of scoring it, and its official metric.

CORA keeps the questions with at least one answer string (6,758 of 10,000) and runs the XOR-Full
scorer on them; numbers are not comparable with the MKQA leaderboard, whose metric is
`score_mkqa_official`.
"""

from collections.abc import Iterable, Mapping
from os import PathLike

from clmrc_jax.evaluate.golds import (
    NO_ANSWER_MARKS,
    Gold,
    answer_text,
    foreign_ids,
    gold_of,
    language_code,
    read_predictions,
    string_keys,
    unique,
)
from clmrc_jax.evaluate.normalize import mkqa_tokens
from clmrc_jax.evaluate.scores import Scores, average, mean
from clmrc_jax.evaluate.xor import score_xor, token_f1
from clmrc_jax.files import InputError, read_jsonl

METRICS = ("f1", "em")


def score_mkqa(
    golds: Iterable[Gold], predictions: Mapping[str, str], mode: str = "legacy"
) -> Scores:
    """MKQA as CORA scores it: XOR-Full per language, unweighted mean over languages.

    Arguments, modes and result of `score_xor`. `legacy` is CORA's published scorer, without
    segmentation of zh*, th, km; `fixed` segments them as MIA 2022 does and mends the rest.
    Unanswerable and long-answer questions (no answer string) are skipped. Files of CORA's
    converter may keep them as `NoAns`, which only `legacy` then counts, as CORA did.
    """
    return score_xor(golds, predictions, mode)


def score_mkqa_official(
    golds: Iterable[Gold],
    predictions: Mapping[str, str],
    no_answer_probabilities: Mapping[str, float] | None = None,
    mode: str = "legacy",
) -> Scores:
    """The metric of the MKQA leaderboard, per language, in percent.

    golds: no answer, "" or a `NoAns` mark means unanswerable.   predictions: {id: answer}; ""
    says "no answer".   no_answer_probabilities: {id: probability}, 0 where absent.
    mode: of `mkqa_tokens`; `legacy` is official.
    Per language: `f1`, `em` at the best no-answer threshold (MKQA's best_f1, best_em),
    `answerable_f1`, `answerable_em`, `unanswerable_em`, `f1_threshold` and `count`. The official
    script refuses incomplete files; here a missing prediction scores 0 and is counted.
    """
    golds = list(golds)
    predictions = string_keys(predictions)
    probabilities = string_keys(no_answer_probabilities or {})
    rows = [_official_row(gold, predictions, probabilities, mode) for gold in golds]
    by_language: dict[str, list[dict]] = {}
    for row in rows:
        by_language.setdefault(row["lang"], []).append(row)
    thresholds = {lang: best_threshold(group) for lang, group in by_language.items()}
    for row in rows:
        _silence(row, thresholds[row["lang"]])
    languages, macro = average(rows, METRICS)
    for lang, group in by_language.items():
        languages[lang] |= _by_answerability(group) | {"f1_threshold": thresholds[lang]}
    missing = sum(row["prediction"] is None for row in rows)
    return Scores(languages, macro, rows, missing, len(foreign_ids(golds, predictions)))


def best_threshold(rows: Iterable[dict]) -> float:
    """The no-answer probability above which silence gives the best total F1 (SQuAD 2's sweep).

    rows: dicts `f1`, `no_answer_probability`, `answerable`, `prediction`. Starts from silence
    everywhere (right for every unanswerable question) and lets answers in by rising probability:
    an answerable one adds its F1, a non-empty answer to an unanswerable one costs 1.
    """
    rows = sorted(rows, key=lambda row: row["no_answer_probability"])
    total = best = sum(not row["answerable"] for row in rows)
    threshold = 0.0
    for row in rows:
        if row["answerable"]:
            total += row["f1"]
        elif row["prediction"]:
            total -= 1
        if total > best:
            best, threshold = total, row["no_answer_probability"]
    return threshold


def official_scores(
    prediction: str, answers: Iterable[str], lang: str, mode: str = "legacy"
) -> tuple[float, float]:
    """(F1, EM) in [0, 1] of one prediction under MKQA's official rule, maxima over the answers."""
    predicted = list(mkqa_tokens(prediction, lang, mode))
    accepted = [list(mkqa_tokens(answer, lang, mode)) for answer in answers]
    f1 = max(token_f1(predicted, answer, both_empty=1.0) for answer in accepted)
    return f1, float(predicted in accepted)


def _official_row(gold: Gold, predictions: Mapping, probabilities: Mapping, mode: str) -> dict:
    """The scores of one question before any threshold."""
    answers = [] if tuple(gold.answers[:1]) in {(x,) for x in NO_ANSWER_MARKS} else gold.answers
    prediction = predictions.get(str(gold.id))
    f1, em = 0.0, 0.0
    if prediction is not None:
        f1, em = official_scores(prediction, answers or ("",), gold.lang, mode)
    return {
        "id": str(gold.id),
        "lang": gold.lang,
        "prediction": prediction,
        "answers": list(answers),
        "f1": f1,
        "em": em,
        "answerable": bool(answers),
        "no_answer_probability": float(probabilities.get(str(gold.id), 0.0)),
    }


def _silence(row: dict, threshold: float) -> None:
    """Turns the answer of a row above the threshold into "no answer"."""
    if row["prediction"] is not None and row["no_answer_probability"] > threshold:
        row["f1"] = row["em"] = float(not row["answerable"])


def _by_answerability(rows: list[dict]) -> dict[str, float]:
    """The official report's split by answerable and unanswerable questions, in percent."""
    yes = [row for row in rows if row["answerable"]]
    no = [row for row in rows if not row["answerable"]]
    return {
        "answerable_f1": 100 * mean([row["f1"] for row in yes]),
        "answerable_em": 100 * mean([row["em"] for row in yes]),
        "unanswerable_em": 100 * mean([row["em"] for row in no]),
    }


def read_mkqa(path: str | PathLike, lang: str | None = None) -> list[Gold]:
    """Reads MKQA questions: rows `id, lang, answers`, or native records of `mkqa.jsonl`.

    lang: keep this language only. Native records become one question per language with id
    "<example_id>_<lang>", or "<example_id>" when `lang` is given. Raises InputError.
    """
    golds: list[Gold] = []
    wanted = lang and language_code(lang, "lang")
    for line, row in read_jsonl(path):
        where = f"{path}, line {line}"
        if "example_id" in row and isinstance(row.get("answers"), dict):
            golds += golds_of_record(row, where, wanted)
        else:
            golds += [gold for gold in [gold_of(row, where)] if wanted in (None, gold.lang)]
    if wanted and not golds:
        raise InputError(f"{path}: holds no question of language {wanted!r}")
    return unique(golds, path)


def golds_of_record(record: Mapping, where: str = "record", lang: str | None = None) -> list[Gold]:
    """The questions of one native record: in each language every non-null `text`, each followed
    by its aliases (the key may be absent); no such string means unanswerable here."""
    golds = []
    for code, items in record["answers"].items():
        code = language_code(code, where)
        if lang not in (None, code):
            continue
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise InputError(f"{where}: answers of {code!r} must be a list of answer objects")
        texts = [
            text
            for item in items
            if item.get("text") is not None
            for text in (item["text"], *(item.get("aliases") or ()))
        ]
        identifier = str(record["example_id"]) + ("" if lang else f"_{code}")
        golds.append(Gold(identifier, code, tuple(texts)))
    return golds


def read_mkqa_predictions(path: str | PathLike) -> tuple[dict[str, str], dict[str, float]]:
    """Reads predictions and no-answer probabilities, ({id: answer}, {id: probability}).

    Either one JSON object {id: answer}, or (`.jsonl`) official rows `example_id` (or `id`),
    `prediction`, `binary_answer`, `no_answer_prob`; a binary answer takes precedence.
    """
    if not str(path).removesuffix(".gz").endswith(".jsonl"):
        return read_predictions(path), {}
    predictions, probabilities = {}, {}
    for line, row in read_jsonl(path):
        where = f"{path}, line {line}"
        identifier = row.get("example_id", row.get("id"))
        if identifier is None or "prediction" not in row:
            raise InputError(f"{where}: needs the fields 'example_id' and 'prediction'")
        probability = row.get("no_answer_prob") or 0.0
        if isinstance(probability, bool) or not isinstance(probability, (int, float)):
            raise InputError(f"{where}: 'no_answer_prob' must be a number, got {probability!r:.60}")
        answer = row.get("binary_answer") or row["prediction"]
        predictions[str(identifier)] = answer_text(answer, where)
        probabilities[str(identifier)] = float(probability)
    return predictions, probabilities

"""XOR-Full F1, EM and BLEU; CORA scores MKQA with the same rules.

Three modes, one table (`MODES`):

`legacy`  the scorer of XOR-QA and CORA, defects included; compare published numbers with it.
`fixed`   its defects mended:
  1. the middle dot of Japanese names becomes a blank in answers too, not only in predictions
     (an exactly correct デイヴ・エドモンズ scored EM 0), and in Chinese likewise;
  2. the counters 年 歳 人 are deleted in Japanese and 년 in Korean only (美国 was 美国人);
  3. Chinese, Thai and Khmer are cut into words, as in MIA 2022 (F1 was exact match);
  4. BLEU counts the tokens of F1, smoothed, so that a short exact match scores 1, instead of
     unsmoothed characters;
  5. questions answered `NoAns` are skipped like `No Answer`;
  6. two answers that both normalise to nothing agree in F1 as they do in EM.
`portable`  as `fixed`, but each character of ja, zh*, th, km is a word, so that no segmenter need
  be installed. NOT comparable with published numbers.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from clmrc_jax.evaluate import segment
from clmrc_jax.evaluate.bleu import sentence_bleu
from clmrc_jax.evaluate.golds import Gold, foreign_ids, string_keys
from clmrc_jax.evaluate.normalize import COUNTERS, MIDDLE_DOTS, xor_normalize
from clmrc_jax.evaluate.scores import Scores, average

METRICS = ("f1", "em", "bleu")
_DOTS_TO_BLANKS = str.maketrans({**dict.fromkeys(MIDDLE_DOTS, " "), "、": ","})
_LEGACY_DOTS = str.maketrans("・、", " ,")


@dataclass(frozen=True)
class Mode:
    """One row of the policy table.

    cut: (text, lang) -> words of a language written without spaces; None is the legacy rule
    (Japanese only, different for answer and prediction).   no_answer: first answers that take a
    question out of the metric.   smooth: see bleu.py.
    """

    cut: Callable[[str, str], list[str]] | None
    no_answer: frozenset[str]
    smooth: str


MODES = {
    "legacy": Mode(None, frozenset(("No Answer",)), "none"),
    "fixed": Mode(segment.words, frozenset(("No Answer", "NoAns")), "exp"),
    "portable": Mode(segment.light_words, frozenset(("No Answer", "NoAns")), "exp"),
}


def score_xor(
    golds: Iterable[Gold], predictions: Mapping[str, str], mode: str = "legacy"
) -> Scores:
    """Scores predictions per language, with the macro average, in percent.

    golds: objects with `id`, `lang`, `answers`.   predictions: {id: answer}, ids as strings or
    integers. A question without a prediction scores 0; one without answers, or whose first
    answer is the mode's "no answer" mark, is skipped.
    Source: XOR-QA `eval_xor_full`. Raises ImportError without the segmenter of a language.
    """
    golds, predictions = list(golds), string_keys(predictions)
    rows, missing, skipped = [], 0, 0
    for gold in golds:
        if not gold.answers or gold.answers[0] in MODES[mode].no_answer:
            skipped += 1
            continue
        prediction = predictions.get(str(gold.id))
        missing += prediction is None
        values = (0.0, 0.0, 0.0)
        if prediction is not None:
            values = score_answer(prediction, tuple(gold.answers), gold.lang, mode)
        row = {"id": str(gold.id), "lang": gold.lang, "prediction": prediction}
        rows.append(row | {"answers": list(gold.answers)} | dict(zip(METRICS, values)))
    languages, macro = average(rows, METRICS)
    return Scores(languages, macro, rows, missing, len(foreign_ids(golds, predictions)), skipped)


def check_segmenters(mode: str, langs: Iterable[str]) -> None:
    """Tries what `score_xor` will cut these languages' words with.

    Raises ImportError naming the package that is missing and how to install it.
    """
    cut = MODES[mode].cut
    for lang in dict.fromkeys(langs):
        if cut is None and lang == "ja":
            segment.wakati("")
        elif cut is not None:
            cut("", lang)


@functools.lru_cache(maxsize=1 << 14)
def score_answer(
    prediction: str, answers: tuple[str, ...], lang: str, mode: str = "legacy"
) -> tuple[float, float, float]:
    """(F1, EM, BLEU) in [0, 1] of one prediction: F1 and EM are maxima over the answers."""
    policy = MODES[mode]
    predicted = _normal(prediction, lang, mode, True)
    accepted = [_normal(answer, lang, mode, False) for answer in answers]
    empty = 0.0 if policy.cut is None else 1.0
    f1 = max(token_f1(predicted.split(), answer.split(), empty) for answer in accepted)
    em = float(predicted in accepted)
    if policy.cut is None:
        return f1, em, sentence_bleu(_legacy_references(answers, lang), prediction, policy.smooth)
    bleu = sentence_bleu([answer.split() for answer in accepted], predicted.split(), policy.smooth)
    return f1, em, bleu


def token_f1(predicted: list[str], answer: list[str], both_empty: float = 0.0) -> float:
    """F1 of two bags of tokens; `both_empty` is the value when neither has a token."""
    if not predicted and not answer:
        return both_empty
    overlap = sum((Counter(predicted) & Counter(answer)).values())
    return 2 * overlap / (len(predicted) + len(answer))


@functools.lru_cache(maxsize=1 << 16)
def _normal(text: str, lang: str, mode: str, is_prediction: bool) -> str:
    """The normalised string whose blank-separated pieces are the tokens."""
    cut = MODES[mode].cut
    if cut is None:
        if lang == "ja":
            text = segment.wakati(text.translate(_LEGACY_DOTS) if is_prediction else text)
        return xor_normalize(text)
    if segment.needs_segmenter(lang):
        if lang.startswith(("ja", "zh")):
            text = text.translate(_DOTS_TO_BLANKS)
        text = " ".join(cut(text, lang))
    return xor_normalize(text, COUNTERS.get(lang, ""))


def _legacy_references(answers: tuple[str, ...], lang: str) -> list[str]:
    """What legacy BLEU compares the raw prediction with: MeCab's raw line in Japanese."""
    return [segment.wakati(answer) for answer in answers] if lang == "ja" else list(answers)

"""How SQuAD, XQuAD and the Japanese and French SQuAD compare one prediction with the references.

`squad_legacy`  SQuAD 1.1's official rule (SQuAD 2.0's and XQuAD's too), English in every
                language: ASCII punctuation is deleted, a/an/the are dropped, words lie between
                blanks; two answers that become empty agree in EM but not in F1.
`squad2_legacy` the same, except that two empty answers agree in F1 and an empty one agrees with
                nothing else.
`fixed_scores`  punctuation, articles and words of each language (`mrc_words`).
`ja_fr_legacy`  the metric of Asai et al. (2018), who made the Japanese and French SQuAD: MeCab's
                words in Japanese, blanks in French, lower case, nothing deleted. They used the
                dictionary ipadic-NEologd, we unidic-lite: F1 may differ slightly, EM hardly.
"""

import functools
import re
import unicodedata

from clmrc_jax.evaluate import segment
from clmrc_jax.evaluate.mrc_words import fixed_words
from clmrc_jax.evaluate.normalize import xor_normalize
from clmrc_jax.evaluate.xor import token_f1

_ENGLISH_ARTICLES = re.compile(r"\b(a|an|the)\b")
_BROKEN_NUMBER = re.compile(r"(?<=[0-9]) (?:(,) (?=[0-9]{3})|(\.) (?=[0-9]))")
_QUOTES = str.maketrans({"’": "'", '"': "'"})


def squad_legacy(prediction: str, answers: tuple[str, ...], lang: str) -> tuple[float, float]:
    """(EM, F1) in [0, 1] by SQuAD 1.1's evaluator, maxima over the answers; `lang` is unused."""
    return _best(squad_words(prediction), [squad_words(answer) for answer in answers], 0.0)


def squad2_legacy(prediction: str, answers: tuple[str, ...], lang: str) -> tuple[float, float]:
    """(EM, F1) by SQuAD 2.0's evaluator; no answers means unanswerable: only "" is right then.

    As there, answers of nothing but punctuation and articles do not count.
    """
    accepted = [words for words in map(squad_words, answers) if words] or [()]
    return _best(squad_words(prediction), accepted, 1.0)


def fixed_scores(prediction: str, answers: tuple[str, ...], lang: str) -> tuple[float, float]:
    """(EM, F1) by the rules of `lang`; no answers means unanswerable: only "" is right then."""
    accepted = [fixed_words(answer, lang) for answer in answers or ("",)]
    return _best(fixed_words(prediction, lang), accepted, 1.0)


def ja_fr_legacy(prediction: str, answers: tuple[str, ...], lang: str) -> tuple[float, float]:
    """(EM, F1) by the rule of Asai et al.; lang: `ja` needs MeCab (ImportError without)."""
    return _best(asai_words(prediction, lang), [asai_words(x, lang) for x in answers], 1.0)


@functools.lru_cache(maxsize=1 << 16)
def squad_words(text: str) -> tuple[str, ...]:
    """Words of SQuAD's normalisation."""
    return tuple(_ENGLISH_ARTICLES.sub(" ", xor_normalize(text, counters="")).split())


@functools.lru_cache(maxsize=1 << 16)
def asai_words(text: str, lang: str) -> tuple[str, ...]:
    """Words of Asai et al.: numbers that MeCab cut at a point or comma are joined again."""
    if lang != "ja":
        return tuple(text.translate(_QUOTES).lower().split())
    text = unicodedata.normalize("NFKC", text.replace("\u3000", ""))
    text = " ".join(segment.words(text, "ja")).lower()
    return tuple(_BROKEN_NUMBER.sub(r"\1\2", text).split())


def _best(predicted, accepted, both_empty: float) -> tuple[float, float]:
    """EM and bag-of-words F1 against the best of the accepted answers."""
    f1 = max(token_f1(predicted, words, both_empty) for words in accepted)
    return float(predicted in accepted), f1

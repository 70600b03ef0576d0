"""Making two spellings of one answer equal: the normalisations of the XOR, MKQA and our own rules.

Specification: XOR-QA's scorer deletes ASCII punctuation and counter characters and keeps
articles; MKQA's removes articles per language and cuts unspaced scripts into characters; ours
(`normalize`, used to label mined passages) is Unicode-aware and needs no word segmenter.
"""

import functools
import re
import string
import unicodedata
from collections.abc import Iterable

from clmrc_jax.data.languages import language

_NO_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
LEGACY_COUNTERS = "年歳人년"
COUNTERS = {"ja": "年歳人", "ko": "년"}
# What separates the parts of a foreign name: katakana, half-width and Latin middle dots.
MIDDLE_DOTS = "・･·"

_ARTICLES = {
    "en": "a an the",
    "es": "un una unos unas el la los las",
    "vi": "của là cái chiếc những",
    "de": "ein eine einen einem eines einer der die das den dem des",
    "nl": "de het een des der den",
    "sv": "en ett",
    "da": "en et",
    "no": "en et ei",
    "pt": "o a os as um uma uns umas",
    "fi": "se yks yksi",
    "hu": "a az egy",
    "fr": "le la l' les du de d' des un une",
    "it": "il lo la l' i gli le del dello della dell' dei degli degl' delle un' uno una un",
}
_LEFT_ANCHORED = ("fr", "it")  # MKQA's patterns lack the closing word boundary there


def xor_normalize(text: str, counters: str = LEGACY_COUNTERS) -> str:
    """XOR-QA's normalisation: lower case, no ASCII punctuation, no counters, single blanks.

    counters: characters deleted wherever they stand; the official scorer deletes
    `LEGACY_COUNTERS` in every language, so 美国 equals 美国人.
    """
    text = text.lower().translate(_NO_ASCII_PUNCTUATION)
    for counter in counters:
        text = text.replace(counter, "")
    return " ".join(text.split())


@functools.lru_cache(maxsize=1 << 16)
def mkqa_tokens(text: str, lang: str, mode: str = "legacy") -> tuple[str, ...]:
    """Tokens of MKQA's official normalisation: lower case, no ASCII punctuation, no articles;
    single characters (Latin letters too) in ja, zh*, th, km.

    mode: `legacy` is the official rule, whose French and Italian articles also eat the beginnings
    of words (`level` -> `vel`) and never match with an apostrophe, and whose Arabic one goes
    inside words. `fixed` removes whole-word and elided articles, and ال only from word beginnings.
    """
    text = text.lower()
    if mode == "fixed" and (elided := _elided(lang)):
        text = elided.sub(" ", text)
    text = text.translate(_NO_ASCII_PUNCTUATION)
    if articles := _articles(lang, mode):
        text = articles.sub(" ", text)
    return tuple("".join(text.split()) if not language(lang).spaced else text.split())


@functools.cache
def _articles(lang: str, mode: str) -> re.Pattern | None:
    """The pattern of a language's articles under MKQA's rule, None where it has none."""
    if lang == "ar":
        return re.compile("ال" if mode == "legacy" else r"\bال(?=\w)")
    if lang not in _ARTICLES:
        return None
    listed = "|".join(_ARTICLES[lang].split())
    anchored = mode == "legacy" and lang in _LEFT_ANCHORED
    return re.compile(rf"\b(?:{listed})" if anchored else rf"\b(?:{listed})\b")


@functools.cache
def _elided(lang: str) -> re.Pattern | None:
    """Articles that end in an apostrophe (l', dell'), which go before the punctuation does."""
    elided = [x[:-1] for x in _ARTICLES.get(lang, "").split() if x.endswith("'")]
    return re.compile(rf"\b(?:{'|'.join(elided)})['’]") if elided else None


def fold(text: str) -> str:
    """NFKC and case folding; the dotted capital I of Turkish folds to a plain i."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return folded.replace("i\u0307", "i")


@functools.lru_cache(maxsize=1 << 16)
def normalize(text: str, lang: str) -> str:
    """Our normal form of an answer: folded, every Unicode punctuation mark gone, single blanks
    (none at all where words are not separated by spaces), counters of ja and ko gone after digits.

    Text of nothing but punctuation keeps it, so that it does not become equal to "".
    """
    folded = fold(text)
    kept = "".join(" " if x in MIDDLE_DOTS else "" if _is_punctuation(x) else x for x in folded)
    if not kept.strip():
        kept = folded
    if counters := COUNTERS.get(lang):
        kept = re.sub(rf"(?<=\d)[{counters}](?!\w)", "", kept)
    return ("" if not language(lang).spaced else " ").join(kept.split())


def normalized_match(prediction: str, answers: Iterable[str], lang: str) -> bool:
    """Whether the prediction equals one of the answers after `normalize`; "" equals nothing.

    The label of a mined passage (CORA, Algorithm 1: "prediction = answer"); the published script
    compares raw strings and so loses variants of case, width and punctuation.
    """
    normal = normalize(prediction, lang)
    return bool(normal) and any(normal == normalize(answer, lang) for answer in answers)


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character)[0] == "P"

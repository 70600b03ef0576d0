"""Is an answer in the language of the question? CORA's most visible error is that it is not.

THE RULE, first that applies (`answers_in_language`):
  1. equal (normalised) to a gold answer of the question: right;
  2. no letters, or a code of up to `CODE` Latin capitals and digits (USD, UTF8): neutral;
  3. equal to a gold answer of the parallel question in another language: wrong;
  4. half or more of the letters in the script(s) of the question's language: right, else wrong.
Neutral and empty answers are left out of the rate. Languages that share a script are told apart
by rule 3 alone, so for them the rate is an upper bound.
"""

import functools
import re
import unicodedata
from collections.abc import Iterable, Mapping

from clmrc_jax.data.languages import language
from clmrc_jax.evaluate.golds import Gold, answers_by_fact, fact_id, foreign_ids, string_keys
from clmrc_jax.evaluate.normalize import fold, normalized_match
from clmrc_jax.evaluate.scores import Scores, average

CODE = 5
METRICS = ("correct_language",)
_CODE_ANSWER = re.compile(rf"[A-Z0-9][A-Z0-9-]{{0,{CODE - 1}}}")
# ISO 15924 code -> first words of Unicode character names.
_SCRIPTS = {
    "Arab": ("ARABIC",),
    "Beng": ("BENGALI",),
    "Cyrl": ("CYRILLIC",),
    "Deva": ("DEVANAGARI",),
    "Ethi": ("ETHIOPIC",),
    "Grek": ("GREEK",),
    "Hani": ("CJK",),
    "Hans": ("CJK",),
    "Hant": ("CJK",),
    "Hebr": ("HEBREW",),
    "Jpan": ("CJK", "HIRAGANA", "KATAKANA"),
    "Khmr": ("KHMER",),
    "Kore": ("HANGUL", "CJK"),
    "Latn": ("LATIN",),
    "Taml": ("TAMIL",),
    "Telu": ("TELUGU",),
    "Thai": ("THAI",),
}


def answers_in_language(
    prediction: str, lang: str, parallel: Mapping[str, Iterable[str]] | None = None
) -> bool | None:
    """True if the answer is in `lang`, False if not, None if it cannot tell (neutral or empty).

    parallel: {lang: gold answers} of the question and its parallel questions.
    """
    parallel = parallel or {}
    if normalized_match(prediction, parallel.get(lang, ()), lang):
        return True
    if is_neutral(prediction):
        return None
    others = (code for code in parallel if code != lang)
    if any(normalized_match(prediction, parallel[code], code) for code in others):
        return False
    return in_script(prediction, lang)


def score_language(golds: Iterable[Gold], predictions: Mapping[str, str]) -> Scores:
    """Correct-language rate per question language, in percent.

    Per language also `count` (judged answers), `neutral` and `empty` (answers not judged).
    A question without a prediction is counted in `missing` and otherwise left out.
    """
    golds, predictions = list(golds), string_keys(predictions)
    facts = answers_by_fact(golds)
    rows, aside, missing = [], {}, 0
    for gold in golds:
        prediction = predictions.get(str(gold.id))
        counts = aside.setdefault(gold.lang, {"neutral": 0, "empty": 0})
        if prediction is None:
            missing += 1
        elif not prediction.strip():
            counts["empty"] += 1
        else:
            parallel = facts[fact_id(gold.id, gold.lang)]
            right = answers_in_language(prediction, gold.lang, parallel)
            counts["neutral"] += right is None
            if right is not None:
                row = {"id": str(gold.id), "lang": gold.lang, "prediction": prediction}
                rows.append(row | {"correct_language": float(right)})
    languages, macro = average(rows, METRICS)
    for lang, counts in aside.items():
        languages.setdefault(lang, {"correct_language": 0.0, "count": 0}).update(counts)
    foreign, judged = len(foreign_ids(golds, predictions)), len(rows)
    return Scores(languages, macro, rows, missing, foreign, len(golds) - judged - missing)


def is_neutral(text: str) -> bool:
    """Whether a text belongs to every language: no letters, or a short Latin code in capitals."""
    text = unicodedata.normalize("NFKC", text).strip()
    return not any(map(str.isalpha, text)) or _CODE_ANSWER.fullmatch(text) is not None


def in_script(text: str, lang: str) -> bool:
    """Whether at least half of the letters belong to a script of the language."""
    accepted = _SCRIPTS[language(lang).script]
    letters = [script_of(x) for x in fold(text) if x.isalpha()]
    return 2 * sum(script in accepted for script in letters) >= len(letters)


@functools.cache
def script_of(character: str) -> str:
    """The script in a character's Unicode name, such as LATIN, CJK, HANGUL; "" if unnamed."""
    return unicodedata.name(character, "").replace("-", " ").partition(" ")[0]

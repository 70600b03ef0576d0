"""Scores of translations: BLEU and chrF as sacreBLEU computes them (Post, 2018)."""

from collections.abc import Sequence
from dataclasses import dataclass

from clmrc_jax.data.languages import LANGUAGES
from clmrc_jax.files import InputError

# sacreBLEU's tokenizer of a target language; the others are cut by mteval's rules, "13a". Those for
# Japanese and Korean need dictionaries of their own: characters need none and suit unspaced text.
_TOKENIZERS = {"zh": "zh"}


@dataclass(frozen=True)
class TranslationScores:
    """bleu, chrf: 0 to 100.   signatures: how each was computed, to publish beside it."""

    bleu: float
    chrf: float
    count: int
    signatures: tuple[str, str]


def score_translations(
    translations: Sequence[str], references: Sequence[str], target: str
) -> TranslationScores:
    """Corpus BLEU and chrF of translations into the language `target`, one reference each.

    Raises InputError for lists of different lengths, and without the package sacrebleu.
    """
    if len(translations) != len(references) or not references:
        raise InputError(
            f"{len(translations)} translations and {len(references)} references; there must be one "
            "reference for each translation, and at least one"
        )
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError as error:
        raise InputError("scores of translations need: pip install sacrebleu") from error
    bleu, chrf = BLEU(tokenize=bleu_tokenizer(target), force=True), CHRF()
    scores = [
        metric.corpus_score(list(translations), [list(references)]) for metric in (bleu, chrf)
    ]
    return TranslationScores(
        bleu=scores[0].score,
        chrf=scores[1].score,
        count=len(references),
        signatures=(str(bleu.get_signature()), str(chrf.get_signature())),
    )


def bleu_tokenizer(target: str) -> str:
    """sacreBLEU's name of the tokenizer for a target language."""
    language = LANGUAGES.get(target)
    if language is None or language.spaced:
        return "13a"
    return _TOKENIZERS.get(target.split("_")[0], "char")

"""Which OPUS-MT model translates between English and a language (CORA's MT+DPR baseline, spec 7.1).

The released code's choice, language by language; the default is `opus-mt-{L}-en` and
`opus-mt-en-{L}`. Norwegian answers come out in Nynorsk there (`>>nno<<`), and Korean answers are not
supported: no such model had been published.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clmrc_jax.files import InputError
from clmrc_jax.translate.translator import Translator

OWNER = "Helsinki-NLP"
# Language -> the name that stands for it in `opus-mt-NAME-en`.
TO_ENGLISH = {
    "pt": "ROMANCE",
    "zh": "zh",
    "zh_cn": "zh",
    "zh_hk": "zh",
    "zh_tw": "zh",
    "he": "afa",
    "no": "gem",
    "km": "mul",
    "ms": "mul",
}
# Language -> the name in `opus-mt-en-NAME`, and the token before the text.
FROM_ENGLISH = {
    "ar": ("ar", ">>ara<<"),
    "he": ("afa", ">>heb<<"),
    "ja": ("jap", ""),
    "km": ("mul", ">>khm_Latn<<"),
    "ms": ("mul", ">>zsm_Latn<<"),
    "no": ("gem", ">>nno<<"),
    "pl": ("sla", ">>pol<<"),
    "pt": ("ROMANCE", ">>pt<<"),
    "th": ("mul", ">>tha<<"),
    "tr": ("trk", ">>tur<<"),
    "vi": ("vi", ">>vie<<"),
    "zh": ("zh", ">>cmn<<"),
    "zh_cn": ("zh", ">>cmn<<"),
    "zh_hk": ("zh", ">>yue_Hant<<"),
    "zh_tw": ("zh", ">>cmn_Hant<<"),
}
UNSUPPORTED_ANSWERS = ("ko",)


@dataclass(frozen=True)
class OpusModel:
    """name: hub id.   prefix: language token before every text, "" for none."""

    name: str
    prefix: str


def opus_model(source: str, target: str) -> OpusModel:
    """The model for a pair of languages, one of which is English.

    Raises InputError for a pair without English, and for Korean answers.
    """
    if source == target or "en" not in (source, target):
        raise InputError(
            f"{source}-{target}: the OPUS-MT table translates from or into English; go through it"
        )
    if target == "en":
        return OpusModel(f"{OWNER}/opus-mt-{TO_ENGLISH.get(source, source)}-en", "")
    if target in UNSUPPORTED_ANSWERS:
        raise InputError(f"en-{target}: there is no OPUS-MT model; use another translator")
    name, prefix = FROM_ENGLISH.get(target, (target, ""))
    return OpusModel(f"{OWNER}/opus-mt-en-{name}", prefix)


class OpusTranslator:
    """Translates any pair of the table; each model is opened when its pair is first asked for.

    open_model(hub id, prefix=...) -> translator; default `MarianTranslator` from the hub.
    """

    def __init__(self, open_model: Callable[..., Translator] | None = None):
        if open_model is None:
            from clmrc_jax.translate.marian_translator import MarianTranslator

            open_model = MarianTranslator
        self._open, self._opened = open_model, {}
        self.name = "opus-mt"

    def prepare(self, texts: Sequence[str], source: str, target: str) -> None:
        """Opens the pair's model. Raises InputError when there is none."""
        model = opus_model(source, target)
        if model not in self._opened:
            self._opened[model] = self._open(model.name, prefix=model.prefix)

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """One translation per text, in order."""
        self.prepare(texts, source, target)
        return self._opened[opus_model(source, target)].translate(texts, source, target)

"""The table of OPUS-MT models of CORA's MT+DPR baseline (spec 7.1)."""

import pytest

from clmrc_jax.data.languages import MKQA_LANGUAGES
from clmrc_jax.files import InputError
from clmrc_jax.translate.opus_models import OpusTranslator, opus_model


@pytest.mark.parametrize(
    "source, target, name, prefix",
    [
        ("fi", "en", "fi-en", ""),
        ("pt", "en", "ROMANCE-en", ""),
        ("zh_tw", "en", "zh-en", ""),
        ("km", "en", "mul-en", ""),
        ("no", "en", "gem-en", ""),
        ("en", "fi", "en-fi", ""),
        ("en", "ja", "en-jap", ""),
        ("en", "pt", "en-ROMANCE", ">>pt<<"),
        ("en", "he", "en-afa", ">>heb<<"),
        ("en", "km", "en-mul", ">>khm_Latn<<"),
        ("en", "zh_hk", "en-zh", ">>yue_Hant<<"),
        ("en", "pl", "en-sla", ">>pol<<"),
    ],
)
def test_models_of_the_released_code(source, target, name, prefix):
    model = opus_model(source, target)
    assert (model.name, model.prefix) == (f"Helsinki-NLP/opus-mt-{name}", prefix)


def test_every_language_of_mkqa_has_models_but_korean_answers():
    for code in MKQA_LANGUAGES:
        if code == "en":
            continue
        assert opus_model(code, "en").prefix == ""
        if code == "ko":
            with pytest.raises(InputError, match="no OPUS-MT model"):
                opus_model("en", code)
        else:
            assert opus_model("en", code).name
    with pytest.raises(InputError, match="from or into English"):
        opus_model("fi", "ja")


def test_each_model_is_opened_once():
    opened = []

    class Shout:
        def __init__(self, name, prefix):
            opened.append((name, prefix))

        def translate(self, texts, source, target):
            return [text.upper() for text in texts]

    translator = OpusTranslator(Shout)
    assert translator.translate(["a"], "en", "tr") == ["A"]
    assert translator.translate(["b"], "en", "tr") == ["B"]
    translator.prepare([], "tr", "en")
    assert opened == [
        ("Helsinki-NLP/opus-mt-en-trk", ">>tur<<"),
        ("Helsinki-NLP/opus-mt-tr-en", ""),
    ]

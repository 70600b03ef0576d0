"""Normal forms and the labelling match."""

import pytest

from clmrc_jax.evaluate.normalize import normalize, normalized_match, xor_normalize


def test_xor_normalize_keeps_articles_and_deletes_counters_everywhere_by_default():
    assert xor_normalize("The  U.S.A.\n(1990年)") == "the usa 1990"
    assert xor_normalize("美国人") == "美国" and xor_normalize("美国人", "") == "美国人"


SAME = [
    ("ru", "Москва", "москва."),
    ("en", "U.S.", "US"),
    ("en", "“Dune”", "dune"),
    ("ja", "デイヴ・エドモンズ", "デイヴ エドモンズ"),
    ("ja", "ＡＢＣ", "abc"),
    ("ja", "1954年", "1954"),
    ("ko", "1990년", "1990"),
    ("de", "Straße", "STRASSE"),
    ("th", "กรุงเทพ มหานคร", "กรุงเทพมหานคร"),
    ("ar", "القاهرة؟", "القاهرة"),
]
DIFFERENT = [
    ("zh_cn", "美国", "美国人"),
    ("ja", "日本人", "日本"),  # a counter follows a number
    ("en", "the Wall", "Wall"),
    ("fi", "", ""),
    ("fi", "...", ""),
    ("fi", "%", "!"),
    ("fi", "1990", "1991"),
]


@pytest.mark.parametrize(("lang", "answer", "prediction"), SAME)
def test_normalized_match_accepts_another_spelling(lang, answer, prediction):
    assert normalized_match(prediction, ["zzz", answer], lang)
    assert normalize(answer, lang) == normalize(normalize(answer, lang), lang)


@pytest.mark.parametrize(("lang", "answer", "prediction"), DIFFERENT)
def test_normalized_match_rejects_another_answer_and_nothing(lang, answer, prediction):
    assert not normalized_match(prediction, [answer], lang)

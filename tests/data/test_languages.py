"""The language table against the lists of the paper and of the data sets."""

import pytest
from babel import Locale

from clmrc_jax.data import languages
from clmrc_jax.data.languages import LANGUAGES, in_category, language

MKQA = "ar da de en es fi fr he hu it ja km ko ms nl no pl pt ru sv th tr vi zh_cn zh_hk zh_tw"


def test_categories_are_those_of_the_paper():
    assert set(in_category("seen")) == set("ar bn fi ja ko ru te en".split())
    assert set(in_category("mdpr_seen")) == set("es sv he th id".split())
    assert set(in_category("mgen_seen")) == set("da de fr it nl pl pt".split())
    assert set(in_category("unseen")) == set("hu vi ms km no tr zh_cn zh_hk zh_tw".split())


def test_sets_of_languages_are_those_of_the_data_sets():
    assert sorted(languages.MKQA_LANGUAGES) == sorted(MKQA.split())
    assert sorted(languages.XOR_LANGUAGES) == sorted("ar bn fi ja ko ru te".split())
    corpus = set(in_category("seen")) | set(in_category("mdpr_seen"))
    assert set(languages.CORPUS_LANGUAGES) == corpus and len(languages.CORPUS_LANGUAGES) == 13


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_locale_is_known_to_cldr_and_of_the_script_named(code):
    entry = language(code)
    likely = Locale.parse(entry.cldr, resolve_likely_subtags=True)
    scripts = {entry.script, {"Hani": "Hans", "Jpan": "Jpan", "Kore": "Kore"}.get(entry.script)}
    assert likely.script is None or likely.script in scripts
    other_names = {"bn": "Bangla", "no": "Norwegian Bokmål", "tl": "Filipino"}
    name = other_names.get(code, entry.name.split(" (")[0])
    assert Locale(likely.language).english_name == name


def test_unspaced_languages_are_those_written_without_spaces():
    unspaced = {code for code, entry in LANGUAGES.items() if not entry.spaced}
    assert unspaced == {"ja", "th", "km", "zh", "zh_cn", "zh_hk", "zh_tw"}


def test_language_accepts_hyphens_and_capitals():
    assert language("zh-CN").code == "zh_cn" and language("zh_cn").wiki == "zh"
    assert language("no").cldr == "nb" and language("no").wiki == "no"


def test_language_unknown_code_lists_the_known():
    with pytest.raises(ValueError, match="unknown language code 'xx'.*zh_tw.*languages.py"):
        language("xx")

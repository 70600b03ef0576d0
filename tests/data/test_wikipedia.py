import builtins
import itertools

import pytest

from clmrc_jax.data.squad_corpus import read_squad
from clmrc_jax.data.wikipedia import (
    Article,
    article_paragraphs,
    article_passages,
    read_extracted,
    segmenter,
    split_article,
)
from clmrc_jax.files import InputError, write_jsonl


def article_of(count, title="T"):
    """An article with exactly `count` whitespace tokens after its title line."""
    return Article("7", title, f"{title}\n\n" + " ".join(f"w{i}" for i in range(count)))


@pytest.mark.parametrize(
    "tokens, legacy, fixed",
    [
        (19, [], []),
        (20, [], [20]),
        (21, [21], [21]),
        (100, [100], [100]),
        (120, [100], [100, 20]),
        (121, [100, 21], [100, 21]),
        (201, [100, 100], [100, 100, 1]),
    ],
)
def test_passage_lengths_by_rule(tokens, legacy, fixed):
    for mode, expected in (("legacy", legacy), ("fixed", fixed)):
        texts = split_article(article_of(tokens), "en", mode=mode)
        assert [len(text.split()) for text in texts] == expected
        if mode == "fixed" and texts:
            assert " ".join(texts) == article_of(tokens).text.split("\n\n")[1]


SECTIONS = """Turku

Turku is a city.
It is old.

Short.

Section::::History.
The castle is from 1280.

Tiny.

A longer paragraph.
Section::::Empty.
Section::::No newline"""


def test_paragraphs_of_sections_legacy_and_fixed_agree_on_clean_text():
    article = Article("1", "Turku", SECTIONS)
    expected = [
        "Turku is a city.\nIt is old.",
        "Short.",
        "The castle is from 1280.",
        "A longer paragraph.",
    ]
    assert article_paragraphs(article) == expected
    legacy = article_paragraphs(article, legacy=True)
    assert [paragraph.strip() for paragraph in legacy] == expected


def test_headings_of_sections_with_text_are_kept_by_option():
    paragraphs = article_paragraphs(Article("1", "Turku", SECTIONS), headings=True)
    assert paragraphs[2:4] == ["History.", "The castle is from 1280."]
    assert "Empty." not in paragraphs


def test_first_paragraph_that_is_not_the_title_survives_only_in_fixed_mode():
    article = Article("1", "Turku", "Turku is a city.\n\nIt is old, very old.")
    assert article_paragraphs(article)[0] == "Turku is a city."
    assert article_paragraphs(article, legacy=True) == ["It is old, very old."]
    one_line_break = Article("1", "Turku", "Turku\nThe city of Turku.")
    assert article_paragraphs(one_line_break) == ["The city of Turku."]
    assert article_paragraphs(one_line_break, legacy=True) == ["The city of Turku."]


def test_ids_are_dense_in_fixed_mode_and_skip_in_legacy():
    articles = [article_of(250), article_of(5), article_of(100, "A_0b")]
    fixed = list(article_passages(articles, "en", numbers=itertools.count(10)))
    assert [passage.id for passage in fixed] == ["en-10", "en-11", "en-12", "en-13"]
    assert (fixed[3].title, fixed[3].article_id, fixed[3].lang) == ("A_0b", "en:7", "en")
    legacy = list(article_passages(articles, "en", mode="legacy", numbers=itertools.count(10)))
    assert [passage.id for passage in legacy] == ["10", "11", "12", "15"]
    assert legacy[3].title == "A"


def xquad_text(shared_data, name, lang):
    paragraphs = [p.text for p, _ in zip(read_squad(shared_data / name, lang), range(12))]
    return Article("1", "T", "T\n\n" + "\n\n".join(paragraphs)), paragraphs


@pytest.mark.parametrize(
    "name, lang",
    [
        ("jaquad/dev/jaquad_dev_0000.json.gz", "ja"),
        ("xquad/xquad.th.json.gz", "th"),
        ("xquad/xquad.zh.json.gz", "zh_cn"),
        ("drcd/DRCD_dev.json.gz", "zh_tw"),
    ],
)
def test_real_text_without_spaces_is_cut_without_loss(shared_data, name, lang):
    article, paragraphs = xquad_text(shared_data, name, lang)
    texts = split_article(article, lang)
    assert len(texts) > 5

    whole = " ".join(" ".join(paragraphs).split())
    assert all(text in whole for text in texts)
    assert "".join(texts).replace(" ", "") == whole.replace(" ", "")


def test_legacy_tail_of_japanese_is_joined_with_spaces():
    sentence = "東京は日本の首都であり、世界で最も人口の多い都市の一つである。"
    article = Article("1", "東京", "東京\n\n" + sentence * 7)
    *full, tail = split_article(article, "ja", mode="legacy")
    assert full and all(" " not in text for text in full)
    assert " " in tail
    assert "".join(full) + tail.replace(" ", "") in sentence * 7
    assert all(" " not in text for text in split_article(article, "ja"))


def test_khmer_keeps_its_text_in_fixed_mode():
    sentence = "ភាសាខ្មែរ គឺជាភាសាផ្លូវការរបស់ប្រទេសកម្ពុជា។ "
    article = Article("1", "ខ្មែរ", "ខ្មែរ\n\n" + sentence * 20)
    fixed, legacy = (split_article(article, "km", mode=mode) for mode in ("fixed", "legacy"))
    assert "".join(fixed).replace(" ", "") == (sentence * 20).replace(" ", "")
    assert fixed[0] in sentence * 20 and legacy[0] not in sentence * 20


def test_missing_segmenter_says_how_to_install_it(monkeypatch):
    real = builtins.__import__

    def without_jieba(name, *args, **kwargs):
        if name == "jieba":
            raise ImportError("No module named 'jieba'")
        return real(name, *args, **kwargs)

    segmenter.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without_jieba)
    with pytest.raises(InputError, match=r'Chinese .*pip install "clmrc_jax\[segment\]"'):
        split_article(article_of(30), "zh_cn")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"mode": "old"}, "mode 'old': it must be one of fixed, legacy"),
        ({"mode": "legacy", "headings": True}, "fixed mode only"),
        ({"mode": "legacy", "lang": "zh_cn"}, "cannot cut Chinese"),
        ({"lang": "xx"}, "unknown language code 'xx'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        list(article_passages([article_of(30)], **{"lang": "en", **options}))


def test_extracted_articles_are_read_and_bad_ones_named(tmp_path):
    row = {"id": "3", "title": "Turku", "text": SECTIONS, "url": "x"}
    write_jsonl(tmp_path / "w.jsonl", [row, {**row, "text": ""}, {**row, "title": None}])
    articles = read_extracted(tmp_path / "w.jsonl")
    assert next(articles) == Article("3", "Turku", SECTIONS)
    with pytest.raises(InputError, match="w.jsonl, line 3: field 'title' is None"):
        next(articles)

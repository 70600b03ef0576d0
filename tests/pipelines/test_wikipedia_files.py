"""Passages from extracted articles, in parts, and language links from public sources."""

import gzip
import json

import pytest

from clmrc_jax.data.language_links import LanguageLinks, build_language_links, read_link_rows
from clmrc_jax.data.passages import read_passages
from clmrc_jax.files import InputError
from clmrc_jax.pipelines import wikipedia_files
from clmrc_jax.pipelines.wikipedia_files import convert_links, cut_articles


@pytest.fixture
def extracted(tmp_path):
    """A folder as WikiExtractor leaves it: AA/wiki_00, AA/wiki_01.gz, AB/wiki_00."""
    for name, first in (("AA/wiki_00", 0), ("AA/wiki_01.gz", 10), ("AB/wiki_00", 20)):
        path = tmp_path / "extracted" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        articles = [
            {"id": str(n), "title": f"T{n}", "text": f"T{n}\n\n" + f"w{n} " * (60 * (1 + n % 10))}
            for n in range(first, first + 4)
        ]
        text = "".join(json.dumps(row) + "\n" for row in articles).encode()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return tmp_path / "extracted"


@pytest.mark.parametrize("mode", ["fixed", "legacy"])
def test_passages_of_all_files_are_numbered_through(extracted, tmp_path, mode):
    output = tmp_path / "passages.jsonl"
    summary = cut_articles([str(extracted)], "en", str(output), mode=mode)
    passages = list(read_passages(output))
    assert summary["passages"] == len(passages) and summary["files"] == 3
    numbers = [int(passage.id.removeprefix("en-")) for passage in passages]
    assert numbers == sorted(set(numbers))
    dense = numbers == list(range(len(numbers)))
    assert dense == (mode == "fixed")
    assert [p.title for p in passages if p.article_id == "en:22"] == ["T22", "T22"]
    assert not (tmp_path / "passages.jsonl.parts").exists()


@pytest.mark.parametrize("done", [0, 1, 2])
def test_killed_it_goes_on_with_the_files_that_are_left(extracted, tmp_path, monkeypatch, done):
    cut_articles([str(extracted)], "en", str(tmp_path / "peace.jsonl"), mode="legacy")
    real, read = wikipedia_files.read_extracted, []

    def killed(path):
        read.append(path)
        if len(read) > done:
            raise KeyboardInterrupt
        return real(path)

    monkeypatch.setattr(wikipedia_files, "read_extracted", killed)
    output = tmp_path / "killed.jsonl"
    with pytest.raises(KeyboardInterrupt):
        cut_articles([str(extracted)], "en", str(output), mode="legacy")
    assert not output.exists()
    with pytest.raises(InputError, match="parts were made from other files, or with other flags"):
        cut_articles([str(extracted)], "en", str(output), mode="fixed")
    monkeypatch.setattr(
        wikipedia_files, "read_extracted", lambda path: read.append(path) or real(path)
    )
    read.clear()
    cut_articles([str(extracted)], "en", str(output), mode="legacy")
    assert len(read) == 3 - done
    assert output.read_bytes() == (tmp_path / "peace.jsonl").read_bytes()


@pytest.mark.parametrize(
    "articles, flags, message",
    [
        ("none/*", {}, "none/\\*: no such file"),
        ("", {"lang": "xx"}, "--lang: .*'xx'"),
        ("", {"output": "p.tsv"}, "p.tsv: passages are written to a .jsonl file"),
        ("", {"mode": "legacy", "headings": True}, "headings are kept in fixed mode only"),
    ],
)
def test_bad_input_is_refused_before_any_work(extracted, tmp_path, articles, flags, message):
    given = {"lang": "en", "output": str(tmp_path / "p.jsonl")} | flags
    with pytest.raises(InputError, match=message):
        cut_articles([str(extracted / articles)], **given)
    assert not list(tmp_path.glob("p.*"))


def test_articles_too_short_for_a_passage_are_named(tmp_path):
    (tmp_path / "wiki").write_text('{"id": "1", "title": "T", "text": "T\\n\\nshort"}\n')
    with pytest.raises(InputError, match="no article gave a passage"):
        cut_articles([str(tmp_path / "wiki")], "en", str(tmp_path / "p.jsonl"))


def links(path, tmp_path):
    """The file that a run builds of converted links."""
    build_language_links(tmp_path / "links.sqlite", read_link_rows(path))
    return LanguageLinks(tmp_path / "links.sqlite")


def test_links_of_a_wikidata_dump_keep_the_languages_wanted(tmp_path):
    titles = {"enwiki": "Rome", "zhwiki": "罗马", "dewiki": "Rom"}
    alone = {"enwiki": "Alone", "dewiki": "Allein"}
    rows = [
        {"id": f"Q{n}", "sitelinks": {site: {"title": title} for site, title in sites.items()}}
        for n, sites in enumerate((titles, alone))
    ]
    dump = tmp_path / "dump.json.gz"
    text = "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"
    dump.write_bytes(gzip.compress(text.encode()))
    output = tmp_path / "links.jsonl"
    assert convert_links(str(dump), str(output), ("en", "zh_cn"))["entities"] == 1
    found = links(output, tmp_path)
    assert found.translate("Rome", "en", "zh_cn") == "罗马"
    assert found.translate("Rome", "en", "de") is None and found.entity("en", "Alone") is None


def test_links_of_real_public_sources(shared_data, tmp_path):
    sources = {
        "langlinks_wikidata/wikibase-dump-filter_entities.json.gz": ("en", "ja"),
        "langlinks_dbp15k/dbp15k_ja_en.tar.gz": ("ja", "en"),
        "langlinks_en_ja/dbpedia_titles_en-ja-katakana.csv.gz": ("en", "ja"),
    }
    known = [
        ("Scotland", "スコットランド"),
        ("Allianz Riviera", "アリアンツ・リヴィエラ"),
        ("Milch", "ミルヒ"),
    ]
    for (name, langs), (english, japanese) in zip(sources.items(), known):
        output = tmp_path / "links.jsonl"
        convert_links(str(shared_data / name), str(output), langs)
        assert links(output, tmp_path).translate(english, "en", "ja") == japanese


@pytest.mark.parametrize(
    "name, langs, message",
    [
        ("x.bin", (), "x.bin: unknown kind of links"),
        ("x.tsv", ("en",), "--langs=en: .*x.tsv has titles in two languages; name both"),
        ("x.tsv", ("en", "ja"), "x.tsv: no such file"),
        ("x.json", ("en", "ja"), "no entity has titles in two of the languages"),
        ("x.tar.gz", ("ja", "en"), "x.tar.gz: not a tar archive"),
    ],
)
def test_links_bad_input_leaves_no_file(tmp_path, name, langs, message):
    (tmp_path / "x.json").write_text('{"id": "Q1", "sitelinks": {"enwiki": {"title": "A"}}}\n')
    (tmp_path / "x.tar.gz").write_text("no archive")
    with pytest.raises(InputError, match=message):
        convert_links(str(tmp_path / name), str(tmp_path / "links.jsonl"), langs)
    assert not list(tmp_path.glob("links.jsonl*"))

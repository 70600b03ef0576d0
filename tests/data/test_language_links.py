import gzip
import io
import json
import tarfile

import pytest

from clmrc_jax.data.language_links import (
    LanguageLinks,
    build_language_links,
    read_dbp15k,
    read_link_rows,
    read_title_pairs,
    read_wikidata,
    without_disambiguation,
)
from clmrc_jax.files import InputError, write_jsonl

ROWS = [
    {"id": "Q1", "titles": {"en": "Turku", "sv": "Åbo", "zh": "图尔库"}},
    {"id": "Q2", "titles": {"en": "Mercury_(planet)", "zh_cn": "水星", "zh": "水星_(行星)"}},
    {"id": "Q1", "titles": {"fi": "Turku", "sv": "Turku"}},
]


@pytest.fixture
def links(tmp_path):
    build_language_links(tmp_path / "links.sqlite", ROWS)
    return LanguageLinks(tmp_path / "links.sqlite")


def test_links_translate_titles(links):
    assert links.translate("Turku", "en", "sv") == "Åbo"
    assert links.translate("A\u030abo", "sv", "fi") == "Turku"  # decomposed Å
    assert links.translate("Mercury_(planet)", "en", "zh_cn") == "水星"
    assert links.translate("Turku", "en", "zh_cn") == "图尔库"  # falls back to zh.wikipedia
    assert links.translate("Turku", "en", "ko") is None
    assert links.translate("Nowhere", "en", "sv") is None


def test_links_merge_rows_of_one_entity_first_title_wins(links):
    assert links.entity("fi", "Turku") == "Q1"
    assert links.titles("Q1") == {"en": "Turku", "sv": "Åbo", "zh": "图尔库", "fi": "Turku"}
    assert links.titles("Q9") == {}


def test_title_is_looked_up_as_it_is_and_then_with_a_capital_first_letter(tmp_path):
    rows = [{"id": key, "titles": {"en": title}} for key, title in (("Q1", "Latin"), ("Q2", "PH"))]
    rows.append({"id": "Q3", "titles": {"en": "pH", "zh": "Äpfel"}})
    build_language_links(tmp_path / "links", rows)
    links = LanguageLinks(tmp_path / "links")
    found = [links.entity("en", title) for title in ("Latin", "latin", "pH", "PH", "lATIN", "")]
    assert found == ["Q1", "Q1", "Q3", "Q2", None, None]
    assert links.entity("zh_cn", "äpfel") == "Q3", "also by Wikipedia's code"


def test_title_of_two_entities_goes_to_the_first_and_is_counted(tmp_path, caplog):
    rows = [{"id": key, "titles": {"en": "Mercury", "fi": key}} for key in ("Q2", "Q1")]
    build_language_links(tmp_path / "links", rows)
    assert LanguageLinks(tmp_path / "links").entity("en", "Mercury") == "Q2"
    assert "1 titles are claimed by several entities" in caplog.text


@pytest.mark.parametrize(
    "rows, message",
    [
        ([{"id": "Q1", "titles": ["a"]}], "row 1: field 'titles' must be an object"),
        ([ROWS[0], {"titles": {}}], "row 2: field 'id' is missing"),
        ([{"id": "Q1", "titles": {"en": ""}}], "row 1: the 'en' title is ''"),
    ],
)
def test_bad_rows_leave_no_file(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        build_language_links(tmp_path / "links", rows)
    assert not list(tmp_path.iterdir())


def test_missing_or_foreign_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file of language links"):
        LanguageLinks(tmp_path / "links")
    (tmp_path / "links").write_text("{}" * 2000)
    with pytest.raises(InputError, match="not a readable file of language links"):
        LanguageLinks(tmp_path / "links")


def test_corpus_without_links_has_a_file_that_links_nothing(tmp_path):
    assert build_language_links(tmp_path / "links", ()) == 0
    assert LanguageLinks(tmp_path / "links").translate("Turku", "en", "sv") is None
    (tmp_path / "l.jsonl").write_text("\n")
    with pytest.raises(InputError, match="l.jsonl: no language link in the file"):
        list(read_link_rows(tmp_path / "l.jsonl"))


def test_link_rows_jsonl_names_file_and_line(tmp_path):
    write_jsonl(tmp_path / "l.jsonl", [ROWS[0], {"id": "Q3"}])
    rows = read_link_rows(tmp_path / "l.jsonl")
    assert next(rows) == ROWS[0]
    with pytest.raises(InputError, match="l.jsonl, line 2: needs the fields"):
        next(rows)


@pytest.mark.parametrize(
    "title, answer",
    [
        ("Mercury (planet)", "Mercury"),
        ("水星（惑星）", "水星"),
        ("(I Can't Get No) Satisfaction", "(I Can't Get No) Satisfaction"),
        ("(500)", "(500)"),
    ],
)
def test_without_disambiguation_keeps_the_name(title, answer):
    assert without_disambiguation(title) == answer


def test_wikidata_keeps_wikipedias_only(tmp_path):
    sites = {"enwiki": "Earth", "enwikivoyage": "E", "commonswiki": "C", "zh_min_nanwiki": "Tē"}
    item = {"id": "Q2", "sitelinks": {site: {"title": title} for site, title in sites.items()}}
    lines = ["[", json.dumps(item) + ",", json.dumps({"id": "P1", "sitelinks": []}), "]"]
    (tmp_path / "w.json.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    expected = {"id": "Q2", "titles": {"en": "Earth", "zh-min-nan": "Tē"}}
    assert list(read_wikidata(tmp_path / "w.json.gz")) == [expected]
    (tmp_path / "bad.json").write_text('[\n{"id": 3},\n{"sitelinks": {"enwiki": 4}}\n]')
    with pytest.raises(InputError, match="bad.json, line 3: not a Wikidata entity"):
        list(read_wikidata(tmp_path / "bad.json"))


def test_title_pairs_bad_row_is_named(tmp_path):
    (tmp_path / "t.tsv").write_text('"A\tB\nonly one\n')
    pairs = read_title_pairs(tmp_path / "t.tsv", "en", "de")
    assert next(pairs) == {"id": 'en:"A', "titles": {"en": '"A', "de": "B"}}
    with pytest.raises(InputError, match="t.tsv, row 2: two titles are needed"):
        next(pairs)


def archive(path, members):
    with tarfile.open(path, "w:gz") as file:
        for name, text in members.items():
            info = tarfile.TarInfo(f"ja_en/{name}")
            info.size = len(text.encode())
            file.addfile(info, io.BytesIO(text.encode()))


def test_dbp15k_bad_archive_is_refused(tmp_path):
    archive(tmp_path / "a.tar.gz", {"ent_ids_1": "0\tu\n"})
    with pytest.raises(InputError, match="a.tar.gz: not a DBP15K archive, ent_ids_2, ref_ent_ids"):
        list(read_dbp15k(tmp_path / "a.tar.gz", "ja"))
    archive(
        tmp_path / "b.tar.gz", {"ent_ids_1": "0\tu\n", "ent_ids_2": "1\tv\n", "ref_ent_ids": "0\t2"}
    )
    with pytest.raises(InputError, match="ref_ent_ids, line 1: unknown entity number"):
        list(read_dbp15k(tmp_path / "b.tar.gz", "ja"))


def test_real_dbp15k_archives_join_through_english(shared_data, tmp_path):
    def rows():
        for lang in ("ja", "zh"):
            path = shared_data / "langlinks_dbp15k" / f"dbp15k_{lang}_en.tar.gz"
            yield from read_dbp15k(path, lang)

    assert build_language_links(tmp_path / "links", rows()) == 2 * 2 * 15_000
    links = LanguageLinks(tmp_path / "links")
    assert links.translate("阿卜杜拉·居尔", "zh", "en") == "Abdullah Gül"
    shared = links.titles("en:Tokyo Metro")
    assert set(shared) <= {"en", "ja", "zh"}


def test_real_title_lists_and_wikidata(shared_data, tmp_path):
    german = shared_data / "langlinks_en_de" / "wiki_titles_en-de.tsv.gz"
    build_language_links(tmp_path / "de", read_title_pairs(german, "en", "de"))
    assert LanguageLinks(tmp_path / "de").translate("Plejaden", "de", "en") == "Pleiades"
    items = shared_data / "langlinks_wikidata" / "wikibase-dump-filter_entities.json.gz"
    build_language_links(tmp_path / "items", read_wikidata(items))
    links = LanguageLinks(tmp_path / "items")
    assert links.entity("fr", "Écosse") == "Q22"
    assert links.translate("Écosse", "fr", "zh_cn") == "蘇格蘭"
    japanese = shared_data / "langlinks_en_ja" / "dbpedia_titles_en-ja-katakana.csv.gz"
    assert sum(1 for _ in read_title_pairs(japanese, "en", "ja")) == 107_261


def test_links_in_a_bucket_are_built_and_read(in_bucket):
    rows = [{"id": "Q1", "titles": {"en": "Turku", "sv": "Åbo"}}]
    assert build_language_links(in_bucket / "links", rows) == 2
    assert LanguageLinks(in_bucket / "links").translate("Turku", "en", "sv") == "Åbo"

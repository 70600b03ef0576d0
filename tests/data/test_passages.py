import gzip
import json
import pickle
import random
import subprocess
import sys
import threading

import numpy as np
import pytest
from array_record.python import array_record_module

from clmrc_jax.data.passages import (
    Passage,
    PassageStore,
    read_passages,
    write_passage_store,
    write_passages_tsv,
)
from clmrc_jax.files import InputError, write_jsonl

ROW = {"id": "1", "lang": "en", "title": "Turku", "text": "A city."}


def corpus(count):
    """`count` passages, three per article, articles alternating between two languages."""
    for number in range(count):
        article = number // 3
        lang = ("fi", "ja")[article % 2]
        yield Passage(f"p{number}", lang, f"{lang}:t{article}", f"t{article}", f"text {number} 東")


def read_rows(tmp_path, *rows, lang=None):
    write_jsonl(tmp_path / "p.jsonl", rows)
    return list(read_passages(tmp_path / "p.jsonl", lang))


def test_store_rows_come_back_as_written(tmp_path):
    written = list(corpus(1003))
    assert write_passage_store(tmp_path / "store", iter(written)) == 1003
    store = PassageStore(tmp_path / "store")
    assert len(store) == 1003
    assert list(store) == written
    assert store[1002] == written[1002]
    rows = [random.Random(0).randrange(1003) for _ in range(300)] + [5, 5]
    assert store.get_many(rows) == [written[row] for row in rows]
    assert store.get_many(np.arange(3, dtype=np.int32)) == written[:3]
    assert store.get_many([]) == []


def test_store_finds_ids_articles_and_languages(tmp_path):
    write_passage_store(tmp_path, corpus(1002))
    store = PassageStore(tmp_path)  # a folder: the store has the contract's name inside it
    assert (tmp_path / "passages.array_record").is_file()
    ids = [f"p{number}" for number in range(1001, -1, -1)]
    assert store.rows_of_ids(ids) == list(range(1001, -1, -1))
    assert store.article_rows("ja", "t3") == range(9, 12)
    assert store.article_rows("fi", "t3") == []
    assert store.languages([0, 3, 8]) == ["fi", "ja", "fi"]
    assert store.language_counts() == {"fi": 501, "ja": 501}
    assert store.language_rows("ja")[:4].tolist() == [3, 4, 5, 9]
    assert store.language_rows("ko").tolist() == []


def test_store_article_in_two_places_gives_all_its_rows(tmp_path):
    titles = ["a", "a", "b", "a"]
    passages = [Passage(str(i), "en", "x", title, "text") for i, title in enumerate(titles)]
    write_passage_store(tmp_path, passages)
    assert PassageStore(tmp_path).article_rows("en", "a") == [0, 1, 3]


def test_store_serves_threads_and_other_processes(tmp_path):
    written = list(corpus(600))
    write_passage_store(tmp_path, written)
    store = pickle.loads(pickle.dumps(PassageStore(tmp_path)))
    wrong = []

    def read(seed):
        for _ in range(30):
            rows = random.Random(seed).sample(range(600), 20)
            if store.get_many(rows) != [written[row] for row in rows]:
                wrong.append(seed)
            if store.rows_of_ids([f"p{row}" for row in rows]) != rows:
                wrong.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("row", [-1, 6])
def test_store_row_outside_is_an_index_error(tmp_path, row):
    write_passage_store(tmp_path, corpus(6))
    with pytest.raises(IndexError, match="of 6"):
        PassageStore(tmp_path)[row]


def test_store_unknown_id_is_named(tmp_path):
    write_passage_store(tmp_path, corpus(6))
    with pytest.raises(InputError, match="2 passage id.s. are not in the store, .* 'q1'"):
        PassageStore(tmp_path).rows_of_ids(["p1", "q1", "q2"])


def failing():
    yield from corpus(7)
    raise InputError("line 9 is broken")


@pytest.mark.parametrize(
    "passages, message",
    [
        (lambda: iter(()), "no passage to store"),
        (
            lambda: [Passage("a", "en", "x", str(i), "text") for i in range(2)],
            "0 and 1 .* the id 'a'",
        ),
        (lambda: [Passage("a", "xx", "x", "t", "text")], "unknown language code 'xx'"),
        (failing, "line 9 is broken"),
    ],
)
@pytest.mark.parametrize("before", [False, True])
def test_failed_write_leaves_what_was_there(tmp_path, passages, message, before):
    if before:
        write_passage_store(tmp_path / "store", corpus(4))
    files = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=message):
        write_passage_store(tmp_path / "store", passages())
    assert sorted(tmp_path.iterdir()) == files
    if before:
        assert len(PassageStore(tmp_path / "store")) == 4


def test_full_disk_keeps_the_old_store(tmp_path):
    script = """
import resource, signal, sys
from clmrc_jax.data.passages import Passage, PassageStore, write_passage_store
from clmrc_jax.files import InputError
path = sys.argv[1]
write_passage_store(path, [Passage("1", "en", "a", "t", "old")])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
try:
    write_passage_store(path, (Passage(str(i), "en", "a", "t", str(i**99)) for i in range(2000)))
except InputError as error:
    print("File too large" in str(error) and "free space" in str(error), PassageStore(path)[0].text)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "store")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout == "True old\n", result.stderr
    assert len(list(tmp_path.iterdir())) == 3


def test_store_with_foreign_records_is_refused(tmp_path):
    write_passage_store(tmp_path / "store", corpus(6))
    write_passage_store(tmp_path / "other", corpus(600))
    (tmp_path / "other").rename(tmp_path / "store")
    with pytest.raises(InputError, match="not the file its side files describe"):
        PassageStore(tmp_path / "store")
    with pytest.raises(InputError, match="no such passage store"):
        PassageStore(tmp_path / "nowhere")


def test_read_passages_jsonl_fills_article_and_language(tmp_path):
    first, second = read_rows(
        tmp_path, ROW, {"id": 2, "title": "", "text": "x", "article_id": 77}, lang="zh-CN"
    )
    assert first == Passage("1", "en", "en:Turku", "Turku", "A city.")
    assert second == Passage("2", "zh_cn", "77", "", "x")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"lang": None}, "passage without language; add the field 'lang'"),
        ({"lang": "qq"}, "unknown language code 'qq'"),
        ({"lang": 3}, "field 'lang' is 3"),
        ({"text": ""}, "field 'text' is empty"),
        ({"text": ["a"]}, "field 'text' is .* a string is needed"),
        ({"title": None}, "field 'title' is None"),
        ({"id": None}, "field 'id' is None"),
        ({"id": "1"}, "field 'id' '1' is already used in line 1"),
    ],
)
def test_read_passages_bad_field_names_file_and_line(tmp_path, change, message):
    with pytest.raises(InputError, match=f"p.jsonl, line 2: {message}"):
        read_rows(tmp_path, ROW, {**ROW, "id": "2", **change})


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("p.jsonl", "", "no passage in the file"),
        ("p.jsonl", '{"id": 1', "line 1: not valid JSON"),
        ("p.tsv", "id\ttext\ttitle\n", "no passage in the file"),
        ("p.tsv", "1\ttext\n", "line 1: 2 columns where 3 are needed"),
        ("p.tsv", 'id\ttext\ttitle\n1\t"a"b\tt\n', "line 2: not a readable TSV row"),
        ("p.tsv", "id\ttext\n", "the header lacks the column.s. title"),
        ("p.tsv", "1\ta\tt\n1\tb\tt\n", "line 2: field 'id' '1' is already used in line 1"),
        ("p.csv", "1,a,t\n", "unknown kind of passage file"),
    ],
)
def test_read_passages_bad_file_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=f"{name}.*{message}"):
        list(read_passages(tmp_path / name, "en"))


def test_read_passages_tsv_without_language_says_what_to_do(tmp_path):
    (tmp_path / "p.tsv").write_text("1\ttext\ttitle\n")
    with pytest.raises(InputError, match="p.tsv, line 1: passage without language"):
        list(read_passages(tmp_path / "p.tsv"))


@pytest.mark.parametrize("language_column", [True, False])
def test_tsv_quotes_tabs_and_newlines_round_trip(tmp_path, language_column):
    passages = [
        Passage("1", "ja", 'ja:a "quoted" title', 'a "quoted" title', 'tab\there, "quote", \r\n行'),
        Passage("2", "ja", "ja:行\u2028行", "行\u2028行", '"all quoted"'),
    ]
    path = tmp_path / "p.tsv.gz"
    write_passages_tsv(tmp_path / "p.tsv", passages, language_column=language_column)
    path.write_bytes(gzip.compress((tmp_path / "p.tsv").read_bytes()))
    assert list(read_passages(path, None if language_column else "ja")) == passages


def test_tsv_line_of_an_error_counts_newlines_inside_fields(tmp_path):
    (tmp_path / "p.tsv").write_text('1\t"two\nlines"\tt\n2\t\tt\n')
    with pytest.raises(InputError, match="p.tsv, line 3: field 'text' is empty"):
        list(read_passages(tmp_path / "p.tsv", "en"))


def test_records_are_plain_json(tmp_path):
    write_passage_store(tmp_path / "store", corpus(1))
    record = array_record_module.ArrayRecordReader(str(tmp_path / "store")).read([0])[0]
    assert json.loads(record) == {
        "id": "p0",
        "lang": "fi",
        "article_id": "fi:t0",
        "title": "t0",
        "text": "text 0 東",
    }


def test_store_in_a_bucket_is_built_read_and_replaced(in_bucket, tmp_path):
    for count in (30, 40):
        assert write_passage_store(in_bucket / "corpus", corpus(count)) == count
        store = PassageStore(in_bucket / "corpus")
        assert list(store) == list(corpus(count))
    assert store.article_rows("ja", "t3") == range(9, 12) and store.rows_of_ids(["p39"]) == [39]
    assert pickle.loads(pickle.dumps(store))[7] == store[7]
    names = [path.name for path in (in_bucket / "corpus").iterdir()]
    assert len(names) == 3 and "passages.array_record" in names
    assert not list((tmp_path / "cache").glob("build-*[!k]")), "nothing unfinished stays"
    with pytest.raises(InputError, match="gs://bucket/some/passages.array_record: no such"):
        PassageStore(in_bucket)


def test_store_in_a_bucket_that_failed_leaves_no_store(in_bucket):
    with pytest.raises(InputError, match="share the id 'p0'"):
        write_passage_store(in_bucket, [*corpus(3), *corpus(1)])
    with pytest.raises(InputError, match="no such passage store"):
        PassageStore(in_bucket)

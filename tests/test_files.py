"""Atomic writes and readers: what a user sees when a disk is full or a file is damaged."""

import gzip
import json
import os
import subprocess
import sys
import textwrap

import pytest

from clmrc_jax.files import (
    InputError,
    JsonlRows,
    atomic_write,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
)

ROWS = [{"id": "1", "text": "東京\u2028は、\u0085首都"}, {"id": "2", "text": "é \x1c 'x'"}]


def test_jsonl_round_trip_keeps_every_character_and_counts_lines(tmp_path):
    path = tmp_path / "new" / "rows.jsonl"
    assert write_jsonl(path, iter(ROWS)) == 2
    assert list(read_jsonl(path)) == [(1, ROWS[0]), (2, ROWS[1])]
    assert "東京" in path.read_text("utf-8"), "readable, not escaped"
    assert [path.name] == os.listdir(path.parent), "no temporary file stays"


def test_jsonl_blank_lines_are_skipped_and_line_numbers_stay(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n  \n{"a": 2}', "utf-8")
    assert list(read_jsonl(path)) == [(1, {"a": 1}), (4, {"a": 2})]


def test_gzip_is_read_like_plain_text(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)))
    assert [row for _, row in read_jsonl(path)] == ROWS


def test_json_round_trip(tmp_path):
    write_json(tmp_path / "a.json", {"ü": [1, None, 0.1]})
    assert read_json(tmp_path / "a.json") == {"ü": [1, None, 0.1]}


PACKED = gzip.compress(b'{"a": "' + os.urandom(3000).hex().encode() + b'"}\n')


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("x.jsonl", b'{"a": 1}\n{"a": \n', "line 2: not valid JSON"),
        ("x.jsonl", b'{"a": 1}\n[1, 2]\n', "line 2: expected a JSON object, got .1, 2."),
        ("x.jsonl", b'{"a": "caf\xe9"}\n', "not UTF-8 text"),
        ("x.jsonl.gz", PACKED[: len(PACKED) // 2], "not a whole gzip file"),
        ("x.jsonl.gz", b'{"a": 1}\n', "not a whole gzip file"),
        ("x.jsonl.gz", PACKED[:40] + b"\0\0\0\0" + PACKED[44:], "not a whole gzip file"),
    ],
    ids=["cut line", "no object", "latin-1", "cut gzip", "plain text named gz", "damaged gzip"],
)
def test_bad_file_error_names_it(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        list(read_jsonl(path))
    assert str(path) in str(error.value)
    with pytest.raises(InputError, match=name):
        read_json(path)


@pytest.mark.parametrize("read", [read_json, lambda path: list(read_jsonl(path)), JsonlRows])
def test_missing_file_error_names_it(tmp_path, read):
    with pytest.raises(InputError, match=r"nothing\.json: no such file"):
        read(tmp_path / "nothing.json")


@pytest.mark.parametrize("read", [read_json, lambda path: list(read_jsonl(path))])
def test_folder_instead_of_file_is_an_input_error(tmp_path, read):
    with pytest.raises(InputError, match="a folder, where a file is needed"):
        read(tmp_path)


def test_atomic_write_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        file.write("new")
        assert path.read_text() == "old", "readers see the old file until the end"
        raise ZeroDivisionError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_atomic_write_bytes_replaces_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old and longer")
    with atomic_write(path, "wb") as file:
        file.write(b"\0new")
    assert path.read_bytes() == b"\0new"


def test_full_disk_leaves_nothing_and_says_what_to_do(tmp_path):
    script = textwrap.dedent("""
        import resource, sys
        from clmrc_jax.files import InputError, write_jsonl
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            write_jsonl(sys.argv[1], ({"text": "x" * 100} for _ in range(10_000)))
        except InputError as error:
            print(error)
    """)
    path = tmp_path / "rows.jsonl"
    path.write_text("old\n")
    command = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{path}: cannot write" in done.stdout and "free space" in done.stdout
    assert path.read_text() == "old\n" and os.listdir(tmp_path) == ["rows.jsonl"]


def test_jsonl_rows_random_access(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, ROWS)
    rows = JsonlRows(path)
    assert len(rows) == 2 and list(rows) == ROWS and rows[1] == ROWS[1]
    with pytest.raises(IndexError):
        rows[2]
    assert len(JsonlRows(write_empty(tmp_path))) == 0


def write_empty(folder):
    write_jsonl(folder / "empty.jsonl", [])
    return folder / "empty.jsonl"

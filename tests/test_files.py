"""Atomic writes and readers: what a user sees when a disk is full or a file is damaged."""

import concurrent.futures
import errno
import gzip
import json
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest
from etils import epath

from bucket import Bucket
from clmrc_jax.files import (
    InputError,
    JsonlRows,
    atomic_write,
    local_build,
    local_copy,
    local_folder,
    read_json,
    read_jsonl,
    remove_leftovers,
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


def cached(tmp_path):
    """Names in the folder of local copies, without digests and lock files."""
    names = sorted(path.name for path in (tmp_path / "cache").iterdir())
    return [name.partition("-")[2] for name in names if not name.endswith(".lock")]


def test_files_in_a_bucket_are_written_and_read_whole(in_bucket):
    write_jsonl(in_bucket / "a" / "rows.jsonl", ROWS)
    write_json(in_bucket / "a" / "b.json", {"ü": 1})
    with pytest.raises(ZeroDivisionError), atomic_write(in_bucket / "a" / "b.json") as file:
        file.write("half")
        raise ZeroDivisionError
    assert [row for _, row in read_jsonl(in_bucket / "a" / "rows.jsonl")] == ROWS
    assert read_json(in_bucket / "a" / "b.json") == {"ü": 1}
    assert sorted(path.name for path in (in_bucket / "a").iterdir()) == ["b.json", "rows.jsonl"]


def test_jsonl_rows_of_a_bucket_are_read_from_a_copy_that_follows_it(in_bucket, tmp_path):
    path = in_bucket / "rows.jsonl"
    write_jsonl(path, ROWS)
    for _ in range(2):
        assert JsonlRows(path)[1] == ROWS[1]
    assert cached(tmp_path) == ["rows.jsonl"]
    write_jsonl(path, ROWS[::-1])  # as long as before, within the same second
    assert list(JsonlRows(path)) == ROWS[::-1]


def test_local_copy_of_a_local_path_is_the_path(tmp_path):
    assert local_copy(tmp_path / "x") == str(tmp_path / "x")
    with local_folder(tmp_path) as folder:
        assert folder == str(tmp_path)


def test_local_copy_of_nothing_or_of_a_folder_is_an_input_error(in_bucket):
    with pytest.raises(InputError, match="gs://bucket/some/x: no such file"):
        local_copy(in_bucket / "x")
    write_json(in_bucket / "x" / "y.json", 1)
    with pytest.raises(InputError, match="gs://bucket/some/x: a folder, where a file is needed"):
        local_copy(in_bucket / "x")


def test_local_copy_asked_for_by_many_is_downloaded_once(in_bucket, tmp_path, monkeypatch):
    write_jsonl(in_bucket / "rows.jsonl", ROWS)
    downloads, get_file = [], Bucket.get_file
    monkeypatch.setattr(
        Bucket, "get_file", lambda self, *args: (downloads.append(args), get_file(self, *args))
    )
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        copies = set(pool.map(local_copy, [in_bucket / "rows.jsonl"] * 8))
    assert len(copies) == len(downloads) == 1
    assert cached(tmp_path) == ["rows.jsonl"]


def test_local_copy_cut_off_by_a_kill_is_made_again(in_bucket, monkeypatch):
    write_jsonl(in_bucket / "rows.jsonl", ROWS)

    def killed(self, path, local):
        pathlib.Path(local).write_text("{")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Bucket, "get_file", killed)
        local_copy(in_bucket / "rows.jsonl")
    assert list(JsonlRows(in_bucket / "rows.jsonl")) == ROWS


@pytest.fixture(params=["disk", "bucket"])
def place(request, tmp_path):
    """A folder to build in: of the disk, or of a bucket."""
    if request.param == "disk":
        return epath.Path(tmp_path / "new")
    return request.getfixturevalue("in_bucket")


def test_local_build_makes_a_file_or_leaves_the_old_one(place):
    for content in ("old", "new"):
        with local_build(place / "file") as local:
            assert not local.exists()
            local.write_text(content)
    with pytest.raises(ZeroDivisionError), local_build(place / "file") as local:
        local.write_text("bad")
        raise ZeroDivisionError
    assert (place / "file").read_text() == "new"
    assert [path.name for path in place.iterdir()] == ["file"]


def fill(folder, **content):
    with local_build(folder, last="manifest") as local:
        local.mkdir()
        for name, text in content.items():
            (local / name).write_text(text)


def test_local_build_replaces_a_folder_and_all_that_was_in_it(place):
    fill(place / "folder", manifest="1", old="x")
    fill(place / "folder", manifest="2", new="y")
    assert sorted(path.name for path in (place / "folder").iterdir()) == ["manifest", "new"]
    with local_folder(place / "folder") as local:
        assert (epath.Path(local) / "manifest").read_text() == "2"
    assert [path.name for path in place.iterdir()] == ["folder"]


def test_local_build_in_a_bucket_never_shows_a_manifest_beside_a_part(in_bucket, monkeypatch):
    fill(in_bucket, manifest="1", a="x", z="x")
    uploaded, put_file = [], Bucket.put_file

    def put(self, local, path):
        if path.endswith("/z"):
            raise OSError("connection lost")
        uploaded.append(path)
        put_file(self, local, path)

    monkeypatch.setattr(Bucket, "put_file", put)
    with pytest.raises(OSError, match="connection lost"):
        fill(in_bucket, manifest="2", a="y", z="y")
    assert uploaded == ["gs://bucket/some/a"] and not (in_bucket / "manifest").exists()


def test_local_build_of_a_file_for_a_bucket_serves_as_its_copy(in_bucket, tmp_path, monkeypatch):
    with local_build(in_bucket / "file") as local:
        local.write_text("large")
    monkeypatch.setattr(Bucket, "get_file", None)
    assert pathlib.Path(local_copy(in_bucket / "file")).read_text() == "large"
    assert cached(tmp_path) == ["file"]


def test_local_folder_of_a_bucket_is_gone_afterwards(in_bucket, tmp_path):
    fill(in_bucket, manifest="1", a="x")
    with local_folder(in_bucket) as local:
        assert sorted(os.listdir(local)) == ["a", "manifest"]
    assert cached(tmp_path) == []


def test_local_copy_on_a_full_disk_names_the_folder(in_bucket, monkeypatch):
    write_json(in_bucket / "x.json", 1)

    def full(self, path, local):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Bucket, "get_file", full)
    with pytest.raises(InputError, match="cache/.*x.json: cannot write .No space left"):
        local_copy(in_bucket / "x.json")


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_leftovers_of_killed_processes_are_removed_below_a_folder(in_bucket, tmp_path, place):
    root = in_bucket if place == "bucket" else epath.Path(tmp_path / "w")
    names = ["a/rows.tmp-7", "a/model.tmp-7/weights", "a/rows", "a/b/c.tmp-1", "other.tmp-7"]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    remove_leftovers(root / "a")
    remove_leftovers(root / "none")
    assert [name for name in names if (root / name).exists()] == ["a/rows", "other.tmp-7"]

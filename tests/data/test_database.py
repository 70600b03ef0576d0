import pickle
import threading

import pytest

from clmrc_jax.data.database import ReadOnlyDatabase, building, local_path, replacing
from clmrc_jax.files import InputError


def make(path, value):
    with building(path) as database:
        database.execute("CREATE TABLE t (x INT)")
        database.execute("INSERT INTO t VALUES (?)", (value,))


def test_building_error_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    make(tmp_path / "t.sqlite", 1)
    with pytest.raises(RuntimeError):
        with building(tmp_path / "t.sqlite") as database:
            database.execute("CREATE TABLE other (x INT)")
            raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["t.sqlite"]
    assert ReadOnlyDatabase(tmp_path / "t.sqlite", "table").query("SELECT x FROM t") == [(1,)]


def test_replacing_success_renames(tmp_path):
    with replacing(tmp_path / "new" / "file") as temporary:
        temporary.write_text("whole")
        assert not (tmp_path / "new" / "file").exists()
    assert [path.read_text() for path in (tmp_path / "new").iterdir()] == ["whole"]


def test_read_only_database_serves_many_threads_and_other_processes(tmp_path):
    make(tmp_path / "t.sqlite", 7)
    database = pickle.loads(pickle.dumps(ReadOnlyDatabase(tmp_path / "t.sqlite", "table")))
    seen = []
    threads = [
        threading.Thread(target=lambda: seen.append(database.query("SELECT x FROM t")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [[(7,)]] * 8


def test_read_only_database_of_a_foreign_file_is_refused(tmp_path):
    (tmp_path / "t.sqlite").write_text("not a database, but long enough to be looked at" * 20)
    with pytest.raises(InputError, match="t.sqlite: not a readable table .*build it again"):
        ReadOnlyDatabase(tmp_path / "t.sqlite", "table").query("SELECT 1 FROM t")
    with pytest.raises(InputError, match="no such table"):
        ReadOnlyDatabase(tmp_path / "none", "table")


def test_local_path_bucket_is_refused():
    with pytest.raises(InputError, match="gs://bucket/x: must be on a local disk"):
        local_path("gs://bucket/x")


def test_database_in_a_bucket_is_built_and_read(in_bucket):
    for value in (1, 2):
        make(in_bucket / "t.sqlite", value)
        database = ReadOnlyDatabase(in_bucket / "t.sqlite", "table")
        assert database.query("SELECT x FROM t") == [(value,)]
    assert [path.name for path in in_bucket.iterdir()] == ["t.sqlite"]
    again = pickle.loads(pickle.dumps(database))
    assert again.query("SELECT x FROM t") == [(2,)]
    with pytest.raises(InputError, match="gs://bucket/some/none: no such table"):
        ReadOnlyDatabase(in_bucket / "none", "table")

"""SQLite files written once, atomically, and then only read, from any number of threads."""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from etils import epath

from clmrc_jax.files import InputError, is_remote, local_build, local_copy


def local_path(path: str | os.PathLike) -> Path:
    """`path` as a local path. Raises InputError for a bucket: for files that change in place."""
    text = os.fspath(path)
    if is_remote(text):
        raise InputError(f"{text}: must be on a local disk (random access); copy it there first")
    return Path(text)


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a free local path; the block fills it and it then becomes `path`.

    `files.local_build`, except that a full disk, as SQLite and ArrayRecord report it, is an
    InputError too.
    """
    try:
        with local_build(path) as temporary:
            yield temporary
    except (sqlite3.OperationalError, RuntimeError) as error:
        if not _is_full_disk(error):
            raise
        raise InputError(
            f"{path}: cannot write ({error}); free space, then run the same command again"
        ) from error


def _is_full_disk(error: BaseException) -> bool:
    if isinstance(error, sqlite3.OperationalError):
        return "disk" in str(error)
    return isinstance(error, RuntimeError) and "write() failed" in str(error)  # ArrayRecord's word


@contextlib.contextmanager
def building(path: str | os.PathLike) -> Iterator[sqlite3.Connection]:
    """Yields a connection to a new database that becomes `path` when the block succeeds."""
    with replacing(path) as temporary:
        connection = sqlite3.connect(temporary, isolation_level=None)
        try:
            # Journals guard an existing database; this one is thrown away on any error.
            connection.execute("PRAGMA journal_mode=OFF")
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute("PRAGMA cache_size=-262144")  # 256 MiB, for the index sorts
            connection.execute("BEGIN")
            yield connection
            if connection.in_transaction:  # the block may have committed already
                connection.execute("COMMIT")
        finally:
            connection.close()


class ReadOnlyDatabase:
    """Queries to a finished database; every thread and every process gets its own connection."""

    def __init__(self, path: str | os.PathLike, what: str):
        """what: the kind of file, for the message when it is missing ("passage store").

        A database in a bucket is read through a local copy, see `files.local_copy`.
        """
        self.path, self.what = epath.Path(path), what
        if not self.path.exists() or self.path.is_dir():
            raise InputError(f"{self.path}: no such {what}")
        self._file = Path(local_copy(self.path))
        self._local = threading.local()

    def __reduce__(self):
        return (ReadOnlyDatabase, (self.path, self.what))

    def query(self, sql: str, values: Sequence = ()) -> list[tuple]:
        """All result rows. Raises InputError when the file is not the database it should be."""
        try:
            return self._connection().execute(sql, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise InputError(
                f"{self.path}: not a readable {self.what} ({error}); build it again"
            ) from error

    def _connection(self) -> sqlite3.Connection:
        # A connection must not cross a fork, so the process id is part of its identity.
        if getattr(self._local, "process", None) != os.getpid():
            uri = f"{self._file.resolve().as_uri()}?mode=ro&immutable=1"
            self._local.connection = sqlite3.connect(uri, uri=True)
            self._local.process = os.getpid()
        return self._local.connection

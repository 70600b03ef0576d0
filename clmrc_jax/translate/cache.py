"""A cache on disk under any translator: nothing is translated, or paid for, twice.

One SQLite file per translator and direction, with the texts in plain sight:
    command-apertium-u-spa-eng.es-en.<hash>.sqlite    table translations(text, translation)
Every batch is committed before the next one starts, so a kill loses at most one batch. A process
holds the file's write lock while it translates; a second one waits for it and then finds the
translations there.
"""

import contextlib
import hashlib
import logging
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from clmrc_jax.data.database import local_path
from clmrc_jax.files import InputError
from clmrc_jax.translate.translator import (
    TranslationError,
    Translator,
    batch_of,
    batches,
    check,
    prepare,
)

_log = logging.getLogger(__name__)
SECONDS_BETWEEN_NOTES = 30.0  # while another process holds the write lock
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS translations (text TEXT PRIMARY KEY, translation TEXT NOT NULL)"
)


class CachedTranslator:
    """Asks `translator` only for texts that the cache in `folder` does not have.

    Equal texts of one call are translated once; blank texts are returned as they are. A blank
    translation is returned, but not kept: the next call asks for it again.
    """

    def __init__(self, translator: Translator, folder: str | os.PathLike):
        self.translator, self.folder = translator, local_path(folder)
        self.name, self.batch = translator.name, batch_of(translator)

    def path(self, source: str, target: str) -> Path:
        """The cache file of one direction."""
        identity = "\0".join((self.name, source, target))
        digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
        readable = re.sub(r"[^\w.]+", "-", self.name).strip("-")[-60:]
        return self.folder / f"{readable}.{source}-{target}.{digest}.sqlite"

    def missing(self, texts: Iterable[str], source: str, target: str) -> list[str]:
        """The distinct texts that are still to be translated, in order."""
        wanted = list(dict.fromkeys(text for text in texts if text.strip()))
        if not self.path(source, target).exists():
            return wanted
        with self._database(source, target) as database:
            known = _lookup(database, wanted)
        return [text for text in wanted if text not in known]

    def prepare(self, texts: Sequence[str], source: str, target: str) -> None:
        """Tells the translator what it will be asked for: the texts that are missing here.

        Where none is missing it is not told, so that its program or model need not be there.
        """
        missing = self.missing(texts, source, target)
        if missing:
            prepare(self.translator, missing, source, target)

    def check(self, source: str, target: str) -> None:
        """Whether the translator can work, see `translator.check`."""
        check(self.translator, source, target)

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """One translation per text, in order, each new batch saved as soon as it is finished.

        Raises TranslationError when the translator fails; what it had finished stays saved, so
        the same call continues there.
        """
        wanted = list(dict.fromkeys(text for text in texts if text.strip()))
        with self._database(source, target) as database:
            known = _lookup(database, wanted)
            todo = [text for text in wanted if text not in known]
            for part in batches(todo, self.batch):
                known |= self._translate_batch(database, part, source, target)
        return [known.get(text, text) for text in texts]

    def _translate_batch(
        self, database: sqlite3.Connection, texts: list[str], source: str, target: str
    ) -> dict[str, str]:
        """Translations of new texts, saved. Raises TranslationError after saving what there is."""
        failure = None
        with self._writing(database, source, target):
            # Another process may have been here while this one waited for the lock.
            known = _lookup(database, texts)
            todo = [text for text in texts if text not in known]
            done: Sequence[str] = ()
            try:
                done = self.translator.translate(todo, source, target) if todo else ()
                if len(done) != len(todo):
                    raise TranslationError(
                        f"{self.name}: {len(done)} translations for {len(todo)} texts; a "
                        "translator must return one for each"
                    )
            except TranslationError as error:
                failure, done = error, error.finished
            new = dict(zip(todo, done))
            kept = [pair for pair in new.items() if pair[1].strip()]
            database.executemany("INSERT OR REPLACE INTO translations VALUES (?, ?)", kept)
        if failure:
            raise TranslationError(
                f"{failure} ({self._count(database)} finished translations are kept in "
                f"{self.path(source, target)}; the same command continues there)",
                failure.finished,
            ) from failure
        return known | new

    @staticmethod
    def _count(database: sqlite3.Connection) -> int:
        return database.execute("SELECT count(*) FROM translations").fetchone()[0]

    @contextlib.contextmanager
    def _database(self, source: str, target: str) -> Iterator[sqlite3.Connection]:
        """A connection of this call's own, so that threads and forks cannot share one."""
        path = self.path(source, target)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(path, error) from error
        try:
            with contextlib.closing(
                sqlite3.connect(path, timeout=SECONDS_BETWEEN_NOTES, isolation_level=None)
            ) as database:
                database.execute(_SCHEMA)
                yield database
        except sqlite3.Error as error:
            raise _unusable(path, error) from error

    @contextlib.contextmanager
    def _writing(self, database: sqlite3.Connection, source: str, target: str) -> Iterator[None]:
        """A transaction that holds the write lock from its start, committed unless it raises."""
        while True:
            try:
                database.execute("BEGIN IMMEDIATE")
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
                _log.info("waiting for a process that uses %s", self.path(source, target))
        try:
            yield
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:  # a full disk ends the transaction by itself
                database.execute("ROLLBACK")
            raise


def _lookup(database: sqlite3.Connection, texts: Sequence[str]) -> dict[str, str]:
    """The texts that are there; blank translations, which were once kept, are not."""
    found = {}
    for begin in range(0, len(texts), 500):
        part = texts[begin : begin + 500]
        marks = ",".join("?" * len(part))
        rows = database.execute(
            f"SELECT text, translation FROM translations WHERE text IN ({marks})", part
        )
        found.update((text, translation) for text, translation in rows if translation.strip())
    return found


def _unusable(path: Path, error: Exception) -> InputError:
    remedy = "free space" if "disk" in str(error) else "mend or remove that file"
    return InputError(
        f"{path}: cannot use the translation cache ({error}); {remedy}, then run the same command "
        "again"
    )

"""Passages: readers of JSONL and TSV files, and the store that joins them to the index.

A store is three files written together: `passages.array_record` (one JSON row per passage, random
access), `passages.array_record.sqlite` (id -> row, article -> rows) and
`passages.array_record.languages.npy` (one byte per row). Row i of the store is row i of the
embeddings and id i of the index. None of it is held in memory, so 43.6 million passages cost no
more than a hundred.
"""

import contextlib
import csv
import dataclasses
import itertools
import json
import operator
import os
import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from array_record.python import array_record_module
from etils import epath

from clmrc_jax.data.database import ReadOnlyDatabase, building, replacing
from clmrc_jax.data.fields import id_field, known_language, language_field, text_field
from clmrc_jax.files import (
    InputError,
    atomic_write,
    is_remote,
    local_copy,
    open_text,
    read_jsonl,
)

STORE_NAME = "passages.array_record"
_TSV_COLUMNS = ("id", "text", "title")


@dataclasses.dataclass(frozen=True)
class Passage:
    """A piece of an article, about 100 tokens long.

    lang: code from `languages.py`.   article_id: equal for all passages of one article.
    """

    id: str
    lang: str
    article_id: str
    title: str
    text: str


def passage_from_row(row: dict, where: str, lang: str | None = None) -> Passage:
    """A JSON row {id, lang, title, text, [article_id]} as a passage.

    where: "FILE, line 3" for messages.   lang: the language of rows that do not name theirs.
    Raises InputError naming place and field. `article_id` defaults to "<lang>:<title>".
    """
    code = language_field(row, "lang", where, lang, of="passage")
    title = text_field(row, "title", where, blank=True)
    has_article = row.get("article_id") is not None
    return Passage(
        id=id_field(row, "id", where),
        lang=code,
        article_id=id_field(row, "article_id", where) if has_article else f"{code}:{title}",
        title=title,
        text=text_field(row, "text", where),
    )


def read_passages(path: str | os.PathLike, lang: str | None = None) -> Iterator[Passage]:
    """Streams the passages of a `.jsonl` or `.tsv` file (`.gz` too).

    JSONL rows are {id, lang, title, text, [article_id]}. TSV rows are id, text, title with CSV
    quoting; a first row that starts with `id` is a header and may name a fourth column `lang`.
    lang: the language of rows that do not name theirs.
    Raises InputError, naming file, line and field: unknown suffix, missing or wrong field,
    passage without language, unknown language code, id used twice, no passage at all.
    """
    name = os.fspath(path).removesuffix(".gz")
    if name.endswith(".jsonl"):
        rows = read_jsonl(path)
    elif name.endswith(".tsv"):
        rows = _read_tsv(path)
    else:
        raise InputError(f"{path}: unknown kind of passage file; it must be .jsonl or .tsv (.gz)")
    # Eight bytes per passage find a repeated id without holding the ids.
    hashes = array("q")
    for line, row in rows:
        passage = passage_from_row(row, f"{path}, line {line}", lang)
        hashes.append(hash(passage.id))
        yield passage
    if not hashes:
        raise InputError(f"{path}: no passage in the file; an empty corpus cannot be searched")
    _check_unique(path, np.asarray(hashes))


def _check_unique(path: str | os.PathLike, hashes: np.ndarray) -> None:
    """Raises InputError at the first id that stands on two lines of the file."""
    hashes = np.sort(hashes)
    suspects = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    if not suspects:
        return
    rows = read_jsonl(path) if ".jsonl" in os.fspath(path) else _read_tsv(path)
    first: dict[str, int] = {}
    for line, row in rows:  # equal hashes are only a suspicion: look at those ids themselves
        where = f"{path}, line {line}"
        key = id_field(row, "id", where)
        if hash(key) in suspects and first.setdefault(key, line) != line:
            raise InputError(
                f"{where}: field 'id' {key!r} is already used in line {first[key]}; "
                "ids must be unique"
            )


def _read_tsv(path: str | os.PathLike) -> Iterator[tuple[int, dict]]:
    """Yields (line number where the row starts, row as a dict) of a passage TSV."""
    columns = _TSV_COLUMNS
    with open_text(path) as file:
        reader = csv.reader(file, delimiter="\t", quotechar='"', strict=True)
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise InputError(
                    f"{path}, line {line}: not a readable TSV row ({error}); fields holding "
                    'a quote, tab or newline need CSV quoting ("...", with " doubled)'
                ) from error
            if line == 1 and values and values[0] == "id":
                columns = _checked_header(values, path)
            elif len(values) == len(columns):
                yield line, dict(zip(columns, values))
            elif values:
                raise InputError(
                    f"{path}, line {line}: {len(values)} columns where {len(columns)} are "
                    f"needed ({', '.join(columns)}, separated by tabs)"
                )


def _checked_header(names: list[str], path) -> tuple[str, ...]:
    missing = [name for name in _TSV_COLUMNS if name not in names]
    if missing:
        raise InputError(f"{path}, line 1: the header lacks the column(s) {', '.join(missing)}")
    return tuple(names)


def write_passages_tsv(
    path: str | os.PathLike, passages: Iterable[Passage], *, language_column: bool = True
) -> int:
    """Writes id, text, title (and lang) with a header and CSV quoting, atomically; the count.

    language_column: False for programs that take exactly three columns; the language is then
    lost from the file.
    """
    count = 0
    with atomic_write(path) as file:
        writer = csv.writer(file, delimiter="\t", quotechar='"', lineterminator="\n")
        names = [*_TSV_COLUMNS, "lang"] if language_column else list(_TSV_COLUMNS)
        writer.writerow(names)
        for passage in passages:
            writer.writerow([getattr(passage, name) for name in names])
            count += 1
    return count


def write_passage_store(path: str | os.PathLike, passages: Iterable[Passage]) -> int:
    """Streams passages into a store at `path`, atomically; returns how many.

    path: the `.array_record` file, or a folder that gets `passages.array_record`. In a bucket,
    where a folder is not there before its files, every other name is a folder's; the files are
    made in the local cache folder and uploaded (540 bytes per passage), see
    `files.local_build`.
    Passages of one article should come one after the other: `PassageStore.article_rows` is then
    one range. Raises InputError for no passage, an id used twice, or an unknown language.
    """
    path, count = _store_file(path), 0
    codes, table = bytearray(), {}
    with contextlib.ExitStack() as files:
        # Entered first, renamed last: where the records are, their side files are complete.
        records_path = files.enter_context(replacing(path))
        database = files.enter_context(building(_beside(path, "sqlite")))
        languages_path = files.enter_context(replacing(_beside(path, "languages.npy")))
        database.execute("CREATE TABLE ids (row INTEGER PRIMARY KEY, id TEXT)")
        database.execute("CREATE TABLE articles (lang TEXT, title TEXT, first INT, stop INT)")
        for article, rows in _write_records(records_path, passages, database):
            known_language(article[0], f"passage {rows.start} (counted from 0)")
            code = table.setdefault(article[0], len(table))
            codes.extend(bytes([code]) * len(rows))
            database.execute(
                "INSERT INTO articles VALUES (?, ?, ?, ?)", (*article, rows.start, rows.stop)
            )
            count = rows.stop
        if not count:
            raise InputError(f"{path}: no passage to store; the corpus is empty")
        with languages_path.open("wb") as file:
            np.save(file, np.frombuffer(codes, np.uint8))
        _finish_database(database, path, count, records_path.stat().st_size, list(table))
        path.unlink(missing_ok=True)  # never old records beside new side files
    return count


def _write_records(
    path, passages: Iterable[Passage], database: sqlite3.Connection
) -> Iterator[tuple[tuple[str, str], range]]:
    """Writes records and ids; yields ((lang, title), rows) of every run of one article."""
    # group_size 1: a random read decompresses its own record and nothing else.
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1,zstd:3")
    try:
        row = 0
        for article, run in itertools.groupby(passages, key=lambda p: (p.lang, p.title)):
            first = row
            for passage in run:
                writer.write(_encode(passage))
                database.execute("INSERT INTO ids VALUES (?, ?)", (row, passage.id))
                row += 1
            yield article, range(first, row)
    finally:
        writer.close()
    if array_record_module.ArrayRecordReader(str(path)).num_records() != row:
        raise InputError(f"{path}: the file was not written in full; is the disk full?")


def _encode(passage: Passage) -> bytes:
    fields = {
        "id": passage.id,
        "lang": passage.lang,
        "article_id": passage.article_id,
        "title": passage.title,
        "text": passage.text,
    }
    return json.dumps(fields, ensure_ascii=False).encode()


def _finish_database(database, path, count: int, size: int, languages: list[str]) -> None:
    """Indexes (built once at the end: one sort instead of millions of inserts) and totals."""
    try:
        database.execute("CREATE UNIQUE INDEX ids_by_id ON ids (id)")
    except sqlite3.IntegrityError as error:
        key, first, last = database.execute(
            "SELECT id, min(row), max(row) FROM ids GROUP BY id HAVING count(*) > 1 LIMIT 1"
        ).fetchone()
        raise InputError(
            f"{path}: passages {first} and {last} (counted from 0) share the id {key!r}; "
            "ids must be unique"
        ) from error
    database.execute("CREATE INDEX articles_by_title ON articles (lang, title)")
    database.execute("CREATE TABLE store (count INT, bytes INT, languages TEXT)")
    database.execute("INSERT INTO store VALUES (?, ?, ?)", (count, size, json.dumps(languages)))
    database.execute("COMMIT")  # all that a full disk can spoil comes before the renames


class PassageStore:
    """Random access to the passages of a store by row, and from ids and articles to rows.

    Opening costs a few milliseconds at any size; every method may be called from many threads,
    and a store may be sent to another process (it reopens the files there). A store in a bucket
    is read through local copies: the first process of each host that opens it downloads it.
    """

    def __init__(self, path: str | os.PathLike):
        """path: as given to `write_passage_store`. Raises InputError if it is not a store."""
        self.path = _store_file(path)
        if not self.path.exists():
            raise InputError(f"{self.path}: no such passage store; write_passage_store makes one")
        self._database = ReadOnlyDatabase(_beside(self.path, "sqlite"), "passage store")
        ((self._count, size, languages),) = self._database.query("SELECT * FROM store")
        self._language_table: list[str] = json.loads(languages)
        codes = _beside(self.path, "languages.npy")
        if self.path.stat().length != size or not codes.exists():
            raise InputError(f"{self.path}: not the file its side files describe; write it again")
        self._codes = np.load(local_copy(codes), mmap_mode="r")
        self._reader = array_record_module.ArrayRecordReader(
            local_copy(self.path), "readahead_buffer_size:0,max_parallelism:0"
        )

    def __reduce__(self):
        return (PassageStore, (self.path,))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: int) -> Passage:
        """The passage of one row, 0 <= row < len(self)."""
        return self.get_many((row,))[0]

    def get_many(self, rows: Sequence[int]) -> list[Passage]:
        """The passages of `rows`, in that order, in one batched read. Repetitions are allowed."""
        rows = [operator.index(row) for row in rows]
        if not rows:
            return []
        if min(rows) < 0 or max(rows) >= self._count:
            raise IndexError(f"{self.path}: rows {min(rows)}..{max(rows)} of {self._count}")
        return [Passage(**json.loads(record)) for record in self._reader.read(rows)]

    def __iter__(self) -> Iterator[Passage]:
        """All passages in row order, a thousand per read."""
        for first in range(0, self._count, 1000):
            yield from self.get_many(range(first, min(first + 1000, self._count)))

    def languages(self, rows: Sequence[int]) -> list[str]:
        """The language code of every row, without reading the passages."""
        return [self._language_table[code] for code in self._codes[np.asarray(rows, np.int64)]]

    def language_counts(self) -> dict[str, int]:
        """How many passages each language has, in order of appearance."""
        counts = np.bincount(self._codes, minlength=len(self._language_table))
        return dict(zip(self._language_table, counts.tolist()))

    def language_rows(self, lang: str) -> np.ndarray:
        """Rows of one language, ascending: [passages] int64; empty when it has none."""
        if lang not in self._language_table:
            return np.zeros([0], np.int64)
        return np.flatnonzero(self._codes == self._language_table.index(lang))

    def article_rows(self, lang: str, title: str) -> Sequence[int]:
        """Rows of all passages of an article, ascending; empty when the store has no such one.

        One `range` where the passages were written one after the other, else a list.
        """
        runs = self._database.query(
            "SELECT first, stop FROM articles WHERE lang = ? AND title = ? ORDER BY first",
            (lang, title),
        )
        if len(runs) == 1:
            return range(*runs[0])
        return [row for first, stop in runs for row in range(first, stop)]

    def rows_of_ids(self, ids: Sequence[str]) -> list[int]:
        """The row of every passage id. Raises InputError naming ids that are not in the store."""
        found: dict[str, int] = {}
        for first in range(0, len(ids), 500):
            some = list(ids[first : first + 500])
            marks = ",".join("?" * len(some))
            found |= self._database.query(f"SELECT id, row FROM ids WHERE id IN ({marks})", some)
        missing = [key for key in ids if key not in found]
        if missing:
            raise InputError(
                f"{self.path}: {len(missing)} passage id(s) are not in the store, "
                f"the first is {missing[0]!r}; was it built from other passages?"
            )
        return [found[key] for key in ids]


def _store_file(path: str | os.PathLike) -> epath.Path:
    path = epath.Path(path)
    is_file = path.name.endswith(".array_record") if is_remote(path) else not path.is_dir()
    return path if is_file else path / STORE_NAME


def _beside(path: epath.Path, suffix: str) -> epath.Path:
    return path.with_name(f"{path.name}.{suffix}")

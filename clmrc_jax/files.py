"""Files between stages: atomic writes and readers whose errors name file and line."""

import array
import contextlib
import errno
import gzip
import io
import json
import os
import zlib
from collections.abc import Iterable, Iterator

from etils import epath

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class InputError(ValueError):
    """Input that a user can mend; the message says what is wrong, where, and what to do."""


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike, mode: str = "w") -> Iterator[io.IOBase]:
    """Opens a temporary sibling of `path` and renames it onto `path` when the block succeeds.

    A reader therefore sees the old file or the whole new one, never a part; on any error the
    temporary file is removed and the error goes on to the caller, a full disk as InputError.
    mode: "w" (UTF-8 text) or "wb".
    """
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{path.name}.tmp-{os.getpid()}"
    try:
        with temporary.open(mode) as file:
            yield file
            file.flush()
            with contextlib.suppress(AttributeError, io.UnsupportedOperation):  # object stores
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise InputError(
                f"{path}: cannot write ({error.strerror}); free space, then run the same command again"
            ) from error
        raise


@contextlib.contextmanager
def open_text(path: str | os.PathLike) -> Iterator[io.TextIOBase]:
    """Opens UTF-8 text for reading, through gzip when the name ends in `.gz`.

    Raises InputError naming the file, also while the block reads: no file, a folder, text that
    is not UTF-8, a gzip file that is damaged or cut off.
    """
    path = epath.Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: a folder, where a file is needed")
    try:
        with path.open("rb") as raw:
            stream = gzip.open(raw) if path.name.endswith(".gz") else raw
            yield io.TextIOWrapper(stream, encoding="utf-8", newline="")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error}); convert it to UTF-8") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"{path}: not a whole gzip file ({error}); get it again, or rename it if it is plain text"
        ) from error


def read_jsonl(path: str | os.PathLike) -> Iterator[tuple[int, dict]]:
    """Yields (line number from 1, object) of a JSON-lines file; blank lines are skipped.

    Only "\\n" ends a line: other Unicode line breaks may stand inside strings.
    Raises InputError naming file and line for anything that is not a JSON object.
    """
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{path}, line {number}: not valid JSON ({error})") from error
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {number}: expected a JSON object, got {row!r:.60}")
            yield number, row


def write_jsonl(path: str | os.PathLike, rows: Iterable[dict]) -> int:
    """Streams rows to a JSON-lines file, atomically; returns how many."""
    count = 0
    with atomic_write(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def read_json(path: str | os.PathLike):
    """Reads one JSON document (`.gz` too). Raises InputError naming the file."""
    with open_text(path) as file:
        try:
            return json.load(file)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}: not valid JSON ({error})") from error


def write_json(path: str | os.PathLike, value) -> None:
    """Writes one JSON document, indented, atomically."""
    with atomic_write(path) as file:
        json.dump(value, file, ensure_ascii=False, indent=1)
        file.write("\n")


class JsonlRows:
    """Random access to the rows of a local JSON-lines file; only line offsets are in memory.

    8 bytes per row; `rows[i]` reads one line, from any thread or process.
    """

    def __init__(self, path: str | os.PathLike):
        """Scans the file once. Raises InputError when there is none."""
        self.path = os.fspath(path)
        if not os.path.isfile(self.path):
            raise InputError(f"{self.path}: no such file")
        self._offsets = array.array("q", [0])
        with open(self.path, "rb") as file:
            for line in file:
                self._offsets.append(self._offsets[-1] + len(line))

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __iter__(self) -> Iterator[dict]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, row: int) -> dict:
        if not 0 <= row < len(self):
            raise IndexError(row)
        with open(self.path, "rb") as file:
            file.seek(self._offsets[row])
            line = file.read(self._offsets[row + 1] - self._offsets[row])
        return json.loads(line)

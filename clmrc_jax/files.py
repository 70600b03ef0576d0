"""Files between stages: atomic writes and readers whose errors name file and line.

A path may be in an object store (gs://bucket/...). What is read and written in one go is then
read and written there. What needs random access (databases, record files, indexes) has none
there: it is made in a local folder and uploaded whole (`local_build`), and read through a local
copy (`local_copy`, `local_folder`). Copies lie in the folder that the environment variable
CLMRC_JAX_CACHE names, by default one in the system's temporary folder; between runs it may be
deleted.
"""

import array
import contextlib
import errno
import gzip
import hashlib
import io
import json
import os
import pathlib
import shutil
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator

import fsspec
from etils import epath

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CACHE_VARIABLE = "CLMRC_JAX_CACHE"

# Else gcsfs remembers for ever what a folder held, although other hosts, and tensorstore in this
# process, write there too.
for _protocol in ("gcs", "gs"):
    fsspec.config.conf.setdefault(_protocol, {}).setdefault("use_listings_cache", False)


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
    with _full_disk_named(path):
        try:
            with temporary.open(mode) as file:
                yield file
                file.flush()
                with contextlib.suppress(AttributeError, io.UnsupportedOperation):  # object stores
                    os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _full_disk_named(path: str | os.PathLike) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise InputError(
            f"{path}: cannot write ({error.strerror}); free space, then run the same command again"
        ) from error


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


def read_json(path: str | os.PathLike, *, unique: bool = False):
    """Reads one JSON document (`.gz` too). Raises InputError naming the file.

    unique: a key that an object has twice is an error too; else its last value counts.
    """

    def pairs(found: list[tuple]) -> dict:
        if len(made := dict(found)) < len(found):
            key = next(key for key, count in Counter(key for key, _ in found).items() if count > 1)
            raise InputError(f"{path}: {key!r} stands there twice; which one counts?")
        return made

    with open_text(path) as file:
        try:
            return json.load(file, object_pairs_hook=pairs if unique else None)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}: not valid JSON ({error})") from error


def read_json_documents(path: str | os.PathLike) -> Iterator[tuple[str, object]]:
    """Yields ("FILE" or "FILE!MEMBER", document) of a JSON file (`.gz` too), or of those in a zip.

    Raises InputError naming the file, or the member: missing, not JSON, a zip without any.
    """
    if not os.fspath(path).endswith(".zip"):
        yield os.fspath(path), read_json(path)
        return
    if not epath.Path(path).exists():
        raise InputError(f"{path}: no such file")
    try:
        with epath.Path(path).open("rb") as file, zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if name.endswith(".json")]
            if not names:
                raise InputError(f"{path}: no .json file in the archive")
            for name in names:
                yield f"{path}!{name}", _member(archive, name, path)
    except zipfile.BadZipFile as error:
        raise InputError(f"{path}: not a whole zip file ({error}); get it again") from error


def _member(archive: zipfile.ZipFile, name: str, path: str | os.PathLike):
    try:
        return json.loads(archive.read(name))
    except ValueError as error:
        raise InputError(f"{path}!{name}: not valid JSON ({error})") from error


def whole_text(value: str, where: str) -> str:
    """`value`; InputError for half a character ("\\ud83d" alone), which nothing can write."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(value[error.start]):04x}"
        raise InputError(
            f"{where} has half a character, {half} at offset {error.start}; write the whole one"
        ) from error
    return value


def write_json(path: str | os.PathLike, value) -> None:
    """Writes one JSON document, indented, atomically."""
    with atomic_write(path) as file:
        json.dump(value, file, ensure_ascii=False, indent=1)
        file.write("\n")


class JsonlRows:
    """Random access to the rows of a JSON-lines file; only line offsets are in memory.

    8 bytes per row; `rows[i]` reads one line, from any thread or process. A file in a bucket is
    read through a local copy.
    """

    def __init__(self, path: str | os.PathLike):
        """Scans the file once. Raises InputError when there is none."""
        self.path = local_copy(path)
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


def is_remote(path: str | os.PathLike) -> bool:
    """Whether `path` is in an object store (gs://...), where there is no random access."""
    return "://" in os.fspath(path)


def cache_folder() -> pathlib.Path:
    """The local folder of copies and unfinished builds (see the module), made if need be."""
    default = pathlib.Path(tempfile.gettempdir()) / f"clmrc_jax-{os.getuid()}"
    folder = pathlib.Path(os.environ.get(CACHE_VARIABLE) or default)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def local_copy(path: str | os.PathLike) -> str:
    """A local file with the content of the file `path`: itself, or a copy of a bucket's.

    A copy is made once per host, whichever of its processes ask for it, and again when the file
    in the bucket has changed; it stays. So every host downloads the passage store that it opens
    once: about 25 GB, some minutes, for the paper's 43.6 million passages.
    Raises InputError when the bucket has no such file, or the local disk is full.
    """
    path = os.fspath(path)
    if not is_remote(path):
        return path
    filesystem, _ = fsspec.core.url_to_fs(path)
    entry = _cache_entry(filesystem, path)
    with _full_disk_named(entry), _locked(entry):
        if not entry.exists():
            temporary = entry.with_name(f"{entry.name}.tmp")
            filesystem.get_file(path, os.fspath(temporary))
            temporary.replace(entry)
    return os.fspath(entry)


@contextlib.contextmanager
def local_folder(path: str | os.PathLike) -> Iterator[str]:
    """Yields a local folder with the files of `path`: itself, or a bucket's, until the block ends.

    For what is read into memory: nothing of it stays on the disk.
    """
    path = os.fspath(path)
    if not is_remote(path):
        yield path
        return
    filesystem, inside = fsspec.core.url_to_fs(path)
    with _scratch("load", path) as scratch, _full_disk_named(scratch):
        for name in filesystem.find(path):
            local = scratch / name.removeprefix(inside).lstrip("/")
            local.parent.mkdir(parents=True, exist_ok=True)
            filesystem.get_file(name, os.fspath(local))
        yield os.fspath(scratch)


@contextlib.contextmanager
def local_build(path: str | os.PathLike, last: str = "") -> Iterator[pathlib.Path]:
    """Yields a free local path; the file or folder that the block makes there becomes `path`.

    On a disk a temporary sibling is renamed. For a bucket it is made in the cache folder, which
    must have room for it, and uploaded whole; a file then serves this host as its local copy.
    last: of a folder, the file that makes it valid. In a bucket, where folders cannot be renamed,
    it goes first from what is replaced and comes last, so a part is never taken for the whole.
    On any error what was there stays (but see `last`), nothing else does; a full disk is an
    InputError.
    """
    with _full_disk_named(path):
        build = _remote_build(os.fspath(path), last) if is_remote(path) else _disk_build(path)
        with build as local:
            yield local


@contextlib.contextmanager
def _disk_build(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    _remove(temporary)  # of an earlier, killed process with the same number
    try:
        yield temporary
        if temporary.is_dir():
            _remove(path)
            temporary.rename(path)
        else:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    except BaseException:
        _remove(temporary)
        raise


@contextlib.contextmanager
def _remote_build(path: str, last: str) -> Iterator[pathlib.Path]:
    filesystem, _ = fsspec.core.url_to_fs(path)
    with _scratch("build", path) as scratch:
        local = scratch / path.rsplit("/", 1)[-1]
        yield local
        if local.is_dir():
            _upload_folder(filesystem, local, path, last)
        else:
            filesystem.put_file(os.fspath(local), path)
            local.replace(_cache_entry(filesystem, path))


def _upload_folder(filesystem, local: pathlib.Path, path: str, last: str) -> None:
    if last and filesystem.exists(f"{path}/{last}"):
        filesystem.rm_file(f"{path}/{last}")
    if filesystem.exists(path):
        filesystem.rm(path, recursive=True)
    names = [name.relative_to(local).as_posix() for name in local.rglob("*") if name.is_file()]
    for name in sorted(names, key=lambda name: (name == last, name)):
        filesystem.put_file(os.fspath(local / name), f"{path}/{name}")


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Removes what killed processes were writing below `folder`; nobody else may write there now."""
    folder = os.fspath(folder)
    if is_remote(folder):
        filesystem, inside = fsspec.core.url_to_fs(folder)
        for name in filesystem.find(folder):
            if ".tmp-" in name.removeprefix(inside):
                filesystem.rm_file(name)
        return
    for path in list(pathlib.Path(folder).rglob("*.tmp-*")):
        _remove(path)


def _remove(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _cache_entry(filesystem, path: str) -> pathlib.Path:
    """Where the copy of a bucket's file belongs, as the file is now."""
    try:
        info = filesystem.info(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    if info["type"] != "file":
        raise InputError(f"{path}: a folder, where a file is needed")
    # Google numbers the contents of an object; elsewhere all that is known of it tells them apart.
    version = info.get("generation") or filesystem.ukey(path)
    return cache_folder() / f"{_digest(path, info['size'], version)}-{path.rsplit('/', 1)[-1]}"


@contextlib.contextmanager
def _scratch(purpose: str, path: str) -> Iterator[pathlib.Path]:
    """An empty folder of the cache for work on `path`; one process at a time has it."""
    scratch = cache_folder() / f"{purpose}-{_digest(path)}"
    with _locked(scratch):
        shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
        scratch.mkdir()
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _locked(entry: pathlib.Path) -> Iterator[None]:
    """One process, and one thread of it, at a time; the system frees it when the process dies."""
    import fcntl  # noqa: PLC0415  (not on Windows, which has no use for buckets)

    with entry.with_name(f"{entry.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _digest(*parts) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:24]

"""A stand-in for gs://: objects in a local folder, with what an object store cannot do left out.

As with gcsfs there are no folders, only names; a name's content appears whole when the file is
closed, is replaced and never appended to (mode "a" overwrites), and gets a new generation.
"""

import datetime
import io
import os
import pathlib
import urllib.parse

import fsspec
from fsspec.registry import _registry

_UNFINISHED = "%00"  # no object's name ends so


class Bucket(fsspec.AbstractFileSystem):
    """fsspec's view of the objects in `Bucket.folder`, which several processes may share."""

    protocol = ("gs", "gcs")
    cachable = False
    folder: pathlib.Path

    def _place(self, path: str) -> pathlib.Path:
        return self.folder / urllib.parse.quote(self._strip_protocol(path), safe="")

    def _names(self) -> list[str]:
        names = (name for name in os.listdir(self.folder) if not name.endswith(_UNFINISHED))
        return sorted(map(urllib.parse.unquote, names))

    def ls(self, path, detail=True, **kwargs):
        """The objects and pseudo-folders right below `path`, or the object itself."""
        path = self._strip_protocol(path).rstrip("/")
        if self._place(path).exists():
            found = [self._object(path)]
        else:
            below = [n[len(path) + 1 :] for n in self._names() if n.startswith(f"{path}/")]
            if not below:
                raise FileNotFoundError(path)
            heads = dict.fromkeys(name.split("/")[0] for name in below)
            found = [
                self._object(f"{path}/{head}")
                if head in below
                else {"name": f"{path}/{head}", "size": 0, "type": "directory"}
                for head in heads
            ]
        return found if detail else [entry["name"] for entry in found]

    def info(self, path, **kwargs):
        """Of an object or pseudo-folder."""
        path = self._strip_protocol(path).rstrip("/")
        if self._place(path).exists():
            return self._object(path)
        self.ls(path)
        return {"name": path, "size": 0, "type": "directory"}

    def _object(self, path: str) -> dict:
        stat = self._place(path).stat()
        return {
            "name": path,
            "size": stat.st_size,
            "type": "file",
            "mtime": datetime.datetime.fromtimestamp(stat.st_mtime),
            "generation": str(stat.st_ino) + str(stat.st_mtime_ns),
        }

    def mkdir(self, path, create_parents=True, **kwargs):
        """Nothing: a folder is there when something is in it."""

    def makedirs(self, path, exist_ok=False):
        """Nothing, as `mkdir`."""

    def rmdir(self, path):
        """Nothing, as `mkdir`."""

    def _rm(self, path):
        self._place(path).unlink()

    def rm(self, path, recursive=False, maxdepth=None):
        """Removes an object, or everything below a name."""
        names = self.find(path) if recursive else [path]
        for name in names:
            self._rm(name)

    def cp_file(self, path1, path2, **kwargs):
        """Copies an object; a pseudo-folder has nothing to copy."""
        if self._place(path1).exists():
            self.pipe_file(path2, self._place(path1).read_bytes())

    def _open(self, path, mode="rb", **kwargs):
        if mode == "rb":
            return self._place(path).open("rb")
        return _Upload(self._place(path))


class _Upload(io.BytesIO):
    def __init__(self, place: pathlib.Path):
        super().__init__()
        self._target = place

    def close(self):
        if not self.closed:
            part = self._target.with_name(f"{os.getpid()}-{id(self)}{_UNFINISHED}")
            part.write_bytes(self.getvalue())
            part.replace(self._target)
        super().close()


def install(folder: pathlib.Path) -> None:
    """From now on gs:// means `folder` in this process."""
    Bucket.folder = folder
    folder.mkdir(parents=True, exist_ok=True)
    for protocol in Bucket.protocol:
        fsspec.register_implementation(protocol, Bucket, clobber=True)


def uninstall() -> None:
    """gs:// means again what it meant."""
    for protocol in Bucket.protocol:
        _registry.pop(protocol, None)

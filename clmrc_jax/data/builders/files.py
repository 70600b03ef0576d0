"""What our tensorflow-datasets builders share: they read local files and write ArrayRecord.

TensorFlow is not needed: `file_format="array_record"` to write, `as_data_source` to read.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence

import tensorflow_datasets as tfds
from etils import epath

from clmrc_jax.files import InputError

# {split: [(path, language of the file or None)]}
SplitFiles = Mapping[str, Sequence[tuple[str, str | None]]]


class FilesBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base of builders that are given their files.

    The files and options are hashed into the config name, so that a changed file is prepared
    anew and never mistaken for the old one. Rows keep the order of the files.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, files: SplitFiles, data_dir: str | os.PathLike, **options):
        """files: {split: [(path, language or None)]}.   options: for `_rows`, kept in the name.

        Raises InputError for no file, and for one that does not exist.
        """
        self._files, self._options = files, options
        config = tfds.core.BuilderConfig(
            name=f"files_{_fingerprint(files, options)}",
            description="; ".join(f"{s}: {[p for p, _ in f]}" for s, f in files.items()),
        )
        super().__init__(config=config, data_dir=os.fspath(data_dir), file_format="array_record")

    def _features(self) -> tfds.features.FeaturesDict:
        raise NotImplementedError

    def _rows(self, path: str, lang: str | None) -> Iterator[dict]:
        """The rows of one file, as `_features` describes them."""
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=self._features(),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # the files are here
        return {split: self._generate_examples(files) for split, files in self._files.items()}

    def _generate_examples(self, files):
        key = 0
        for path, lang in files:
            for row in self._rows(path, lang):
                yield key, row
                key += 1


def _fingerprint(files: SplitFiles, options: dict) -> str:
    digest = hashlib.sha1(repr(sorted(options.items())).encode())
    if not files or not all(files.values()):
        raise InputError("no file to prepare a data set from; give {split: [path, ...]}")
    for split, pairs in files.items():
        for path, lang in pairs:
            if not epath.Path(path).exists():
                raise InputError(f"{path}: no such file")
            stat = epath.Path(path).stat()
            digest.update(repr((split, str(path), lang, stat.length, stat.mtime)).encode())
    return digest.hexdigest()[:12]

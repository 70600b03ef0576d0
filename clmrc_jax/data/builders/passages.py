"""tensorflow-datasets builder of passage collections (JSONL or TSV files)."""

from collections.abc import Iterator

import tensorflow_datasets as tfds

from clmrc_jax.data.builders.files import FilesBuilder
from clmrc_jax.data.passages import read_passages


class Passages(FilesBuilder, skip_registration=True):
    """Passages of a retrieval corpus, in file order: id, lang, article_id, title, text."""

    def _features(self) -> tfds.features.FeaturesDict:
        names = ("id", "lang", "article_id", "title", "text")
        return tfds.features.FeaturesDict({name: tfds.features.Text() for name in names})

    def _rows(self, path: str, lang: str | None) -> Iterator[dict]:
        for passage in read_passages(path, lang):
            yield vars(passage)

"""tensorflow-datasets builders of reading comprehension: CMRC 2018 and DRCD, from their JSON files.

Rows are those of the standard set `squad` plus the language, so what reads one reads the other.
"""

from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from clmrc_jax.data.builders.files import FilesBuilder
from clmrc_jax.data.mrc_examples import Answer, MrcExample, read_mrc


class _ReadingBuilder(FilesBuilder, skip_registration=True):
    LANG = ""  # of files that come without one

    def _features(self) -> tfds.features.FeaturesDict:
        text = tfds.features.Text
        answer = {"text": text(), "answer_start": tfds.features.Scalar(np.int32)}
        return tfds.features.FeaturesDict(
            {
                "id": text(),
                "lang": text(),
                "title": text(),
                "context": text(),
                "question": text(),
                "answers": tfds.features.Sequence(answer),
            }
        )

    def _rows(self, path: str, lang: str | None) -> Iterator[dict]:
        for example in read_mrc(path, lang or self.LANG, **self._options):
            fields = {name: getattr(example, name) for name in ("id", "lang", "title", "context")}
            answers = [{"text": x.text, "answer_start": x.start} for x in example.answers]
            yield fields | {"question": example.question, "answers": answers}


class Cmrc2018(_ReadingBuilder, skip_registration=True):
    """CMRC 2018 in its own or in SQuAD form, simplified Chinese.

    Options: `locate`, `labelled` of `read_mrc`. Answers that do not occur have the offset -1.
    """

    LANG = "zh_cn"


class Drcd(_ReadingBuilder, skip_registration=True):
    """DRCD, traditional Chinese. Options as `Cmrc2018`."""

    LANG = "zh_tw"


def example_of(row: dict, lang: str = "") -> MrcExample:
    """The example of a prepared row: ours, or of the standard sets `squad` and `xquad`.

    lang: of a row that does not name it.
    """
    fields = {name: _text(row[name]) for name in ("id", "title", "context", "question")}
    title = fields["title"].replace("_", " ").strip()
    columns = row["answers"]
    answers = tuple(
        Answer(_text(text), int(start))
        for text, start in zip(columns["text"], columns["answer_start"])
    )
    lang = _text(row["lang"]) if "lang" in row else lang
    return MrcExample(
        **fields | {"title": title},
        lang=lang,
        answers=answers,
        impossible=bool(row.get("is_impossible", False)),
        article=title,
    )


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)

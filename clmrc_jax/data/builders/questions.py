"""tensorflow-datasets builders of question sets: XOR-TyDi (and any file like it) and MKQA."""

from collections.abc import Iterator

import tensorflow_datasets as tfds

from clmrc_jax.data.builders.files import FilesBuilder
from clmrc_jax.data.qa_examples import Question, read_mkqa, read_questions


class _QuestionsBuilder(FilesBuilder, skip_registration=True):
    def _features(self) -> tfds.features.FeaturesDict:
        text = tfds.features.Text
        return tfds.features.FeaturesDict(
            {
                "id": text(),
                "question": text(),
                "lang": text(),
                "answers": tfds.features.Sequence(text()),
                "answer_lang": text(),
                "source": text(),
            }
        )

    def _questions(self, path: str, lang: str | None) -> Iterator[Question]:
        raise NotImplementedError

    def _rows(self, path: str, lang: str | None) -> Iterator[dict]:
        for question in self._questions(path, lang):
            yield vars(question) | {"answers": list(question.answers)}


class XorTydi(_QuestionsBuilder, skip_registration=True):
    """Questions of XOR-TyDi QA, MIA 2022 or any JSONL file with id, question, lang, answers."""

    def _questions(self, path: str, lang: str | None) -> Iterator[Question]:
        return read_questions(path, lang)


class Mkqa(_QuestionsBuilder, skip_registration=True):
    """Native MKQA records, one row per question and language.

    Options: `langs` (default all), `keep_unanswerable` (answer "NoAns").
    """

    def _questions(self, path: str, lang: str | None) -> Iterator[Question]:
        langs = [lang] if lang else self._options.get("langs")
        keep = self._options.get("keep_unanswerable", False)
        return read_mkqa(path, langs, keep_unanswerable=keep)

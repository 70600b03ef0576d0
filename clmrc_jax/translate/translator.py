"""What a translator is, and how a command line names one: `command:apertium -u spa-eng`.

A translator is any object with a `name` and `translate(texts, source, target)`. Three more members
are optional: `batch`, how much it wants per call; `prepare(texts, source, target)`, which is told
everything that is going to be asked and raises InputError if that cannot work; and
`check(source, target)`, the same where the texts are not known yet.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Protocol

from clmrc_jax.files import InputError

KINDS = {
    "command": "command:'apertium -u spa-eng', a program that reads a line and writes a line",
    "google": "google, Google Cloud Translation (needs credentials and consent to pay)",
    "marian": "marian:FOLDER, a Marian model of the Hugging Face hub or trained here",
    "opus": "opus, the OPUS-MT model of each language pair from the Hugging Face hub",
    "file": "file:PATH, finished translations in a .jsonl or .tsv file",
}


class Translator(Protocol):
    """Translates texts. `name` tells apart translators whose output may differ (cache key)."""

    name: str

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """One translation per text, in order. source, target: codes of data/languages.py.

        Raises TranslationError, which carries the translations that were finished.
        """


class TranslationError(InputError):
    """A translator failed; `finished` are the translations of the first texts of that call."""

    def __init__(self, message: str, finished: Sequence[str] = ()):
        super().__init__(message)
        self.finished = tuple(finished)


@dataclasses.dataclass(frozen=True)
class Batch:
    """The most that goes into one call: `texts`, and `characters` in all of them together."""

    texts: int = 128
    characters: int = 50_000


def batch_of(translator: Translator) -> Batch:
    """What a translator wants per call; Batch() where it does not say."""
    return getattr(translator, "batch", None) or Batch()


def batches(texts: Sequence[str], batch: Batch) -> Iterator[list[str]]:
    """Cuts texts, in order, into lists within `batch`; a text too long for it goes alone."""
    part, characters = [], 0
    for text in texts:
        full = len(part) == batch.texts or characters + len(text) > batch.characters
        if part and full:
            yield part
            part, characters = [], 0
        part.append(text)
        characters += len(text)
    if part:
        yield part


def prepare(translator: Translator, texts: Sequence[str], source: str, target: str) -> None:
    """Tells a translator all it is going to be asked for; raises InputError if that cannot work.

    Also refuses texts that no translator could be sent (half of a surrogate pair).
    """
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"the text {text!r:.80} is not valid Unicode ({error.reason}); mend the \\u escape "
                "in the data file"
            ) from error
    if hasattr(translator, "prepare"):
        translator.prepare(texts, source, target)


def check(translator: Translator, source: str, target: str) -> None:
    """Raises InputError if a translator cannot work in this direction, whatever the texts will be.

    For one without `check`, what its `prepare` says of no texts: its program, its languages.
    """
    if hasattr(translator, "check"):
        translator.check(source, target)
    else:
        prepare(translator, (), source, target)


def open_translator(
    spec: str,
    cache: str | os.PathLike | None = None,
    *,
    consent: bool = False,
    project: str = "",
) -> Translator:
    """The translator that `spec` names, under a cache in the folder `cache` (None: no cache).

    spec: one of KINDS.   consent: the user agrees to pay for `google`.   project: its Google Cloud
    project, "" = that of the credentials. A file is its own cache and is not put under another.
    """
    kind, _, value = spec.partition(":")
    if kind not in KINDS or (kind not in ("google", "opus") and not value.strip()):
        raise InputError(
            f"--translator={spec!r} names no translator; write one of: " + "; ".join(KINDS.values())
        )
    # Imported when asked for: no translator should cost the start-up time of another one.
    if kind == "file":
        from clmrc_jax.translate.cached_file import FileTranslator

        return FileTranslator(value)
    if kind == "command":
        from clmrc_jax.translate.command import CommandTranslator

        translator = CommandTranslator(value)
    elif kind == "google":
        from clmrc_jax.translate.google import GoogleTranslator

        translator = GoogleTranslator(consent=consent, project=project)
    elif kind == "opus":
        from clmrc_jax.translate.opus_models import OpusTranslator

        translator = OpusTranslator()
    else:
        from clmrc_jax.translate.marian_translator import MarianTranslator

        translator = MarianTranslator(value)
    if cache is None:
        return translator
    from clmrc_jax.translate.cache import CachedTranslator

    return CachedTranslator(translator, cache)

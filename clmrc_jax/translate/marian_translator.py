"""A translator on our own devices: any Marian folder (OPUS-MT, or trained by configs/translator.py)."""

import dataclasses
import hashlib
from collections.abc import Sequence

import jax
import numpy as np

from clmrc_jax.data.languages import LANGUAGES
from clmrc_jax.data.marian_tokenizer import MarianTokenizer
from clmrc_jax.data.sentences import split_in_two, split_sentences
from clmrc_jax.files import InputError
from clmrc_jax.models.marian import MarianSearch
from clmrc_jax.train.model_folders import Pathlike, resolve_folder
from clmrc_jax.train.pretrained import load_marian, load_marian_search
from clmrc_jax.translate.marian_search import BatchSearch
from clmrc_jax.translate.translator import Batch


class MarianTranslator:
    """Translates with beam search as the folder's `generation_config.json` says.

    folder: a Hugging Face Marian folder or hub id, with tokenizer and safetensors or msgpack.
    prefix: `>>lang<<` token put before every text; None = that of the target language where the
        vocabulary has one.
    whole_tokens: a text of up to so many tokens is translated whole, a longer one by sentences,
        several at a time up to that length (the models have seen single sentences).
    batch_size: texts searched at once.   dtype: of the computation.
    search: changes to the folder's search, e.g. num_beams=1.
    """

    def __init__(
        self,
        folder: Pathlike,
        *,
        prefix: str | None = None,
        whole_tokens: int = 80,
        batch_size: int = 32,
        dtype: str = "float32",
        **search,
    ):
        path = resolve_folder(folder)
        self._folder, self._prefix, self._whole = str(folder), prefix, whole_tokens
        config, params = load_marian(path, dtype=dtype)
        self.tokenizer = MarianTokenizer(path)
        if self.tokenizer.vocab_size > config.vocab_size:
            raise InputError(
                f"{folder}: vocab.json has {self.tokenizer.vocab_size} tokens, the model only "
                f"{config.vocab_size}; the files do not belong together"
            )
        self.search: MarianSearch = dataclasses.replace(load_marian_search(path), **search)
        self._searcher = BatchSearch(config, self.search, batch_size=batch_size)
        self._params = self._searcher.place(params)
        self.batch = Batch(texts=64 * batch_size, characters=10**7)  # room for sorting by length
        if prefix:
            self._check_prefix(prefix)
        what = (config, self.search, prefix, whole_tokens)
        self.name = f"marian:{path.name}@{_digest(what, params)}"

    def prepare(self, texts: Sequence[str], source: str, target: str) -> None:
        """Raises InputError when the folder is not for this pair of languages."""
        for side, asked, own in zip(
            ("from", "to"), (source, target), self.tokenizer.languages, strict=True
        ):
            # Published folders also name groups ("roa", "mul"), which say nothing certain.
            if own in LANGUAGES and asked.split("_")[0] != own.split("_")[0]:
                raise InputError(
                    f"{self._folder} translates {side} {own!r}, not {side} {asked!r}; "
                    "give another model, or other languages"
                )
        self._language_token(target)

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """One translation per text, in order; empty texts stay empty, line breaks stay.

        source, target: codes of data/languages.py. Raises InputError as `prepare` does.
        """
        self.prepare(texts, source, target)
        token = self._language_token(target)
        parts = self._parts(texts, token)
        flat = [f"{token} {text}".strip() for group in parts for text, _ in group]
        sources = [[*ids, self.tokenizer.ids.eos] for ids in self.tokenizer.encode_batch(flat)]
        translated = iter(self._searcher(self._params, sources))
        language = LANGUAGES.get(target)
        space = " " if language is None or language.spaced else ""
        return [
            "".join(
                self.tokenizer.decode(next(translated)) + (end if "\n" in end else space)
                for _, end in group
            ).strip()
            for group in parts
        ]

    def _parts(self, texts, token: str) -> list[list[tuple[str, str]]]:
        """Per text the (part, white space behind it) that are searched one by one."""
        lengths = [len(ids) for ids in self.tokenizer.encode_batch(list(texts))]
        room = self.tokenizer.max_length - 1 - bool(token)
        parts = []
        for text, length in zip(texts, lengths):
            whole = length <= self._whole and "\n" not in text.strip()
            pieces = [text] if whole else self._packed(split_sentences(text), room)
            clean = [(" ".join(p.split()), p[len(p.rstrip()) :]) for p in pieces]
            parts.append([part for part in clean if part[0]])
        return parts

    def _packed(self, sentences: Sequence[str], room: int) -> list[str]:
        """Consecutive sentences of a line together while they fit; too long ones cut."""
        packed, used = [], 0
        queue = list(reversed(sentences))
        while queue:
            sentence = queue.pop()
            length = len(self.tokenizer.encode_batch([sentence])[0])
            if length > room and len(sentence) > 1:
                queue += reversed(split_in_two(sentence))
                continue
            joins = packed and "\n" not in packed[-1] and used + length <= self._whole
            packed[-1:] = [packed[-1] + sentence] if joins else [*packed[-1:], sentence]
            used = used + length if joins else length
        return packed

    def _language_token(self, target: str) -> str:
        """The token before every text: as given, or by the target language, or none."""
        if self._prefix is not None:
            return self._prefix
        known = self.tokenizer.language_tokens
        if f">>{target}<<" in known:
            return f">>{target}<<"
        if len(known) > 1:
            raise InputError(
                f"{self._folder} translates into several languages and does not know >>{target}<<; "
                f"give prefix as one of {', '.join(known[:12])}{' ...' * (len(known) > 12)}"
            )
        return ""

    def _check_prefix(self, prefix: str) -> None:
        known = self.tokenizer.language_tokens
        if prefix not in known:
            raise InputError(
                f"{self._folder}: prefix {prefix!r} is not in the vocabulary; its language tokens "
                f"are {', '.join(known[:12]) or 'none'}"
            )


def _digest(settings, params) -> str:
    """Short hash of everything a translation depends on: a cache must not mix two models."""
    found = hashlib.sha256(repr(settings).encode())
    for leaf in jax.tree.leaves(params):
        found.update(np.ascontiguousarray(leaf).data)
    return found.hexdigest()[:12]

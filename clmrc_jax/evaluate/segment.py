"""Cutting text into words for the scorers.

`words` uses the libraries of the official scripts: MeCab with unidic-lite (Japanese), jieba's
part-of-speech cutter (Chinese), newmm of PyThaiNLP (Thai), khmer-nltk (Khmer) and white space
for everything else. They come with the extra `segment` and are imported at first use; a missing
one is an ImportError, never a silent change of method, because it would change the scores.
`light_words` needs nothing and is only for the scorers' `portable` mode.
"""

import functools
import importlib
import logging
import re
from collections.abc import Callable

from clmrc_jax.data.languages import language

# Latin words and numbers stay whole: a year that is wrong by one digit is wrong altogether.
_LIGHT_TOKEN = re.compile(r"[0-9A-Za-z\u00c0-\u024f]+(?:(?<=[0-9])[.,][0-9]+)*|\S")


def needs_segmenter(lang: str) -> bool:
    """Whether words of `lang` are not separated by spaces (ja, zh*, th, km)."""
    return not language(lang).spaced


def words(text: str, lang: str) -> list[str]:
    """Words of `text` by the official segmenter of `lang`, blank tokens dropped.

    Raises ImportError naming the extra when the segmenter's package is not installed.
    """
    if not needs_segmenter(lang):
        return text.split()
    return [word for word in _segmenter(lang.split("_")[0])(text) if word.strip()]


def light_words(text: str, lang: str) -> list[str]:
    """Words without any library: every character of ja, zh*, th, km is a token of its own,
    except that Latin words and numbers stay whole; white space elsewhere."""
    return _LIGHT_TOKEN.findall(text) if needs_segmenter(lang) else text.split()


def wakati(text: str) -> str:
    """MeCab's `-Owakati` line itself: words followed by blanks, ending in a newline.

    XOR-QA's scorer uses this raw line (its BLEU counts the blanks).
    """
    return _mecab().parse(text)


def english_tokens(text: str) -> list[str]:
    """NLTK's `word_tokenize`, the token of XOR-Retrieve's budgets R@2kt and R@5kt.

    Raises ImportError when NLTK or its sentence model `punkt_tab` is missing.
    """
    nltk = _import("nltk", "English")
    try:
        return nltk.word_tokenize(text)
    except LookupError as error:
        raise ImportError(
            "NLTK's sentence model is missing; install it with: python -m nltk.downloader punkt_tab"
        ) from error


@functools.cache
def _segmenter(code: str) -> Callable[[str], list[str]]:
    """The word cutter of one base language code (`zh`, `ja`, `th`, `km`)."""
    if code == "ja":
        return lambda text: wakati(text).split()
    if code == "zh":
        jieba = _import("jieba", "Chinese")
        jieba.setLogLevel(logging.WARNING)  # it announces its dictionary otherwise
        cutter = _import("jieba.posseg", "Chinese")
        return lambda text: [token.word for token in cutter.cut(text)]
    if code == "th":
        thai = _import("pythainlp", "Thai")
        return lambda text: thai.word_tokenize(text, engine="newmm")
    if code == "km":
        khmer = _import("khmernltk", "Khmer")
        return lambda text: khmer.word_tokenize(text) if text.strip() else []
    raise ValueError(f"no word segmenter is known for language {code!r}")


@functools.cache
def _mecab():
    mecab = _import("MeCab", "Japanese")
    _import("unidic_lite", "Japanese")  # the dictionary the published scores were made with
    return mecab.Tagger("-Owakati")


def _import(module: str, name: str):
    """Imports a package of the extra, keeping its import-time messages off the terminal."""
    previous = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"cutting {name} text into words needs the package {module.split('.')[0]!r}, which "
            f'cannot be imported ({error}); run: pip install "clmrc_jax[segment]"'
        ) from error
    finally:
        logging.disable(previous)

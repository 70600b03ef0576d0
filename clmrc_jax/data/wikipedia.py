"""Wikipedia articles cut into passages of 100 tokens (CORA's preprocessing, spec section 2).

Two modes. `legacy` follows the published scripts, defects included. `fixed`, the default:

* keeps tails of 1 to 20 tokens, which legacy throws away;
* gives every passage as it stands in the article where words are not separated by spaces (legacy
  puts spaces between the tokens of a Japanese or Thai tail, and of all Khmer);
* drops the first line only where it is the title, leaves titles whole (legacy cuts them at "_0"),
  keeps section headings by option, and numbers passages without gaps;
* covers Chinese, for which nothing was published.

Legacy Japanese was cut by spaCy's `ja_core_news_sm`; both modes use MeCab here, so its chunk borders
differ from the published ones by a few characters.
"""

import dataclasses
import functools
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator

from clmrc_jax.data.fields import id_field, known_language, text_field
from clmrc_jax.data.languages import language
from clmrc_jax.data.passages import Passage
from clmrc_jax.files import InputError, read_jsonl

MODES = ("fixed", "legacy")
PASSAGE_TOKENS = 100
MIN_ARTICLE_TOKENS = 20  # shorter articles are skipped, in both modes
LEGACY_SHORT_TAIL = 20  # legacy drops a tail of up to this many tokens
SHORT_PARAGRAPH = 10  # characters; paragraphs up to it are dropped outside the introduction
_SECTION = "Section::::"
_BLANK_LINES = re.compile(r"\n[ \t]*\n\s*")


@dataclasses.dataclass(frozen=True)
class Article:
    """One article as WikiExtractor writes it.

    text: the title line, paragraphs separated by blank lines, and `Section::::Name` lines.
    """

    id: str
    title: str
    text: str


def read_extracted(path: str | os.PathLike) -> Iterator[Article]:
    """Streams the articles of a WikiExtractor `--json` file: rows {id, title, text} (`.gz` too).

    Articles without text (redirects) are passed over. Raises InputError (file, line, field).
    """
    for line, row in read_jsonl(path):
        where = f"{path}, line {line}"
        text = text_field(row, "text", where, blank=True)
        if text.strip():
            yield Article(id_field(row, "id", where), text_field(row, "title", where), text)


def article_passages(
    articles: Iterable[Article],
    lang: str,
    *,
    mode: str = "fixed",
    headings: bool = False,
    numbers: Iterator[int] | None = None,
) -> Iterator[Passage]:
    """Streams the passages of articles of one language, article after article.

    headings: keep section headings as sentences of the text (fixed mode only).
    numbers: where ids come from, 0, 1, ... by default; the next one is free afterwards. Ids are
    "<lang>-<number>"; in legacy mode bare numbers that skip one per article in languages with spaces,
    as published.
    Raises InputError for an unknown mode or language, or a word segmenter that is not installed.
    """
    lang = known_language(lang, "lang")
    numbers = itertools.count() if numbers is None else numbers
    for article in articles:
        for text in split_article(article, lang, mode=mode, headings=headings):
            number = next(numbers)
            yield Passage(
                id=str(number) if mode == "legacy" else f"{lang}-{number}",
                lang=lang,
                article_id=f"{lang}:{article.id}",
                title=article.title.split("_0")[0] if mode == "legacy" else article.title,
                text=text,
            )
        if mode == "legacy" and language(lang).spaced:
            next(numbers)


def split_article(
    article: Article, lang: str, *, mode: str = "fixed", headings: bool = False
) -> list[str]:
    """Texts of an article's passages: 100 tokens each, the last one what is left.

    An article of fewer than 20 tokens gives none. Legacy also drops a tail of 1 to 20 tokens, so
    that 20 tokens give nothing and 120 give 100; fixed gives 20, and 100 + 20.
    """
    check_mode(mode, headings)
    legacy = mode == "legacy"
    paragraphs = article_paragraphs(article, legacy=legacy, headings=headings)
    tokens, joiner = _tokens(paragraphs, lang, legacy)
    if len(tokens) < MIN_ARTICLE_TOKENS:
        return []
    chunks = [tokens[i : i + PASSAGE_TOKENS] for i in range(0, len(tokens), PASSAGE_TOKENS)]
    if not legacy:
        return [" ".join(joiner.join(chunk).split()) for chunk in chunks]
    tail = chunks.pop() if len(chunks[-1]) < PASSAGE_TOKENS else []
    texts = [joiner.join(chunk) for chunk in chunks]
    if len(tail) > LEGACY_SHORT_TAIL:
        texts.append(" ".join(tail))  # with spaces in every language: the published defect
    return texts


def check_mode(mode: str, headings: bool) -> None:
    """Raises InputError for an unknown mode, and for headings in legacy mode."""
    if mode not in MODES:
        raise InputError(f"Wikipedia mode {mode!r}: it must be one of {', '.join(MODES)}")
    if mode == "legacy" and headings:
        raise InputError("headings are kept in fixed mode only; the published scripts drop them")


def article_paragraphs(
    article: Article, *, legacy: bool = False, headings: bool = False
) -> list[str]:
    """The paragraphs of an article that reach its passages, in order (spec 2.4).

    The title line goes, and outside the introduction paragraphs of up to 10 characters.
    headings: keep the names of sections as paragraphs of their own.
    """
    introduction, *sections = article.text.split(_SECTION)
    first = introduction.split("\n\n") if legacy else _BLANK_LINES.split(introduction.strip())
    if legacy and len(first) == 1:  # nothing after the title: treated like a section
        paragraphs, sections = [], [introduction, *sections]
    elif legacy:
        paragraphs = first[1:]
    else:
        paragraphs = _without_title(first, article.title)
    for section in sections:
        heading, _, body = section.partition("\n")
        parts = body.split("\n\n") if legacy else _BLANK_LINES.split(body.strip())
        kept = [part for part in parts if len(part) > SHORT_PARAGRAPH]
        if headings and kept:
            paragraphs.append(heading.strip())
        paragraphs.extend(kept)
    return [paragraph for paragraph in paragraphs if paragraph.strip()]


def _without_title(paragraphs: list[str], title: str) -> list[str]:
    """Drops the title, whether a blank line or a single line break follows it."""
    line, _, rest = paragraphs[0].partition("\n")
    if line.strip() != title.strip():
        return paragraphs
    return [rest, *paragraphs[1:]] if rest.strip() else paragraphs[1:]


def _tokens(paragraphs: list[str], lang: str, legacy: bool) -> tuple[list[str], str]:
    """(tokens, what to put between them) of all paragraphs together."""
    if language(lang).spaced:
        return " ".join(paragraphs).split(), " "
    segment = segmenter(lang)
    if legacy and language(lang).wiki == "zh":
        raise InputError("the published scripts cannot cut Chinese; use mode='fixed'")
    if not legacy:
        pieces = (_with_gaps(segment(text), text) for text in paragraphs)
        return list(itertools.chain.from_iterable(pieces)), ""
    tokens = itertools.chain.from_iterable(map(segment, paragraphs))
    if lang == "km":
        return [token for token in tokens if token.strip()], " "
    return list(tokens), ""


def _with_gaps(tokens: Iterable[str], text: str) -> list[str]:
    """Tokens with the text up to the next one, so that joining them gives the text again.

    Segmenters lose spaces between Latin words, or normalise characters; a token that is not found
    joins its neighbour. The paragraph's last token ends in a line break.
    """
    starts, at = [], 0
    for token in tokens:
        found = text.find(token, at) if token.strip() else -1
        if found >= 0:
            starts.append(found)
            at = found + len(token)
    if not starts:
        return []
    starts[0] = 0
    ends = [*starts[1:], len(text)]
    pieces = [text[start:end] for start, end in zip(starts, ends)]
    return [*pieces[:-1], pieces[-1].rstrip() + "\n"]


@functools.cache
def segmenter(lang: str) -> Callable[[str], list[str]]:
    """text -> words for a language without spaces: MeCab, PyThaiNLP `newmm`, khmer-nltk or jieba.

    Raises InputError, with the command that installs them, when the library is missing.
    """
    wiki = language(lang).wiki
    makers = {"ja": _mecab, "th": _pythainlp, "km": _khmer, "zh": _jieba}
    if wiki not in makers:
        raise InputError(f"no word segmenter for {lang!r}; there are ones for {', '.join(makers)}")
    try:
        return makers[wiki]()
    except ImportError as error:
        raise InputError(
            f"cutting {language(lang).name} text into words needs a segmenter ({error}); "
            'install it with: pip install "clmrc_jax[segment]"'
        ) from error


def _mecab() -> Callable[[str], list[str]]:
    import MeCab
    import unidic_lite

    tagger = MeCab.Tagger(f"-Owakati -d {unidic_lite.DICDIR}")
    return lambda text: tagger.parse(text).split()


def _pythainlp() -> Callable[[str], list[str]]:
    from pythainlp.tokenize import word_tokenize

    return functools.partial(word_tokenize, engine="newmm")


def _khmer() -> Callable[[str], list[str]]:
    from khmernltk import word_tokenize

    return word_tokenize


def _jieba() -> Callable[[str], list[str]]:
    import jieba

    jieba.setLogLevel("WARNING")
    return jieba.lcut

"""Language links: which article titles of different languages are about the same thing.

The links lie in one SQLite file, built by streaming rows {"id": entity, "titles": {lang: title}}
and then only read, so all of Wikipedia's links need disk, not memory. Titles are compared in
Unicode NFC with underscores as spaces, the way Wikipedia shows them.
"""

import csv
import io
import json
import logging
import os
import re
import tarfile
import unicodedata
from collections.abc import Iterable, Iterator
from urllib.parse import unquote

from clmrc_jax.data.database import ReadOnlyDatabase, building
from clmrc_jax.data.fields import id_field
from clmrc_jax.data.languages import LANGUAGES
from clmrc_jax.files import InputError, local_copy, open_text, read_jsonl

_DISAMBIGUATION = re.compile(r"\s*[(（][^()（）]*[)）]$")


class LanguageLinks:
    """Read access to a file of `build_language_links`; usable from many threads.

    Languages are looked up by our code first (`zh_cn`), then by its Wikipedia's (`zh`).
    """

    def __init__(self, path: str | os.PathLike):
        """Raises InputError when there is no such file of links."""
        self._database = ReadOnlyDatabase(path, "file of language links")
        self._database.query("SELECT entity, lang, title FROM titles LIMIT 1")

    def entity(self, lang: str, title: str) -> str | None:
        """The entity whose article in `lang` has this title; None when there is none.

        A title that several entities claim belongs to the one that came first. Where there is no
        such title, it is looked up with a capital first letter, as Wikipedia does.
        """
        title = normalized_title(title)
        for form in dict.fromkeys((title, title[:1].upper() + title[1:])):
            for code in _codes(lang):
                found = self._database.query(
                    "SELECT entity FROM titles WHERE lang = ? AND title = ? ORDER BY rowid LIMIT 1",
                    (code, form),
                )
                if found:
                    return found[0][0]
        return None

    def titles(self, entity: str) -> dict[str, str]:
        """{language code: title} of an entity, as the links spell the codes; {} if unknown."""
        rows = self._database.query(
            "SELECT lang, title FROM titles WHERE entity = ? ORDER BY rowid DESC", (entity,)
        )
        return dict(reversed(dict(rows).items()))  # DESC: the first title of a language wins

    def translate(self, title: str, source: str, target: str) -> str | None:
        """The title in language `target` of the article `title` in `source`; None if unlinked."""
        entity = self.entity(source, title)
        if entity is None:
            return None
        titles = self.titles(entity)
        return next((titles[code] for code in _codes(target) if code in titles), None)


def build_language_links(path: str | os.PathLike, rows: Iterable[dict]) -> int:
    """Streams rows {"id": entity, "titles": {lang: title}} into a file of links, atomically.

    Rows of one entity are merged. Returns the number of (language, title) pairs stored. Logs how
    many titles are claimed by several entities. Raises InputError for a row of another form,
    naming its number. No row gives a file that links nothing: a corpus may have no links.
    """
    with building(path) as database:
        database.execute("CREATE TABLE titles (entity TEXT, lang TEXT, title TEXT)")
        for number, row in enumerate(rows, start=1):
            database.executemany("INSERT INTO titles VALUES (?, ?, ?)", _checked(row, number))
        database.execute("CREATE INDEX titles_by_title ON titles (lang, title)")
        database.execute("CREATE INDEX titles_by_entity ON titles (entity)")
        ((count,),) = database.execute("SELECT count(*) FROM titles")
        ((ambiguous,),) = database.execute(
            "SELECT count(*) FROM (SELECT 1 FROM titles GROUP BY lang, title "
            "HAVING count(DISTINCT entity) > 1)"
        )
    if ambiguous:
        logging.getLogger(__name__).warning(
            "%s: %d titles are claimed by several entities; the first one keeps each",
            path,
            ambiguous,
        )
    return count


def _checked(row: dict, number: int) -> list[tuple[str, str, str]]:
    where = f"language links, row {number}"
    entity, titles = id_field(row, "id", where), row.get("titles")
    if not isinstance(titles, dict):
        raise InputError(f"{where}: field 'titles' must be an object of language: title")
    for lang, title in titles.items():
        if not isinstance(title, str) or not title.strip():
            raise InputError(f"{where}: the {lang!r} title is {title!r:.60}, not a text")
    return [(entity, lang, normalized_title(title)) for lang, title in titles.items()]


def normalized_title(title: str) -> str:
    """A title in NFC, underscores as spaces, without outer space."""
    return unicodedata.normalize("NFC", title).replace("_", " ").strip()


def without_disambiguation(title: str) -> str:
    """A title as an answer: `Mercury (planet)` -> `Mercury`; unchanged where nothing is left."""
    return _DISAMBIGUATION.sub("", title) or title


def _codes(lang: str) -> tuple[str, ...]:
    known = LANGUAGES.get(lang)
    return (lang,) if known is None or known.wiki == lang else (lang, known.wiki)


def read_link_rows(path: str | os.PathLike) -> Iterator[dict]:
    """Streams JSONL rows {"id", "titles"}.

    Raises InputError naming file, line and field, and for a file without rows.
    """
    row = None
    for line, row in read_jsonl(path):
        if "id" not in row or not isinstance(row.get("titles"), dict):
            raise InputError(
                f"{path}, line {line}: needs the fields 'id' and 'titles' (language: title)"
            )
        yield row
    if row is None:
        raise InputError(f"{path}: no language link in the file")


def read_wikidata(path: str | os.PathLike) -> Iterator[dict]:
    """Streams link rows from a Wikidata JSON dump (one entity per line; `.gz` too).

    Only links to Wikipedias count (`jawiki`, not `jawikivoyage` or `commonswiki`); the language is the
    site's name with dashes (`zh_min_nanwiki` -> `zh-min-nan`). Entities without one are left out.
    """
    others = {"commons", "species", "meta", "wikidata", "sources", "mediawiki", "simple"}
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            line = line.strip().rstrip(",")
            if line in ("", "[", "]"):
                continue
            try:
                item = json.loads(line)
                links = dict(item.get("sitelinks") or {})
                titles = {
                    site.removesuffix("wiki").replace("_", "-"): link["title"]
                    for site, link in links.items()
                    if site.endswith("wiki") and site.removesuffix("wiki") not in others
                }
                row = {"id": item["id"], "titles": titles}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(
                    f"{path}, line {number}: not a Wikidata entity ({error!r})"
                ) from error
            if titles:
                yield row


def read_title_pairs(path: str | os.PathLike, first: str, second: str) -> Iterator[dict]:
    """Link rows from two-column files of titles (`.tsv` tab-separated, `.csv` quoted; `.gz` too).

    first, second: the languages of the columns. The entity is "<first>:<title>".
    """
    separated_by_tabs = ".tsv" in os.fspath(path)
    style = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if separated_by_tabs else {}
    with open_text(path) as file:
        for number, values in enumerate(csv.reader(file, **style), start=1):
            if not values:
                continue
            if len(values) != 2 or not all(value.strip() for value in values):
                raise InputError(f"{path}, row {number}: two titles are needed, not {values!r:.80}")
            yield _pair(first, values[0], second, values[1])


def read_dbp15k(path: str | os.PathLike, source: str, target: str = "en") -> Iterator[dict]:
    """Link rows of a DBP15K archive: ent_ids_1 (source), ent_ids_2 (target), ref_ent_ids.

    The entity is "<target>:<title>", so archives with one target language join up.
    Raises InputError when a member is missing or a link names an unknown number.
    """
    with tarfile.open(local_copy(path)) as archive:
        names = {os.path.basename(name): name for name in archive.getnames()}
        missing = {"ent_ids_1", "ent_ids_2", "ref_ent_ids"} - set(names)
        if missing:
            raise InputError(f"{path}: not a DBP15K archive, {', '.join(sorted(missing))} missing")

        def table(name: str) -> list[list[str]]:
            text = io.TextIOWrapper(archive.extractfile(names[name]), encoding="utf-8")
            return [line.rstrip("\n").split("\t") for line in text if line.strip()]

        sources = {key: _resource_title(uri) for key, uri in table("ent_ids_1")}
        targets = {key: _resource_title(uri) for key, uri in table("ent_ids_2")}
        for number, (left, right) in enumerate(table("ref_ent_ids"), start=1):
            if left not in sources or right not in targets:
                raise InputError(f"{path}, ref_ent_ids, line {number}: unknown entity number")
            yield _pair(target, targets[right], source, sources[left])


def _resource_title(uri: str) -> str:
    return unquote(uri.partition("/resource/")[2] or uri)


def _pair(first: str, first_title: str, second: str, second_title: str) -> dict:
    entity = f"{first}:{normalized_title(first_title)}"
    return {"id": entity, "titles": {first: first_title, second: second_title}}

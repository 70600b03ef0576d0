"""Wikipedia's files made into a corpus's: passages of extracted articles, and language links."""

import dataclasses
import glob
import itertools
import os
import shutil
import tarfile
import time
from collections.abc import Iterable, Iterator, Sequence

from etils import epath

from clmrc_jax.data import language_links
from clmrc_jax.data.fields import known_language
from clmrc_jax.data.languages import language
from clmrc_jax.data.wikipedia import article_passages, check_mode, read_extracted
from clmrc_jax.files import InputError, atomic_write, read_json, write_json, write_jsonl
from clmrc_jax.pipelines.locks import folder_lock
from clmrc_jax.progress import Meter

PARTS = "parts"  # ending of the folder of an output's parts until all are there


def cut_articles(
    articles: Sequence[str], lang: str, output: str, *, mode: str = "fixed", headings: bool = False
) -> dict:
    """Cuts the articles of one language into a passage file; returns counts.

    articles: files of WikiExtractor's `--json`, patterns of files, or folders of them (all files
    below, in the order of their names).   output: a `.jsonl` file, joined from OUTPUT.parts, one
    part per file of articles, from which the same call goes on when it was killed.
    mode, headings: of `data.wikipedia.article_passages`.
    Raises InputError: no file, a malformed row, a folder of parts made from something else.
    """
    begin = time.monotonic()
    if not output.endswith(".jsonl"):
        raise InputError(f"--output={output}: passages are written to a .jsonl file")
    check_mode(mode, headings)
    files = _found(articles)
    made_by = {"lang": known_language(lang, "--lang"), "mode": mode, "headings": headings}
    made_by["files"] = [[path, os.path.getsize(path)] for path in files]
    folder = epath.Path(f"{output}.{PARTS}")
    with folder_lock(folder):
        _begin(folder, made_by)
        count = number = 0
        with Meter(f"cutting {language(lang).name}", len(files)) as meter:
            for place, path in enumerate(files):
                part = folder / f"part-{place:06d}.jsonl"
                record = part.with_suffix(".json")
                if not record.exists():
                    numbers = itertools.count(number)
                    passages = article_passages(
                        read_extracted(path), lang, mode=mode, headings=headings, numbers=numbers
                    )
                    written = write_jsonl(part, map(dataclasses.asdict, passages))
                    write_json(record, {"passages": written, "next": next(numbers)})
                done = read_json(record)
                count, number = count + done["passages"], done["next"]
                meter.advance(note=f"{count:,} passages")
        if not count:
            raise InputError(f"{output}: no article gave a passage; each needs 20 words and more")
        _join(folder, len(files), output)
        folder.rmtree()
    seconds = round(time.monotonic() - begin, 1)
    return {"output": output, "files": len(files), "passages": count, "seconds": seconds}


def _found(articles: Sequence[str]) -> list[str]:
    files: list[str] = []
    for name in articles:
        found = [name]
        if os.path.isdir(name):
            found = glob.glob(os.path.join(glob.escape(name), "**"), recursive=True)
        elif glob.has_magic(name):
            found = glob.glob(name, recursive=True)
        found = sorted(path for path in found if os.path.isfile(path))
        if not found:
            raise InputError(f"--articles={name}: no such file")
        files += found
    return list(dict.fromkeys(files))


def _begin(folder: epath.Path, made_by: dict) -> None:
    path = folder / "made_by.json"
    if not path.exists():
        write_json(path, made_by)
    elif read_json(path) != made_by:
        raise InputError(
            f"{folder}: its parts were made from other files, or with other flags; give those "
            "again, or another --output, or delete this folder"
        )


def _join(folder: epath.Path, count: int, output: str) -> None:
    with atomic_write(output, "wb") as file:
        for place in range(count):
            with (folder / f"part-{place:06d}.jsonl").open("rb") as part:
                shutil.copyfileobj(part, file)


def convert_links(source: str, output: str, langs: Sequence[str] = ()) -> dict:
    """Writes the rows {"id", "titles"} of a source of language links; returns counts.

    source: a Wikidata JSON dump (`.json`, `.json.gz`), pairs of titles (`.tsv`, `.csv`, also
    `.gz`; `langs` names their two columns), or a DBP15K archive (`.tar.gz`; `langs`: its first
    and its second language). A dump is read in one pass and held nowhere; killed, it begins again.
    langs: of a Wikidata dump, the languages to keep; entities with one title left link nothing
    and go. Codes are this program's (`zh_cn`) or Wikipedia's (`zh`).   output: a `.jsonl` file.
    Raises InputError: an unknown form, a malformed row, no link at all.
    """
    begin = time.monotonic()
    if not output.endswith(".jsonl"):
        raise InputError(f"--output={output}: links are written to a .jsonl file")
    with Meter(f"links of {os.path.basename(source)}", None) as meter:
        count = write_jsonl(output, _some(_link_rows(source, langs), meter, source))
    seconds = round(time.monotonic() - begin, 1)
    return {"output": output, "entities": count, "seconds": seconds}


def _some(rows: Iterable[dict], meter: Meter, source: str) -> Iterator[dict]:
    for row in rows:
        yield row
        meter.advance()
    if not meter.done:
        raise InputError(f"{source}: no entity has titles in two of the languages wanted (--langs)")


def _link_rows(source: str, langs: Sequence[str]) -> Iterator[dict]:
    name = os.path.basename(source).removesuffix(".gz")
    codes = [language(known_language(lang, "--langs")).wiki for lang in langs]
    if name.endswith(".json"):
        yield from _of_languages(language_links.read_wikidata(source), set(codes))
    elif name.endswith((".tsv", ".csv")):
        yield from language_links.read_title_pairs(source, *_both(codes, source))
    elif name.endswith((".tar", ".tgz")):
        try:
            yield from language_links.read_dbp15k(source, *_both(codes, source))
        except tarfile.ReadError as error:
            raise InputError(f"{source}: not a tar archive ({error})") from error
    else:
        raise InputError(
            f"{source}: unknown kind of links; known are a Wikidata dump (.json), pairs of titles "
            "(.tsv, .csv) and DBP15K (.tar.gz)"
        )


def _of_languages(rows: Iterable[dict], wanted: set[str]) -> Iterator[dict]:
    for row in rows:
        titles = {k: v for k, v in row["titles"].items() if not wanted or k in wanted}
        if len(titles) > 1:
            yield {"id": row["id"], "titles": titles}


def _both(codes: Sequence[str], source: str) -> Sequence[str]:
    if len(codes) != 2:
        raise InputError(
            f"--langs={','.join(codes)}: {source} has titles in two languages; name both"
        )
    return codes

"""Parallel text: sentences in two languages, from a tab-separated file or two aligned ones.

A corpus is written ("en-zh", FILE) or ("en-zh", FILE, FILE): one file with two columns (further
ones, such as a licence, are left out), or two files of which line i is the same sentence. Files may
end in .gz; `ARCHIVE.tar.gz!MEMBER` is a member of an archive.
"""

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from etils import epath

from clmrc_jax.files import InputError, open_text


@dataclass(frozen=True)
class ParallelText:
    """languages: (first, second).   pairs: (first, second) texts, white space made single.

    lines, empty, repeated: lines read; pairs left out for an empty side, or seen before.
    """

    languages: tuple[str, str]
    pairs: list[tuple[str, str]]
    lines: int
    empty: int
    repeated: int

    def towards(self, source: str, target: str) -> list[tuple[str, str]]:
        """The pairs as (source, target); none when these are not the two languages."""
        if (source, target) == self.languages:
            return self.pairs
        turned = (target, source) == self.languages
        return [(b, a) for a, b in self.pairs] if turned else []


def read_parallel(languages: str, *files: str | os.PathLike) -> ParallelText:
    """Reads a corpus, ("en-zh", FILE) or ("en-zh", FILE, FILE); see the module.

    Raises InputError naming the file for anything that is not such a corpus.
    """
    codes = tuple(languages.split("-"))
    if len(codes) != 2 or not all(codes) or codes[0] == codes[1]:
        raise InputError(f"languages {languages!r}: write the codes of two, as in 'en-zh'")
    if len(files) not in (1, 2):
        raise InputError(f"{languages}: give one file of two columns, or two aligned files")
    rows = _columns(files[0]) if len(files) == 1 else _aligned(*files)
    pairs, lines, empty = {}, 0, 0
    for pair in rows:
        lines += 1
        pair = tuple(" ".join(side.split()) for side in pair)
        if all(pair):
            pairs[pair] = None
        else:
            empty += 1
    if not pairs:
        raise InputError(f"{files[0]}: holds no pair of sentences")
    return ParallelText(codes, list(pairs), lines, empty, lines - empty - len(pairs))


def hold_out(
    pairs: Sequence[tuple[str, str]], count: int, part: str = "test"
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(the rest, about `count` pairs), for corpora without a test part.

    Chosen by a hash of `part` and the first sentence, so every translation of it is held out with it; pairs
    that share a second sentence with them are left out of the rest, too.
    """
    share = count / max(1, len(pairs))
    chosen = [_fraction(f"{part}|{first}") < share for first, _ in pairs]
    held = [pair for pair, yes in zip(pairs, chosen) if yes]
    seen = {second for _, second in held}
    rest = [pair for pair, yes in zip(pairs, chosen) if not yes and pair[1] not in seen]
    return rest, held


def _fraction(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64


def _columns(path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        columns = line.split("\t")
        if len(columns) < 2:
            raise InputError(
                f"{path}, line {number}: no tab in {line!r:.60}; a line is SOURCE, a tab, TARGET"
            )
        yield columns[0], columns[1]


def _aligned(first, second) -> Iterator[tuple[str, str]]:
    sides = [list(_lines(path)) for path in (first, second)]
    if len(sides[0]) != len(sides[1]):
        raise InputError(
            f"{first} has {len(sides[0])} lines and {second} {len(sides[1])}: line i of both must "
            "be the same sentence"
        )
    return zip(*sides)


def _lines(path) -> Iterator[str]:
    """Lines of a file or of a member of an archive; only "\\n" ends a line."""
    archive, mark, member = os.fspath(path).partition("!")
    with _open_member(archive, member) if mark else open_text(path) as file:
        for number, line in enumerate(file):
            yield (line.removeprefix("\ufeff") if number == 0 else line).rstrip("\r\n")


def _open_member(archive: str, member: str) -> io.TextIOBase:
    path = epath.Path(archive)
    if not path.exists():
        raise InputError(f"{archive}: no such file")
    try:
        with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as tar:
            names = tar.getnames()
            if member not in names:
                shown = ", ".join(sorted(names)[:8])
                raise InputError(f"{archive}: has no member {member!r}; it holds {shown} ...")
            content = tar.extractfile(member)
            if content is None:
                raise InputError(f"{archive}!{member}: a folder, where a file is needed")
            return io.TextIOWrapper(io.BytesIO(content.read()), encoding="utf-8", newline="\n")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"{archive}: not a whole tar archive ({error}); get it again") from error

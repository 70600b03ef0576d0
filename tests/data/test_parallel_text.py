"""Readers of parallel text, on small files and on the real ones where they are."""

import gzip
import io
import tarfile

import pytest

from clmrc_jax.data.parallel_text import hold_out, read_parallel
from clmrc_jax.files import InputError


def test_columns_are_cleaned_and_counted(tmp_path):
    path = tmp_path / "en-zh.tsv.gz"
    text = "\ufeffHi.\t嗨。\tCC-BY\nHi.\t嗨。\nRun \u2028 now.\t你\xa0跑\r\n\t空\n\n"
    path.write_bytes(gzip.compress(text.encode()))
    found = read_parallel("en-zh", path)
    assert found.pairs == [("Hi.", "嗨。"), ("Run now.", "你 跑")]
    assert (found.lines, found.empty, found.repeated) == (4, 1, 1)
    assert found.towards("zh", "en")[0] == ("嗨。", "Hi.")
    assert found.towards("en", "zh") is found.pairs and found.towards("en", "ja") == []


def test_aligned_files_and_archives(tmp_path):
    (tmp_path / "a.en").write_text("one\ntwo\n")
    (tmp_path / "a.de").write_text("eins\nzwei\n")
    expected = [("one", "eins"), ("two", "zwei")]
    assert read_parallel("en-de", tmp_path / "a.en", tmp_path / "a.de").pairs == expected
    archive = tmp_path / "all.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("a.en", "a.de"):
            tar.add(tmp_path / name, f"dev/{name}")
    members = (f"{archive}!dev/a.en", f"{archive}!dev/a.de")
    assert read_parallel("en-de", *members).pairs == expected


def test_bad_corpora_are_named_with_their_remedy(tmp_path):
    good, short = tmp_path / "good.tsv", tmp_path / "short"
    good.write_text("a\tb\nno tab\n")
    short.write_text("x\n")
    with pytest.raises(InputError, match="good.tsv, line 2: no tab in 'no tab'"):
        read_parallel("en-de", good)
    with pytest.raises(InputError, match="good.tsv has 2 lines and .*short 1"):
        read_parallel("en-de", good, short)
    with pytest.raises(InputError, match="write the codes of two"):
        read_parallel("en", good)
    with pytest.raises(InputError, match="not a whole tar archive"):
        read_parallel("en-de", f"{good}!member")
    with pytest.raises(InputError, match="no such file"):
        read_parallel("en-de", f"{tmp_path}/none.tar!member")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("there"), io.BytesIO())
    with pytest.raises(InputError, match="no member 'here'; it holds there"):
        read_parallel("en-de", f"{tmp_path}/a.tar!here")
    (tmp_path / "empty.tsv").write_text("\n\ta\n")
    with pytest.raises(InputError, match="holds no pair"):
        read_parallel("en-de", tmp_path / "empty.tsv")


def test_held_out_sentences_are_on_neither_side_of_the_rest():
    pairs = [(f"source {i // 2}", f"target {i % 150}") for i in range(400)]
    rest, held = hold_out(pairs, 40)
    assert 15 <= len(held) <= 80 and hold_out(pairs, 40) == (rest, held)
    assert not {a for a, _ in held} & {a for a, _ in rest}
    assert not {b for _, b in held} & {b for _, b in rest}


def test_real_files(shared_data):
    anki = read_parallel("en-zh", shared_data / "mt_tatoeba_anki/en-zh.tsv.gz")
    assert anki.lines == 29155 and anki.pairs[0] == ("Hi.", "嗨。")
    enja = shared_data / "mt_small_enja"
    assert len(read_parallel("en-ja", enja / "dev.en.gz", enja / "dev.ja.gz").pairs) == 500
    flores = f"{shared_data}/mt_flores200/flores200_36langs.tar.gz!dev/"
    english, chinese = f"{flores}eng_Latn.dev", f"{flores}zho_Hans.dev"
    assert read_parallel("en-zh", english, chinese).lines == 997

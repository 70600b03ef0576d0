import pytest

from clmrc_jax.files import InputError
from clmrc_jax.translate.cache import CachedTranslator
from clmrc_jax.translate.cached_file import FileTranslator
from clmrc_jax.translate.command import CommandTranslator
from clmrc_jax.translate.google import GoogleTranslator
from clmrc_jax.translate.translator import (
    Batch,
    batch_of,
    batches,
    check,
    open_translator,
    prepare,
)


def test_batches_keep_order_and_limits_and_never_divide_a_text():
    texts = ["a" * 3, "b" * 3, "c", "d" * 20, "e", "f", "g", "h"]
    parts = list(batches(texts, Batch(texts=3, characters=6)))
    assert parts == [["aaa", "bbb"], ["c"], ["d" * 20], ["e", "f", "g"], ["h"]]
    assert list(batches([], Batch())) == []


def test_batch_of_a_translator_that_says_nothing_is_the_default():
    assert batch_of(object()) == Batch()


def test_open_translator_knows_every_kind(tmp_path):
    assert isinstance(open_translator("command:cat"), CommandTranslator)
    assert open_translator("command:sh -c 'a: b'").name == "command:sh -c 'a: b'"
    google = open_translator("google", consent=True, project="p")
    assert isinstance(google, GoogleTranslator) and google.consent and google.project == "p"
    cached = open_translator("command:cat", tmp_path / "cache")
    assert isinstance(cached, CachedTranslator)
    assert cached.translate(["x"], "es", "en") == ["x"]
    (tmp_path / "t.tsv").write_text("hola\thello\n")
    file = open_translator(f"file:{tmp_path / 't.tsv'}", tmp_path / "cache")
    assert isinstance(file, FileTranslator)


@pytest.mark.parametrize(
    "spec", ["", "apertium spa-eng", "command:", "command: ", "marian:", "x:y"]
)
def test_open_translator_unknown_spec_lists_the_kinds(spec):
    with pytest.raises(InputError, match="names no translator; write one of: command:.*marian:"):
        open_translator(spec)


def test_prepare_half_a_surrogate_pair_is_refused_before_anything_is_sent(shouting):
    with pytest.raises(InputError, match=r"'a\\ud800' is not valid Unicode .*\\u escape"):
        prepare(shouting(), ["fine", "a\ud800"], "es", "en")


def test_check_finds_a_missing_program_before_the_texts_are_known(tmp_path):
    missing = open_translator("command:no-such-program -x", tmp_path)
    with pytest.raises(InputError, match="no program 'no-such-program'"):
        check(missing, "en", "es")
    check(open_translator("command:cat", tmp_path), "en", "es")
    assert list(tmp_path.iterdir()) == []

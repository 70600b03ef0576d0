import sqlite3
import threading
import time

import pytest

from clmrc_jax.files import InputError
from clmrc_jax.translate.cache import CachedTranslator
from clmrc_jax.translate.translator import Batch, TranslationError, prepare


def test_cache_nothing_is_translated_twice(tmp_path, shouting):
    first, second = shouting(), shouting()
    cached = CachedTranslator(first, tmp_path)
    assert cached.translate(["a", "b", "a", " \n", ""], "es", "en") == ["A", "B", "A", " \n", ""]
    assert first.calls == [["a", "b"]]
    again = CachedTranslator(second, tmp_path)
    assert again.translate(["c", "b", "a"], "es", "en") == ["C", "B", "A"]
    assert second.calls == [["c"]]
    assert again.translate([], "es", "en") == [] and second.calls == [["c"]]


def test_cache_direction_and_translator_are_told_apart(tmp_path, shouting):
    inner = shouting()
    cached = CachedTranslator(inner, tmp_path)
    for source, target in (("es", "en"), ("en", "es"), ("fr", "en")):
        cached.translate(["a"], source, target)
    other = shouting()
    other.name = "shouting."  # another name, though readable parts of the file name are equal
    CachedTranslator(other, tmp_path).translate(["a"], "es", "en")
    assert inner.calls == [["a"]] * 3 and other.calls == [["a"]]
    assert len(list(tmp_path.iterdir())) == 4


def test_cache_batches_are_saved_one_by_one_and_an_error_loses_only_its_own(tmp_path, shouting):
    class Crashing(shouting):
        def translate(self, texts, source, target):
            if "e" in texts:
                raise KeyboardInterrupt
            return super().translate(texts, source, target)

    cached = CachedTranslator(Crashing(Batch(texts=2)), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        cached.translate(list("abcdef"), "es", "en")
    inner = shouting(Batch(texts=2))
    cached = CachedTranslator(inner, tmp_path)
    assert cached.missing(list("abcdefa"), "es", "en") == ["e", "f"]
    assert cached.translate(list("abcdef"), "es", "en") == list("ABCDEF")
    assert inner.calls == [["e", "f"]]


def test_cache_failing_translator_keeps_what_it_finished_within_the_batch(tmp_path, shouting):
    cached = CachedTranslator(shouting(Batch(texts=4), poison="g"), tmp_path)
    message = r"cannot say 'g' \(6 finished translations are kept in .*continues there\)"
    with pytest.raises(TranslationError, match=message):
        cached.translate(list("abcdefgh"), "es", "en")
    inner = shouting()
    CachedTranslator(inner, tmp_path).translate(list("abcdefgh"), "es", "en")
    assert inner.calls == [["g", "h"]]


def test_cache_too_few_translations_are_refused_and_not_kept(tmp_path, shouting):
    class Forgetful(shouting):
        def translate(self, texts, source, target):
            return super().translate(texts, source, target)[1:]

    cached = CachedTranslator(Forgetful(), tmp_path)
    with pytest.raises(TranslationError, match="shouting: 2 translations for 3 texts"):
        cached.translate(list("abc"), "es", "en")
    assert cached.missing(list("abc"), "es", "en") == list("abc")


def test_cache_blank_translation_is_returned_and_asked_again_the_next_time(tmp_path, shouting):
    class Tired(shouting):
        def translate(self, texts, source, target):
            return ["" if text == "b" else said for text, said in zip(texts, self.said(texts))]

        def said(self, texts):
            return super().translate(texts, "", "")

    cached = CachedTranslator(Tired(), tmp_path)
    assert cached.translate(["a", "b"], "es", "en") == ["A", ""]
    assert cached.missing(["a", "b"], "es", "en") == ["b"]
    with sqlite3.connect(cached.path("es", "en")) as database:  # as caches once had them
        database.execute("INSERT INTO translations VALUES ('b', ' ')")
    inner = shouting()
    again = CachedTranslator(inner, tmp_path)
    assert again.translate(["a", "b"], "es", "en") == ["A", "B"] and inner.calls == [["b"]]
    assert again.missing(["a", "b"], "es", "en") == []


def test_cache_check_is_the_translators_own(tmp_path, shouting):
    class Refusing(shouting):
        def check(self, source, target):
            raise InputError(f"not from {source} to {target}")

    with pytest.raises(InputError, match="not from en to es"):
        CachedTranslator(Refusing(), tmp_path).check("en", "es")
    CachedTranslator(shouting(), tmp_path).check("en", "es")
    assert list(tmp_path.iterdir()) == []


def test_cache_prepare_asks_only_for_what_is_missing(tmp_path, shouting):
    asked = []

    class Preparing(shouting):
        def prepare(self, texts, source, target):
            asked.append((list(texts), source, target))

    cached = CachedTranslator(Preparing(), tmp_path)
    cached.translate(["a"], "es", "en")
    cached.prepare(["a", "b", "b", ""], "es", "en")
    assert asked == [(["b"], "es", "en")]


def test_cache_prepare_needs_no_translator_where_nothing_is_missing(tmp_path, shouting):
    class Gone(shouting):
        def prepare(self, texts, source, target):
            raise InputError("no such program")

    CachedTranslator(shouting(), tmp_path).translate(["a"], "es", "en")
    cached = CachedTranslator(Gone(), tmp_path)
    prepare(cached, ["a", " "], "es", "en")
    with pytest.raises(InputError, match="no such program"):
        prepare(cached, ["a", "b"], "es", "en")
    with pytest.raises(InputError, match="not valid Unicode"):
        prepare(cached, ["a", "\ud800"], "es", "en")


def test_cache_two_users_at_once_translate_every_text_once(tmp_path, shouting):
    class Slow(shouting):
        def translate(self, texts, source, target):
            time.sleep(0.02)
            return super().translate(texts, source, target)

    texts = [f"text {i}" for i in range(20)]
    translators = [Slow(Batch(texts=2)) for _ in range(3)]
    results = []

    def work(translator):
        results.append(CachedTranslator(translator, tmp_path).translate(texts, "es", "en"))

    threads = [threading.Thread(target=work, args=(each,)) for each in translators]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[text.upper() for text in texts]] * 3
    assert sorted(text for each in translators for text in each.texts) == sorted(texts)


def test_cache_many_texts_and_odd_characters_come_back(tmp_path, shouting):
    texts = [f"línea {i}\n\x00\ufeff\u2028 «{i}»" for i in range(1203)]
    cached = CachedTranslator(shouting(), tmp_path)
    expected = [text.upper() for text in texts]
    assert cached.translate(texts, "es", "en") == expected
    assert cached.translate(texts, "es", "en") == expected
    assert len(cached.translator.texts) == 1203


def test_cache_file_can_be_read_by_people(tmp_path, shouting):
    cached = CachedTranslator(shouting(), tmp_path)
    cached.translate(["año"], "es", "en")
    path = cached.path("es", "en")
    assert path.name.startswith("shouting.es-en.")
    assert sqlite3.connect(path).execute("SELECT * FROM translations").fetchall() == [
        ("año", "AÑO")
    ]


def test_cache_damaged_file_or_folder_is_an_input_error(tmp_path, shouting):
    cached = CachedTranslator(shouting(), tmp_path)
    cached.path("es", "en").write_text("no database, but long enough to be looked at" * 30)
    with pytest.raises(InputError, match="cannot use the translation cache .*remove that file"):
        cached.translate(["a"], "es", "en")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot use the translation cache"):
        CachedTranslator(shouting(), tmp_path / "file").translate(["a"], "es", "en")

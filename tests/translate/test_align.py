import collections
import fractions
import random

import numpy as np
import pytest

from clmrc_jax.data.mrc_examples import read_mrc
from clmrc_jax.translate.align import Match, best_window, overlap_f1, simple_match, units


def naive_window(wanted, units, delta):
    """SimpleMatch as the specification tells it: one Counter per window, exact fractions."""
    best, window = None, (0, 0, 0.0)
    shortest = min(max(1, len(wanted) - delta), len(units))
    for length in range(shortest, min(len(wanted) + delta, len(units)) + 1):
        for begin in range(len(units) - length + 1):
            bag = collections.Counter(units[begin : begin + length])
            overlap = (bag & collections.Counter(wanted)).total()
            if not overlap:
                continue
            precision = fractions.Fraction(overlap, length)
            recall = fractions.Fraction(overlap, len(wanted))
            f1 = 2 * precision * recall / (precision + recall)
            key = (f1, overlap, -abs(length - len(wanted)), -begin)
            if best is None or key > best:
                best, window = key, (begin, length, float(f1))
    return window


def test_simple_match_published_alignment_is_the_optimum_over_tokens():
    passage = "It was developed by Glory and ω-force, and published by Koei."
    match = simple_match("Glorious and ω-force", passage, "en")
    assert match.text == "and ω-force"
    assert match.score == pytest.approx(8 / 9)
    assert passage[match.start :].startswith(match.text)
    assert overlap_f1("Glory and ω-force", "Glorious and ω-force", "en") == pytest.approx(0.8)


@pytest.mark.parametrize("lang", ["zh_cn", "ja", "th"])
def test_simple_match_without_spaces_compares_characters(lang):
    assert simple_match("北京烤鴨", "他喜歡北京的烤鴨。", lang) == Match("北京的烤鴨", 3, 8 / 9)


def test_simple_match_takes_no_notice_of_case_and_returns_the_passages_own_words():
    assert simple_match(" the RED house\n", "In The red House!", "en") == Match(
        "The red House", 3, 1.0
    )
    assert simple_match("ABC", "xaBcx", "zh") == Match("aBc", 1, 1.0)


def test_simple_match_keeps_marks_and_joiners_with_their_word():
    texts = units("हिन्दी में «l’été» 3,5 ab_c می\u200cخواهم", "hi").texts
    expected = [
        "हिन्दी",
        "में",
        "«",
        "l",
        "’",
        "été",
        "»",
        "3",
        ",",
        "5",
        "ab",
        "_",
        "c",
        "می\u200cخواهم",
    ]
    assert texts == expected


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize(
    ("answer", "passage"), [("x", "abc"), ("", "abc"), (" \n", "abc"), ("x", ""), ("x", " ")]
)
def test_simple_match_nothing_in_common_keeps_the_answer(lang, answer, passage):
    assert simple_match(answer, passage, lang) == Match(answer.strip(), -1, 0.0)


def test_simple_match_answer_longer_than_the_passage_gets_the_whole_passage():
    match = simple_match("甲乙丙丁戊己庚辛壬癸", "乙丙", "zh", delta=1)
    assert match == Match("乙丙", 0, pytest.approx(2 * 2 / 12))


def test_simple_match_ties_larger_overlap_then_earlier():
    # F1 of "ab" in "abcd" equals that of windows twice as long with twice the overlap.
    assert best_window("ab", "axab", 0) == (2, 2, 1.0)
    assert best_window("aab", "xabxxaabbx", 1) == naive_window("aab", "xabxxaabbx", 1)
    assert best_window("a", "xaxa", 3) == (1, 1, 1.0)
    assert best_window("abcd", "axxxbc", 4) == naive_window("abcd", "axxxbc", 4)


def test_simple_match_delta_bounds_the_lengths():
    passage = "a b x c d"
    assert simple_match("a b c d", passage, "en", delta=0).score == pytest.approx(3 / 4)
    assert simple_match("a b c d", passage, "en", delta=1) == Match(
        passage, 0, pytest.approx(8 / 9)
    )
    with pytest.raises(ValueError, match="delta is -1"):
        simple_match("a", "a", "en", delta=-1)


@pytest.mark.parametrize("seed", range(4))
def test_best_window_equals_one_counter_per_window(seed):
    rng = random.Random(seed)
    for _ in range(150):
        letters = "abcdefghij"[: rng.randint(2, 10)]
        wanted = rng.choices(letters + "z", k=rng.randint(1, 12))
        passage = rng.choices(letters, k=rng.randint(1, 40))
        delta = rng.randint(0, 6)
        expected = naive_window(wanted, passage, delta)
        assert best_window(wanted, passage, delta) == expected, (wanted, passage, delta)


def test_simple_match_real_questions_equal_the_naive_rule(shared_data):
    examples = read_mrc(shared_data / "cmrc2018" / "cmrc2018_dev.json.gz", "zh")
    rng = np.random.default_rng(0)
    for row in rng.choice(len(examples), 6, replace=False):
        answer, context = examples[row].answers[0].text, examples[row].context
        noisy = "".join(char if rng.random() > 0.3 else "的" for char in answer)
        begin, length, score = naive_window(list(noisy.lower()), list(context.lower()), 5)
        assert len(context.lower()) == len(context)
        expected = Match(context[begin : begin + length], begin, score)
        assert simple_match(noisy, context, "zh") == expected


@pytest.mark.parametrize("lang", ["es", "de", "ru", "ar", "hi", "th", "zh", "ro", "en"])
def test_simple_match_whole_units_of_a_real_passage_are_found(shared_data, lang):
    examples = read_mrc(shared_data / "xquad" / f"xquad.{lang}.json.gz", lang)[:150]
    whole = 0
    for example in examples:
        answer = example.gold()
        match = simple_match(answer.text, example.context, lang)
        wanted, found = (units(text, lang).texts for text in (answer.text, example.context))
        size = len(wanted)
        if any(found[i : i + size] == wanted for i in range(len(found) - size + 1)):
            whole += 1  # the others end within a word: "Manning" in "Mannings"
            assert match.score == 1.0
            assert example.context[match.start :].startswith(match.text)
            assert sorted(units(match.text, lang).texts) == sorted(wanted)
    assert whole > 0.9 * len(examples)

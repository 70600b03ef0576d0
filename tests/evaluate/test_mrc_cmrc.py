"""CMRC 2018's rule against the evaluator's published behaviour and a plain reference."""

import random
import sys

import pytest

from clmrc_jax.evaluate import mrc_cmrc
from clmrc_jax.evaluate.mrc_cmrc import (
    contiguous_f1,
    fixed_scores,
    legacy_scores,
    legacy_words,
    longest_common_run,
)
from clmrc_jax.evaluate.mrc_golds import read_mrc_golds

# nltk.word_tokenize (3.10) with the published English punkt model.
WORD_TOKENIZE = [
    ("c.l. max nikias", ["c.l", ".", "max", "nikias"]),
    ("mr. smith met dr. no. they left.", "mr. smith met dr. no . they left .".split()),
    ("j. k. rowling", ["j.", "k.", "rowling"]),
    ("ok computer. no surprises", ["ok", "computer", ".", "no", "surprises"]),
    ("what? who! yes...", ["what", "?", "who", "!", "yes", "..."]),
    ("$3.50, i can't", ["$", "3.50", ",", "i", "ca", "n't"]),
    ("it's 3. something", ["it", "'s", "3.", "something"]),
    ("vol. 3 no. 5", ["vol", ".", "3", "no", ".", "5"]),
    ('("quoted" text.) more', ["(", "``", "quoted", "''", "text", ".", ")", "more"]),
    ("cannot", ["can", "not"]),
]
MARKS = "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』"


@pytest.mark.parametrize(("text", "words"), WORD_TOKENIZE)
def test_legacy_words_of_latin_text_are_those_of_nltk(text, words):
    assert legacy_words(text) == tuple(words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("光荣和ω-force", ["光", "荣", "和", "ωforce"]),  # a deleted mark separates nothing
        ("1、2、3", ["123"]),
        ("2014年5月", ["2014", "年", "5", "月"]),
        (
            "《战国》……‘无双’",
            ["战", "国", "……", "‘", "无", "双"],
        ),  # ’ is in the list, ‘ and … are not
        ("カナ漢字", ["カナ", "漢", "字"]),
        ("龦", ["龦"]),  # U+9FA6, just outside the range, goes through NLTK
        ("  ", []),
    ],
)
def test_legacy_words_of_mixed_text_follow_the_evaluator(text, words):
    assert legacy_words(text) == tuple(words)


@pytest.mark.parametrize(
    ("prediction", "answer", "em", "f1"),
    [
        ("光荣和ω-force", "光荣和ω-force", 1, 1),
        ("A-B", "ab", 1, 1),
        ("北京大学", "北京的大学", 0, 2 * 2 / (4 + 5)),  # a run of two, not four common characters
        ("1999年", "2000年", 0, 0.5),
        ("东京", "北海道", 0, 0),
        ("，。", "：", 1, 0),  # both become empty
        ("Peking Duck", "PekingDuck", 0, 0),  # inner blanks count
        ("12%", "12％", 0, 0),  # one token "12％" against "12" and "%"
    ],
)
def test_legacy_scores_of_known_pairs(prediction, answer, em, f1):
    assert legacy_scores(prediction, (answer,), "zh_cn") == pytest.approx((em, f1))


def test_legacy_takes_the_best_answer_for_each_metric():
    assert legacy_scores("北京市", ("北京", "北京市区", "北京市"), "zh_cn") == (1, 1)


@pytest.mark.parametrize(
    ("prediction", "answer", "em", "f1"),
    [
        ("1、2、3", "1 2 3", 1, 1),
        ("1、2、3", "123", 0, 0),
        ("A-B", "A B", 1, 1),
        ("……‘无双’", "无双", 1, 1),
        ("【北京】—(上海)", "北京上海", 1, 1),
        ("12%", "12％", 1, 1),
        ("２０１４年", "2014年", 1, 1),
        ("1,000人", "1000人", 1, 1),
        ("北京 大学", "北京大学", 1, 1),
        ("カナ", "カタカナ", 0, 2 * 2 / 6),
        ("北京大学", "北京的大学", 0, 2 * 2 / 9),
        ("", "", 1, 1),
        ("……", "", 0, 0),
        ("", "北京", 0, 0),
    ],
)
def test_fixed_scores_of_known_pairs(prediction, answer, em, f1):
    assert fixed_scores(prediction, (answer,), "zh_cn") == pytest.approx((em, f1))


def test_fixed_never_needs_nltk_and_legacy_says_where_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "nltk.tokenize", None)  # makes the import fail
    mrc_cmrc._nltk.cache_clear()
    legacy_words.cache_clear()
    mrc_cmrc._nltk_words.cache_clear()
    assert fixed_scores("abc", ("abc",), "zh_cn") == (1, 1)
    with pytest.raises(ImportError, match=r'pip install "clmrc_jax\[segment\]"'):
        legacy_scores("abc", ("abc",), "zh_cn")


def test_longest_common_run_equals_quadratic_table():
    generator = random.Random(0)
    for _ in range(300):
        first, second = (
            tuple(generator.choices(["a", "bb", "c", "京"], k=generator.randrange(12)))
            for _ in range(2)
        )
        assert longest_common_run(first, second) == _run(first, second)


def test_longest_common_run_of_long_texts_is_found():
    first = tuple(f"w{i}" for i in range(20_000))
    assert longest_common_run(first, first[5_000:]) == 15_000
    assert longest_common_run(("ab",), ("a", "b")) == 0
    assert contiguous_f1((), ()) == 0 and contiguous_f1((), (), both_empty=1.0) == 1


@pytest.mark.parametrize(
    ("name", "lang"),
    [("cmrc2018/cmrc2018_dev", "zh_cn"), ("drcd/DRCD_dev", "zh_tw"), ("drcd/DRCD_test", "zh_tw")],
)
def test_legacy_equals_plain_reference_on_real_answers(shared_data, name, lang):
    generator = random.Random(2)
    golds = read_mrc_golds(shared_data / f"{name}.json.gz", lang)
    for gold in generator.sample(golds, 150):
        answer = generator.choice(gold.answers)
        other = generator.choice(golds).answers[0]
        cut = generator.randrange(len(answer) + 1)
        for prediction in (answer, answer[:cut], other + answer[cut:] + other):
            expected = _reference(prediction, gold.answers)
            assert legacy_scores(prediction, gold.answers, lang) == pytest.approx(expected)


def _run(first, second):
    """Length of the longest common contiguous run, by the textbook's table."""
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, x in enumerate(first):
        for j, y in enumerate(second):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else 0
    return max(map(max, table))


def _reference(prediction, answers):
    """The evaluator's rules written out plainly; words between Chinese characters by NLTK."""
    best_em, best_f1 = 0.0, 0.0
    for answer in answers:
        best_em = max(best_em, float(_stripped(prediction) == _stripped(answer)))
        ours, theirs = _segments(prediction), _segments(answer)
        run = _run(ours, theirs)
        if run:
            precision, recall = run / len(ours), run / len(theirs)
            best_f1 = max(best_f1, 2 * precision * recall / (precision + recall))
    return best_em, best_f1


def _stripped(text):
    return "".join(x for x in text.lower().strip() if x not in MARKS)


def _segments(text):
    from nltk.tokenize import NLTKWordTokenizer

    found, buffer = [], ""
    for x in _stripped(text) + "一":  # a last Chinese character flushes the buffer
        if 0x4E00 <= ord(x) <= 0x9FA5:
            # One sentence is enough here, but for the one answer punkt is known to matter for.
            line = buffer.replace("c.l. max", "c.l . max")
            found += [*NLTKWordTokenizer().tokenize(line), x]
            buffer = ""
        else:
            buffer += x
    return found[:-1]

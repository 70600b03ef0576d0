"""n-best decoding against an exhaustive search, and the text of answers."""

import itertools

import numpy as np
import pytest

from clmrc_jax.data.char_split import CharSplitTokenizer
from clmrc_jax.data.mrc_examples import Answer, MrcExample, read_mrc
from clmrc_jax.data.span_decoding import answer, decode, null_score
from clmrc_jax.data.span_features import SpanFormat, target_windows
from clmrc_jax.data.tokenization import load_tokenizer
from clmrc_jax.files import InputError

CONTEXT = "Peking Duck is eaten in Beijing (1895). Peking Duck 吃在歐洲。"
NAMES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "Peking", "Duck", "is", "eaten", "in", "Bei", "##jing"]
NAMES += ["1895", "(", ")", ".", "。", *"吃在歐洲?"]
TOKENIZER = CharSplitTokenizer({name: number for number, name in enumerate(NAMES)})
EXAMPLE = MrcExample("q1", "zh", "T", "吃?", CONTEXT, (Answer("吃", 0),))


def windows_of(mode="paper", length=14, stride=4):
    format = SpanFormat(length, length, stride, mode=mode)
    return target_windows(EXAMPLE, TOKENIZER, format, labelled=False)


def random_scores(windows, seed, length=16):
    """float32 log-probabilities [windows, length], with ties."""
    logits = np.random.default_rng(seed).integers(-6, 3, (len(windows), length)).astype(np.float32)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)


def reference(windows, starts, ends, n_best, longest):
    """Spec 5.1 by loops: (text, score) of the different best answers."""
    found = []
    for window, start, end in zip(windows, starts, ends):
        order = [sorted(range(len(x)), key=lambda i: -x[i])[:n_best] for x in (start, end)]
        for i, j in itertools.product(*order):
            a, b = i - window.first, j - window.first
            inside = 0 <= a < len(window.offsets) and 0 <= b < len(window.offsets)
            if not inside or not window.max_context[a] or j < i or j - i + 1 > longest:
                continue
            text = CONTEXT[window.offsets[a][0] : window.offsets[b][1]]
            found.append((text, float(start[i]) + float(end[j])))
    found.sort(key=lambda row: -row[1])
    best = {}
    for text, score in found:
        if text not in best and len(best) < n_best:
            best[text] = score
    return list(best.items())


@pytest.mark.parametrize("n_best, longest", [(20, 30), (5, 3), (1, 1), (40, 2)])
@pytest.mark.parametrize("seed", range(4))
def test_n_best_list_is_that_of_the_exhaustive_search(seed, n_best, longest):
    windows = windows_of()
    assert len(windows) > 2
    starts, ends = random_scores(windows, seed), random_scores(windows, seed + 50)
    entries = decode(EXAMPLE, windows, starts, ends, n_best=n_best, max_answer_length=longest)
    expected = reference(windows, starts, ends, n_best, longest)
    if not expected:
        assert answer(entries) == "" and len(entries) == 1
        return
    assert [entry["text"] for entry in entries] == [text for text, _ in expected]
    scores = np.array([score for _, score in expected])
    np.testing.assert_array_equal([e["start_logit"] + e["end_logit"] for e in entries], scores)
    np.testing.assert_allclose(
        [entry["probability"] for entry in entries], np.exp(scores) / np.exp(scores).sum()
    )
    for entry in entries:
        assert CONTEXT[entry["start"] : entry["end"]] == entry["text"]


def peak(windows, start, end, height=0.0, low=-30.0, length=40):
    """Scores with one answer, the passage's tokens start to end, and [CLS] in every window."""
    scores = np.full((2, len(windows), length), low, np.float32)
    for number, window in enumerate(windows):
        for row, place in enumerate((start, end)):
            if window.begin <= place < window.begin + window.count:
                scores[row, number, window.first + place - window.begin] = height
    return scores


def test_offsets_keep_the_spaces_that_the_official_text_loses():
    windows = windows_of(length=40)
    found = decode(EXAMPLE, windows, *peak(windows, 0, 1))
    assert (answer(found), found[0]["start"], found[0]["end"]) == ("Peking Duck", 0, 11)
    windows = windows_of("official", length=40)
    assert answer(decode(EXAMPLE, windows, *peak(windows, 0, 1), text="official")) == "PekingDuck"
    assert answer(decode(EXAMPLE, windows, *peak(windows, 0, 1))) == "Peking Duck"


def test_same_text_elsewhere_counts_once():
    windows = windows_of(length=40)
    scores = peak(windows, 0, 1)
    later = windows[0].first + 11  # the second "Peking Duck"
    scores[0, 0, later], scores[1, 0, later + 1] = -1.0, -1.0
    texts = [entry["text"] for entry in decode(EXAMPLE, windows, *scores)]
    assert texts.count("Peking Duck") == 1 and texts[0] == "Peking Duck"


def test_scores_of_the_question_of_cls_and_of_padding_are_no_answers():
    windows = windows_of(length=40)
    scores = peak(windows, 5, 5)
    scores[:, :, [0, 1, 2, 3, 35]] = 5.0  # [CLS] question [SEP] ... padding
    assert answer(decode(EXAMPLE, windows, *scores, n_best=6)) == "Bei"


@pytest.mark.parametrize("text, expected", [("offsets", ""), ("official", "empty")])
def test_no_allowed_pair_gives_one_answer_of_its_own(text, expected):
    windows = windows_of("official", length=40)
    scores = peak(windows, 8, 2)  # the end before the start, everything else out of the top
    (entry,) = decode(EXAMPLE, windows, *scores, n_best=1, text=text)
    assert entry == {
        "text": expected,
        "probability": 1.0,
        "start_logit": 0.0,
        "end_logit": 0.0,
        "start": -1,
        "end": -1,
    }


@pytest.mark.parametrize(
    "threshold, expected", [(-100.0, ""), (-2.1, ""), (-1.9, "Bei"), (3.0, "Bei")]
)
def test_unanswerable_question_by_threshold(threshold, expected):
    """The null score is the least of the windows': here -5 + 3 = -2 against 0 of the answer."""
    windows = windows_of()
    scores = peak(windows, 5, 5)
    scores[:, :, 0] = 2.0
    scores[0, 1, 0], scores[1, 1, 0] = -5.0, 3.0
    entries = decode(EXAMPLE, windows, *scores, null_threshold=threshold)
    assert answer(entries) == expected
    assert null_score(entries) == -2.0
    null = [entry for entry in entries if not entry["text"]]
    assert [(e["start_logit"], e["end_logit"], e["start"]) for e in null] == [(-5.0, 3.0, -1)]
    assert sum(entry["probability"] for entry in entries) == pytest.approx(1)
    with pytest.raises(InputError, match="decode with a null_threshold"):
        null_score(decode(EXAMPLE, windows, *scores))


def test_bad_calls_are_named():
    windows = windows_of(length=40)
    scores = peak(windows, 0, 1)
    with pytest.raises(InputError, match="text 'raw': choose one of offsets, official"):
        decode(EXAMPLE, windows, *scores, text="raw")
    with pytest.raises(InputError, match="question 'q1': 1 windows, 0 and 1 rows of scores"):
        decode(EXAMPLE, windows, [], scores[1])
    with pytest.raises(InputError, match="'q1': 0 windows"):
        decode(EXAMPLE, [], [], [])
    paper = target_windows(EXAMPLE, TOKENIZER, SpanFormat(40, 40), labelled=False)
    bare = [type(window)(**vars(window) | {"split": None}) for window in paper]
    with pytest.raises(InputError, match='text="official" needs windows made with'):
        decode(EXAMPLE, bare, *peak(bare, 0, 1), text="official")


def test_gold_windows_of_real_questions_decode_to_their_answers(shared_data, vocabulary):
    """With offsets nothing is lost on the way from answer to label to text."""
    examples = read_mrc(shared_data / "xquad" / "xquad.zh.json.gz", "zh")[:200]
    text = "".join(x.context + x.question for x in examples)
    names = ["[UNK]", "[CLS]", "[SEP]", *sorted(set(text)), *("##" + c for c in sorted(set(text)))]
    characters = CharSplitTokenizer({name: number for number, name in enumerate(names)})
    for tokenizer, exact in ((characters, 1.0), (load_tokenizer(str(vocabulary)), 0.8)):
        right = 0
        for x in examples:
            windows = target_windows(x, tokenizer, SpanFormat(160, 160, 64))
            scores = np.full((2, len(windows), 160), -30.0)
            for number, window in enumerate(windows):
                scores[0, number, window.start] = scores[1, number, window.end] = 0.0
            found = answer(decode(x, windows, *scores, max_answer_length=160))
            assert x.gold().text in found or exact == 1.0 or not found
            right += found == x.gold().text
        assert right >= exact * len(examples)

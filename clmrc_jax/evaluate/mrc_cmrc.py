"""How CMRC 2018 and DRCD compare one prediction with the references.

`legacy` follows the organisers' evaluator (v5 and v6): a word is a Chinese character or a token
of NLTK's `word_tokenize`; F1 counts the longest common CONTIGUOUS run of words; EM compares
strings without certain marks. Its defects, which `fixed` mends:
  1. its list of marks lacks ‘ … — 【】 and most of ASCII, and `……` in it can match no character;
     every Unicode punctuation mark goes;
  2. deleted marks do not separate words (`1、2、3` became `123`); they do;
  3. characters outside U+4E00-9FA5 (kana, full-width digits, rare Han) were glued together or
     never equal to their ordinary form; NFKC folds width, every Han or kana stands alone;
  4. two answers that become empty agreed in EM (1) but not in F1 (0); text of marks only keeps
     them, and two empty answers agree in both;
  5. NLTK and its data are not needed.
In `fixed` EM is 1 exactly where F1 is 1.

NLTK's sentence model `punkt` is no Python package, so its algorithm runs here with the English
model's abbreviations, but without its 36 collocations and its statistics of capitals, to which
lower-cased text leaves almost no work (a list number or an initial before a word that the model
knows in lower case only). Measured against `word_tokenize` with the published model: no word
differs in any reference or passage of CMRC 2018 dev and DRCD dev and test, nor in 400 passages
of SQuAD. (Without sentences two would: the answer `C.L. Max Nikias` of DRCD test, twice.)
"""

import functools

from clmrc_jax.evaluate.mrc_words import fixed_words

_MARKS = "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』"
_WITHOUT_MARKS = str.maketrans("", "", _MARKS)
# Abbreviation types of NLTK's English punkt model: after these a full stop ends no sentence.
_ABBREVIATIONS = """
a.a a.c a.d a.g a.h a.m a.m.e a.s a.t adm ala ariz aug ave b.f b.v bros c c.i.t c.o.m.b c.v calif
chg cie co col colo conn corp cos ct d d.c d.h d.w dec dr e e.f e.h e.l e.m f f.g f.j feb fla fri
ft g g.d g.f g.k ga gen h h.c h.f h.m i.m.s ill inc j.b j.c j.j j.k j.p j.r jan jr k kan ky l l.a
l.f l.p lt ltd m m.b.a m.d.c m.j maj messrs mg mich minn mr mrs ms n n.c n.d n.h n.j n.m n.v n.y
nev nov oct ok okla ore p p.a.m p.m pa ph.d prof r r.a r.h r.i r.j r.k r.t rep reps s s.a s.a.y
s.c s.g s.p.a s.s sen sep sept sr st sw t t.j tenn tues u.k u.n u.s u.s.a u.s.s.r v va vs vt w w.c
w.r w.va w.w wash wed wis yr
"""


def legacy_scores(prediction: str, answers: tuple[str, ...], lang: str) -> tuple[float, float]:
    """(EM, F1) in [0, 1] by the organisers' rule, maxima over the answers; `lang` is unused.

    Raises ImportError where NLTK (extra `segment`) is missing.
    """
    predicted = legacy_words(prediction)
    f1 = max(contiguous_f1(predicted, legacy_words(answer)) for answer in answers)
    em = any(_without_marks(prediction) == _without_marks(answer) for answer in answers)
    return float(em), f1


def fixed_scores(prediction: str, answers: tuple[str, ...], lang: str) -> tuple[float, float]:
    """(EM, F1) in [0, 1] with the defects mended, maxima over the answers."""
    predicted = fixed_words(prediction, lang)
    accepted = [fixed_words(answer, lang) for answer in answers]
    f1 = max(contiguous_f1(predicted, words, both_empty=1.0) for words in accepted)
    return float(predicted in accepted), f1


def contiguous_f1(predicted: tuple[str, ...], answer: tuple[str, ...], both_empty=0.0) -> float:
    """F1 of two word sequences whose overlap is their longest common contiguous run."""
    if not predicted and not answer:
        return both_empty
    run = longest_common_run(predicted, answer)
    if not run:
        return 0.0
    # Written as the evaluator writes it: the last bit of the number is part of "exact".
    precision, recall = run / len(predicted), run / len(answer)
    return 2 * precision * recall / (precision + recall)


def longest_common_run(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    """Number of words of the longest run that stands, unbroken, in both sequences.

    Every word becomes one character, so that the search inside `second` is Python's own linear
    substring search: no table of len(first) x len(second) cells.
    """
    codes: dict[str, str] = {}
    needle, haystack = (
        "".join(codes.setdefault(word, chr(len(codes))) for word in words)
        for words in (first, second)
    )
    best = 0
    for start in range(len(needle)):
        while start + best < len(needle) and needle[start : start + best + 1] in haystack:
            best += 1
    return best


@functools.lru_cache(maxsize=1 << 16)
def legacy_words(text: str) -> tuple[str, ...]:
    """Words of the evaluator's mixed segmentation, its list of marks deleted first."""
    words: list[str] = []
    buffer = ""
    for character in _without_marks(text):
        if "\u4e00" <= character <= "\u9fa5":
            words += _nltk_words(buffer)
            words.append(character)
            buffer = ""
        else:
            buffer += character
    return (*words, *_nltk_words(buffer))


def _without_marks(text: str) -> str:
    return text.lower().strip().translate(_WITHOUT_MARKS)


@functools.lru_cache(maxsize=1 << 16)
def _nltk_words(text: str) -> tuple[str, ...]:
    """The words of `nltk.word_tokenize`: sentences first, then Treebank tokens of each."""
    if not text.strip():
        return ()
    sentences, tokens = _nltk()
    return tuple(word for line in sentences.tokenize(text) for word in tokens.tokenize(line))


@functools.cache
def _nltk():
    """NLTK's sentence splitter, told the abbreviations, and its word tokenizer."""
    try:
        from nltk.tokenize import destructive, punkt
    except ImportError as error:
        raise ImportError(
            "the legacy scorer of CMRC 2018 and DRCD needs the package 'nltk', which cannot be "
            f'imported ({error}); run: pip install "clmrc_jax[segment]"'
        ) from error
    model = punkt.PunktParameters()
    model.abbrev_types.update(_ABBREVIATIONS.split())
    return punkt.PunktSentenceTokenizer(model), destructive.NLTKWordTokenizer()

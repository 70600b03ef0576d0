"""Reading comprehension on the embedded corpus: SQuAD-like questions over parallel articles.

A context is three passages: the one that states the fact, another one of the subject's article, and
one that states the same relation of another entity, so that a reader must match both relation and
subject. The same passages in two languages are real bilingual pairs: written from the same facts,
though not sentence for sentence, with the answer known in both.
"""

from collections.abc import Iterator

from clmrc_jax.data.languages import CORPUS_LANGUAGES
from clmrc_jax.data.mrc_examples import Answer, MrcExample, SourceSide
from clmrc_jax.data.world_facts.cldr import Fact, WorldFacts, stable_fraction
from clmrc_jax.data.world_facts.corpus import SPLITS, Corpus, question_templates, split_of
from clmrc_jax.files import InputError


def reading_examples(
    world: WorldFacts, split: str, lang: str, *, source: str = "", paraphrases: int = 1
) -> Iterator[MrcExample]:
    """Questions of a split with their contexts, fact by fact.

    lang: of question and context, one of the 13 corpus languages.
    source: also give this language's question and context as the source side, and keep only
        what both languages state; "" for one language.
    paraphrases: questions per fact, at most as many as there are templates (3).
    Ids are "<relation>-<subject>_<lang>", with "_1", "_2" for further paraphrases. A fact belongs
    to the same split in every language. Raises InputError for an unknown split or language.
    """
    for name in (lang, *filter(None, (source,))):
        if name not in CORPUS_LANGUAGES:
            known = ", ".join(CORPUS_LANGUAGES)
            raise InputError(f"world facts: no articles in {name!r}; choose from {known}")
    if split not in SPLITS:
        raise InputError(f"world facts: unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    corpus = Corpus(world)
    languages = (lang, source) if source else (lang,)
    for fact in world.facts:
        if split_of(fact) != split or not all(corpus.stating(fact, x) for x in languages):
            continue
        beside = _beside(corpus, fact, languages)
        if beside is None:
            continue
        for number in range(paraphrases):
            example = _example(corpus, fact, beside, lang, number)
            if source:
                other = _example(corpus, fact, beside, source, number)
                side = SourceSide(source, other.question, other.context, other.answers[0])
                example = _with_source(example, side)
            yield example


def _with_source(example: MrcExample, side: SourceSide) -> MrcExample:
    return MrcExample(**vars(example) | {"source": side})


def _beside(corpus: Corpus, fact: Fact, languages: tuple[str, ...]) -> Fact | None:
    """A fact of the same relation, of another subject and object, stated in all `languages`."""
    stated = [set(corpus.subjects_stating(fact.relation, x)) for x in languages]
    found = [
        other
        for other in corpus.subjects_stating(fact.relation, languages[0])
        if other.subject != fact.subject
        and other.object != fact.object
        and all(other in facts for facts in stated)
    ]
    draw = stable_fraction(f"beside|{fact.relation}|{fact.subject}")
    return found[int(draw * len(found))] if found else None


def _texts(corpus: Corpus, fact: Fact, beside: Fact, lang: str) -> list[str]:
    """The passages of a context, in an order that is the same in every language."""
    stating = corpus.stating(fact, lang)
    article = [section.passage.text for section in corpus.sections[f"{fact.subject}/{lang}"]]
    further = [text for text in article if text != stating.text]
    texts = [stating.text, corpus.stating(beside, lang).text, *further[:1]]
    first = int(stable_fraction(f"order|{fact.relation}|{fact.subject}") * 3) % len(texts)
    return texts[first:] + texts[:first]


def _example(corpus: Corpus, fact: Fact, beside: Fact, lang: str, number: int) -> MrcExample:
    separator = "" if lang == "ja" else " "
    texts = _texts(corpus, fact, beside, lang)
    context = separator.join(texts)
    sentence, offset = corpus.statement(fact, lang)
    passage = corpus.stating(fact, lang)
    before = texts[: texts.index(passage.text)]
    start = sum(len(text) + len(separator) for text in before)
    answer = Answer(
        corpus.world.answers(fact, lang)[0], start + passage.text.index(sentence) + offset
    )
    templates = question_templates()[fact.relation][lang]
    first = int(
        stable_fraction(f"paraphrase|{fact.relation}|{fact.subject}|{lang}") * len(templates)
    )
    question = templates[(first + number) % len(templates)]
    name = corpus.world.entities[fact.subject].names[lang]
    identity = f"{fact.relation}-{fact.subject.replace(':', '.')}_{lang}"
    return MrcExample(
        id=f"{identity}_{number}" if number else identity,
        lang=lang,
        title=name,
        question=question.replace("{x}", name),
        context=context,
        answers=(answer,),
        article=fact.subject,
    )

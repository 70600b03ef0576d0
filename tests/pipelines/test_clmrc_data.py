"""Training and evaluation sets from small SQuAD files: roles, splits, samples, mistakes."""

import dataclasses

import pytest

from clmrc_jax.data.datasets import prepare
from clmrc_jax.data.mrc_examples import Answer, MrcExample, SourceSide, write_aligned, write_squad
from clmrc_jax.files import InputError
from clmrc_jax.pipelines.clmrc_data import EvaluationSet, ReadingSets, load_reading_sets, sample
from clmrc_jax.pipelines.clmrc_settings import ReadingData

ARTICLES = 8


def example(number: int, lang: str, prefix: str = "q", source: bool = False) -> MrcExample:
    context = f"{lang} passage {number} has word{number} in it."
    answer = Answer(f"word{number}", context.index("word"))
    side = SourceSide("en", f"question {number}?", context, answer) if source else None
    article = f"article {number % ARTICLES}"
    return MrcExample(
        id=f"{prefix}{number}",
        lang=lang,
        title=article,
        question=f"{lang} question {number}?",
        context=context,
        answers=(answer,),
        source=side,
        article=article,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """es.json, de.json, en.json: parallel; aligned.json; squad.json with two ids of en.json."""
    path = tmp_path_factory.mktemp("squads")
    for lang in ("es", "de", "en"):
        write_squad(path / f"{lang}.json", [example(n, lang) for n in range(16)])
    write_aligned(path / "aligned.json", [example(n, "zh_cn", "a", True) for n in range(6)])
    squad = [example(n, "en", "s") for n in range(20)] + [example(n, "en") for n in (3, 4)]
    write_squad(path / "squad.json", squad)
    return path


def load(folder, **changes) -> ReadingSets:
    files = {name: tuple(changes.pop(name, ())) for name in ("source_train", "target_train")}
    files |= {name: tuple(changes.pop(name, ())) for name in ("bilingual_train", "evaluate")}

    def placed(row):
        return tuple(str(folder / x) if str(x).endswith(".json") else x for x in row)

    rows = {name: tuple(map(placed, given)) for name, given in files.items()}
    exclude = placed(changes.pop("exclude", ()))
    return load_reading_sets(ReadingData(kind="files", exclude=exclude, **rows, **changes))


EVALUATE = [("xquad_es", "es.json", "es", "xquad")]


def ids(examples):
    return [x.id for x in examples]


def test_files_take_their_roles(folder):
    sets = load(
        folder,
        source_train=[("squad.json", "en")],
        target_train=[("es.json", "es")],
        bilingual_train=[("aligned.json", "zh_cn", "en"), ("es.json", "es", "en.json", "en")],
        evaluate=EVALUATE,
    )
    assert [len(x) for x in (sets.source, sets.target, sets.bilingual)] == [22, 16, 22]
    assert {x.lang for x in sets.target} == {"es"} and not any(x.source for x in sets.target)
    assert sets.bilingual[0].source.question == "question 0?"
    assert sets.bilingual[6].source.context.startswith("en passage 0")
    assert sets.of("mixed") == sets.source + sets.target
    (evaluation,) = sets.evaluation
    assert (evaluation.name, evaluation.scorer, len(evaluation.examples)) == (
        "xquad_es",
        "xquad",
        16,
    )


def test_excluded_files_leave_the_source_set(folder):
    sets = load(folder, source_train=[("squad.json", "en")], exclude=["es.json"], evaluate=EVALUATE)
    assert ids(sets.source) == [f"s{n}" for n in range(20)]


def damaged(number: int, *changes: str) -> MrcExample:
    """An example whose answer is not at its offset, or not in its passage."""
    x = example(number, "es")
    answer = x.answers[0]
    if "offset" in changes:
        answer = Answer(answer.text, answer.start + 1)
    if "absent" in changes:
        answer = Answer("nowhere", 3)
    return dataclasses.replace(x, answers=(answer,))


def test_what_was_mended_or_is_missing_is_counted_by_set(folder, tmp_path):
    write_squad(
        tmp_path / "es.json", [damaged(n, *x) for n, x in enumerate((["offset"], ["absent"], []))]
    )
    write_squad(tmp_path / "en.json", [damaged(n, *x) for n, x in enumerate((["offset"], []))])
    es, en = (str(tmp_path / name) for name in ("es.json", "en.json"))
    sets = load(
        folder,
        source_train=[("squad.json", "en")],
        target_train=[(es, "es"), ("de.json", "de")],
        bilingual_train=[(es, "es", en, "en"), ("aligned.json", "zh_cn", "en")],
        evaluate=[*EVALUATE, ("dev", es, "es", "xquad")],
        max_target=1,
    )
    wrong = {"relocated": 1, "absent": 1}
    assert sets.mended == {
        "source_train": {},
        "target_train": wrong,
        "bilingual_train": wrong | {"source_relocated": 1, "untranslated": 1},
        "xquad_es": {},
        "dev": wrong,
    }
    assert sets.mended_of("mixed") == sets.mended_of("target") == wrong
    assert load_reading_sets(ReadingData(world="smoke")).mended_of("source") == {}


def test_questions_without_translation_are_evaluated_and_refused_for_both_sides(folder, tmp_path):
    write_squad(tmp_path / "en.json", [example(n, "en") for n in range(15)])
    row = ("es", "es.json", "es", "xquad", str(tmp_path / "en.json"), "en")
    sets = load(folder, target_train=[("es.json", "es")], evaluate=[row])
    assert len(sets.evaluation[0].examples) == 16 and sets.mended["es"] == {"untranslated": 1}
    sets.check(["target"])
    sets = dataclasses.replace(sets, bilingual=[example(0, "es", source=True)])
    with pytest.raises(InputError, match="'es': 1 of 16 questions have no translation .'q15'"):
        sets.check(["bilingual"])


def test_prepared_sets_serve_as_files(folder, tmp_path):
    files = {"train": [(str(folder / "squad.json"), "en")]}
    prepared = f"tfds:{prepare('cmrc2018', files, tmp_path)}/train"
    sets = load(folder, source_train=[(prepared, "en")], evaluate=EVALUATE)
    assert (
        sets.source == load(folder, source_train=[("squad.json", "en")], evaluate=EVALUATE).source
    )
    sets = load(folder, source_train=[("squad.json", "en")], exclude=[prepared], evaluate=EVALUATE)
    assert not sets.source


def test_article_share_splits_parallel_files_alike(folder):
    sets = load(
        folder,
        article_share=0.75,
        target_train=[("es.json", "es"), ("de.json", "de")],
        bilingual_train=[("es.json", "es", "en.json", "en"), ("de.json", "de", "en.json", "en")],
        evaluate=[*EVALUATE, ("xquad_de", "de.json", "de", "xquad", "en.json", "en")],
    )
    trained = {x.article for x in sets.target}
    assert len(trained) == 6 and trained == {x.article for x in sets.bilingual}
    for evaluation in sets.evaluation:
        held_out = {x.article for x in evaluation.examples}
        assert len(held_out) == 2 and not held_out & trained
    assert ids(sets.evaluation[0].examples) == ids(sets.evaluation[1].examples)
    # The same question in another language keeps its own id, the same one in both sets.
    assert ids(sets.target) == ids(sets.bilingual) and len(set(ids(sets.target))) == 24
    assert sum(x.endswith("_de") for x in ids(sets.target)) == 12


def test_without_article_share_files_stay_whole(folder):
    sets = load(folder, target_train=[("es.json", "es")], evaluate=EVALUATE)
    assert len(sets.target) == len(sets.evaluation[0].examples) == 16


def test_samples_are_seeded_nested_and_shared_between_sets(folder):
    def loaded(**changes):
        return load(
            folder,
            target_train=[("es.json", "es")],
            bilingual_train=[("es.json", "es", "en.json", "en")],
            evaluate=EVALUATE,
            **changes,
        )

    few = loaded(max_target=5, max_evaluate=3)
    assert ids(few.target) == ids(few.bilingual) == ids(loaded(max_target=5).target)
    assert len(few.target) == 5 and len(few.evaluation[0].examples) == 3
    assert set(ids(few.target)) < set(ids(loaded(max_target=9).target))
    assert any(ids(few.target) != ids(loaded(max_target=5, seed=s).target) for s in (1, 2, 3))
    numbers = [int(x.removeprefix("q")) for x in ids(few.target)]
    assert numbers == sorted(numbers), "the order of the file stays"


def test_sample_larger_than_the_set_is_the_set():
    examples = [example(n, "es") for n in range(3)]
    assert sample(examples, 0, 0) == sample(examples, 3, 0) == sample(examples, 99, 0) == examples


def test_embedded_corpus_is_parallel_and_split_by_fact():
    sets = load_reading_sets(ReadingData(world="smoke", target="ja", paraphrases=2))
    assert ids(sets.target) == ids(sets.bilingual)
    assert all(x.source.lang == "en" for x in sets.bilingual)
    assert {x.lang for x in sets.source} == {"en"} and sets.evaluation[0].scorer == "xquad"
    assert not set(ids(sets.target)) & set(ids(sets.evaluation[0].examples))
    assert len(sets.source) == 2 * len({x.id.removesuffix("_1") for x in sets.source})


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"source_train": [("none.json", "en")]}, r"none\.json: no such file"),
        ({"evaluate": [("dev", "gone.json", "es", "xquad")]}, r"gone\.json: no such file"),
        ({"exclude": ["away.json"]}, r"away\.json: no such file"),
        ({"target_train": [("es.json", "klingon")]}, "klingon"),
        (
            {"target_train": [("es.json", "es")] * 2},
            "data.target_train: question 'q0' comes twice in es",
        ),
        (
            {"bilingual_train": [("es.json", "es", "en")]},
            r"es\.json: no question has a translation",
        ),
        ({"bilingual_train": [("es.json", "es", "aligned.json", "en")]}, "parallel files"),
    ],
)
def test_bad_files_are_named(folder, changes, message):
    with pytest.raises(InputError, match=message):
        load(folder, **{"evaluate": EVALUATE} | changes)


def test_share_so_small_that_no_article_trains_is_named(folder):
    sets = load(folder, target_train=[("es.json", "es")], evaluate=EVALUATE, article_share=0.1)
    with pytest.raises(InputError, match="data.target_train is empty"):
        sets.check(["target"])


def test_missing_sets_are_named_with_the_flag_that_gives_them():
    whole = [example(0, "es", source=True)]
    evaluation = [EvaluationSet("dev", "xquad", [example(1, "es")])]
    with pytest.raises(InputError, match=r"--config.data.source_train="):
        ReadingSets([], whole, whole, evaluation).check(["source"])
    with pytest.raises(InputError, match="data.evaluate is empty.*'cmrc2018'"):
        ReadingSets(whole, whole, whole, []).check(["target"])
    sets = ReadingSets(whole, whole, whole, evaluation)
    sets.check(["source", "target"])
    with pytest.raises(InputError, match="'dev': 1 of 1 questions have no translation .'q1'"):
        sets.check(["bilingual"])

"""The parallel text of a translator's training."""

import pytest

from clmrc_jax.data.world_facts.corpus import load_world_facts
from clmrc_jax.data.world_facts.parallel import parallel_statements
from clmrc_jax.files import InputError
from clmrc_jax.pipelines.translator_data import read_directions
from clmrc_jax.pipelines.translator_settings import TranslatorSettings


def settings(**values):
    return TranslatorSettings(**{"name": "t", "seed": 0, "directions": ("en-es",), **values})


def both_sides(pairs):
    return {text for pair in pairs for text in pair}


@pytest.fixture
def corpus(tmp_path):
    """200 pairs with a second translation of every tenth sentence."""
    path = tmp_path / "en-es.tsv"
    rows = [f"source {i}\tdestino {i}\n" for i in range(200)]
    rows += [f"source {i}\totro {i}\n" for i in range(0, 200, 10)]
    path.write_text("".join(rows))
    return ("en-es", str(path))


def test_files_are_held_out_without_overlap_in_both_directions(corpus):
    made = read_directions(settings(train=(corpus,), directions=("en-es", "es-en"), held_out=20))
    there, back = made
    assert there.languages == ("en", "es") and there.tag == ">>es<<" and back.tag == ">>en<<"
    for part in ("train", "valid", "test"):
        pairs = getattr(there, part)
        assert pairs and [(b, a) for a, b in pairs] == getattr(back, part)
    assert not both_sides(there.train) & both_sides(there.valid + there.test)
    assert not both_sides(there.valid) & both_sides(there.test)
    source, target = there.test[0]
    assert there.tagged((source, target)) == (f">>es<< {source}", target)


def test_given_parts_are_used_and_removed_from_training(corpus, tmp_path):
    test = tmp_path / "test.tsv"
    test.write_text("source 3\tunseen\nnew\tnuevo\n")
    (made,) = read_directions(
        settings(train=(corpus,), test=(("en-es", str(test)),), held_out=10, max_pairs=50)
    )
    assert made.test == [("source 3", "unseen"), ("new", "nuevo")] and made.tag == ""
    assert ("source 3", "destino 3") not in made.train and 20 < len(made.train) <= 50


def test_embedded_corpus_keeps_test_facts_out_of_training():
    (made,) = read_directions(settings())
    assert ("Andorra", "Andorra") in made.train and len(made.train) > 3000
    sides = both_sides(made.train)
    assert not [pair for pair in made.test if pair[0] in sides]
    assert made.tagged(made.test[0]) == made.test[0]


def test_embedded_statements_are_the_same_fact_in_both_languages():
    world = load_world_facts("full")
    pairs = parallel_statements(world, "test", "en", "fi")
    fact = next(f for f in world.facts if f.relation == "currency_since")
    year = world.answers(fact, "en")[0]
    found = parallel_statements(world, "train", "en", "fi") + pairs
    stating = [
        p for p in found if world.entities[fact.subject].names["en"] in p[0] and year in p[0]
    ]
    assert stating and all(year in b for _, b in stating)
    with pytest.raises(InputError, match="no sentences in tr"):
        parallel_statements(world, "test", "en", "tr")


def test_text_that_does_not_suffice_is_refused(corpus):
    with pytest.raises(InputError, match="no training corpus is of these two languages"):
        read_directions(settings(train=(corpus,), directions=("en-de",)))
    with pytest.raises(InputError, match="held_out=0 leaves nothing"):
        read_directions(settings(train=(corpus,), held_out=0))

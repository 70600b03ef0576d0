"""Parallel text of the embedded corpus: the same fact, by the same template, in two languages.

The templates of a relation stand in the same order in every language (tests/data/test_world_facts
checks their number, translators wrote them side by side), so template i states a fact alike.
"""

from clmrc_jax.data.languages import CORPUS_LANGUAGES
from clmrc_jax.data.world_facts.cldr import RELATIONS, WorldFacts
from clmrc_jax.data.world_facts.corpus import sentence_templates, split_of
from clmrc_jax.files import InputError


def parallel_statements(
    world: WorldFacts, split: str, first: str, second: str
) -> list[tuple[str, str]]:
    """(sentence in `first`, the same in `second`) for every fact of a split and every template.

    The train split also holds every entity's name and introduction, so a name of a test fact has
    been seen, but never in that sentence. Raises InputError for a language outside the corpus.
    """
    unknown = {first, second} - set(CORPUS_LANGUAGES)
    if unknown:
        raise InputError(
            f"world facts: no sentences in {', '.join(sorted(unknown))}; "
            f"choose from {', '.join(CORPUS_LANGUAGES)}"
        )
    templates, pairs = sentence_templates(), []
    for fact in world.facts:
        if split_of(fact) != split:
            continue
        relation, names = templates["relations"][fact.relation], world.entities[fact.subject].names
        sides = [
            [
                text.replace("{x}", names[lang]).replace("{y}", world.answers(fact, lang)[0])
                for text in relation[lang]
            ]
            for lang in (first, second)
        ]
        pairs += zip(*sides)
    return pairs + (_names(world, first, second) if split == "train" else [])


def _names(world: WorldFacts, first: str, second: str) -> list[tuple[str, str]]:
    intros, pairs = sentence_templates()["intro"], []
    kinds = {kind for relation in RELATIONS.values() for kind in relation if kind}
    for entity in world.entities.values():
        if entity.kind in kinds:
            a, b = entity.names[first], entity.names[second]
            pairs.append((a, b))
            for text, same in zip(intros[entity.kind][first], intros[entity.kind][second]):
                pairs.append((text.replace("{x}", a), same.replace("{x}", b)))
    return pairs

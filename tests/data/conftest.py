"""A small vocabulary, trained on sentences of many languages."""

import pytest

from clmrc_jax.data.vocabulary import train_vocabulary
from clmrc_jax.data.world_facts.corpus import question_templates, sentence_templates

NAMES = ("Japan", "日本", "اليابان", "Финляндия", "ประเทศไทย", "జపాన్", "বাংলাদেশ", "Åland", "한국")


def sentences():
    """A few hundred sentences in 26 languages."""
    groups = [*question_templates().values(), *sentence_templates()["relations"].values()]
    for number, texts in enumerate(texts for group in groups for texts in group.values()):
        for text in texts:
            name = NAMES[number % len(NAMES)]
            yield text.replace("{x}", name).replace("{y}", NAMES[(number + 4) % len(NAMES)])


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory):
    """Folder with a `spiece.model` of 1200 pieces."""
    folder = tmp_path_factory.mktemp("vocabulary")
    train_vocabulary(sentences(), folder, vocab_size=1200, sentinels=8)
    return folder


@pytest.fixture(scope="session")
def many_sentences():
    """The sentences that the vocabulary was trained on."""
    return list(sentences())

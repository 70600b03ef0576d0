"""When two passages are the same one."""

import pytest

from clmrc_jax.data.passage_names import by_id, by_id_or_text, content

PASSAGE = {"id": 7, "lang": "en", "title": "Amélie_(film)", "text": 'The "quick"  fox\'s.'}


def test_ids_are_the_only_names_of_one_collection():
    assert by_id(PASSAGE) == ("7",)
    assert by_id_or_text(PASSAGE) == ("7", content(PASSAGE))


@pytest.mark.parametrize(
    "change, same",
    [
        ({"id": "wiki:1"}, True),
        ({"text": "The ``quick'' fox 's ."}, True),
        ({"title": "Ame\u0301lie (film)"}, True),
        ({"text": "The slow fox's."}, False),
        ({"title": "Amelie (film)"}, False),
        ({"lang": "fr"}, False),
        ({"title": "Amélie", "text": "film The quick fox's"}, False),
    ],
    ids=["id", "tokenised", "composed", "word", "accent", "language", "moved"],
)
def test_content_is_letters_digits_and_language(change, same):
    assert (content(PASSAGE | change) == content(PASSAGE)) == same

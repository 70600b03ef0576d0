"""When two passages are the same one: by id, or by what they say where ids have several makers.

The gold passages of DPR files carry the ids of the collection that they were made from. In another
collection the same passage has another id, and the same id may belong to another passage.
"""

import re
import unicodedata

_BETWEEN = re.compile(r"[\W_]+")


def by_id(ctx: dict) -> tuple[str, ...]:
    """The names of a passage (a row with id, lang, title, text) where one maker gave all ids."""
    return (str(ctx["id"]),)


def by_id_or_text(ctx: dict) -> tuple[str, ...]:
    """Its names where ids may be foreign: passages are the same that share one of them."""
    return (*by_id(ctx), content(ctx))


def content(ctx: dict) -> str:
    """Language, title and text, of which letters and digits alone count, and not their case."""
    parts = (unicodedata.normalize("NFKC", ctx[key]).casefold() for key in ("title", "text"))
    return "\n".join([ctx["lang"], *(_BETWEEN.sub("", part) for part in parts)])

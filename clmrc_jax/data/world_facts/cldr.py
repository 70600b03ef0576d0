"""Facts about territories, currencies, languages and scripts, read from Unicode CLDR.

The package `babel` carries CLDR's tables, so nothing is downloaded. An entity is kept when CLDR
names it, unambiguously, in all 26 question languages; a fact is kept when it has one answer.
Another release of babel may bring another release of CLDR, and with it a slightly other world.
"""

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from clmrc_jax.data.languages import LANGUAGES, OTHER
from clmrc_jax.files import InputError

KINDS = ("T", "C", "L", "S")  # territory, currency, language, script
RELATIONS = {  # relation: (kind of the subject, kind of the object; "" for a literal)
    "currency": ("T", "C"),
    "currency_since": ("T", ""),
    "main_language": ("T", "L"),
    "currency_code": ("C", ""),
    "currency_country": ("C", "T"),
    "script": ("L", "S"),
    "homeland": ("L", "T"),
}
QUESTION_LANGUAGES = tuple(
    code
    for code, row in LANGUAGES.items()
    if row.category != OTHER and code not in ("km", "zh_hk", "zh_tw")  # CLDR covers them thinly
)
SIZES = ("full", "demo", "smoke")
DEMO_SHARE = 0.45
SMOKE_TERRITORIES = 24

_NOT_TERRITORIES = {
    *("EU", "EZ", "QO", "UN", "XA", "XB", "ZZ"),  # groupings, pseudo-locales, unknown
    *("AC", "CP", "CQ", "DG", "EA", "IC", "TA"),  # parts of territories that have a code too
    *("AQ", "BV", "GS", "HM", "TF", "UM"),  # nobody lives there for good
}
_NOT_LANGUAGES = {"cop", "la", "mul", "sa", "und", "zxx"}  # no native speakers, or no language
# Spread over the world so widely that CLDR's likely territory is no homeland.
_NO_HOMELAND = {"en", "pt"}
_SIZABLE, _SIZABLE_REGIONAL = 15.0, 2.0  # per cent of a territory's people; see _is_sizable
_CLEAR_LEAD = 1.1  # the main language's share over the next one's: estimates differ
_NAME_IS_CODE = {"Thai"}  # babel leaves out a name that equals the code
_ONE_SCRIPT = {"Hans": "Hani", "Hant": "Hani", "Aran": "Arab"}  # styles of one script


@dataclass(frozen=True)
class Entity:
    """A territory, currency, language or script.

    id: kind and CLDR code, e.g. "T:JP", "C:JPY", "L:ja", "S:Jpan".   kind: one of KINDS.
    names: language code -> name as articles and questions write it (26 languages).
    full_names: language code -> CLDR's name where it differs, e.g. "Myanmar (Burma)".
    """

    id: str
    kind: str
    names: dict[str, str] = field(hash=False)
    full_names: dict[str, str] = field(hash=False, default_factory=dict)

    @property
    def code(self) -> str:
        """The CLDR code: ISO 3166, ISO 4217, BCP 47 or ISO 15924."""
        return self.id[2:]


@dataclass(frozen=True)
class Fact:
    """`relation(subject) = object`; object is an entity id, or a literal (a year, a code)."""

    relation: str
    subject: str
    object: str


@dataclass(frozen=True)
class WorldFacts:
    """Entities by id and the facts that connect them, both in a fixed order."""

    entities: dict[str, Entity]
    facts: tuple[Fact, ...]

    def answers(self, fact: Fact, lang: str) -> tuple[str, ...]:
        """Ways to write the fact's object in a language, the usual one first."""
        if not RELATIONS[fact.relation][1]:
            return (fact.object,)
        entity = self.entities[fact.object]
        full = entity.full_names.get(lang)
        return (entity.names[lang], full) if full else (entity.names[lang],)


def stable_fraction(key: str) -> float:
    """A number in [0, 1) that depends on `key` alone: the first 8 bytes of its SHA-256 / 2^64."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def load_world_facts(size: str = "full") -> WorldFacts:
    """The world in one of three sizes.

    full: everything. demo: territories with stable_fraction("demo|T:XX") < 0.45. smoke: the 24
    territories with all three facts whose fraction is smallest. A kept territory keeps its
    currency and main language, a kept language its script, and languages of a kept homeland
    stay in by the same draw; facts stay when both their ends do.
    Raises InputError for an unknown size.
    """
    if size not in SIZES:
        raise InputError(f"world facts: unknown size {size!r}; choose one of {', '.join(SIZES)}")
    world = _full_world()
    return world if size == "full" else _connected_part(world, _chosen_territories(world, size))


def _full_world() -> WorldFacts:
    facts = _all_facts()
    names = _names()
    while (
        True
    ):  # Dropping a name may end a fact, and a missing fact may leave an entity without any.
        used = {x for fact in facts for x in (fact.subject, fact.object) if x[1:2] == ":"}
        known = {x.id: x for x in _unambiguous(used & names.keys(), names)}
        kept = [fact for fact in facts if _stands(fact, known)]
        if len(kept) == len(facts):
            return _world(known, facts)
        facts = kept


def _stands(fact: Fact, known: Iterable[str]) -> bool:
    literal = not RELATIONS[fact.relation][1]
    return fact.subject in known and (literal or fact.object in known)


def _world(entities: dict[str, Entity], facts: Iterable[Fact]) -> WorldFacts:
    ordered = sorted(entities.values(), key=lambda x: (KINDS.index(x.kind), x.id))
    position = {relation: i for i, relation in enumerate(RELATIONS)}
    facts = sorted(facts, key=lambda x: (position[x.relation], x.subject))
    return WorldFacts({x.id: x for x in ordered}, tuple(facts))


def _all_facts() -> list[Fact]:
    """Every well-defined fact of CLDR, before names are looked at."""
    from babel.core import get_global  # Loads CLDR's global table: not at import time.

    tenders = _current_tenders(get_global("territory_currencies"))
    shares = _language_shares(get_global("territory_languages"))
    return [*_currency_facts(tenders), *_language_facts(shares, get_global("likely_subtags"))]


def _current_tenders(table) -> dict[str, list[tuple[str, int]]]:
    """Territory -> its current legal tenders as (currency, year of introduction)."""
    tenders = {}
    for territory, history in table.items():
        if territory not in _NOT_TERRITORIES:
            tenders[territory] = [
                (code, start[0])
                for code, start, end, tender in history
                if tender and start and not end
            ]
    return tenders


def _currency_facts(tenders: dict[str, list[tuple[str, int]]]) -> Iterable[Fact]:
    users = defaultdict(set)
    for territory, current in tenders.items():
        for code, _ in current:
            users[code].add(territory)
        if len(current) == 1:
            code, year = current[0]
            yield Fact("currency", f"T:{territory}", f"C:{code}")
            yield Fact("currency_since", f"T:{territory}", str(year))
    for code, territories in users.items():
        yield Fact("currency_code", f"C:{code}", code)
        if len(territories) == 1:
            yield Fact("currency_country", f"C:{code}", f"T:{next(iter(territories))}")


def _language_shares(table) -> dict[str, dict[str, tuple[float, str]]]:
    """Territory -> language -> (per cent of the people, official status); scripts are merged."""
    shares = {}
    for territory in table.keys() - _NOT_TERRITORIES:
        merged = {}
        for tag, row in table[territory].items():
            code = tag.split("_")[0]
            percent, status = merged.get(code, (0.0, ""))
            merged[code] = (
                percent + row["population_percent"],
                status or row["official_status"] or "",
            )
        shares[territory] = {
            code: row for code, row in merged.items() if code not in _NOT_LANGUAGES
        }
    return shares


def _is_sizable(percent: float, status: str) -> bool:
    """Enough speakers, or official: nationally with any share, in a region with 2 per cent."""
    regional = status == "official_regional" and percent >= _SIZABLE_REGIONAL
    return percent >= _SIZABLE or regional or status in ("official", "de_facto_official")


def _language_facts(shares, likely_subtags) -> Iterable[Fact]:
    sizable = set()
    for territory, languages in shares.items():
        ranked = sorted(((share, code) for code, (share, _) in languages.items()), reverse=True)
        if ranked and (len(ranked) == 1 or ranked[0][0] > _CLEAR_LEAD * ranked[1][0]):
            yield Fact("main_language", f"T:{territory}", f"L:{ranked[0][1]}")
        sizable |= {code for code, row in languages.items() if _is_sizable(*row)}
    for code in sizable:
        _, script, territory = (likely_subtags.get(code, "") + "__").split("_")[:3]
        if script:
            yield Fact("script", f"L:{code}", f"S:{_ONE_SCRIPT.get(script, script)}")
        at_home = _is_sizable(*shares.get(territory, {}).get(code, (0.0, "")))
        if at_home and code not in _NO_HOMELAND:
            yield Fact("homeland", f"L:{code}", f"T:{territory}")


def _names() -> dict[str, dict[str, str]]:
    """Entity id -> language -> CLDR name, for entities named in all question languages."""
    from babel import Locale

    locales = {x: Locale.parse(LANGUAGES[x].cldr) for x in QUESTION_LANGUAGES}
    tables = {"T": "territories", "C": "currencies", "L": "languages", "S": "scripts"}
    names = {}
    for kind, table in tables.items():
        by_language = {x: getattr(locale, table) for x, locale in locales.items()}
        for code in by_language["en"]:
            default = code if code in _NAME_IS_CODE else ""
            found = {x: _clean(table.get(code) or default) for x, table in by_language.items()}
            if all(name and (name != code or default) for name in found.values()):
                names[f"{kind}:{code}"] = found
    return names


def _clean(name: str) -> str:
    """Plain spaces, and none of the invisible direction marks (joiners belong to the spelling)."""
    kept = (c for c in name if unicodedata.category(c) != "Cf" or c in "\u200c\u200d")
    return " ".join("".join(kept).split())


def _unambiguous(ids: Iterable[str], names: dict[str, dict[str, str]]) -> list[Entity]:
    """Entities whose names are theirs alone within kind and language.

    "Myanmar (Burma)" becomes "Myanmar" unless another entity would then have the same name.
    """
    ids = sorted(ids)
    full = Counter((x[0], lang, name) for x in ids for lang, name in names[x].items())
    short = Counter((x[0], lang, _short(name)) for x in ids for lang, name in names[x].items())
    entities = []
    for x in ids:
        if any(full[x[0], lang, name] > 1 for lang, name in names[x].items()):
            continue
        shown = {
            lang: _short(name) if short[x[0], lang, _short(name)] == 1 else name
            for lang, name in names[x].items()
        }
        changed = {lang: name for lang, name in names[x].items() if name != shown[lang]}
        entities.append(Entity(x, x[0], shown, changed))
    return entities


def _short(name: str) -> str:
    """The name without a parenthesis at its end."""
    return re.sub(r"\s*[((][^()()]*[))]$", "", name) or name


def _chosen_territories(world: WorldFacts, size: str) -> set[str]:
    territories = [x for x in world.entities if x.startswith("T:")]
    if size == "demo":
        return {x for x in territories if stable_fraction(f"demo|{x}") < DEMO_SHARE}
    facts = Counter(fact.subject for fact in world.facts)
    complete = [x for x in territories if facts[x] == 3]
    return set(sorted(complete, key=lambda x: stable_fraction(f"demo|{x}"))[:SMOKE_TERRITORIES])


def _connected_part(world: WorldFacts, territories: set[str]) -> WorldFacts:
    kept = set(territories)
    for fact in world.facts:
        if fact.relation in ("currency", "main_language") and fact.subject in territories:
            kept.add(fact.object)
        elif fact.relation == "homeland" and fact.object in territories:
            if stable_fraction(f"demo|{fact.subject}") < DEMO_SHARE:
                kept.add(fact.subject)
    kept |= {
        fact.object for fact in world.facts if fact.relation == "script" and fact.subject in kept
    }
    facts = [fact for fact in world.facts if _stands(fact, kept)]
    return _world({x: world.entities[x] for x in kept}, facts)

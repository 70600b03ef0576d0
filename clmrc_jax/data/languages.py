"""The one table of languages: code, script, how text is cut into words, and role in CORA.

Codes are those of MKQA and XOR-TyDi (Chinese with an underscore). Categories follow the
CORA paper, section 4.1: *seen* languages have human annotated passages, *mdpr_seen* ones have
passages in the corpus but no annotations, *mgen_seen* ones only synthetic answers, *unseen*
ones nothing at all.
"""

from dataclasses import dataclass

SEEN, MDPR_SEEN, MGEN_SEEN, UNSEEN, OTHER = (
    "seen",
    "mdpr_seen",
    "mgen_seen",
    "unseen",
    "other",
)
CATEGORIES = (SEEN, MDPR_SEEN, MGEN_SEEN, UNSEEN)


@dataclass(frozen=True)
class Language:
    """One language.

    code: MKQA / XOR-TyDi code, e.g. `zh_cn`.   name: English name.
    script: ISO 15924 code.                     spaced: words are separated by spaces.
    category: role in CORA (see the module).    corpus: one of CORA's 13 corpus languages.
    wiki: Wikipedia (and language-link) code.   cldr: Unicode CLDR locale identifier.
    """

    code: str
    name: str
    script: str
    category: str = OTHER
    corpus: bool = False
    spaced: bool = True
    wiki: str = ""
    cldr: str = ""

    def __post_init__(self):
        object.__setattr__(self, "wiki", self.wiki or self.code.split("_")[0])
        object.__setattr__(self, "cldr", self.cldr or self.code)


_TABLE = (
    Language("ar", "Arabic", "Arab", SEEN, True),
    Language("bn", "Bengali", "Beng", SEEN, True),
    Language("en", "English", "Latn", SEEN, True),
    Language("fi", "Finnish", "Latn", SEEN, True),
    Language("ja", "Japanese", "Jpan", SEEN, True, spaced=False),
    Language("ko", "Korean", "Kore", SEEN, True),
    Language("ru", "Russian", "Cyrl", SEEN, True),
    Language("te", "Telugu", "Telu", SEEN, True),
    Language("es", "Spanish", "Latn", MDPR_SEEN, True),
    Language("he", "Hebrew", "Hebr", MDPR_SEEN, True),
    Language("id", "Indonesian", "Latn", MDPR_SEEN, True),
    Language("sv", "Swedish", "Latn", MDPR_SEEN, True),
    Language("th", "Thai", "Thai", MDPR_SEEN, True, spaced=False),
    Language("da", "Danish", "Latn", MGEN_SEEN),
    Language("de", "German", "Latn", MGEN_SEEN),
    Language("fr", "French", "Latn", MGEN_SEEN),
    Language("it", "Italian", "Latn", MGEN_SEEN),
    Language("nl", "Dutch", "Latn", MGEN_SEEN),
    Language("pl", "Polish", "Latn", MGEN_SEEN),
    Language("pt", "Portuguese", "Latn", MGEN_SEEN),
    Language("hu", "Hungarian", "Latn", UNSEEN),
    Language("km", "Khmer", "Khmr", UNSEEN, spaced=False),
    Language("ms", "Malay", "Latn", UNSEEN),
    Language("no", "Norwegian", "Latn", UNSEEN, cldr="nb"),
    Language("tr", "Turkish", "Latn", UNSEEN),
    Language("vi", "Vietnamese", "Latn", UNSEEN),
    Language("zh_cn", "Chinese (simplified)", "Hans", UNSEEN, spaced=False, cldr="zh_Hans"),
    Language(
        "zh_hk",
        "Chinese (Hong Kong)",
        "Hant",
        UNSEEN,
        spaced=False,
        cldr="zh_Hant_HK",
    ),
    Language(
        "zh_tw",
        "Chinese (traditional)",
        "Hant",
        UNSEEN,
        spaced=False,
        cldr="zh_Hant",
    ),
    # Languages of the other data sets we read (XQuAD, PQuAD, MIA's surprise languages ...).
    Language("am", "Amharic", "Ethi"),
    Language("el", "Greek", "Grek"),
    Language("fa", "Persian", "Arab"),
    Language("hi", "Hindi", "Deva"),
    Language("ro", "Romanian", "Latn"),
    Language("ta", "Tamil", "Taml"),
    Language("tl", "Tagalog", "Latn", cldr="fil"),
    Language("zh", "Chinese", "Hani", spaced=False),
)
LANGUAGES = {language.code: language for language in _TABLE}
CORPUS_LANGUAGES = tuple(x.code for x in _TABLE if x.corpus)
MKQA_LANGUAGES = tuple(
    x.code for x in _TABLE if x.category != OTHER and x.code not in ("bn", "te", "id")
)
XOR_LANGUAGES = ("ar", "bn", "fi", "ja", "ko", "ru", "te")


def language(code: str) -> Language:
    """The entry of a language code. Raises ValueError naming the known codes."""
    found = LANGUAGES.get(code) or LANGUAGES.get(code.replace("-", "_").lower())
    if found is None:
        known = ", ".join(sorted(LANGUAGES))
        raise ValueError(
            f"unknown language code {code!r}; known codes: {known}. "
            "Add a row to clmrc_jax/data/languages.py for a new language."
        )
    return found


def in_category(category: str) -> tuple[str, ...]:
    """Codes of one category, in table order."""
    return tuple(x.code for x in _TABLE if x.category == category)

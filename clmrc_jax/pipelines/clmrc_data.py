"""The questions of a reading-comprehension run: training sets by role, evaluation sets by name."""

import collections
import dataclasses
import itertools
from collections.abc import Iterable

from clmrc_jax.data.datasets import is_raw, load
from clmrc_jax.data.mrc_examples import MrcExample, located, pair_parallel, read_mrc
from clmrc_jax.data.world_facts.cldr import stable_fraction
from clmrc_jax.data.world_facts.corpus import load_world_facts
from clmrc_jax.data.world_facts.reading import reading_examples
from clmrc_jax.files import InputError
from clmrc_jax.pipelines.clmrc_settings import ReadingData


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """Questions with references.   scorer: a key of SCORERS."""

    name: str
    scorer: str
    examples: list[MrcExample]


@dataclasses.dataclass(frozen=True)
class ReadingSets:
    """source, target: monolingual training questions; bilingual: those with both sides.

    mended: {"source_train", "target_train", "bilingual_train" or name of an evaluation set: {what:
        how many}}, what was mended or is missing in their files (`read_mrc`), before they were
        split and sampled.
    """

    source: list[MrcExample]
    target: list[MrcExample]
    bilingual: list[MrcExample]
    evaluation: list[EvaluationSet]
    mended: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)

    def of(self, phase: str) -> list[MrcExample]:
        """The training questions of a phase. Raises InputError when the config names none."""
        if phase == "mixed":
            return self.of("source") + self.of("target")
        found = getattr(self, phase)
        if not found:
            raise InputError(
                f"data.{phase}_train is empty, and a system of this run trains on it: give "
                f"--config.data.{phase}_train=\"(('FILE.json', 'LANGUAGE'), ...)\""
            )
        return found

    def mended_of(self, phase: str) -> dict[str, int]:
        """`mended` of the training questions of a phase."""
        if phase == "mixed":
            both = (collections.Counter(self.mended_of(x)) for x in ("source", "target"))
            return dict(sum(both, collections.Counter()))
        return self.mended.get(f"{phase}_train", {})

    def check(self, phases: Iterable[str]) -> None:
        """Raises InputError where the systems of a run would miss questions or translations."""
        phases = list(phases)
        if not self.evaluation:
            raise InputError(
                "data.evaluate is empty: give --config.data.evaluate="
                "\"(('cmrc_dev', 'cmrc2018_dev.json', 'zh_cn', 'cmrc2018'),)\""
            )
        for phase in phases:
            self.of(phase)
        if "bilingual" not in phases:
            return
        for evaluation in self.evaluation:
            alone = [x.id for x in evaluation.examples if x.source is None]
            if alone:
                raise InputError(
                    f"data.evaluate {evaluation.name!r}: {len(alone)} of "
                    f"{len(evaluation.examples)} questions have no translation ({alone[0]!r} ...), "
                    "and Dual BERT reads both sides: give an aligned file (launch/translate.py), "
                    "or name the parallel file too"
                )


def load_reading_sets(settings: ReadingData) -> ReadingSets:
    """Reads all sets of the settings, and samples them."""
    sets = _world_facts(settings) if settings.kind == "world_facts" else _files(settings)
    seed, most = settings.seed, settings.max_evaluate
    return ReadingSets(
        sample(sets.source, settings.max_source, seed),
        sample(sets.target, settings.max_target, seed),
        sample(sets.bilingual, settings.max_target, seed),
        [dataclasses.replace(x, examples=sample(x.examples, most, seed)) for x in sets.evaluation],
        sets.mended,
    )


def sample(examples: list[MrcExample], limit: int, seed: int) -> list[MrcExample]:
    """`limit` examples (0: all) in their order; which ones depends on seed and ids alone.

    So a smaller sample lies within a larger one, and sets that share questions share samples.
    """
    if not limit or limit >= len(examples):
        return examples
    draws = [(stable_fraction(f"{seed}|{x.id}"), number) for number, x in enumerate(examples)]
    return [examples[number] for number in sorted(number for _, number in sorted(draws)[:limit])]


def _world_facts(settings: ReadingData) -> ReadingSets:
    world = load_world_facts(settings.world)
    target, source = settings.target, settings.source
    bilingual = list(reading_examples(world, "train", target, source=source))
    asked = {"paraphrases": settings.paraphrases}
    test = list(reading_examples(world, "test", target, source=source, **asked))
    return ReadingSets(
        list(reading_examples(world, "train", source, **asked)),
        [dataclasses.replace(example, source=None) for example in bilingual],
        bilingual,
        [EvaluationSet("test", "xquad", test)],
    )


def _files(settings: ReadingData) -> ReadingSets:
    files = _Files(settings)
    excluded = {id for path in settings.exclude for id in files.ids(path)}
    trains = files.trains
    return ReadingSets(
        [x for x in files.read("source_train") if x.id not in excluded],
        [x for x in files.read("target_train") if trains(x)],
        [x for x in files.bilingual() if trains(x)],
        [files.evaluation(entry) for entry in settings.evaluate],
        {name: dict(+found) for name, found in files.mended.items()},
    )


class _Files:
    """Reads the files of the settings; keeps the split by article, which all of them share.

    mended: see `ReadingSets`.
    """

    def __init__(self, settings: ReadingData):
        self.settings = settings
        self.mended: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
        self._articles: dict[str, int] = {}

    def trains(self, example: MrcExample) -> bool:
        """Whether the example's article trains; with a share, the others evaluate.

        Articles count in order of appearance over all files, so parallel files split alike.
        """
        share = self.settings.article_share
        if not share:
            return True
        number = self._articles.setdefault(example.article, len(self._articles))
        # Evenly spread: of share 0.75, every fourth article is held out.
        return int((number + 1) * share) > int(number * share)

    def ids(self, path) -> list[str]:
        """The question ids of a file, whatever its answers look like."""
        if is_raw(path):
            found = read_mrc(path, self.settings.source, labelled=False)
        else:
            found = load(path, "examples")
        return [example.id for example in found]

    def read(self, field: str) -> list[MrcExample]:
        """The questions of a list of (path, language)."""
        rows = [self._read(field, path, lang) for path, lang in getattr(self.settings, field)]
        return _unique(itertools.chain(*rows), f"data.{field}")

    def bilingual(self) -> list[MrcExample]:
        """The questions of bilingual_train, each with its source side."""
        rows = [self._translated(entry) for entry in self.settings.bilingual_train]
        return _unique(itertools.chain(*rows), "data.bilingual_train")

    def evaluation(self, entry) -> EvaluationSet:
        """One evaluation set, of the articles that do not train, translated or not."""
        name, path, lang, scorer, *source = entry
        pair = (path, lang, *source)
        examples = self._pairs(name, pair) if source else self._read(name, path, lang)
        if self.settings.article_share:
            examples = [example for example in examples if not self.trains(example)]
        if not examples:
            raise InputError(f"data.evaluate {name!r}: no question of {path} is left to evaluate")
        return EvaluationSet(name, scorer, examples)

    def _read(self, name: str, path, lang, source_lang: str = "") -> list[MrcExample]:
        return self._examples(path, lang, self.mended[name], source_lang or self.settings.source)

    def _read_source(self, name: str, path, lang) -> list[MrcExample]:
        """The source side of parallel files; its counts get the prefix of an aligned file's."""
        found = collections.Counter()
        examples = self._examples(path, lang, found)
        self.mended[name].update({f"source_{what}": count for what, count in found.items()})
        return examples

    def _examples(self, path, lang, found: collections.Counter, source_lang="en"):
        """A file, or a prepared set of tensorflow-datasets; `found` counts what was mended."""
        locate = self.settings.locate
        if is_raw(path):
            return read_mrc(path, lang, locate=locate, counts=found, source_lang=source_lang)
        return [_located(example, locate, found) for example in load(path, "examples", lang=lang)]

    def _pairs(self, name: str, entry) -> list[MrcExample]:
        """The examples of two parallel files; those without a partner have no source side."""
        path, lang, source_path, source_lang = entry
        sources = self._read_source(name, source_path, source_lang)
        found = pair_parallel(self._read(name, path, lang), sources)
        self.mended[name]["untranslated"] += sum(example.source is None for example in found)
        return found

    def _translated(self, entry) -> list[MrcExample]:
        """The training examples with both sides, of an aligned file or of two parallel ones."""
        name = "bilingual_train"
        before = self.mended[name]["untranslated"]
        found = self._read(name, *entry) if len(entry) == 3 else self._pairs(name, entry)
        pairs = [example for example in found if example.source is not None]
        self.mended[name]["untranslated"] = before + len(found) - len(pairs)
        if not pairs:
            raise InputError(
                f"{entry[0]}: no question has a translation (trans_* fields); make an aligned file "
                "with launch/translate.py, or name the parallel file and its language too"
            )
        return pairs


def _located(example: MrcExample, locate: str, found: collections.Counter) -> MrcExample:
    """The example with its answers' offsets checked, as `read_mrc` does it."""
    answers = (located(x.text, example.context, x.start, locate, found) for x in example.answers)
    return dataclasses.replace(example, answers=tuple(answers))


def _unique(examples: Iterable[MrcExample], name: str) -> list[MrcExample]:
    """The examples; an id that files of several languages share gets its language appended."""
    found: dict[str, MrcExample] = {}
    seen: set[tuple[str, str]] = set()
    for example in examples:
        if (example.id, example.lang) in seen:
            raise InputError(
                f"{name}: question {example.id!r} comes twice in {example.lang}; is a file named "
                "twice?"
            )
        seen.add((example.id, example.lang))
        if example.id in found:
            example = dataclasses.replace(example, id=f"{example.id}_{example.lang}")
        found[example.id] = example
    return list(found.values())

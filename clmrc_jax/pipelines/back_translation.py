"""Back-translation: read in the source language, bring the answer back (rows 1-5 of Table 2).

    bt_raw        the translated answer as it is                       #1, #2
    bt_match      SimpleMatch: the most similar piece of the passage   #3
    bt_aligner    Answer Aligner, trained on the target set            #4
    bt_verifier   Answer Verifier, trained on the target set           #5

The systems of a run share the source reader and all translations, which are cached on disk.
"""

import functools
import os

from clmrc_jax import hosts
from clmrc_jax.data.mrc_examples import MrcExample
from clmrc_jax.files import InputError, read_json, write_json
from clmrc_jax.pipelines.reading import PARTS
from clmrc_jax.pipelines.stages import MANIFEST
from clmrc_jax.translate import back_translation as rows
from clmrc_jax.translate import translator

SYSTEMS = {
    "bt_raw": None,
    "bt_match": None,
    "bt_aligner": rows.aligner_examples,
    "bt_verifier": rows.verifier_examples,
}
_SEEDS = {"bt_aligner": 11, "bt_verifier": 12}


class BackTranslation:
    """The back-translation systems of a run (`pipelines.clmrc.Clmrc`)."""

    def __init__(self, clmrc):
        self._clmrc = clmrc

    def prepare(self) -> None:
        """Tells both translators what they will be asked: what cannot work fails before training.

        Shows what is going to be paid for the questions; the answers follow when they are known.
        """
        left = [x for name in self._sets() if not self._is_done(name) for x in self._examples(name)]
        if not left:
            return
        source, texts = self._clmrc.settings.data.source, {}
        for x in left:
            texts.setdefault(x.lang, {}).update({x.context: None, x.question: None})
        forward, backward = self._translators
        for lang in texts:
            backward.check(source, lang)
        for lang, asked in texts.items():
            forward.prepare(list(asked), lang, source)

    def run(self, system: str) -> None:
        """One system, to its scores."""
        clmrc, make_rows = self._clmrc, SYSTEMS[system]
        if make_rows is None:
            clmrc.read(system, functools.partial(self._texts, system))
            return
        s, model = clmrc.settings, clmrc.reader.bert
        start = clmrc.source_params if s.translation.start == "source" else clmrc.start
        translated = self._translated("train")
        trained = clmrc.fit(
            f"{system}/train",
            model,
            {"bert": start["bert"]},
            lambda: make_rows(clmrc.sets.of("target"), translated),
            s.target_recipe,
            s.seed * 100 + _SEEDS[system],
            mended=clmrc.sets.mended_of("target"),
        )

        def asked(evaluation):
            return make_rows(evaluation.examples, self._translated(evaluation.name))

        clmrc.read(system, clmrc.span_answers(model, trained, asked))

    def _texts(self, system: str, evaluation, folder) -> dict[str, list[dict]]:
        """Answers that no span model gives: one entry per question; start, end: -1 outside."""
        del folder
        translated = self._translated(evaluation.name)
        if system == "bt_raw":
            return {id: [_entry(text, 1.0, -1)] for id, text in translated.items()}
        matches = rows.match_answers(evaluation.examples, translated)
        return {id: [_entry(x.text, x.score, x.start)] for id, x in matches.items()}

    def _translated(self, name: str) -> dict[str, str]:
        """id -> A_trans of the set `name`; made once per run."""
        clmrc, stage = self._clmrc, f"back_translation/{name}"

        def work(folder):
            reader, model, params = clmrc.source_reader

            def part(asked, which):
                return reader.read(model, params, asked, f"{name}, translated{which}")

            def read(asked):
                found = clmrc.read_in_parts(asked, part, folder / PARTS)
                return {id: entries[0]["text"] for id, entries in found.items()}

            forward, backward = self._translators
            source = clmrc.settings.data.source
            answers = rows.back_translate(self._examples(name), forward, read, backward, source)
            if hosts.is_first():
                write_json(folder / "answers.json", answers)
            return {"questions": len(answers)}

        if not self._is_done(name):
            _ = clmrc.source_reader  # a stage of its own, with its own time
        clmrc.stage(stage, work)
        clmrc.remove_parts(stage, PARTS)
        return read_json(clmrc.run.path(stage, "answers.json"))

    def _sets(self) -> list[str]:
        """Names of the sets that are translated: all evaluation sets, "train" to train on."""
        trains = any(SYSTEMS.get(system) for system in self._clmrc.settings.systems)
        return ["train"] * trains + [x.name for x in self._clmrc.sets.evaluation]

    def _is_done(self, name: str) -> bool:
        return self._clmrc.run.path("back_translation", name, MANIFEST).exists()

    def _examples(self, name: str) -> list[MrcExample]:
        if name == "train":
            return self._clmrc.sets.of("target")
        return next(x.examples for x in self._clmrc.sets.evaluation if x.name == name)

    @functools.cached_property
    def _translators(self) -> list["_OnFirst"]:
        """Into the source language and out of it."""
        t = self._clmrc.settings.translation
        cache = t.cache or self._clmrc.run.path("translations")
        if "://" in os.fspath(cache):
            raise InputError(
                f"{cache}: the cache of translations must be on a local disk, to be written text "
                "by text; give --config.translation.cache=FOLDER"
            )
        if not hosts.is_first():
            return [_OnFirst(None), _OnFirst(None)]
        options = {"consent": t.consent, "project": t.project}
        specs = (t.forward, t.backward)
        return [_OnFirst(translator.open_translator(spec, cache, **options)) for spec in specs]


def _entry(text: str, score: float, start: int) -> dict:
    end = -1 if start < 0 else start + len(text)
    return {"text": text, "probability": score, "start": start, "end": end}


class _OnFirst:
    """A translator that process 0 asks for all, so that nothing is translated or paid for twice."""

    def __init__(self, inner: translator.Translator | None):
        self._inner, self.name = inner, getattr(inner, "name", "process 0")

    def check(self, source: str, target: str) -> None:
        """See `translate.translator.check`."""
        hosts.on_first("check", lambda: translator.check(self._inner, source, target))

    def prepare(self, texts, source: str, target: str) -> None:
        """See `translate.translator`: raises InputError if the translator cannot work."""
        hosts.on_first("prepare", lambda: translator.prepare(self._inner, texts, source, target))

    def translate(self, texts, source: str, target: str) -> list[str]:
        """See `translate.translator.Translator`."""
        return hosts.on_first("translate", lambda: self._inner.translate(texts, source, target))

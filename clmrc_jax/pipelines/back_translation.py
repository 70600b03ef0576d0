"""Back-translation: read in the source language, bring the answer back (rows 1-5 of Table 2).

    bt_raw        the translated answer as it is                       #1, #2
    bt_match      SimpleMatch: the most similar piece of the passage   #3
    bt_aligner    Answer Aligner, trained on the target set            #4
    bt_verifier   Answer Verifier, trained on the target set           #5

The systems of a run share the source reader and all translations, which are cached on disk.
"""

import functools

from clmrc_jax import hosts
from clmrc_jax.data.mrc_examples import MrcExample
from clmrc_jax.files import read_json, write_json
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


def run(clmrc, system: str) -> None:
    """One system of a run (`pipelines.clmrc.Clmrc`), to its scores."""
    make_rows = SYSTEMS[system]
    if make_rows is None:
        clmrc.read(system, functools.partial(_texts, clmrc, system))
        return
    s, model = clmrc.settings, clmrc.reader.bert
    start = clmrc.source_params if s.translation.start == "source" else clmrc.start
    translated = _translated(clmrc, "train")
    trained = clmrc.fit(
        f"{system}/train",
        model,
        {"bert": start["bert"]},
        lambda: make_rows(clmrc.sets.of("target"), translated),
        s.target_recipe,
        s.seed * 100 + _SEEDS[system],
    )

    def asked(evaluation):
        return make_rows(evaluation.examples, _translated(clmrc, evaluation.name))

    clmrc.read(system, clmrc.span_answers(model, trained, asked))


def _texts(clmrc, system: str, evaluation) -> dict[str, list[dict]]:
    """Answers that no span model gives: one entry per question; start, end: -1 outside."""
    translated = _translated(clmrc, evaluation.name)
    if system == "bt_raw":
        return {id: [_entry(text, 1.0, -1)] for id, text in translated.items()}
    matches = rows.match_answers(evaluation.examples, translated)
    return {id: [_entry(x.text, x.score, x.start)] for id, x in matches.items()}


def _entry(text: str, score: float, start: int) -> dict:
    end = -1 if start < 0 else start + len(text)
    return {"text": text, "probability": score, "start": start, "end": end}


def _translated(clmrc, name: str) -> dict[str, str]:
    """id -> A_trans, of the training set ("train") or of an evaluation set; made once per run."""
    examples, source = _examples(clmrc, name), clmrc.settings.data.source
    stage = f"back_translation/{name}"

    def work(folder):
        reader, model, params = clmrc.source_reader

        def read(asked):
            found = reader.read(model, params, asked, f"{name}, translated")
            return {id: entries[0]["text"] for id, entries in found.items()}

        answers = rows.back_translate(examples, forward, read, backward, source)
        if hosts.is_first():
            write_json(folder / "answers.json", answers)
        return {"questions": len(answers)}

    forward, backward = _translators(clmrc)
    if not clmrc.run.path(stage, MANIFEST).exists():
        _prepare(forward, examples, source)
        _ = clmrc.source_reader  # a stage of its own, with its own time
    clmrc.stage(stage, work)
    return read_json(clmrc.run.path(stage, "answers.json"))


def _prepare(forward, examples: list[MrcExample], source: str) -> None:
    """Tells the translator all it will be asked: what cannot work fails before a reader trains."""
    texts: dict[str, dict[str, None]] = {}
    for example in examples:
        texts.setdefault(example.lang, {}).update({example.context: None, example.question: None})
    for lang, asked in texts.items():
        forward.prepare(list(asked), lang, source)


def _examples(clmrc, name: str) -> list[MrcExample]:
    if name == "train":
        return clmrc.sets.of("target")
    return next(x.examples for x in clmrc.sets.evaluation if x.name == name)


def _translators(clmrc):
    t = clmrc.settings.translation
    cache = t.cache or clmrc.run.path("translations")
    options = {"consent": t.consent, "project": t.project}
    if not hosts.is_first():
        return [_OnFirst(None), _OnFirst(None)]
    return [
        _OnFirst(translator.open_translator(spec, cache, **options))
        for spec in (t.forward, t.backward)
    ]


class _OnFirst:
    """A translator that process 0 asks for all, so that nothing is translated or paid for twice."""

    def __init__(self, inner: translator.Translator | None):
        self._inner, self.name = inner, getattr(inner, "name", "process 0")

    def prepare(self, texts, source: str, target: str) -> None:
        """See `translate.translator`: raises InputError if the translator cannot work."""
        hosts.on_first("prepare", lambda: translator.prepare(self._inner, texts, source, target))

    def translate(self, texts, source: str, target: str) -> list[str]:
        """See `translate.translator.Translator`."""
        return hosts.on_first("translate", lambda: self._inner.translate(texts, source, target))

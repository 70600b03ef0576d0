"""The end of a run: report, figures and the final table."""

import json

import jax

from clmrc_jax.data.languages import CATEGORIES, LANGUAGES
from clmrc_jax.evaluate.report import print_summary, write_report
from clmrc_jax.files import read_json
from clmrc_jax.pipelines.models import left_out_note
from clmrc_jax.retrieval.runs import read_run

SHOWN_PASSAGES = 3


def finish(cora, seconds: float, *, as_json: bool = False) -> dict:
    """Writes report.json, report.md and figures into the workdir and prints the summary."""
    report = build_report(cora, seconds)
    write_report(cora.run.workdir, report)
    if as_json:
        print(json.dumps(report["rounds"][-1], ensure_ascii=False))
    else:
        print_summary(report)
        print(f"\nreport: {cora.run.path('report.md')}")
    return report


def build_report(cora, seconds: float) -> dict:
    """Everything the report shows, as plain JSON values."""
    s, counts = cora.settings, cora.corpus_counts
    return {
        "title": s.name,
        "config": s.name,
        "seed": s.seed,
        "scorer": f"xor_full ({s.evaluation.scorer})",
        "split": s.evaluation.split,
        "notes": _notes(s),
        "corpus": {
            "passages": counts["passages"],
            "questions": {x: counts[f"{x} questions"] for x in ("train", "dev", "test")},
            "languages": counts["languages"],
        },
        "rounds": cora.metrics(),
        "seconds": cora.run.seconds,
        "parameters": {
            name: sum(leaf.size for leaf in jax.tree.leaves(params))
            for name, params in cora.parameters().items()
        },
        "examples": examples(cora) if s.generate else [],
    }


def _notes(settings) -> list[str]:
    notes = []
    builtin = "builtin" in (
        settings.retriever_model.pretrained,
        settings.generator_model.pretrained,
    )
    if builtin:
        notes.append(
            "The run starts from the tiny pretrained BERT and mT5 of the package. They have read "
            "templated text and name lists in 26 languages and reading exercises over invented "
            "facts (random pairings, true ones excluded), never a fact of this corpus; "
            "clmrc_jax/pretrained/README.md has seed, log and time."
        )
    if not settings.generate:
        notes.append(f"{left_out_note(settings)}.")
    if settings.generate and not settings.generator_model.pretrained:
        notes.append("mGEN started from RANDOM weights: its answers only show that the path works.")
    if settings.evaluation.scorer == "portable":
        notes.append(
            "Scorer mode `portable` cuts languages without spaces into characters and needs no "
            "segmenter; its numbers are not comparable to published ones (use `legacy` for that)."
        )
    return notes


def examples(cora) -> list[dict]:
    """Questions with answers and evidence of the last round, one per language, all categories."""
    s = cora.settings
    folder, split = cora.run.path(f"round_{s.rounds}"), s.evaluation.split
    answers = read_json(folder / "answers" / f"{split}.json")
    closed_file = folder / "answers" / f"{split}.closed_book.json"
    closed = read_json(closed_file) if closed_file.exists() else {}
    by_language: dict[str, dict] = {}
    for row in read_run(folder / "retrieved" / f"{split}.jsonl"):
        by_language.setdefault(row["lang"], row)
    order = sorted(by_language, key=_category_rank)
    step = max(1, len(order) // max(1, s.evaluation.examples))
    return [
        {
            "question": row["question"],
            "lang": row["lang"],
            "answers": row["answers"],
            "prediction": answers[row["q_id"]],
            "closed_book": closed.get(row["q_id"], ""),
            "ctxs": row["ctxs"][:SHOWN_PASSAGES],
        }
        for row in (by_language[lang] for lang in order[::step][: s.evaluation.examples])
    ]


def _category_rank(lang: str) -> tuple[int, str]:
    category = LANGUAGES[lang].category if lang in LANGUAGES else ""
    return (CATEGORIES.index(category) if category in CATEGORIES else len(CATEGORIES), lang)

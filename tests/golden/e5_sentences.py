"""50 real sentences in 11 languages, from files that are not in this repository.

The golden file keeps their ids, a hash of their text, and PyTorch's embeddings of them.
"""

import gzip
import hashlib
import json
import pathlib

# language -> (SQuAD-format file under the data folder, sentences)
SOURCES = {
    **{lang: (f"xquad/xquad.{lang}.json.gz", 5) for lang in ("ar", "de", "en", "es", "hi", "ro")},
    **{lang: (f"xquad/xquad.{lang}.json.gz", 4) for lang in ("ru", "th", "zh")},
    "ja": ("jaquad/dev/jaquad_dev_0000.json.gz", 4),
    "ko": ("korquad/KorQuAD_v1.0_dev.json.gz", 4),
}


def read_sentences(data: pathlib.Path) -> list[tuple[str, str]]:
    """(id, text) pairs: per language one paragraph as a passage, the others questions, spread
    evenly over the file."""
    rows = []
    for lang, (name, count) in SOURCES.items():
        with gzip.open(data / name, "rt", encoding="utf-8") as file:
            articles = json.load(file)["data"]
        paragraphs = [p for article in articles for p in article["paragraphs"]]
        rows.append((f"{lang}/0", "passage: " + paragraphs[0]["context"]))
        questions = [q for p in paragraphs for q in p["qas"]]
        for q in questions[:: max(1, len(questions) // (count - 1))][: count - 1]:
            rows.append((f"{lang}/{q['id']}", "query: " + q["question"]))
    return rows


def digest(rows: list[tuple[str, str]]) -> str:
    """SHA-256 over ids and texts: the same sentences, or the golden numbers mean nothing."""
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()

"""The published numbers of the Dual BERT paper (Cui et al., EMNLP 2019), by preset and data set.

`TABLES` holds Tables 2, 3 and 4, `FIGURE3` the points of Figure 3 (read off the vector graphics,
+-0.01). Presets are named as in the configs. Published scores come from one run or from the best
of several (the paper does not say).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_CHINESE = ("cmrc_dev", "cmrc_test", "cmrc_challenge", "drcd_dev", "drcd_test")


@dataclass(frozen=True)
class Published:
    """One printed row. scores: {data set: (EM, F1)} in percent.

    presets of reference rows (other people's systems, humans) start with "ref_".
    """

    preset: str
    system: str
    scores: Mapping[str, tuple[float, float]]


def _row(data_sets: Sequence[str], preset: str, system: str, cells: str) -> Published:
    """A row from cells "EM/F1", "-" where nothing is printed."""
    pairs = [None if x == "-" else tuple(map(float, x.split("/"))) for x in cells.split()]
    scores = {name: pair for name, pair in zip(data_sets, pairs, strict=True) if pair}
    return Published(preset, system, scores)


_TABLE2 = (
    ("ref_human", "Human", "91.1/97.3 92.4/97.9 90.4/95.2 - 80.4/93.3"),
    ("ref_p_reader", "P-Reader", "59.9/81.5 65.2/84.4 15.1/39.6 - -"),
    ("ref_z_reader", "Z-Reader", "79.8/92.7 74.2/88.1 13.9/37.4 - -"),
    ("ref_mca_reader", "MCA-Reader (ensemble)", "66.7/85.5 71.2/88.1 15.5/37.1 - -"),
    ("ref_rcen", "RCEN (ensemble)", "76.3/91.4 68.7/85.8 15.3/34.5 - -"),
    ("ref_r_net", "r-net", "- - - - 29.1/44.4"),
    ("ref_da", "DA (Yang et al., 2019)", "49.2/65.4 - - 55.4/67.7 -"),
    ("t2_01", "GNMT + BERT-base (SQuAD)", "15.9/40.3 20.8/45.4 4.2/20.2 28.1/50.0 26.6/48.9"),
    ("t2_02", "GNMT + BERT-large (SQuAD)", "16.8/42.1 21.7/47.3 5.2/22.0 28.9/52.0 28.7/52.1"),
    ("t2_03", "#2 + SimpleMatch", "26.7/56.9 31.3/61.6 9.1/35.5 36.9/60.6 37.0/61.2"),
    ("t2_04", "#2 + Answer Aligner", "46.1/66.4 49.8/69.3 16.5/40.9 60.1/70.5 59.5/70.7"),
    ("t2_05", "#2 + Answer Verifier", "64.7/84.7 68.9/86.8 20.0/45.6 83.5/90.1 82.6/89.6"),
    ("t2_06", "Chinese BERT", "63.6/83.9 67.8/86.0 18.4/42.1 83.4/90.1 81.9/89.0"),
    ("t2_07", "mBERT", "64.1/84.4 68.6/86.8 18.6/43.8 83.2/89.9 82.4/89.5"),
    ("t2_08", "Dual BERT", "65.8/86.3 70.4/88.1 23.8/47.9 84.5/90.8 83.7/90.3"),
    ("t2_09", "mBERT (SQuAD)", "56.5/77.5 59.7/79.9 18.6/41.4 66.7/81.0 65.4/80.1"),
    ("t2_10", "Cascade Training", "66.6/87.3 71.8/89.4 25.6/52.3 85.2/91.4 84.4/90.8"),
    ("t2_11", "Mixed Training", "66.8/87.5 72.6/89.8 26.7/53.4 85.3/91.6 84.7/91.2"),
    ("t2_12", "Dual BERT (w/ SQuAD)", "68.0/88.1 73.6/90.2 27.8/55.2 86.0/92.1 85.4/91.6"),
)
_TABLE3 = (
    ("ref_back_translation", "Back-Translation (Asai et al., 2018)", "24.8/42.6 23.5/44.0"),
    ("ref_runtime_mt", "+ Runtime MT (Asai et al., 2018)", "37.0/52.2 40.7/61.9"),
    ("t3_1", "GNMT + BERT-large (SQuAD)", "26.9/46.2 39.1/67.0"),
    ("t3_2", "+ SimpleMatch", "37.3/58.0 47.4/71.5"),
    ("t3_3", "mBERT (SQuAD)", "61.3/73.4 57.6/77.1"),
)
_TABLE4 = (
    ("t4_full", "Dual BERT (w/ SQuAD)", "68.0/88.1"),
    ("t4_no_aux", "w/o Auxiliary Loss", "67.5/87.7"),
    ("t4_no_dynlambda", "w/o Dynamic Lambda", "67.3/87.5"),
    ("t4_no_saa", "w/o Self-Adaptive Attention", "67.2/87.5"),
    ("t4_no_source", "w/o Source BERT", "66.6/87.3"),
    ("t4_no_squad", "w/o SQuAD Pre-Train", "65.8/86.3"),
)
TABLES: dict[str, tuple[Published, ...]] = {
    "table2": tuple(_row(_CHINESE, *row) for row in _TABLE2),
    "table3": tuple(_row(("ja", "fr"), *row) for row in _TABLE3),
    "table4": tuple(_row(("cmrc_dev",), *row) for row in _TABLE4),
}
# The system that the others of a table are tested against, by default.
BASELINES = {"table2": "t2_10", "table3": "t3_1", "table4": "t4_full"}

FIGURE3_SIZES = (
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    15_000,
    20_000,
    25_000,
    50_000,
    100_000,
)
# Figure 3: (EM + F1) / 2 on CMRC 2018 dev after pre-training on that many examples; means and
# medians of (apparently) five runs. The last point of a line is probably "all the data".
FIGURE3: dict[str, dict[str, tuple[float, ...]]] = {
    "squad": {
        "mean": (74.81, 74.81, 74.99, 75.18, 74.67, 75.04, 75.50, 75.57, 75.62, 76.02, 76.20, 76.55),
        "median": (74.65, 74.90, 75.15, 75.10, 74.35, 75.05, 75.70, 75.80, 75.70, 75.90, 76.30, 77.10),
    },
    "drcd": {
        "mean": (74.50, 74.52, 74.92, 75.06, 74.65, 74.73, 75.56, 75.47, 76.29, 75.98),
        "median": (74.55, 74.35, 74.70, 75.10, 74.60, 75.05, 75.45, 75.55, 76.35, 76.05),
    },
}  # fmt: skip


def published(preset: str) -> dict[str, dict[str, float]]:
    """What the paper prints for a preset: {data set: {"em", "f1"}} in percent.

    `f3_squad_100` and its like, points of Figure 3, have {"average"}, the mean of (EM + F1) / 2.
    {} for a preset that nobody published.
    """
    rows = {row.preset: row for name in TABLES for row in TABLES[name]}
    if preset in rows:
        return {name: {"em": em, "f1": f1} for name, (em, f1) in rows[preset].scores.items()}
    points = {
        f"f3_{name}_{size}": average
        for name, line in FIGURE3.items()
        for size, average in zip(FIGURE3_SIZES, line["mean"])
    }
    return {"cmrc_dev": {"average": points[preset]}} if preset in points else {}


def by_metric(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """{data set: {metric: number}} as {"cmrc_dev em": number}, how reports and sweeps name them."""
    return {f"{name} {metric}": x for name, row in scores.items() for metric, x in row.items()}

"""Figures of a report, as PNG bytes: the language matrix (CORA, Figure 3) and metrics over rounds.

Labels are language codes and English words, so every matplotlib installation can draw them.
Drawn on `Figure` objects, never through pyplot: no display, no global state, safe in threads.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from clmrc_jax.data.languages import (
    CATEGORIES,
    LANGUAGES,
    MDPR_SEEN,
    MGEN_SEEN,
    OTHER,
    SEEN,
    UNSEEN,
    language,
)

MACRO, CLOSED_BOOK = "macro", "closed_book"
LABELS = {
    SEEN: "seen",
    MDPR_SEEN: "mDPR-seen",
    MGEN_SEEN: "mGEN-seen",
    UNSEEN: "unseen",
    OTHER: "other",
    MACRO: "all",
    CLOSED_BOOK: "closed book",
}
# Told apart by people who do not see red and green differently.
_COLOURS = {
    SEEN: "#2166ac",
    MDPR_SEEN: "#1b9e8f",
    MGEN_SEEN: "#e08e0b",
    UNSEEN: "#b2456e",
    OTHER: "#7f7f7f",
    MACRO: "#1f2430",
    CLOSED_BOOK: "#8b90a0",
}
_INK, _SOFT, _GRID = "#1f2430", "#6b7080", "#e3e5ea"
_SHADES = LinearSegmentedColormap.from_list(
    "shades", ["#f6f8fb", "#c9dcee", "#7fb0d6", "#2f74b0", "#0b3566"]
)
_STYLE = {
    "font.family": "DejaVu Sans",
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.edgecolor": _SOFT,
    "text.parse_math": False,
}
_DPI = 160
_CELL = 0.44  # inches per cell of the matrix


def role_order(codes: Iterable[str]) -> list[str]:
    """Language codes by category (seen, mDPR-seen, mGEN-seen, unseen, other), then table order.

    Raises ValueError for a code that `data/languages.py` does not know.
    """
    roles, table = (*CATEGORIES, OTHER), list(LANGUAGES)
    known = {code: language(code) for code in set(codes)}
    return sorted(known, key=lambda x: (roles.index(known[x].category), table.index(known[x].code)))


def language_matrix(
    matrix: Mapping[str, Mapping[str, float]], title: str, subtitle: str = ""
) -> bytes:
    """Heat map of question language (rows) by passage language (columns), PNG bytes.

    matrix: {question language: {passage language: percent}}, as `recall.language_matrix` gives;
    missing cells are 0. Both axes run by category; the question's own language is outlined, and
    a dot stands for less than half a percent. Raises ValueError when there is nothing to draw.
    """
    rows = role_order(matrix)
    columns = role_order(code for row in matrix.values() for code in row)
    if not rows or not columns:
        raise ValueError("the language matrix is empty: it needs at least one retrieved passage")
    shares = [[float(matrix[asked].get(code, 0.0)) for code in columns] for asked in rows]
    with matplotlib.rc_context(_STYLE):
        # Inches round the cells: left, right (for the words), top, bottom.
        left, right, top, bottom = 1.35, 0.35, 1.45, 0.3
        width = max(left + _CELL * len(columns) + right, 6.4)
        height = top + _CELL * len(rows) + bottom
        figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
        cells = (_CELL * len(columns) / width, _CELL * len(rows) / height)
        axes = figure.add_axes((left / width, bottom / height, *cells))
        axes.imshow(shares, cmap=_SHADES, vmin=0, vmax=100, aspect="auto")
        _write_cells(axes, shares, rows, columns)
        _label_languages(axes, rows, columns)
        _headline(figure, title, subtitle)
        return _png(figure)


def metrics_over_rounds(
    rounds: Sequence[int],
    panels: Mapping[str, Mapping[str, Sequence[float | None]]],
    title: str,
    subtitle: str = "",
) -> bytes:
    """One panel per metric with a line per category, PNG bytes; percent from 0 to 100.

    rounds: round numbers, the x axis.
    panels: {panel title: {key of LABELS: a value, or None, per round}}; lines and panels without
    any value are left out. Raises ValueError when nothing is left.
    """
    drawn = {name: _with_values(series) for name, series in panels.items()}
    drawn = {name: series for name, series in drawn.items() if series}
    if not drawn:
        raise ValueError("no metric has a value in any round: there is nothing to draw")
    with matplotlib.rc_context(_STYLE):
        width, height = 0.9 + 4.1 * len(drawn), 4.4
        figure = Figure(figsize=(max(width, 6.4), height), dpi=_DPI, facecolor="white")
        grid = figure.add_gridspec(
            1, len(drawn), left=0.6 / width, right=1 - 1.25 / width, top=0.74, bottom=0.13,
            wspace=0.5,
        )  # fmt: skip
        for place, (name, series) in zip(grid, drawn.items()):
            _panel(figure.add_subplot(place), rounds, series, name)
        _headline(figure, title, subtitle)
        return _png(figure)


def _write_cells(axes: Axes, shares: list, rows: list[str], columns: list[str]) -> None:
    """Numbers into the cells, white on dark; an outline round the question's own language."""
    for y, asked in enumerate(rows):
        for x, code in enumerate(columns):
            share = shares[y][x]
            text = f"{share:.0f}" if share >= 0.5 else "·"
            colour = "white" if share > 52 else (_INK if share >= 0.5 else "#b4bac6")
            axes.text(x, y, text, ha="center", va="center", fontsize=9, color=colour)
            if asked == code:
                corner, side = (x - 0.42, y - 0.42), 0.84
                axes.add_patch(Rectangle(corner, side, side, fill=False, lw=1.4, ec="#e08e0b"))


def _label_languages(axes: Axes, rows: list[str], columns: list[str]) -> None:
    """Codes on both axes, category names beside them, white lines between the categories."""
    axes.set_xticks(range(len(columns)), columns, fontsize=9)
    axes.set_yticks(range(len(rows)), rows, fontsize=9)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, pad=4)
    axes.spines[:].set_visible(False)
    for text, height in (("passages in →", 18), ("questions in ↓", 4)):
        axes.annotate(
            text, (0, 1), (-6, height), xycoords="axes fraction", textcoords="offset points",
            ha="right", fontsize=8, color=_SOFT, annotation_clip=False,
        )  # fmt: skip
    for start, end, category in _groups(columns):
        if start:
            axes.axvline(start - 0.5, color="white", lw=3)
        # Offsets in points from the cells, so that every matrix size gets the same look.
        _bracket(axes, (start - 0.4, 0), (end - 0.6, 0), (0, 21), category, True)
    for start, end, category in _groups(rows):
        if start:
            axes.axhline(start - 0.5, color="white", lw=3)
        _bracket(axes, (0, start - 0.4), (0, end - 0.6), (-38, 0), category, False)


def _bracket(
    axes: Axes, first: tuple, last: tuple, offset: tuple, category: str, above: bool
) -> None:
    """A coloured line along one category of one axis, with its name where there is room."""
    mixed = axes.get_xaxis_transform() if above else axes.get_yaxis_transform()
    if above:
        first, last = (first[0], 1), (last[0], 1)
    colour = _COLOURS[category]
    ends = {"xycoords": mixed, "textcoords": "offset points", "annotation_clip": False}
    inches = (offset[0] / 72, offset[1] / 72)
    shift = ScaledTranslation(*inches, axes.figure.dpi_scale_trans)
    axes.plot(
        (first[0], last[0]), (first[1], last[1]), color=colour, lw=3, clip_on=False,
        solid_capstyle="butt", transform=mixed + shift, scalex=False, scaley=False,
    )  # fmt: skip
    middle = ((first[0] + last[0]) / 2, (first[1] + last[1]) / 2)
    length = abs(last[0] - first[0]) + abs(last[1] - first[1])
    if length + 0.5 < 0.16 * len(LABELS[category]):  # name longer than its cells
        return
    place = (0, offset[1] + 4) if above else (offset[0] - 5, 0)
    axes.annotate(
        LABELS[category], middle, place, ha="center" if above else "right",
        va="bottom" if above else "center", rotation=0 if above else 90,
        rotation_mode="default", fontsize=8.5, color=colour, **ends,
    )  # fmt: skip


def _panel(axes: Axes, rounds: Sequence[int], series: Mapping, name: str) -> None:
    """One metric over the rounds; names stand at the line ends, pushed apart."""
    ends = {}
    for key, values in series.items():
        points = [(x, y) for x, y in zip(rounds, values) if y is not None]
        strong, dashed = key == MACRO, key == CLOSED_BOOK
        axes.plot(
            *zip(*points), color=_COLOURS[key], lw=2.8 if strong else 1.8, marker="o",
            ms=5.5 if strong else 4.5, ls=(0, (4, 2)) if dashed else "-", clip_on=False,
            zorder=4 if strong else 3,
        )  # fmt: skip
        ends[key] = points[-1]
    axes.set_ylim(0, 100)
    margin = 0.5 if len(rounds) == 1 else 0.08 * (max(rounds) - min(rounds))
    axes.set_xlim(min(rounds) - margin, max(rounds) + margin)
    heights = _spread([y for _, y in ends.values()], gap=6.2)
    heights = [height - max(0, max(heights) - 100) for height in heights]
    for (key, (_, y)), height in zip(ends.items(), heights):
        axes.annotate(
            f"{y:.0f}  {LABELS[key]}", (1, height), (5, 0), xycoords=axes.get_yaxis_transform(),
            textcoords="offset points", va="center", fontsize=9, color=_COLOURS[key],
            fontweight="bold" if key == MACRO else "normal", annotation_clip=False,
        )  # fmt: skip
    axes.set_title(name, loc="left", fontsize=11, fontweight="bold", pad=10)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    if len(rounds) <= 8:
        axes.set_xticks(rounds)
    axes.set_xlabel("round", fontsize=9, color=_SOFT)
    axes.set_yticks(range(0, 101, 20))
    axes.tick_params(length=0, labelsize=9, labelcolor=_SOFT)
    axes.grid(axis="y", color=_GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _with_values(series: Mapping[str, Sequence[float | None]]) -> dict:
    """The lines with at least one value; "all" last, so that it lies on top."""
    kept = {key: values for key, values in series.items() if any(x is not None for x in values)}
    return dict(sorted(kept.items(), key=lambda item: item[0] == MACRO))


def _spread(values: Sequence[float], gap: float) -> list[float]:
    """Positions near the values, at least `gap` apart, centred on those that must move."""
    clusters: list[tuple[float, list[int]]] = []  # (centre, members in order)
    for member in sorted(range(len(values)), key=lambda x: values[x]):
        clusters.append((values[member], [member]))
        while len(clusters) > 1:
            (below, low), (above, high) = clusters[-2:]
            if above - below >= gap * (len(low) + len(high)) / 2:
                break
            members = low + high
            clusters[-2:] = [(sum(values[x] for x in members) / len(members), members)]
    places = [0.0] * len(values)
    for centre, members in clusters:
        for rank, member in enumerate(members):
            places[member] = centre + gap * (rank - (len(members) - 1) / 2)
    return places


def _groups(codes: Sequence[str]) -> list[tuple[int, int, str]]:
    """Runs of one category in ordered codes: (first, one past the last, category)."""
    runs, start = [], 0
    for category, members in groupby(codes, key=lambda code: language(code).category):
        end = start + len(list(members))
        runs.append((start, end, category))
        start = end
    return runs


def _headline(figure: Figure, title: str, subtitle: str) -> None:
    """Title and subtitle at fixed distances from the upper left corner."""
    width, height = figure.get_size_inches()
    left = 0.25 / width
    figure.text(left, 1 - 0.36 / height, title, fontsize=13, fontweight="bold")
    figure.text(left, 1 - 0.62 / height, subtitle, fontsize=9.5, color=_SOFT)


def _png(figure: Figure) -> bytes:
    """The figure as PNG, without a time stamp: equal numbers give equal files."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()

"""The report of `compile.make_report` as tables: for a terminal, and as Markdown for the docs."""

from rich import box
from rich.console import Console
from rich.table import Table

GIB = 2**30
WIDTH = 140
MEMORY = ("arguments", "temporaries", "held", "peak")


def show(report: dict, console: Console | None = None) -> None:
    """Prints memory, time and collectives of every step, and what would make it fit."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)  # a file or a pipe wraps nothing
    chip, mesh = report["chip"], " x ".join(f"{k} {v}" for k, v in report["mesh"].items())
    console.print(
        f"[bold]{report['name']}[/bold] for {report['topology']}: {report['chips']} chips "
        f"{chip['kind']!r}, {report['host_chips']} per host, mesh {mesh}; per chip {gib(chip['hbm_bytes'])} GiB, "
        f"{chip['peak_flops'] / 1e12:g} TFLOP/s, HBM {chip['hbm_bandwidth'] / 1e9:g} GB/s, "
        f"interconnect {chip['ici_bandwidth'] / 1e9:g} GB/s"
    )
    console.print(_table("memory of one chip, GiB", _memory_rows(report)))
    console.print(_table("one call at the published peaks", _time_rows(report)))
    console.print(_table("collectives of one call, per chip", _collective_rows(report)))
    if "scaling" in report:
        console.print(_table("the same rows per chip on other slices", _scaling_rows(report)))
    for row in report["steps"]:
        if not row["fits"]:
            need = f"{gib(row['memory']['peak'])} of {gib(row['memory']['capacity'])} GiB"
            console.print(f"[red]{row['step']} does not fit[/red] ({need}). It would shrink with:")
            for change, effect in row["options"]:
                console.print(f"  {change}   ({effect})", markup=False, highlight=False)
    if report["fits"]:
        console.print(f"everything fits on {report['topology']}")


def markdown(report: dict) -> str:
    """The tables as Markdown: memory and time, collectives, and the scaling if there is one."""
    parts = [_memory_rows(report), _time_rows(report), _collective_rows(report)]
    parts += [_scaling_rows(report)] if "scaling" in report else []
    return "\n\n".join(_lines(report["topology"], rows) for rows in parts)


def _lines(topology: str, rows: list[list[str]]) -> str:
    header, *body = rows
    lines = [["slice", *header], ["---"] * (len(header) + 1)]
    lines += [[topology, *cells] for cells in body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _table(title: str, rows: list[list[str]]) -> Table:
    header, *body = rows
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number > 1 else "left")
    for cells in body:
        table.add_row(*cells, style="red" if cells[-1].startswith("NO") else "")
    return table


def _memory_rows(report: dict) -> list[list[str]]:
    rows = [["step", "shape", "chips", *MEMORY, "of", "fits"]]
    for row in report["steps"]:
        memory = row["memory"]
        cells = [gib(memory[name]) for name in (*MEMORY, "capacity")]
        rows.append(
            [row["step"], row["shape"], str(row["chips"]), *cells, "yes" if row["fits"] else "NO"]
        )
    return rows


def _time_rows(report: dict) -> list[list[str]]:
    rows = [["step", "TFLOP", "compute ms", "HBM ms", "ICI ms", "bound", "rows/s", "MFU <="]]
    for row in report["steps"]:
        seconds = row["seconds"]
        cells = [row["step"], f"{row['flops'] / 1e12:,.3g}"]
        if seconds is None:
            rows.append(cells + ["-"] * 6)
            continue
        cells += [f"{1e3 * seconds[x]:.3g}" for x in ("compute", "hbm", "interconnect")]
        cells += [seconds["bound"], f"{row['rows_per_second']:,.0f}", f"{100 * row['mfu']:.0f}%"]
        rows.append(cells)
    return rows


def _collective_rows(report: dict) -> list[list[str]]:
    rows = [["step", "kind", "number", "MB", "MB sent"]]
    for row in report["steps"]:
        for kind, x in (row["collectives"] or {}).items():
            sizes = [f"{x[name] / 1e6:,.4g}" for name in ("bytes", "sent")]
            rows.append([row["step"], kind, f"{x['count']:,}", *sizes])
        if not row["collectives"]:
            rows.append([row["step"], "none", "", "", ""])
    return rows


def _scaling_rows(report: dict) -> list[list[str]]:
    """Weak scaling; hidden, exposed: see `scaling`."""
    rows = [["step", "on", "chips", "rows", "step ms", "MB sent", "ICI ms", "hidden", "exposed"]]
    for x in report["scaling"]:
        counts = [x["step"], x["topology"], f"{x['chips']:,}", f"{x['rows']:,}"]
        times = [f"{1e3 * x['step_seconds']:.3g}", f"{x['sent'] / 1e6:,.4g}"]
        times.append(f"{1e3 * x['interconnect']:.3g}")
        rows.append(counts + times + [f"{100 * x[name]:.0f}%" for name in ("hidden", "exposed")])
    return rows


def gib(count: float | None) -> str:
    """Bytes in GiB, two digits; "-" when unknown."""
    return "-" if count is None else f"{count / GIB:.2f}"

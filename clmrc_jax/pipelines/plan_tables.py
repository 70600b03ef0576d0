"""The plans of `plan.make_plan` and `clmrc_plan.make_plan` as tables for a terminal."""

import json
from datetime import timedelta

from rich import box
from rich.console import Console
from rich.table import Table

UNKNOWN = "?"


def print_plan(plan: dict, as_json: bool = False) -> dict:
    """Prints a plan as tables, or as one JSON object; returns it."""
    if as_json:
        print(json.dumps(plan, indent=1))
    else:
        show(plan)
    return plan


def show(plan: dict, console: Console | None = None) -> None:
    """Prints models, memory, disk, stages and assumptions."""
    console = console or Console()
    d = plan["devices"]
    mesh = " x ".join(f"{name} {size}" for name, size in d["mesh"].items())
    peak = f"{d['peak_flops'] / 1e12:,.2f} TFLOP/s each" if d["peak_flops"] else "unknown peak"
    console.print(f"[bold]{plan['name']}[/bold] on {d['planned']} x {d['kind']} ({mesh}; {peak})")
    console.print(_data_line(plan))
    console.print(_models(plan["models"]))
    if plan["memory"]:
        console.print(_memory(plan["memory"], d["memory_bytes"]))
    titles = {"process": "memory of the process", "host": "host memory for search"}
    titles |= {"labelling": "host memory for mining", "disk": "disk"}
    for name, title in titles.items():
        if plan.get(name):
            console.print(_sizes(title, plan[name]))
    console.print(_stages(plan["stages"], plan["seconds"]))
    console.print("assumed:", *(f"\n- {note}" for note in plan["notes"]), markup=False)


def _data_line(plan: dict) -> str:
    if "corpus" in plan:
        c = plan["corpus"]
        return (
            f"{c['passages']:,} passages; {c['train']:,} / {c['dev']:,} / {c['test']:,} "
            "questions to train, validate and test"
        )
    return "questions: " + ", ".join(f"{n:,} {name}" for name, n in plan["questions"].items())


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(first, title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for name in columns:
        table.add_column(name, justify="right")
    return table


def _models(models: dict) -> Table:
    table = _table("models", "model", "from", "parameters", "compute")
    table.columns[1].overflow = "fold"
    for name, model in models.items():
        count = f"{model['parameters']:,}" if model["parameters"] else UNKNOWN
        sizes = model["sizes"]
        table.add_row(name, model["from"], count, sizes["dtype"] if sizes else UNKNOWN)
    return table


def _memory(phases: dict, limit: int | None) -> Table:
    """One row per part, one column per phase; a phase that does not fit is red."""
    title = "memory of one device" + (f" ({size(limit)} there)" if limit else "")
    table = _table(title, "part", *phases)
    for column, phase in zip(table.columns[1:], phases.values()):
        column.style = "red" if limit and phase["total"] > limit else ""
    parts = list(dict.fromkeys(part for phase in phases.values() for part in phase))
    for part in sorted(parts, key=lambda x: x == "total"):
        cells = (size(phase[part]) if part in phase else "" for phase in phases.values())
        table.add_row(part, *cells, style="bold" if part == "total" else "")
    return table


def _sizes(title: str, parts: dict) -> Table:
    table = _table(title, "what", "size")
    for name, value in parts.items():
        table.add_row(name, size(value), style="bold" if name == "total" else "")
    return table


def _stages(stages: list[dict], total: float | None) -> Table:
    rounds = "round" in stages[0]
    table = _table("stages", "round, stage" if rounds else "stage", "count", "", "TFLOP", "time")
    table.columns[2].justify = "left"
    for row in stages:
        if rounds and row["round"] and row["stage"] == stages[0]["stage"]:
            table.add_section()
        table.add_row(
            f"{row['round']}  {row['stage']}" if rounds else row["stage"],
            f"{row['count']:,}",
            row["unit"],
            UNKNOWN if row["flops"] is None else f"{row['flops'] / 1e12:,.3g}",
            duration(row["seconds"]),
        )
    table.add_section()
    table.add_row("all", "", "", "", duration(total), style="bold")
    return table


def size(count: float) -> str:
    """Bytes with a decimal unit: 133.9 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def duration(seconds: float | None) -> str:
    """Seconds as `0:03:20`, from two days on as `3.5 days`; `?` when unknown."""
    if seconds is None:
        return UNKNOWN
    days = seconds / 86_400
    return f"{days:,.1f} days" if days >= 2 else str(timedelta(seconds=round(seconds)))

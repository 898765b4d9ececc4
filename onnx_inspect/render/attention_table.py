"""How statistics of attention heads look in a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from onnx_inspect.analysis.attention import HeadStatistics
from onnx_inspect.analysis.attention_report import Report
from onnx_inspect.heads import AttentionMap

NUMBERS = ("entropy", "distance", "first", "itself")
NAME = 30  # characters of a layer's name
ALL = 48  # heads of which each gets a row; of more, each layer gets one


def show(report: Report, console: Console | None = None) -> None:
    """Print a row for each head, or for each layer where there are many; JSON has all heads."""
    console = console or Console()
    pairs = list(zip(report.found.maps, report.named, strict=True))
    every = sum(len(own) for _, own in pairs) <= ALL
    table = Table(box=None, pad_edge=False)
    table.add_column("layer", no_wrap=True)
    table.add_column("head" if every else "heads", justify="right")
    for name in NUMBERS:
        table.add_column(name, justify="right", no_wrap=True)
    if every:
        table.add_column("kind")
    for found, own in pairs:
        rows = [[head] for head in own] if every else [list(own)]
        for number, heads in enumerate(rows):
            table.add_row(_title(found) if number == 0 else "", *_cells(heads, every))
    console.print(table)
    worst = max(m.error for m, _ in pairs)
    console.print(f"proved within {worst:.1e}; ran on {report.found.provider}", style="dim")


def _title(found: AttentionMap) -> str:
    name = found.layer if len(found.layer) <= NAME else f"{found.layer[: NAME // 2]}…{found.layer[-NAME // 2 + 1 :]}"
    return escape(f"{found.index} {name}")


def _cells(heads: Sequence[HeadStatistics], every: bool) -> list[str]:
    values = [_range([float(getattr(head, name)) for head in heads]) for name in NUMBERS]
    if every:
        return [heads[0].head, *values, heads[0].name]
    return [str(len(heads)), *values]


def _range(values: Sequence[float]) -> str:
    """One number, or the smallest and largest of several; a dash where none means anything."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return "-"
    low, high = min(known), max(known)
    return f"{low:.2f}" if len(values) == 1 else f"{low:.2f}–{high:.2f}"

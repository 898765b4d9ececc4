"""How activation statistics look in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from onnx_inspect.analysis.statistics import LayerStatistics


def show(statistics: Sequence[LayerStatistics], console: Console | None = None) -> None:
    """Print one row per layer; a dash stands for what can't be said, and columns that say nothing are left out."""
    console = console or Console()
    columns = {
        "mean": [_number(s.mean) for s in statistics],
        "std": [_number(s.std) for s in statistics],
        "min": [_number(s.min) for s in statistics],
        "max": [_number(s.max) for s in statistics],
        "zeros": ["-" if s.zeros is None else f"{s.zeros:.1%}" for s in statistics],
        "dead": [_share(s.dead, s.channels) for s in statistics],
        "constant": [_share(s.constant, s.channels) for s in statistics],
        "saturated": [_share(s.saturated, s.channels) for s in statistics],
        "NaN": [str(s.nan) for s in statistics],
        "Inf": [str(s.inf) for s in statistics],
    }
    kept = {
        name: cells
        for name, cells in columns.items()
        if name in ("mean", "std", "min", "max", "zeros", "dead") or any(c not in ("-", "0") for c in cells)
    }
    table = Table(box=None, pad_edge=False)
    table.add_column("layer", overflow="fold", min_width=24)
    for name in kept:
        table.add_column(name, justify="right", no_wrap=True)
    for layer, *cells in zip(statistics, *kept.values(), strict=True):
        shape = "×".join(map(str, layer.shape)) or "scalar"
        title = Text.assemble(_short(layer.name), "\n", (f"{layer.op_type} {shape}", "dim"))
        table.add_row(title, *cells)
    console.print(table)


def _short(name: str) -> str:
    """A name that fits on two lines; JSON has all of it."""
    return name if len(name) <= 60 else f"{name[:28]}…{name[-31:]}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _share(found: tuple[int, ...] | None, channels: int | None) -> str:
    return "-" if found is None else f"{len(found)}/{channels}" if found else "0"

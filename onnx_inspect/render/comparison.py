"""How a comparison of two models looks: a table in a terminal, and a figure of the error along depth."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from onnx_inspect.analysis.comparison import Comparison


def show(found: Comparison, console: Console | None = None) -> None:
    """Print one row per matched pair, then what is unmatched, the outputs and the verdict."""
    console = console or Console()
    if found.matched:
        table = Table(box=None, pad_edge=False)
        table.add_column("A", overflow="fold")
        table.add_column("B", overflow="fold")
        for name in ("sure", "cosine", "SQNR", "alone", "max|a-b|"):
            table.add_column(name, justify="right", no_wrap=True)
        for p in found.matched:
            table.add_row(
                _short(p.a),
                _short(p.b),
                f"{p.confidence:.2f}",
                "-" if p.apart.cosine is None else f"{p.apart.cosine:.5f}",
                _db(p.apart.sqnr_db, p.apart.equal),
                "-" if p.local is None else _db(p.local.sqnr_db, p.local.equal),
                f"{p.apart.max_abs:.3g}",
            )
        console.print(table)
    for output in found.outputs:
        same = "" if output.top1 is None else f", same class {output.top1:.0%}, rank correlation {output.rank:.4f}"
        cosine = "-" if output.difference.cosine is None else f"{output.difference.cosine:.6f}"
        console.print(
            f"output {output.a} / {output.b}: cosine {cosine}, max|a-b| {output.difference.max_abs:.3g}{same}"
        )
    if found.culprit is not None:
        console.print(f"culprit: {found.culprit.a} / {found.culprit.b}: {found.culprit.why}")
    console.print("the files are identical" if found.identical else "they agree" if found.agree else found.offence)


def _short(name: str) -> str:
    return name if len(name) <= 60 else f"{name[:28]}…{name[-31:]}"


def _db(value: float | None, equal: bool) -> str:
    return "equal" if equal else "-" if value is None else f"{value:.1f} dB"

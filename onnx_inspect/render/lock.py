"""How the verdict on a locked model looks in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from onnx_inspect.analysis.verdict import Pair, Verdict

SHOWN = 12  # layers from the first drift on
NAMED = 5  # layers without a counterpart


def show(verdict: Verdict, model: str, lockfile: str, console: Console | None = None) -> None:
    """Print whether the model agrees; where it doesn't, the first layer that drifted and those after it."""
    console = console or Console()
    first, drifted = verdict.first, [pair for pair in verdict.pairs if pair.drift]
    worst = max((pair.error for pair in verdict.pairs), default=0.0)
    same = ", the very file that was locked" if verdict.identical else ""
    lines = []
    if verdict.agree:
        lines.append(
            f"{model} agrees with {lockfile}{same}: {len(verdict.pairs)} tensors, largest relative error {worst:.2g},"
            f" {len(verdict.flips)} flips"
        )
    elif first is not None:
        lines.append(
            f"{model} drifts from {first.now.name} ({first.now.op_type or 'input'}) on: {first.drift};"
            f" {len(drifted)} of {len(verdict.pairs)} tensors are beyond the limits"
        )
    else:
        lines.append(f"{model} doesn't agree with {lockfile}, though no layer is beyond its limits")
    if verdict.flips:
        lines.append(f"{len(verdict.flips)} inputs are of another class: {', '.join(map(str, verdict.flips[:10]))}")
    for names, what in ((verdict.missing, "locked, found no more"), (verdict.added, "new, or not recognised")):
        if names:
            more = f", and {len(names) - NAMED} more" if len(names) > NAMED else ""
            lines.append(f"{what}: {', '.join(names[:NAMED])}{more}")
    for line in lines:
        console.print(escape(line), soft_wrap=True, highlight=False)
    if first is not None:
        console.print(_table(verdict, first))


def _table(verdict: Verdict, first: Pair) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("layer", overflow="fold")
    for heading in ("error", "cosine", "mean locked", "now", "std locked", "now"):
        table.add_column(heading, justify="right", no_wrap=True)
    start = verdict.pairs.index(first)
    for pair in verdict.pairs[max(0, start - 1) : start + SHOWN]:
        numbers = [pair.error, pair.cosine, pair.locked.mean, pair.now.mean, pair.locked.std, pair.now.std]
        was = f", was {pair.locked.name}" if pair.locked.name != pair.now.name else ""
        name = f"{pair.now.name} ({pair.now.op_type or 'input'}{was})"
        table.add_row(escape(name), *(f"{n:.3g}" for n in numbers), style="bold" if pair.drift else "dim")
    return table

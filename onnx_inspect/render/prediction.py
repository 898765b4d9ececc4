"""How predictions look in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from onnx_inspect.analysis.prediction import Prediction

BAR = 24  # characters of a full bar


def show(prediction: Prediction, console: Console | None = None) -> None:
    """Print one table per input: its classes with bars, or what its outputs hold."""
    console = console or Console()
    for source, ranked, outputs, flat in zip(
        prediction.sources, prediction.top, prediction.outputs, prediction.flat, strict=True
    ):
        table = Table(title=escape(source), title_justify="left", box=None, pad_edge=False)
        if ranked:
            for heading in ("class", "label", "score"):
                table.add_column(heading, justify="right" if heading != "label" else "left")
            table.add_column("")
            for entry in ranked:
                bar = "█" * round(BAR * min(max(entry.score, 0.0), 1.0))
                table.add_row(str(entry.index), escape(entry.label), f"{entry.score:.4f}", bar)
        else:
            for heading in ("output", "type", "shape", "min", "mean", "max"):
                table.add_column(heading, justify="right" if heading in ("min", "mean", "max") else "left")
            for output in outputs:
                numbers = [f"{v:.4g}" for v in (output.minimum, output.mean, output.maximum)]
                table.add_row(escape(output.name), output.dtype, str(list(output.shape)), *numbers)
        console.print(table)
        if flat:
            console.print("all scores are alike or not finite: the first class means nothing", style="yellow")
        console.print()
    console.print(f"ran on {prediction.provider}", style="dim")

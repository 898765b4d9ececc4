"""How a model's summary looks in a terminal."""

from __future__ import annotations

import math

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from onnx_inspect.analysis.summary import LayerSummary, Summary, open_ended
from onnx_inspect.graph.input_shapes import fixed
from onnx_inspect.graph.model import Dim, TensorSpec

# Operators that move, convert or measure tensors: rows that a reader may skip.
PLUMBING = {
    *("Cast", "Concat", "ConstantOfShape", "DequantizeLinear", "DynamicQuantizeLinear", "Equal", "Expand", "Flatten"),
    *("Gather", "Identity", "QuantizeLinear", "Range", "Reshape", "Shape", "Size", "Slice", "Split", "Squeeze"),
    *("Transpose", "Unsqueeze", "Where"),
}
ROOMY = 100  # columns of a console that needn't save space
NARROWEST = 16  # columns of the layer's name
STAR = "★"


def show(summary: Summary, console: Console | None = None, *, whole: bool = False) -> None:
    """Print the model's facts, a row per layer, and the totals per operator.

    Names are shortened in their middle to fit the console. What is unknown is a question mark. Layers that only prepare
    constants share a row where several follow each other, unless `whole`.
    """
    console = console or Console()
    _facts(summary, console)
    console.print()
    console.print(_layers(summary, console.width, whole))
    if any(row.cam_rank for row in summary.layers):
        console.print(f"{STAR} = default layer of a CAM; numbers rank the next best", style="dim")
    console.print()
    console.print(_ops(summary))


def short(number: int | None) -> str:
    """Write a count in at most six characters: ``1,728``, ``36.9 k``, ``1.24 M``; ``?`` for None.

    Examples
    --------
    >>> [short(n) for n in (0, 1728, 36_864, 999_600, 1_235_496, 1_814_073_344, None)]
    ['0', '1,728', '36.9 k', '1.00 M', '1.24 M', '1.81 G', '?']
    """
    if number is None:
        return "?"
    if number < 10_000:
        return f"{number:,}"
    power = min(5, int(math.log10(number * 1.0005)) // 3)  # 999,600 is 1.00 M, not 1000 k
    value = number / 1000**power
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {' kMGTP'[power]}"


def middle(text: str, width: int, share: float = 0.25) -> str:
    """Shorten text to `width` characters, `share` of them from its start: the ends of names tell more.

    Examples
    --------
    >>> middle("/encoder/layer.0/attention/MatMul", 16)
    '/enc…tion/MatMul'
    """
    if len(text) <= width:
        return text
    head = int(width * share)
    return text[:head] + "…" + text[len(text) - (width - 1 - head) :]


def _facts(summary: Summary, console: Console) -> None:
    console.print(Text(summary.model, style="bold"), overflow="fold")
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for title, specs in (("inputs", summary.inputs), ("outputs", summary.outputs)):
        for spec in specs:
            table.add_row(title, _tensor(spec))
            title = ""
    opsets = ", ".join(f"{domain} {version}" for domain, version in summary.opsets.items())
    table.add_row("opset", Text(f"{opsets} · IR {summary.ir_version}"))
    table.add_row("made by", Text(summary.producer or "not said"))
    table.add_row("parameters", Text(short(summary.parameters)))
    table.add_row("MACs", Text(_macs(summary)))
    table.add_row("activations", Text(_memory(summary)))
    if summary.size_bytes is not None:
        table.add_row("file", Text(_bytes(summary.size_bytes)))
    console.print(table)


def _tensor(spec: TensorSpec) -> Text:
    return Text.assemble(spec.name, "  ", (spec.describe(), "cyan"))


def _macs(summary: Summary) -> str:
    if summary.macs is not None:
        return short(summary.macs) + _for(summary)
    known = f"at least {short(summary.known_macs)}" if summary.known_macs else "unknown"
    free = [name for name, shape in summary.bound.items() if fixed(shape) is None]
    many = f"{summary.unknown_macs} layers" if summary.unknown_macs > 1 else "1 layer"
    return f"{known}; {many} of unknown cost" + (f": give --shape for {', '.join(free)}" if free else "")


def _for(summary: Summary) -> str:
    """Say which shapes the costs are for, where that was chosen for the user."""
    chosen = [
        f"{spec.name} {_times(summary.bound[spec.name])}"
        for spec in summary.inputs
        if summary.bound[spec.name] != spec.shape and summary.bound[spec.name] is not None
    ]
    return f" (for {', '.join(chosen)})" if chosen else ""


def _memory(summary: Summary) -> str:
    if summary.activation_bytes is None:
        return "unknown"
    return f"{_bytes(summary.activation_bytes)} in all, {_bytes(summary.peak_activation_bytes)} at once"


def _bytes(number: int | None) -> str:
    return "?" if number is None else f"{short(number)}B" if number >= 10_000 else f"{number:,} B"


def _layers(summary: Summary, width: int, whole: bool) -> Table:
    ranked = any(row.cam_rank for row in summary.layers)
    shown = [[row] for row in summary.layers] if whole else _runs(summary)
    rows = [_cells(run[0]) if len(run) == 1 else _together(run) for run in shown]
    headings = ["#", "layer", "op", "output", "params", "MACs", *(["CAM"] if ranked else [])]
    widths = [max([len(h), *(len(cells[i]) for cells in rows)]) for i, h in enumerate(headings)]
    gap = 2 if width >= ROOMY else 1
    widths[2], widths[3] = (
        (min(widths[i], most) for i, most in ((2, 22), (3, 26)))
        if gap > 1
        else (min(widths[i], most) for i, most in ((2, 13), (3, 16)))
    )
    widths[1] = max(NARROWEST, min(widths[1], width - sum(widths) + widths[1] - gap * (len(headings) - 1)))
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for heading, column in zip(headings, widths, strict=True):
        right = heading in ("#", "params", "MACs", "CAM")
        table.add_column(heading, justify="right" if right else "left", no_wrap=True, width=column)
    share = _telling([cells[1] for cells in rows], widths[1])
    for run, cells in zip(shown, rows, strict=True):
        cells[1] = middle(cells[1], widths[1], share)
        texts = [Text(middle(cell, column)) for cell, column in zip(cells, widths, strict=False)]
        table.add_row(*texts, style=_style(run[0]))
    return table


def _telling(names: list[str], width: int) -> float:
    """Share of a shortened name to take from its start so that the most names stay apart."""
    return max((0.25, 0.5, 0.8), key=lambda share: len({middle(name, width, share) for name in names}))


def _runs(summary: Summary) -> list[list[LayerSummary]]:
    """Layers one by one; neighbours that only prepare constants together."""
    runs: list[list[LayerSummary]] = []
    for row in summary.layers:
        if row.constant and runs and runs[-1][-1].constant:
            runs[-1].append(row)
        else:
            runs.append([row])
    return runs


def _together(run: list[LayerSummary]) -> list[str]:
    ops = {row.layer.op_type for row in run}
    return ["⋯", f"{len(run)} that prepare constants", ops.pop() if len(ops) == 1 else "", "", "", "", ""]


def _cells(row: LayerSummary) -> list[str]:
    rank = "" if row.cam_rank is None else STAR if row.cam_rank == 1 else str(row.cam_rank)
    learned = short(row.parameters) if row.parameters else ""
    macs = "" if row.macs == 0 else short(row.macs)
    return [str(row.layer.index), row.layer.name, row.layer.op_type, _times(row.shape), learned, macs, rank]


def _style(row: LayerSummary) -> str:
    if row.cam_rank == 1:
        return "bold green"
    return "dim" if row.layer.op_type in PLUMBING and not row.parameters and not row.macs else ""


def _times(shape: tuple[Dim, ...] | None) -> str:
    if shape is None:
        return "?"
    return "×".join(_dim(d) for d in shape) if shape else "scalar"


def _dim(dim: Dim) -> str:
    return "?" if open_ended(dim) else middle(str(dim), 8)


def _ops(summary: Summary) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("op", "layers", "params", "MACs", ""):
        table.add_column(heading, justify="left" if heading == "op" else "right", no_wrap=True)
    total = summary.known_macs
    for op in summary.ops:
        share = f"{100 * op.macs / total:.1f} %" if op.macs and total else ""
        learned = short(op.parameters) if op.parameters else ""
        macs = "" if op.macs == 0 else short(op.macs)
        table.add_row(escape(op.op_type), str(op.count), learned, macs, share)
    return table

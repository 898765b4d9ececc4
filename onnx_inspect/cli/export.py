"""`export`: a training framework's model as an ONNX file that was checked against it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_inspect.cli import _frameworks
from onnx_inspect.cli._options import COMMON_OPTIONS, Settings, shared

if TYPE_CHECKING:
    from exporters._contract import Report

FILE = click.Path(path_type=Path)
SOURCE_OPTIONS = (
    click.option("--input", "shapes", multiple=True, required=True, metavar="SHAPE", help="1,3,224,224 or 1,16:int64."),
    click.option("--weights", type=FILE, metavar="FILE.pt", help="A state_dict, or a checkpoint that holds one."),
    click.option("--layer", "layers", multiple=True, metavar="PATH", help="Module path or glob: becomes an output."),
    click.option("--opset", type=click.IntRange(min=7), default=18, show_default=True, help="Of the ONNX file."),
    click.option("--legacy", is_flag=True, help="Trace with TorchScript instead of torch.export."),
    click.option("--fixed-batch", is_flag=True, help="Keep the batch size of --input."),
)
STAMP_OPTIONS = (
    click.option("--preprocess", metavar="PRESET|FILE", help="Stamped: imagenet, unit, signed, raw, caffe, or JSON."),
    click.option("--labels", type=FILE, metavar="FILE", help="Stamped: class names, one a line or JSON."),
    click.option("--output-name", "outputs", multiple=True, metavar="NAME", help="Of the outputs, in their order."),
    click.option("--tolerance", type=click.FloatRange(min=0), default=1e-4, show_default=True, help="Relative."),
)


@click.command()
@click.argument("framework", type=click.Choice(_frameworks.names()))
@click.argument("source", metavar="MODULE.PATH:FACTORY")
@click.option("-o", "--out", type=FILE, required=True, metavar="FILE.onnx", help="Where to write it.")
@shared(SOURCE_OPTIONS, STAMP_OPTIONS, COMMON_OPTIONS)
def command(
    framework: str,
    source: str,
    shapes: tuple[str, ...],
    fixed_batch: bool,
    settings: Settings,
    **chosen: Any,
) -> None:
    """Export a FRAMEWORK's model, check it against the framework, and name its layers by their module paths.

    The factory is imported with the current folder on the path and called without arguments. Give --input once per
    input, batch first. Nothing is written when the numbers differ by more than the tolerance.

    \b
    Example:  onnx-inspect export pytorch mynet:Net --input 1,3,32,32 --weights net.pt --layer 'layer4.*' -o net.onnx
    """
    from onnx_inspect.cli._session import emit, say
    from onnx_inspect.inputs.labels import read_labels

    exporter = _frameworks.load(framework)
    preprocess, labels = _preprocess(shapes, settings), read_labels(settings.labels, {})
    with redirect_stdout(sys.stderr):  # the model's own code may print
        report = exporter.export(
            source,
            input=list(shapes),
            dynamic=not fixed_batch,
            preprocess=preprocess,
            labels=labels,
            seed=settings.seed,
            **chosen,
        )
    for note in report.notes:
        say(f"note: {note}", settings)
    if settings.as_json:
        emit(report.to_json())
        return
    say(_summary(report), settings)
    for name, difference in report.max_difference.items():
        click.echo(f"{name}  {difference:.3g}")


def _preprocess(shapes: Sequence[str], settings: Settings) -> dict[str, Any] | None:
    """Complete what --preprocess says by the shape of the first input that can be a picture, and say how."""
    if settings.preprocess is None:
        return None
    from onnx_inspect.cli._session import say
    from onnx_inspect.graph.model import TensorSpec
    from onnx_inspect.inputs.axes import is_picture
    from onnx_inspect.inputs.resolve import resolve

    specs = []
    for text in shapes:
        numbers, _, dtype = text.partition(":")
        dims = tuple(int(n) if n.strip().isdecimal() else None for n in numbers.split(","))
        specs.append(TensorSpec("input", dtype or "float32", dims))
    chosen = next((spec for spec in specs if is_picture(spec)), specs[0])
    made, reason = resolve(settings.preprocess, chosen, {})
    say(f"preprocessing: {reason}", settings)
    return made.to_json()


def _summary(report: Report) -> str:
    size = report.path.stat().st_size
    text = f"{report.path}: {size:,} bytes, {len(report.modules)} modules named, {report.seconds:.1f} s."
    if report.unmapped:
        shown = ", ".join(report.unmapped[:5]) + (", ..." if len(report.unmapped) > 5 else "")
        text += f" Without a tensor of their own (fused or folded): {shown}."
    return f"{text} Largest |{report.framework} - ONNX| over {report.samples} samples, per output:"

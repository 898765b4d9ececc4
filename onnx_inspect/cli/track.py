"""`track`: what changed along a training run, checkpoint by checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnx_inspect.cli._options import COMMON_OPTIONS, INPUT_OPTIONS, RUN_OPTIONS, Settings, out_option, shared
from onnx_inspect.cli._track import VIEW_OPTIONS


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="CKPT.onnx CKPT.onnx... [INPUT...]")
@click.option(
    "--order",
    type=click.Choice(["natural", "given"]),
    default="natural",
    show_default=True,
    help="natural: epoch3 before epoch12, names without a number last, init first.",
)
@click.option("--save", type=click.Path(path_type=Path), metavar="FILE.npz", help="Also write the numbers themselves.")
@out_option
@shared(VIEW_OPTIONS, INPUT_OPTIONS, RUN_OPTIONS, COMMON_OPTIONS)
def command(
    words: tuple[str, ...], order: Any, save: Path | None, out: Path | None, settings: Settings, **views: Any
) -> None:
    """Follow a network through its checkpoints: weights, activations, likeness, dead units, predictions, embeddings.

    Every word that ends in .onnx is a checkpoint, also as a glob ('run/*.onnx'); all others are inputs. Without inputs
    only the weights are followed; CKA needs four of them. The first four pictures get a strip and a GIF of one channel,
    or of a method's map with --cam. Exit code 2 where the files are not checkpoints of one architecture.

    \b
    Example:  onnx-inspect track net_epoch1.onnx net_epoch3.onnx net.onnx photos/ -o tracked/
              onnx-inspect track 'run/*.onnx' cat.jpg --cam recipro-cam --target 'tabby cat'
              onnx-inspect track 'run/*.onnx' digits.npy --tensorboard runs/
    """
    from onnx_inspect.analysis.checkpoints import in_order
    from onnx_inspect.cli._track import Views, follow, sort

    paths, inputs = sort(words)
    follow(in_order(paths, order), inputs, Views(**views), settings, save=save, out=out)

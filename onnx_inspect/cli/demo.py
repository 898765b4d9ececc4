"""`demo`: the main commands on the models that the package carries."""

from __future__ import annotations

import html
import shlex
from contextlib import redirect_stdout
from importlib.resources import as_file, files
from io import StringIO
from pathlib import Path

import click

FOLDER = Path("onnx-inspect-demo")
SENTENCE = "'The food was not good, but we loved the music.'"
# (folder of its pictures, what they show, the command, without --out)
STEPS = (
    (
        "01-cam",
        "Where does the network see each shape? Five gradient-free class activation maps of a small residual network.",
        "cam shapes_resnet.onnx shape_star.png shape_cross.png --method recipro-cam --method cam --method ablation-cam"
        " --method score-cam --method eigen-cam",
    ),
    (
        "02-target",
        "Two shapes in one picture: the map follows the class that is asked for.",
        "cam shapes_resnet.onnx pair_ring_square.png --target ring --method recipro-cam --method eigen-cam",
    ),
    (
        "03-target",
        "The same picture, asked for the other shape. Eigen-CAM looks at no class and stays as it was.",
        "cam shapes_resnet.onnx pair_ring_square.png --target square --method recipro-cam --method eigen-cam",
    ),
    (
        "04-gradients",
        "Gradients without a training framework: the backward pass is a graph of ONNX nodes.",
        "cam shapes_resnet.onnx shape_star.png --method grad-cam --method layer-cam --method integrated-gradients"
        " --method smooth-grad",
    ),
    (
        "05-black-box",
        "Methods that need no layer: cover parts of the picture and watch the score.",
        "cam shapes_resnet.onnx shape_star.png --method occlusion --method rise --method lime --method kernel-shap",
    ),
    (
        "06-transformer",
        "A vision transformer: patch tokens are put back on their grid.",
        "cam digits_vit.onnx digit_3.png digit_7.png --method recipro-cam --method ablation-cam --method score-cam",
    ),
    (
        "07-attention",
        "What each head of the vision transformer looks at from its class token, and the rollout through all layers.",
        "attention digits_vit.onnx digit_3.png --query cls --rollout",
    ),
    (
        "08-words",
        "Which words decide? Occlusion and KernelSHAP over the tokens of a sentence.",
        f"cam sentiment.onnx --text {SENTENCE} --method occlusion --method kernel-shap",
    ),
    (
        "09-activations",
        "What each layer of a convolutional network answers to a digit.",
        "activations digits_convnet.onnx digit_3.png",
    ),
    (
        "10-weights",
        "What the layers have learned: filters as tiles, matrices as heat maps, their spectra and norms.",
        "weights digits_convnet.onnx",
    ),
    (
        "11-training",
        "The same network after one epoch, three, and at the end: what changed, layer by layer.",
        "track digits_convnet_epoch1.onnx digits_convnet_epoch3.onnx digits_convnet.onnx digit_0.png digit_3.png"
        " digit_5.png digit_7.png --cam grad-cam",
    ),
)


@click.command()
@click.option("-o", "--out", type=click.Path(path_type=Path), default=FOLDER, show_default=True, metavar="DIR")
def command(out: Path) -> None:
    """Draw pictures of the shipped models into a folder, and say which command made which.

    \b
    Example:  onnx-inspect demo -o /tmp/demo
    """
    from onnx_inspect.cli._session import write_text
    from onnx_inspect.cli.app import group
    from onnx_inspect.errors import MissingExtra, OutputError

    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file: name a folder with --out")
    made: list[tuple[str, str, list[Path]]] = []
    with as_file(files("onnx_inspect") / "assets") as assets:
        for folder, meaning, line in STEPS:
            click.echo(f"onnx-inspect {line} -o {out / folder}")
            words = [str(assets / word) if (assets / word).is_file() else word for word in shlex.split(line)]
            try:
                with redirect_stdout(StringIO()):  # the pictures say it all here
                    group.main([*words, "--quiet", "--out", str(out / folder)], standalone_mode=False)
            except MissingExtra as error:
                click.echo(f"  left out: {error}")
                continue
            made.append((meaning, line, sorted((out / folder).glob("*.png"), key=_written)))
    write_text(out / "index.html", page(made, out))
    pictures = sum(len(paths) for _, _, paths in made)
    click.echo(f"\n{pictures} pictures in {out}/ ; all on one page: {out / 'index.html'}")


def page(made: list[tuple[str, str, list[Path]]], out: Path) -> str:
    """One HTML page with every picture under the command that made it; it refers to the files beside it only."""
    parts = [
        "<!doctype html><meta charset='utf-8'><title>onnx-inspect demo</title>",
        "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}"
        "code{background:#f2f2f2;padding:.2em .4em;overflow-wrap:anywhere}"
        "img{max-width:100%;display:block;margin:1em 0;border:1px solid #ddd}</style><h1>onnx-inspect demo</h1>",
    ]
    for meaning, line, paths in made:
        parts.append(f"<h2>{html.escape(meaning)}</h2><p><code>onnx-inspect {html.escape(line)}</code></p>")
        parts += [
            f"<img src='{html.escape(path.relative_to(out).as_posix())}' alt='{html.escape(path.stem)}'>"
            for path in paths
        ]
    return "\n".join(parts) + "\n"


def _written(path: Path) -> int:
    """When a file was written: commands write their figures in the order of depth."""
    return path.stat().st_mtime_ns

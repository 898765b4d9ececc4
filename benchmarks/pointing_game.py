"""Does the map find the object? Hit rates of each method's strongest cell, with 95 % intervals and baselines.

python benchmarks/pointing_game.py                 drawn shapes: single shapes, and pairs explained one at a time
python benchmarks/pointing_game.py --methods occlusion rise:masks=500,score=probability

On real photographs: benchmarks/pointing_real.py.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from fixtures import shapes  # noqa: E402
from onnx_inspect import methods as explain  # noqa: E402
from onnx_inspect.graph.model import Model  # noqa: E402
from onnx_inspect.graph.read import read as read_model  # noqa: E402
from onnx_inspect.inputs.preprocess import Preprocess  # noqa: E402
from onnx_inspect.targets import ClassTarget  # noqa: E402

METHODS: list[tuple[str, dict[str, str]]] = [
    ("cam", {}),
    ("eigen-cam", {}),
    ("recipro-cam", {}),
    ("recipro-cam", {"window": "1", "score": "probability"}),  # the paper's
    ("ablation-cam", {}),
    ("score-cam", {}),
]
SIDE = 64  # pixels of a drawn picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--methods", nargs="+", type=parsed, metavar="NAME[:KEY=VALUE,...]", help="only these")
    options = parser.parse_args()
    drawn(options.count, options.methods or METHODS)


def parsed(text: str) -> tuple[str, dict[str, str]]:
    """A method and its parameters, from ``name:key=value,key=value``."""
    method, _, params = text.partition(":")
    return method, dict(part.split("=", 1) for part in params.split(",")) if params else {}


def interval(hits: int, count: int) -> str:
    """Wilson's 95 % interval of a rate."""
    z, rate = 1.96, hits / count
    centre = (rate + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    return f"{hits:>4}/{count} = {rate:6.1%}  [{centre - half:.1%}, {centre + half:.1%}]"


def drawn(count: int, methods: list[tuple[str, dict[str, str]]]) -> None:
    """Held-out drawn pictures: one shape, and two shapes of which each is asked for in turn."""
    net = read_model(ROOT / "fixtures/shapes_resnet.onnx")
    single = shapes.draw(np.random.default_rng(10_001), count)
    pairs = shapes.draw_pairs(np.random.default_rng(10_002), count // 2)
    print(f"drawn shapes, {count} held-out pictures, layer of {net.source}")
    baselines(single[2])
    for method, params in methods:
        game(net, method, params, single[0], np.asarray(single[1]), single[2])
    labels, boxes = np.asarray(pairs[1]), np.asarray(pairs[2])
    print(f"\npairs of shapes, {len(labels)} pictures, each shape asked for by its class")
    baselines(boxes.reshape(-1, 4))
    for method, params in methods:
        twice = np.concatenate([pairs[0], pairs[0]])
        game(net, method, params, twice, labels.T.ravel(), np.concatenate([boxes[:, 0], boxes[:, 1]]), by_class=True)


def baselines(boxes: Any) -> None:
    """Chance (the boxes' share of the picture) and the middle of the picture."""
    boxes, side = np.asarray(boxes, float), SIDE
    area = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).mean() / side**2
    middle = int(((boxes[:, :2] <= side / 2) & (side / 2 <= boxes[:, 2:])).all(axis=1).sum())
    print(f"  {'chance (box area)':<28} {area:6.1%}")
    print(f"  {'middle of the picture':<28} {interval(middle, len(boxes))}")


def game(
    net: Model, method: str, params: dict[str, str], pictures: Any, labels: Any, boxes: Any, *, by_class: bool = False
) -> None:
    start, hits, passes = time.perf_counter(), 0, 0
    for group in np.unique(labels) if by_class else [None]:
        chosen = np.flatnonzero(labels == group) if group is not None else np.arange(len(labels))
        batch = batch_of(net, pictures[chosen])
        view = explain.scene(net, batch, target=ClassTarget(None if group is None else int(group)))
        result = explain.attribute(view, method, params)
        passes += result.passes + result.tail_passes
        for n, box in enumerate(np.asarray(boxes)[chosen]):
            x, y = (value * SIDE for value in result.peak(n))
            hits += bool(box[0] <= x <= box[2] and box[1] <= y <= box[3])
    seconds = (time.perf_counter() - start) / len(labels)
    report(method, params, hits, len(labels), seconds, passes / len(labels))


def report(method: str, params: dict[str, str], hits: int, count: int, seconds: float, passes: float) -> None:
    name = method + "".join(f" {k}={v}" for k, v in params.items())
    print(f"  {name:<28} {interval(hits, count)}   {seconds * 1e3:8.1f} ms  {passes:7.0f} passes a picture")


def batch_of(net: Model, pictures: Any) -> Any:
    from onnx_inspect.inputs.batch import Batch

    preprocess = Preprocess.from_json(json.loads(net.metadata["onnx_inspect.preprocess"]))
    made = [preprocess.apply(picture) for picture in pictures]
    name = net.inputs[0].name
    return Batch(
        arrays={name: np.stack([array for array, _ in made])},
        primary=name,
        sources=tuple(str(i) for i in range(len(made))),
        originals=tuple(np.array(picture) for picture in pictures),
        placements=tuple(placement for _, placement in made),
        preprocess=preprocess,
        labels=None,
        notes=(),
    )


if __name__ == "__main__":
    main()

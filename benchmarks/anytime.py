"""How soon is an estimate good? Passes until Score-CAM and RISE reach cosine 0.98 with their full maps.

python benchmarks/anytime.py DIR                          every photograph of DIR/index.json, both models and methods
python benchmarks/anytime.py DIR --photos 4 --methods score-cam --models mobilenet_v1_025_128_fp32

Columns: passes that the definition takes; the class-blind mean activation's cosine (the baseline to beat); the first
budget, of a series that grows by a quarter, whose map has cosine 0.98, and its share of the whole; the cosine at a
tenth of the passes; and what the stopping rule did by itself: passes, stability, cosine reached. Cosines are of maps as
they are drawn, cut at 0 and scaled to [0, 1]: a map's offset would hide the rest of RISE's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from onnx_inspect import methods as explain  # noqa: E402
from onnx_inspect.analysis.saliency import to_unit  # noqa: E402
from onnx_inspect.cam._budget import Budget  # noqa: E402
from onnx_inspect.graph.read import read as read_model  # noqa: E402
from onnx_inspect.inputs.preprocess import Preprocess  # noqa: E402
from onnx_inspect.inputs.read import read as read_inputs  # noqa: E402
from onnx_inspect.ops import resize  # noqa: E402
from onnx_inspect.scene import Scene  # noqa: E402

GOAL = 0.98
GROWTH = 1.25
NEVER = 2.0  # a stability that no map reaches
FIRST = 8
# The layer of SqueezeNet's default map is the class map itself: channel methods need the one before.
LAYERS = {"squeezenet1_fp32": "Concat_60", "mobilenet_v1_025_128_fp32": None}
PLANS = ("score-cam", "rise")


@dataclass(frozen=True)
class Row:
    """One photograph; `needed` is None where no budget below the whole was enough."""

    photo: str
    whole: int
    blind: float
    needed: int | None
    tenth: float
    stopped: int
    stability: float
    reached: float

    @property
    def share(self) -> float:
        return (self.needed or self.whole) / self.whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("real", type=Path, metavar="DIR")
    parser.add_argument("--models", nargs="+", default=list(LAYERS), metavar="ID")
    parser.add_argument("--methods", nargs="+", default=list(PLANS), metavar="NAME")
    parser.add_argument("--photos", type=int, default=10**6, help="only the first ones")
    options = parser.parse_args()
    for model in options.models:
        for method in options.methods:
            report(model, method, (measured(view, photo, method) for photo, view in seen(options, model)))


def seen(options: Any, name: str) -> Iterator[tuple[str, Scene]]:
    """Each photograph of something that the classifiers know, in front of a model."""
    index = json.loads((options.real / "index.json").read_text())
    model = next(m for m in index["models"] if m["id"] == name)
    net, given = read_model(options.real / model["file"]), model["preprocess"]
    preprocess = Preprocess(
        size=(given["height"], given["width"]),
        resize="stretch",
        layout=given["layout"],
        colour=given["colour"],
        scale=given["scale"],
        mean=tuple(given["mean"]),
        std=tuple(given["std"]),
    )
    first: Scene | None = None
    for image in [image for image in index["images"] if image.get("imagenet_accepts")][: options.photos]:
        batch = read_inputs(net.inputs, [str(options.real / image["file"])], preprocess=preprocess)
        view = first.of(batch, settled=None) if first is not None else explain.scene(net, batch, layer=LAYERS[name])
        first = first or view
        yield image["id"], view


def measured(view: Scene, photo: str, method: str) -> Row:
    """Compare estimates of growing budgets with the definition."""
    full = explain.attribute(view, method).values[0]
    mean = explain.attribute(view, "mean-activation").values[0]
    stopped = explain.attribute(view, method, budget=Budget(passes=10**9))
    assert stopped.estimate is not None
    whole = stopped.estimate.whole[0]
    needed, passes = None, FIRST
    while passes < whole:
        if cosine(limited(view, method, passes), full) >= GOAL:
            needed = passes
            break
        passes = int(passes * GROWTH)
    return Row(
        photo=photo,
        whole=whole,
        blind=cosine(resize(mean, full.shape), full),
        needed=needed,
        tenth=cosine(limited(view, method, whole // 10), full),
        stopped=stopped.estimate.passes[0],
        stability=stopped.estimate.stability[0],
        reached=cosine(stopped.values[0], full),
    )


def limited(view: Scene, method: str, passes: int) -> Any:
    """The map after so many passes, stable or not."""
    return explain.attribute(view, method, budget=Budget(passes=passes, stable=NEVER)).values[0]


def cosine(a: Any, b: Any) -> float:
    u, v = to_unit(a).ravel().astype(np.float64), to_unit(b).ravel().astype(np.float64)
    return float(u @ v / ((np.linalg.norm(u) * np.linalg.norm(v)) or 1.0))


def report(model: str, method: str, measuring: Iterable[Row]) -> None:
    """Print each photograph as it is measured, and a summary."""
    print(f"\n{model}, {method}")
    print(f"{'photograph':<24}{'whole':>6}{'blind':>7}{'0.98 at':>9}{'share':>7}{'a tenth':>9}   stops at (stability)")
    rows = []
    for row in measuring:
        rows.append(row)
        needed = "-" if row.needed is None else str(row.needed)
        print(
            f"{row.photo:<24}{row.whole:>6}{row.blind:>7.3f}{needed:>9}{row.share:>7.1%}{row.tenth:>9.4f}"
            f"   {row.stopped:>4} ({row.stability:.3f}): {row.reached:.4f}",
            flush=True,
        )
    shares, tenths = [row.share for row in rows], [row.tenth for row in rows]
    blind = statistics.median(row.blind for row in rows)
    print(
        f"0.98 at {statistics.median(shares):.1%} of the passes (median; worst {max(shares):.1%});"
        f" with a tenth of them {sum(t >= GOAL for t in tenths)} of {len(rows)} reach it, worst {min(tenths):.4f};"
        f" stops at {statistics.median(row.stopped / row.whole for row in rows):.1%}"
        f" with {min(row.reached for row in rows):.4f} or more; blind {blind:.3f}",
        flush=True,
    )


if __name__ == "__main__":
    main()

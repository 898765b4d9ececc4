"""How much memory and time capturing attention takes: 12 layers of 12 heads, width 768, 512 tokens, made up weights.

    python benchmarks/attention_memory.py [--threads 2] [--inputs 1] [--exporter legacy|dynamo]

Prints, for each way of asking, the MiB that the process took beyond a plain run of the model, the MiB that are kept,
the seconds, and the ratio to a plain run. Each is measured in a process of its own. Needs torch.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
TOKENS, LAYERS, HEADS, WIDTH = 512, 12, 12, 768
WAYS: dict[str, dict[str, Any]] = {
    "plain run": {},
    "mean over heads": {"reduce": "mean"},
    "largest over heads": {"reduce": "max"},
    "one query row": {"queries": (0,)},
    "one layer, all heads": {"layers": ("0",)},
    "all heads": {"layers": ()},
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--inputs", type=int, default=1)
    parser.add_argument("--exporter", choices=("legacy", "dynamo"), default="legacy")
    parser.add_argument("--way")
    parser.add_argument("--model")
    given = parser.parse_args()
    if given.way:
        print(*measured(Path(given.model), WAYS[given.way], given.inputs, given.threads))
        return
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "bert.onnx"
        subprocess.run([sys.executable, "-c", MAKE, str(ROOT), str(model), given.exporter], check=True)
        weights = model.stat().st_size / 2**20
        print(f"{LAYERS} x {HEADS} heads, {TOKENS} tokens, {given.inputs} input(s), {given.threads} thread(s);")
        print(f"of what it takes more, {weights:.0f} MiB are a copy of the weights")
        print(f"{'':24}{'MiB more':>10}{'MiB kept':>10}{'seconds':>10}{'ratio':>8}")
        base: tuple[float, float] | None = None
        for way in WAYS:
            rest = ["--way", way, "--model", str(model), "--inputs", str(given.inputs), "--threads", str(given.threads)]
            line = subprocess.run([sys.executable, __file__, *rest], check=True, capture_output=True, text=True).stdout
            peak, kept, seconds = map(float, line.split())
            base = base or (peak, seconds)
            print(f"{way:24}{peak - base[0]:10.0f}{kept:10.1f}{seconds:10.2f}{seconds / base[1]:8.2f}")


MAKE = f"""
import sys
sys.path.insert(0, sys.argv[1])
import torch
from fixtures.attentive import Bert
from fixtures.attentive_cases import TEXT, exported
torch.manual_seed(0)
net = Bert(fused=sys.argv[3] == "dynamo", width={WIDTH}, heads={HEADS}, depth={LAYERS}, words=1000, inner=4).eval()
ids = torch.randint(1, 1000, (2, {TOKENS}))
inputs = dict(input_ids=ids, attention_mask=torch.ones_like(ids), token_type_ids=torch.zeros_like(ids))
opset = 17 if sys.argv[3] == "legacy" else 20
data = exported(net, inputs, {{n: dict(a) for n, a in TEXT.items()}}, sys.argv[3], opset)
open(sys.argv[2], "wb").write(data)
"""


def measured(path: Path, way: dict[str, Any], count: int, threads: int) -> tuple[float, float, float]:
    """Peak MiB of this process, MiB of probabilities kept, and seconds, sessions included."""
    sys.path.insert(0, str(ROOT))
    from benchmarks.peak import peak
    from onnx_inspect.attention import capture
    from onnx_inspect.engine import Engine
    from onnx_inspect.graph.model import Model
    from onnx_inspect.graph.read import read
    from onnx_inspect.inputs.batch import Batch

    def make_engine(model: Model) -> Engine:
        return Engine(model, threads=threads)

    rng = np.random.default_rng(0)
    ids = rng.integers(1, 1000, (count, TOKENS))
    arrays = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    none = (None,) * count
    batch = Batch(arrays, "input_ids", tuple(map(str, range(count))), none, none, None, None, ())
    model = read(path)
    start = time.perf_counter()
    if not way:
        make_engine(model).run(arrays)
        return peak(), 0.0, time.perf_counter() - start
    found = capture(model, batch, make_engine=make_engine, **way)
    seconds = time.perf_counter() - start
    assert len(found.maps) == (1 if way.get("layers") else LAYERS), found.refused
    return peak(), sum(m.probabilities.nbytes for m in found.maps) / 2**20, seconds


if __name__ == "__main__":
    main()

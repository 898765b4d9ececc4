"""How far recovered attention is from PyTorch's own: architecture by exporter by opset, or as onnxruntime rewrites it.

    python benchmarks/attention_table.py [--only NAME] [--exporter legacy|dynamo] [--variants]

Prints the largest |difference| of any probability of any head, layer and sample; ``refused``, with the reason below; or
``-`` where PyTorch itself can't export. What was quantised differs because the quantised model itself attends
elsewhere: it is proved against its own context, not against PyTorch's. Needs torch and onnxscript; all of it takes some
twenty minutes on one thread.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]


def main() -> None:
    sys.path.insert(0, str(ROOT))
    from fixtures.attentive_cases import CASES, OPSETS

    parser = argparse.ArgumentParser()
    parser.add_argument("--only", help="a part of an architecture's name")
    parser.add_argument("--exporter", choices=tuple(OPSETS))
    parser.add_argument("--variants", action="store_true", help="fused and quantised models instead of exporters")
    given = parser.parse_args()
    names = [n for n in CASES if given.only is None or given.only.lower() in n.lower()]
    if given.variants:
        variants(names)
        return
    columns = [(e, o) for e, opsets in OPSETS.items() for o in opsets if given.exporter in (None, e)]
    print("| architecture | " + " | ".join(f"{e} {o}" for e, o in columns) + " |")
    print("|---|" + "---|" * len(columns))
    notes: list[str] = []
    for name in names:
        cells = [cell(name, exporter, opset, notes) for exporter, opset in columns]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    print(*notes, sep="\n")


def cell(name: str, exporter: str, opset: int, notes: list[str]) -> str:
    from fixtures.attentive_cases import CASES, export

    if exporter not in CASES[name].exporters:
        return "-"
    try:
        case = export(name, exporter, opset)
    except Exception as error:  # whatever torch raises: the cell says that it can't
        notes.append(f"{name}, {exporter} {opset}: torch can't: {' '.join(str(error).split())[:120]}")
        return "-"
    return compared(case.data, case, f"{name}, {exporter} {opset}", notes)


def compared(data: bytes, case: object, what: str, notes: list[str]) -> str:
    """Largest difference from PyTorch's probabilities, each attention compared with its nearest of the same shape."""
    from fixtures.attentive_cases import Exported
    from onnx_inspect.attention import capture
    from onnx_inspect.graph.read import parse
    from onnx_inspect.inputs.batch import Batch

    assert isinstance(case, Exported)
    count = len(next(iter(case.arrays.values())))
    none = (None,) * count
    sources = tuple(map(str, range(count)))
    found = capture(parse(data), Batch(case.arrays, next(iter(case.arrays)), sources, none, none, None, None, ()))
    if found.refused or len(found.maps) != len(case.probabilities):
        notes.append(f"{what}: {found.refused[0] if found.refused else f'{len(found.maps)} attentions'}")
        return "refused"
    worst = 0.0
    for own in found.maps:  # an optimiser may put an encoder's behind a decoder's
        same = [p for p in case.probabilities if p.shape == own.probabilities.shape]
        worst = max(worst, min(float(np.abs(own.probabilities - p).max()) for p in same))
    return f"{worst:.1e}"


def variants(names: list[str]) -> None:
    from fixtures import attentive_variants as made
    from fixtures.attentive_cases import export

    kinds = {"BERT": "bert", "ViT": "vit", "GPT-2": "gpt2", "encoder": "bart"}
    heads = ("fused", "fused, multi-head", "optimised", "int8 dynamic", "int8 products", "int8 QDQ", "int8 QOperator")
    print(f"| architecture | {' | '.join(heads)} |")
    print("|---|" + "---|" * len(heads))
    notes: list[str] = []
    for name in names:
        if "SDPA" in name:
            continue
        case = export(name, "legacy", 17)
        kind = next((k for start, k in kinds.items() if name.startswith(start)), "bert")
        ways: list[Callable[[], bytes]] = [
            lambda c=case, k=kind: made.fused(c.data, k, heads=4, width=32),
            lambda c=case, k=kind: made.fused(c.data, k, heads=4, width=32, multi_head=True),
            lambda c=case: made.optimised(c.data),
            lambda c=case: made.dynamic(c.data),
            lambda c=case: made.optimised(made.dynamic(c.data, products=True)),
            lambda c=case: made.static(c.data, c.arrays, "QDQ"),
            lambda c=case: made.static(c.data, c.arrays, "QOperator"),
        ]
        cells = []
        for way in ways:
            try:
                data = way()
            except Exception as error:  # whatever the tools raise
                notes.append(f"{name}: onnxruntime's tool can't: {' '.join(str(error).split())[:120]}")
                cells.append("-")
                continue
            cells.append(compared(data, case, name, notes))
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    print(*notes, sep="\n")


if __name__ == "__main__":
    main()

"""Does the map find the object on real photographs? Every method on every classifier, in as many runs as it takes.

    python benchmarks/pointing_real.py DIR --into pointing.json           everything that is not in the file yet
    python benchmarks/pointing_real.py DIR --into pointing.json --only    print the table of what is there
    python benchmarks/pointing_real.py DIR --into pointing.json --methods cam rise:masks=500 --models squeezenet1_fp32

DIR holds index.json, models and images: grids of four photographs, and photographs in one corner of a grey canvas. A
hit is a strongest cell in the quarter that holds the class asked for. A result is written down as soon as it is there,
so that a run may be stopped and taken up again. Methods that run many masks get at most --passes of them a picture
(0: all); where that is less than the method's own number it is an estimate, marked with ~.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.photographs import Collection, Question  # noqa: E402
from benchmarks.pointing_game import parsed  # noqa: E402
from onnx_inspect import atomic, discover, methods  # noqa: E402
from onnx_inspect.cam._budget import Budget  # noqa: E402
from onnx_inspect.errors import InspectError  # noqa: E402
from onnx_inspect.graph.model import Model  # noqa: E402
from onnx_inspect.inputs.preprocess import Preprocess  # noqa: E402
from onnx_inspect.targets import ClassTarget  # noqa: E402

VARIANTS = (("recipro-cam", {"window": "1", "score": "probability"}),)  # the paper's
NO_POINTING = ("dff", "d-rise")  # segments, and detectors
MANY = ("hsic", "is-cam", "kernel-shap", "lime", "poly-cam", "rise", "score-cam", "sobol", "ss-cam", "vit-cx")
KINDS = ("grids", "corners")
Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--into", type=Path, required=True, help="JSON file of results, read and written")
    parser.add_argument("--methods", nargs="+", type=parsed, metavar="NAME[:KEY=VALUE,...]")
    parser.add_argument("--models", nargs="+", metavar="ID")
    parser.add_argument(
        "--passes", type=int, default=1000, help="of methods that run many masks (default 1000; 0: all)"
    )
    parser.add_argument("--limit", type=int, help="questions of each kind")
    parser.add_argument("--only", action="store_true", help="run nothing, print the table")
    options = parser.parse_args()
    known = [(name, {}) for name in discover.names(methods.METHODS) if name not in NO_POINTING]
    collection = Collection.of(options.folder)
    done: dict[str, Record] = json.loads(options.into.read_text()) if options.into.exists() else {}
    for name, net, preprocess in collection.classifiers(options.models) if not options.only else ():
        for method, params in options.methods or [*known, *VARIANTS]:
            for kind in KINDS:
                asked = [q for q in collection.questions(name) if q.kind == kind][: options.limit]
                key = " ".join([name, _title(method, params), kind, str(len(asked)), str(options.passes)])
                if asked and key not in done:
                    done[key] = _play(collection, net, preprocess, method, params, asked, options.passes)
                    done[key] |= {"model": name, "method": _title(method, params), "kind": kind}
                    with atomic.replacing(options.into) as temporary:
                        temporary.write_text(json.dumps(done, indent=1))
                    print(
                        key, done[key].get("error") or f"{done[key]['hits']}/{len(asked)}", file=sys.stderr, flush=True
                    )
    print(table(list(done.values())))


def table(records: list[Record]) -> str:
    """Make a Markdown table: a row for each method, most hits first; hits in grids and corners, passes, seconds."""
    names = list(dict.fromkeys(r["model"] for r in records))
    rows = []
    for method in dict.fromkeys(r["method"] for r in records):
        own = {(r["model"], r["kind"]): r for r in records if r["method"] == method}
        cells = [_cell([own.get((name, kind)) for kind in KINDS]) for name in names]
        rows.append((-sum(r.get("hits", 0) for r in own.values()), f"| {method} | {' | '.join(cells)} |"))
    asked = {(r["model"], r["kind"]): r["asked"] for r in records}
    totals = {n: [asked.get((n, k), 0) for k in KINDS] for n in names}
    heads = [f"{name}, of {'·'.join(map(str, totals[name]))}" for name in names]
    lines = [f"| method | {' | '.join(heads)} |", "|---" * (len(names) + 1) + "|"]
    return "\n".join(lines + [row for _, row in sorted(rows)])


def _cell(found: list[Record | None]) -> str:
    there = [r for r in found if r is not None]
    if not there:
        return ""
    if any("error" in r for r in there):
        return "does not apply"
    asked = sum(r["asked"] for r in there)
    passes = sum(r["passes"] for r in there) / asked
    seconds = sum(r["seconds"] for r in there) / asked
    about = "~" if any(r["estimate"] for r in there) else ""
    return f"{'·'.join(str(r['hits']) for r in there)}; {about}{passes:.0f} passes, {seconds:.3g} s"


def _play(
    collection: Collection,
    net: Model,
    preprocess: Preprocess,
    method: str,
    params: dict[str, str],
    asked: list[Question],
    passes: int,
) -> Record:
    hits, spent, seconds, estimate = 0, 0, 0.0, False
    budget = Budget(passes=passes) if passes and method in MANY else None
    for question in asked:
        batch = collection.batch(net, preprocess, question.file)
        try:
            view = methods.scene(net, batch, target=ClassTarget(question.target))
            view.probe()  # the forward pass and the sessions are every method's, not this one's
            start = time.perf_counter()
            found = methods.attribute(view, method, params, budget=budget)
        except InspectError as error:
            return {"error": str(error), "asked": len(asked)}
        seconds += time.perf_counter() - start
        spent += found.passes + found.tail_passes
        estimate |= found.estimate is not None and any(
            p < w for p, w in zip(found.estimate.passes, found.estimate.whole, strict=True)
        )
        hits += question.answered(*found.peak(0))
    return {"hits": hits, "asked": len(asked), "passes": spent, "seconds": seconds, "estimate": estimate}


def _title(method: str, params: dict[str, str]) -> str:
    return " ".join([method, *(f"{k}={v}" for k, v in params.items())])


if __name__ == "__main__":
    main()

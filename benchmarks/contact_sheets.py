"""How do the methods compare on a photograph? One picture for each, all methods side by side.

    python benchmarks/contact_sheets.py DIR --out sheets --model squeezenet1_fp32
    python benchmarks/contact_sheets.py DIR --out sheets --model mobilenet_v1_025_128_fp32 --images zebra.jpg grid_0.jpg

DIR holds index.json, models and images; the best class is explained. Methods that run many masks get at most --passes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.photographs import Collection  # noqa: E402
from benchmarks.pointing_real import MANY, NO_POINTING  # noqa: E402
from onnx_inspect import discover, methods  # noqa: E402
from onnx_inspect.analysis.saliency import of_batch  # noqa: E402
from onnx_inspect.cam._budget import Budget  # noqa: E402
from onnx_inspect.errors import InspectError  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="squeezenet1_fp32", metavar="ID")
    parser.add_argument("--images", nargs="+", metavar="FILE")
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--passes", type=int, default=200)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    collection = Collection.of(options.folder)
    chosen = options.methods or [n for n in discover.names(methods.METHODS) if n not in NO_POINTING]
    for file in [image["file"] for image in collection.index["images"]]:
        if options.images is None or Path(file).name in options.images:
            print(sheet(collection, options.model, file, chosen, options.passes, options.out))


def sheet(collection: Collection, model: str, file: str, chosen: list[str], passes: int, out: Path) -> Path:
    """Draw one photograph's maps; methods that don't apply are told on stderr."""
    from onnx_inspect.render import cam
    from onnx_inspect.render._save import drawn, save

    ((_, net, preprocess),) = collection.classifiers([model])
    entry = next(m for m in collection.index["models"] if m["id"] == model)
    labels = collection.folder / entry["labels"] if entry.get("labels") else None
    batch = collection.batch(net, preprocess, file, labels)
    view, found = methods.scene(net, batch), []
    for method in chosen:
        try:
            found.append(methods.attribute(view, method, budget=Budget(passes=passes) if method in MANY else None))
        except InspectError as error:
            print(f"{file}: {method}: {error}", file=sys.stderr)
    path = out / f"{Path(file).stem}-{model}.png"
    save(drawn(cam, [of_batch(found, 0, batch)]), path)
    return path


if __name__ == "__main__":
    main()

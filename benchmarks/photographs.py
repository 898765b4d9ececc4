"""Real models and photographs as a folder's index.json describes them: what benchmarks on real pictures share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import read
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.inputs.preprocess import Preprocess
from onnx_inspect.inputs.read import read as read_inputs

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Question:
    """Where a model sees a class: the map's strongest cell should lie in `region`, of a picture of `size` pixels."""

    kind: str
    file: str
    target: int
    region: Box
    size: tuple[int, int]

    def answered(self, x: float, y: float) -> bool:
        """Whether a point in [0, 1] of the picture lies in the region."""
        x0, y0, x1, y1 = self.region
        return x0 <= x * self.size[0] <= x1 and y0 <= y * self.size[1] <= y1


@dataclass(frozen=True)
class Collection:
    """A folder with index.json, models and images."""

    folder: Path
    index: dict[str, Any]

    @classmethod
    def of(cls, folder: Path) -> Collection:
        """Read the index."""
        return cls(folder, json.loads((folder / "index.json").read_text()))

    def questions(self, model: str) -> list[Question]:
        """What the grids and corner pictures ask a model."""
        found = []
        for image in self.index["images"]:
            cells = image.get("cells") or {}
            for photo, answer in image.get("reference", {}).get(model, {}).items():
                if isinstance(answer, dict) and photo in cells and "class_index" in answer:
                    kind = "grids" if "grid" in image["kind"] else "corners"
                    region = tuple(map(float, cells[photo]))
                    found.append(
                        Question(kind, image["file"], int(answer["class_index"]), region, tuple(image["size"]))
                    )
        return found

    def classifiers(self, names: list[str] | None) -> Iterator[tuple[str, Model, Preprocess]]:
        """Models that the pictures ask something, or the named ones."""
        for entry in self.index["models"]:
            if entry["id"] in names if names is not None else self.questions(entry["id"]):
                yield entry["id"], read(self.folder / entry["file"]), _preprocess(entry["preprocess"])

    def batch(self, net: Model, preprocess: Preprocess, file: str, labels: Path | None = None) -> Batch:
        """One picture as a model wants it."""
        words = [str(self.folder / file)]
        return read_inputs(net.inputs, words, preprocess=preprocess, metadata={}, seed=0, labels=labels)


def _preprocess(given: dict[str, Any]) -> Preprocess:
    return Preprocess(
        size=(given["height"], given["width"]),
        resize="stretch",
        layout=given["layout"],
        colour={"L": "GRAY"}.get(given["colour"], given["colour"]),
        scale=given["scale"],
        mean=tuple(given["mean"]),
        std=tuple(given["std"]),
    )

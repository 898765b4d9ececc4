"""How readings pass through what moves elements, and back to what is added to a tensor whose reading is known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx

from onnx_inspect.graph.constants import Scope
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.moves import MOVING, Places, moved
from onnx_inspect.graph.reading import Cells, Spatial, recognise, spread

Shapes = Mapping[str, tuple[int, ...]]
LARGEST = 2**22  # elements of a tensor that is followed: windows and patches are smaller
FARTHEST = 16  # moves between a sum and what is added


@dataclass
class Tracer:
    """Follows the elements of tensors through a graph; readings that it recognises are put in `found`.

    Attributes
    ----------
    model : Model
    shapes : mapping
        Concrete, of one sample.
    found : dict
        Reading of each tensor that has one.
    traced : dict
        Cells of elements, and their grid, of tensors on the way that are no maps themselves.
    """

    model: Model
    shapes: Shapes
    found: dict[str, Spatial]
    traced: dict[str, tuple[Cells, tuple[int, ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Know the graph's constants."""
        self.scope = Scope(self.model, self.model.proto.graph)

    def follow(self, node: onnx.NodeProto) -> None:
        """Trace a moving node's outputs and recognise what has become of them."""
        sources = [self._cells(name) for name in _data(node)]
        grids = {source[1] for source in sources if source is not None}
        if len(grids) != 1 or any(source is None for source in sources) or self._splits_channels(node):
            return
        results = moved(node, [source[0] for source in sources if source is not None], self.shapes, self.scope)
        for name, cells in zip(node.output, results or [], strict=False):
            if not name:
                continue
            (grid,) = grids
            reading = recognise(cells, grid)
            if reading is not None:
                self.found[name] = reading
            else:
                self.traced[name] = cells, grid

    def inherit(self, node: onnx.NodeProto) -> None:
        """Give what is added to a tensor with a reading the same one, and what it was made of by moves alone."""
        if node.op_type == "Concat":
            return
        reading, shape = self.found[node.output[0]], self.shapes[node.output[0]]
        for name in node.input:
            if name not in self.found and name not in self.model.constants and self.shapes.get(name) == shape:
                self._back(name, reading)

    def _back(self, name: str, reading: Spatial) -> None:
        """Read a tensor, and follow its elements back to where something else than a move made them."""
        self.found[name] = reading
        chain: list[onnx.NodeProto] = []  # moves from the root to the tensor
        waiting, roots = [name], set()
        while waiting and len(chain) < FARTHEST:
            made = self.model.producers.get(waiting.pop())
            if made is None or made.op_type not in MOVING:
                if made is not None:
                    roots.add(made.output[0])
                continue
            if not any(made is known for known in chain):
                chain.append(made)
                waiting.extend(_data(made))
        if waiting or len(roots) != 1 or not chain:
            return
        (root,) = roots
        shape = self.shapes.get(root)
        if shape is None or math.prod(shape) > LARGEST:
            return
        place = self._pushed(root, chain).get(name)
        if place is None or place.shape != self.shapes[name]:
            return
        cells = np.full(math.prod(shape), -1, np.int32)
        inside = place >= 0
        cells[place[inside]] = spread(reading, self.shapes[name])[inside]
        known = recognise(cells.reshape(shape), reading.grid)
        if known is not None and known.grid == reading.grid:
            self.found.setdefault(root, known)

    def _pushed(self, root: str, chain: list[onnx.NodeProto]) -> dict[str, Places]:
        """Which of the root's elements are where, in every tensor that moves make of it."""
        shape = self.shapes[root]
        values: dict[str, Places] = {root: np.arange(math.prod(shape), dtype=np.int32).reshape(shape)}
        for node in self.model.proto.graph.node:
            if any(node is member for member in chain) and all(name in values for name in _data(node)):
                results = moved(node, [values[name] for name in _data(node)], self.shapes, self.scope)
                values.update(zip(node.output, results or [], strict=False))
        return values

    def _cells(self, name: str) -> tuple[Cells, tuple[int, ...]] | None:
        if name in self.traced:
            return self.traced[name]
        reading, shape = self.found.get(name), self.shapes.get(name)
        if reading is None or shape is None or math.prod(shape) > LARGEST:
            return None
        if shape[0] != 1 and reading.form != "windows":
            return None
        return spread(reading, shape), reading.grid

    def _splits_channels(self, node: onnx.NodeProto) -> bool:
        """Whether a Reshape takes a map's channels apart, as attention does for its heads: nothing to follow there."""
        reading, after = self.found.get(node.input[0]), self.shapes.get(node.output[0])
        if node.op_type != "Reshape" or reading is None or after is None:
            return False
        axis = 1 if reading.form in ("channels-first", "flat") else -1
        return len(after) <= 1 or after[axis] < self.shapes[node.input[0]][axis]


def _data(node: onnx.NodeProto) -> list[str]:
    """Inputs whose elements a moving node moves."""
    return list(node.input) if node.op_type == "Concat" else [node.input[0]]

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
RESCALING = frozenset("Add Sub Mul Div Clip".split())
COLOURS = 4  # channels of a picture at most
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
    pixels : set of str
        Those of them that are the inputs' own pixels.
    """

    model: Model
    shapes: Shapes
    found: dict[str, Spatial]
    traced: dict[str, tuple[Cells, tuple[int, ...]]] = field(default_factory=dict)
    pixels: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Know the graph's constants, and where the inputs' pixels lie."""
        self.scope = Scope(self.model, self.model.proto.graph)
        for spec in self.model.inputs:
            plane = _plane(self.shapes.get(spec.name, ()))
            if plane is not None:
                self.traced[spec.name] = spread(plane, self.shapes[spec.name]), plane.grid
                self.pixels.add(spec.name)

    def follow(self, node: onnx.NodeProto) -> None:
        """Trace a moving node's outputs and recognise what has become of them."""
        sources = [self._cells(name) for name in _data(node)]
        grids = {source[1] for source in sources if source is not None}
        if len(grids) != 1 or any(source is None for source in sources) or self._splits_channels(node):
            return
        pixels = self.pixels.intersection(_data(node))  # moved, but no patches yet
        results = moved(node, [source[0] for source in sources if source is not None], self.shapes, self.scope)
        for name, cells in zip(node.output, results or [], strict=False):
            if not name:
                continue
            (grid,) = grids
            reading = recognise(cells, grid)
            if reading is not None and not (pixels and reading.grid == grid):
                self.found[name] = reading
                continue
            self.traced[name] = cells, grid
            if pixels:
                self.pixels.add(name)

    def rescale(self, node: onnx.NodeProto) -> None:
        """Keep track of pixels that are brought to another range."""
        for name in self.pixels.intersection(node.input):
            if self.shapes.get(node.output[0]) == self.shapes[name]:
                self.traced[node.output[0]] = self.traced[name]
                self.pixels.add(node.output[0])

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


def _plane(shape: tuple[int, ...]) -> Spatial | None:
    """Reading of an input that holds a picture, a signal or a volume of a few channels; None for any other."""
    if not 3 <= len(shape) <= 5 or shape[0] != 1 or math.prod(shape) > LARGEST:
        return None
    if shape[1] <= COLOURS < min(shape[2:]):
        return Spatial("channels-first", shape[2:])
    return Spatial("channels-last", shape[1:-1]) if shape[-1] <= COLOURS < min(shape[1:-1]) else None


def _data(node: onnx.NodeProto) -> list[str]:
    """Inputs whose elements a moving node moves."""
    return list(node.input) if node.op_type == "Concat" else [node.input[0]]

"""Which tensors of a model can be compared with another model's: what the inputs decide, and what each is made of."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from onnx_inspect.graph.dependence import dependent
from onnx_inspect.graph.model import Model, node_inputs

INPUT = "Input"  # operator of the points that are the model's own inputs


@dataclass(frozen=True)
class Point:
    """A tensor that a model's inputs decide.

    Attributes
    ----------
    name : str
        The tensor's.
    op_type : str
        Operator that makes it, ``Input`` for what the model is fed.
    layer : str
        Name of the node that makes it; the tensor's own for an input.
    sources : tuple of str
        Points that the node reads, in its own order; constants and shapes are none.
    slot : int
        Which of the node's outputs it is.
    """

    name: str
    op_type: str
    layer: str
    sources: tuple[str, ...] = ()
    slot: int = 0


def points(model: Model) -> tuple[Point, ...]:
    """All points of a model's main graph, makers first.

    What only constants and shapes decide is left out, and scales and zero points that a quantiser measures.

    Examples
    --------
    >>> from onnx_inspect.graph.read import read
    >>> [(p.name, p.op_type, p.sources) for p in points(read("fixtures/gap.onnx"))][:2]
    [('input', 'Input', ()), ('conv', 'Conv', ('input',))]
    """
    live = dependent(model.proto.graph, [spec.name for spec in model.inputs])
    live -= {name for name in live if model.tensor(name).dtype in ("string", "sequence", "map", "optional")}
    live -= _ranges(model, live)
    found = [Point(spec.name, INPUT, spec.name) for spec in model.inputs if spec.name in live]
    for node in model.proto.graph.node:
        sources = tuple(name for name in node_inputs(node) if name in live)
        found += [
            Point(name, node.op_type, node.name, sources, slot)
            for slot, name in enumerate(node.output)
            if name and name in live
        ]
    return tuple(found)


def _ranges(model: Model, live: Set[str]) -> set[str]:
    """Scales and zero points that DynamicQuantizeLinear measures, and what is made of nothing else."""
    found: set[str] = set()
    for node in model.proto.graph.node:
        if node.op_type == "DynamicQuantizeLinear":
            found.update(node.output[1:])
        elif found and (reads := [name for name in node_inputs(node) if name in live]) and found.issuperset(reads):
            found.update(node.output)
    return found

"""Which nodes lie inside the bodies of If, Loop and Scan, and how they are named from outside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx

CONTROL_FLOW = ("If", "Loop", "Scan")
LOOPS = ("Loop", "Scan")


@dataclass(frozen=True, eq=False)
class Body:
    """A graph inside a control-flow node.

    Attributes
    ----------
    graph : onnx.GraphProto
    path : str
        The way to it from outside, also from one body to the next: ``If_0/then_branch/``.
    steps : tuple of (int, str)
        Position of each control-flow node on the way, in its own graph, and which of its bodies is entered.
    around : tuple of str
        Operators of the same nodes, outermost first.
    outer : str
        Name of the outermost of them, a node of the main graph.
    """

    graph: onnx.GraphProto
    path: str
    steps: tuple[tuple[int, str], ...]
    around: tuple[str, ...]
    outer: str

    def named(self, name: str) -> str:
        """Name from outside of a node or a tensor of this body: ``If_0/then_branch/Conv_3``."""
        return self.path + _short(name)

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        """The nodes that compute something."""
        return [n for n in self.graph.node if n.op_type != "Constant" and any(n.output)]


def bodies(graph: onnx.GraphProto) -> Iterator[Body]:
    """Every body in a main graph whose nodes have names, outer ones before those inside them."""
    return _bodies(graph, None)


def stacked(around: Iterable[str]) -> int:
    """How many axes loops put before a tensor's own; `around` are the operators that it lies in."""
    return sum(kind in LOOPS for kind in around)


def _bodies(graph: onnx.GraphProto, around: Body | None) -> Iterator[Body]:
    for position, node in enumerate(graph.node):
        if node.op_type not in CONTROL_FLOW or node.domain not in ("", "ai.onnx"):
            continue
        for attribute in node.attribute:
            if not attribute.HasField("g"):
                continue
            step = (position, attribute.name)
            if around is None:
                body = Body(attribute.g, f"{node.name}/{attribute.name}/", (step,), (node.op_type,), node.name)
            else:
                path = f"{around.named(node.name)}/{attribute.name}/"
                body = Body(attribute.g, path, (*around.steps, step), (*around.around, node.op_type), around.outer)
            yield body
            yield from _bodies(attribute.g, body)


def _short(name: str) -> str:
    return name.lstrip("/") or name

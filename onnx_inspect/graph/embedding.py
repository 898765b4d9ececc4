"""Which tables a model looks up the ids and the places of a text in, and how many rows they have."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx

from onnx_inspect.graph.model import Model

CARRIERS = frozenset("Cast Identity Reshape Squeeze Unsqueeze Flatten Expand".split())


@dataclass(frozen=True)
class Table:
    """A table of vectors: the node that looks rows up, how many there are, and how long each is."""

    node: str
    rows: int
    width: int


def ids_table(model: Model, name: str) -> Table | None:
    """The table whose rows an input's numbers are; None where the input isn't read so, or the size isn't known."""
    waiting = [name]
    while waiting:
        tensor = waiting.pop()
        for node in model.consumers.get(tensor, []):
            if node.op_type == "Gather" and node.input[1] == tensor:
                if table := _table(model, node):
                    return table
            elif node.op_type in CARRIERS and node.input[0] == tensor:
                waiting.append(node.output[0])
    return None


def places_table(model: Model, ids: str, others: Collection[str]) -> Table | None:
    """The table of a text's places: as wide as that of its ids, and looked up by counting.

    Parameters
    ----------
    ids : str
        The input that holds the ids.
    others : collection of str
        Inputs whose numbers are neither places nor counted: segments, masks.

    Returns
    -------
    Table or None
        The one with the fewest rows; a text has at most so many tokens. None where there is none.
    """
    own = ids_table(model, ids)
    if own is None:
        return None
    found = [
        table
        for node in model.proto.graph.node
        if node.op_type == "Gather" and (table := _table(model, node)) and table.width == own.width
        if table.node != own.node and _source(model, node.input[1]) not in {ids, *others}
    ]
    return min(found, key=lambda table: table.rows, default=None)


def _table(model: Model, node: onnx.NodeProto) -> Table | None:
    known = model.constants.get(node.input[0])
    shape = tuple(known.dims) if known is not None else model.tensor(node.input[0]).shape or ()
    if len(shape) != 2 or not isinstance(shape[0], int) or not isinstance(shape[1], int):
        return None
    return Table(node.name, shape[0], shape[1])


def _source(model: Model, name: str) -> str:
    """The tensor that another one is, but for its shape and type."""
    while (node := model.producers.get(name)) is not None and node.op_type in CARRIERS:
        name = node.input[0]
    return name

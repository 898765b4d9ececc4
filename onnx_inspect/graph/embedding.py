"""How many rows the table has in which a model looks up the ids of an input."""

from __future__ import annotations

from onnx_inspect.graph.model import Model

CARRIERS = frozenset("Cast Identity Reshape Squeeze Unsqueeze Flatten Expand".split())


def embedding_rows(model: Model, name: str) -> tuple[str, int] | None:
    """The table that an input's ids are rows of.

    Returns
    -------
    (str, int) or None
        Node that looks rows up, and how many there are; None where the input isn't read so, or the number isn't known.
    """
    waiting = [name]
    while waiting:
        tensor = waiting.pop()
        for node in model.consumers.get(tensor, []):
            if node.op_type == "Gather" and node.input[1] == tensor:
                table = model.constants.get(node.input[0])
                rows = table.dims[0] if table is not None else (model.tensor(node.input[0]).shape or (None,))[0]
                if isinstance(rows, int):
                    return node.name, rows
            elif node.op_type in CARRIERS and node.input[0] == tensor:
                waiting.append(node.output[0])
    return None

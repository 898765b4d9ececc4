"""How a model is cut at many tensors at once, so that what is fed there replaces what it would compute."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import onnx

from onnx_inspect.errors import LayerError
from onnx_inspect.graph.declare import value_info
from onnx_inspect.graph.model import Model, TensorSpec
from onnx_inspect.graph.surgery import ancestors, extract

MADE = "__made"  # what follows the name of a tensor that is fed, where the model would have computed it


def segments(model: Model, fed: Iterable[str], outputs: Sequence[str], dtypes: Mapping[str, str]) -> Model:
    """Return the parts of a model between tensors that are fed and tensors that are wanted.

    Each tensor of `fed` becomes an input of its own name, which all its readers see, also those inside control flow.
    Where it is wanted too, what the model itself makes of the tensors fed before it comes out as ``NAME__made``.

    Parameters
    ----------
    fed : iterable of str
        Tensors that the model computes.
    outputs : sequence of str
        Wanted: outputs of the new model in this order, under ``NAME__made`` where they are fed too.
    dtypes : mapping of tensor name to dtype
        Of what is fed, where the model itself doesn't say.

    Returns
    -------
    Model
        Its inputs are those that the wanted tensors need: fed ones and the model's own. None of them has an axis of
        samples: what is fed goes in whole.

    Raises
    ------
    LayerError
        A tensor isn't computed by the model's main graph.
    """
    names = set(fed)
    for name in (*names, *outputs):
        if name not in model.producers:
            raise LayerError(f"tensor {name!r} is not computed by {model.source}: it can't be cut there")
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for node in proto.graph.node:
        for slot, name in enumerate(node.output):
            if name in names:
                node.output[slot] = name + MADE
    given = {name: TensorSpec(name, model.tensor(name).dtype or dtypes.get(name, ""), None) for name in names}
    made = {name + MADE: replace(model.tensor(name), name=name + MADE) for name in names}
    proto.graph.input.extend(value_info(spec, needs_type=True) for spec in given.values())
    opened = replace(
        model, proto=proto, inputs=(*model.inputs, *given.values()), tensors={**model.tensors, **given, **made}
    )
    wanted = [name + MADE if name in names else name for name in outputs]
    needed = ancestors(opened, wanted)
    ends = [spec.name for spec in opened.inputs if spec.name in needed]
    part = extract(opened, ends, wanted)
    return replace(part, shared=frozenset(spec.name for spec in part.inputs))

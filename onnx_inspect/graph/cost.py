"""What a run of a model costs: multiply-accumulates per layer, and the memory of its activations.

MACs are counted for convolutions, matrix products, recurrent cells, attention and Einsum, as the papers do that quote
1.8 G for a ResNet-18. Bias additions, normalisation, activation functions, pooling, resizing and everything else that
is linear in the size of its output count 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnx_inspect.graph.bind import Visit, visits
from onnx_inspect.graph.constants import Scope, attribute
from onnx_inspect.graph.input_shapes import Shape, fixed
from onnx_inspect.graph.model import Model, TensorSpec, node_inputs
from onnx_inspect.graph.schemaless import ALIKE, STANDARD

Shapes = Sequence[Shape | None]  # of a node's data inputs, in order
Rule = Callable[[onnx.NodeProto, Shapes, Shape], int | None]

# Where the data inputs lie that decide the cost; all others read theirs at 0, 1, 2, ...
QUANTISED = {"QLinearConv": (0, 3), "QLinearMatMul": (0, 3)} | {name: at for name, (_, at) in STANDARD.items()}
# Operators outside the standard whose cost is linear in their output; any other one is of unknown cost.
LINEAR = {name for names in ALIKE.values() for name in names} - {"MultiHeadAttention"} | {
    *("ArrayFeatureExtractor", "Binarizer", "CastMap", "CategoryMapper", "DictVectorizer", "FeatureVectorizer"),
    *("LabelEncoder", "OneHotEncoder", "ZipMap", "TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"),
    *("QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearAveragePool", "QLinearGlobalAveragePool", "Inverse"),
    *("EmbedLayerNormalization", "Crop", "Trilu", "Unique", "ExpandDims", "NhwcMaxPool", "GridSample"),
}
STANDARD_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class Cost:
    """What one run costs.

    Attributes
    ----------
    macs : mapping of layer name to int or None
        None where a shape, or which branch runs, is unknown.
    activations : mapping of tensor name to int or None
        Bytes of every tensor that a run is given, or makes for another node or as an output. Weights, tensors made of
        weights alone, and what the bodies of control flow make for themselves are left out.
    total_bytes, peak_bytes : int or None
        Sum of the activations; most that is alive at once when nodes run one after another and each tensor lives from
        its making to its last reading (outputs to the end). None where any is unknown.
    """

    macs: Mapping[str, int | None]
    activations: Mapping[str, int | None]
    total_bytes: int | None
    peak_bytes: int | None

    @property
    def unknown(self) -> int:
        """How many layers are of unknown cost."""
        return sum(m is None for m in self.macs.values())

    @property
    def total(self) -> int | None:
        """MACs of the whole model; None where those of any layer are unknown."""
        return None if self.unknown else self.known

    @property
    def known(self) -> int:
        """MACs of the layers whose cost is known."""
        return sum(m for m in self.macs.values() if m is not None)


def cost(model: Model, shapes: Mapping[str, Shape] | None = None) -> Cost:
    """Count what one run costs with the inputs' shapes chosen as for :func:`onnx_inspect.graph.bind.bind`.

    Raises
    ------
    InputError
        No such input, or a shape that doesn't fit it.
    """
    return count(model, visits(model, shapes))


def count(model: Model, run: Iterable[Visit]) -> Cost:
    """Count what a run costs whose visits are given."""
    scope = Scope(model, model.proto.graph)
    working = [v for v in run if not all(scope.constant(t.name) for t in v.outputs)]
    counted = {v.node.name: node_macs(v) for v in working}
    macs = {layer.name: counted.get(layer.name, 0) for layer in model.layers}
    read = {n for v in working for n in node_inputs(v.node)} | {spec.name for spec in model.outputs}
    seen = {t.name: t for v in working for t in (*v.inputs, *v.outputs)}
    given = {spec.name: seen.get(spec.name, spec) for spec in model.inputs}
    made = {n: t for n, t in seen.items() if n in read and n in model.producers and not scope.constant(n)}
    sizes = {name: nbytes(tensor) for name, tensor in (given | made).items()}
    whole = {name: size for name, size in sizes.items() if size is not None}
    if len(whole) < len(sizes):
        return Cost(macs, sizes, None, None)
    return Cost(macs, sizes, sum(whole.values()), _peak(model, working, whole))


def nbytes(tensor: TensorSpec) -> int | None:
    """Bytes of a tensor; None where its shape or type is unknown, 0 for sequences, maps and text."""
    if tensor.dtype in ("sequence", "map", "optional", "string"):
        return 0
    shape = fixed(tensor.shape)
    if shape is None or not tensor.dtype:
        return None
    return math.ceil(math.prod(shape) * bits(tensor.dtype) / 8)


def bits(dtype: str) -> int:
    """Bits that a number of this dtype takes, by its name."""
    if dtype == "bool":
        return 8
    digits = "".join(c if c.isdigit() else " " for c in dtype.removeprefix("bfloat").removeprefix("float")).split()
    return int(digits[0])


def node_macs(visit: Visit) -> int | None:
    """Multiply-accumulates of one node, its bodies included; None where they are unknown."""
    node = visit.node
    if visit.bodies:
        return _control_flow(visit)
    rule = RULES.get(node.op_type)
    if rule is None:
        return 0 if node.domain in STANDARD_DOMAINS or node.op_type in LINEAR else None
    shapes = [fixed(t.shape) if t.name else None for t in visit.inputs]
    if node.op_type in QUANTISED:
        shapes = [shapes[i] if i < len(shapes) else None for i in QUANTISED[node.op_type]]
    output = fixed(visit.outputs[0].shape)
    return None if output is None and node.op_type not in ("LSTM", "GRU", "RNN") else rule(node, shapes, output or ())


def _control_flow(visit: Visit) -> int | None:
    """An If costs what its branches agree on; a loop its body as often as it goes round."""
    sums = []
    for body in visit.bodies:
        parts = [node_macs(inner) for inner in body]
        sums.append(None if any(p is None for p in parts) else sum(p for p in parts if p is not None))
    first = sums[0]
    if any(other != first for other in sums) or first is None or (first and visit.times is None):
        return None
    return first * (visit.times or 0)


def _convolution(node: onnx.NodeProto, shapes: Shapes, output: Shape) -> int | None:
    """Each output element takes one product per weight of its filter."""
    weight = shapes[1]
    return None if weight is None else math.prod(output) * math.prod(weight[1:])


def _transposed_convolution(node: onnx.NodeProto, shapes: Shapes, output: Shape) -> int | None:
    """Each input element is multiplied with all the weights that start from its channel."""
    data, weight = shapes[0], shapes[1]
    return None if data is None or weight is None else math.prod(data) * math.prod(weight[1:])


def _product(node: onnx.NodeProto, shapes: Shapes, output: Shape) -> int | None:
    left = shapes[0]
    if left is None:
        return None
    inner = left[-2] if attribute(node, "transA", 0) and len(left) > 1 else left[-1]
    return math.prod(output) * inner


def _packed_product(node: onnx.NodeProto, shapes: Shapes, output: Shape) -> int | None:
    return math.prod(output) * int(attribute(node, "K", 0))


def _recurrent(node: onnx.NodeProto, shapes: Shapes, output: Shape) -> int | None:
    """Per step and sample: every gate's input and recurrent matrix."""
    data, weight, recurrent = shapes[:3]
    if data is None or weight is None or recurrent is None:
        return None
    return data[0] * data[1] * (math.prod(weight) + math.prod(recurrent))


def _attention(node: onnx.NodeProto, shapes: Shapes, output: Shape) -> int | None:
    """Queries times keys, then weights times values; keys and values of the past count where their length is known."""
    query, key, value = shapes[:3]
    past = shapes[4] if len(shapes) > 4 else None
    if query is None or key is None or value is None or (past is None and any(node.input[4:5])):
        return None
    batch = query[0]
    if len(query) == 4:  # (N, heads, T, D)
        return batch * query[1] * query[2] * (key[2] + (past[2] if past else 0)) * (query[3] + value[3])
    heads, shared = attribute(node, "q_num_heads", 1), attribute(node, "kv_num_heads", 1)
    steps = key[1] + (past[2] if past else 0)
    return int(batch * query[1] * steps * (query[2] + value[2] // shared * heads))


def _attention_with_projection(node: onnx.NodeProto, shapes: Shapes, output: Shape) -> int | None:
    """com.microsoft's: one matrix makes queries, keys and values of the input (N, T, D)."""
    data, weight = shapes[0], shapes[1]
    if data is None or weight is None or len(data) != 3 or any(node.input[4:5]):
        return None
    batch, steps, _ = data
    sizes = attribute(node, "qkv_hidden_sizes", [weight[1] // 3] * 3)
    return batch * steps * math.prod(weight) + batch * steps * steps * int(sizes[0] + sizes[2])


def _multi_head(node: onnx.NodeProto, shapes: Shapes, output: Shape) -> int | None:
    known = [s for s in shapes[:3] if s is not None and len(s) == 3]
    if len(known) < 3 or any(node.input[6:8]):
        return None
    query, key, value = known
    return query[0] * query[1] * key[1] * (query[2] + value[2])


def _attention_of(node: onnx.NodeProto, shapes: Shapes, output: Shape) -> int | None:
    standard = node.domain in STANDARD_DOMAINS
    return (_attention if standard else _attention_with_projection)(node, shapes, output)


def _einsum(node: onnx.NodeProto, shapes: Shapes, output: Shape) -> int | None:
    """Two operands: one product per combination of all letters. One operand costs nothing, more are unknown."""
    terms = str(attribute(node, "equation", "")).replace(" ", "").split("->")[0].split(",")
    if len(terms) == 1:
        return 0
    if len(terms) != 2 or any(shape is None for shape in shapes):
        return None
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, (s for s in shapes if s is not None), strict=True):
        letters, hidden = term.replace("...", ""), len(shape) - len(term.replace("...", ""))
        at = term.find("...") if "..." in term else len(letters)
        names = [*letters[:at], *(f"...{i}" for i in range(-hidden, 0)), *letters[at:]]
        for letter, size in zip(names, shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return math.prod(sizes.values())


def _classifier(node: onnx.NodeProto, shapes: Shapes, output: Shape) -> int | None:
    data = shapes[0]
    return None if data is None else (data[0] if len(data) > 1 else 1) * len(attribute(node, "coefficients", []))


def _unknown(node: onnx.NodeProto, shapes: Shapes, output: Shape) -> None:
    return None


RULES: dict[str, Rule] = {
    **dict.fromkeys(("Conv", "ConvInteger", "QLinearConv", "FusedConv", "DeformConv"), _convolution),
    "ConvTranspose": _transposed_convolution,
    **dict.fromkeys(
        ("MatMul", "MatMulInteger", "QLinearMatMul", "Gemm", "FusedMatMul", "FusedGemm", "QGemm"), _product
    ),
    **dict.fromkeys(("DynamicQuantizeMatMul", "MatMulIntegerToFloat"), _product),
    "MatMulNBits": _packed_product,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    **dict.fromkeys(("Attention", "QAttention"), _attention_of),
    "MultiHeadAttention": _multi_head,
    "Einsum": _einsum,
    **dict.fromkeys(("LinearClassifier", "LinearRegressor"), _classifier),
    **dict.fromkeys(("DFT", "STFT", "Det", "SVMClassifier", "SVMRegressor"), _unknown),
}


def _peak(model: Model, run: Sequence[Visit], sizes: Mapping[str, int]) -> int:
    """Most bytes alive at once."""
    last = {name: step for step, visit in enumerate(run) for name in node_inputs(visit.node)}
    last |= dict.fromkeys((spec.name for spec in model.outputs), len(run))
    changes = np.zeros(len(run) + 2, np.int64)
    made = {tensor.name: step for step, visit in enumerate(run) for tensor in visit.outputs}
    for name, size in sizes.items():
        start = made.get(name, 0)
        changes[start] += size
        changes[max(last.get(name, start), start) + 1] -= size
    return int(changes.cumsum().max(initial=0))

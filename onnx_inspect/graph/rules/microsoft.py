"""How onnxruntime's fused activations, products and normalisations are differentiated: written out first."""

from __future__ import annotations

import math
from typing import Any

from onnx_inspect.graph.rules._attending import rotated
from onnx_inspect.graph.rules._rule import expansion
from onnx_inspect.graph.rules._step import Step

DOMAIN = "com.microsoft"
# What an operator may do to its result: the attributes' names there, in the order in which they are listed.
ACTIVATIONS = {"Relu": (), "Tanh": (), "Sigmoid": (), "LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta")}


@expansion("Gelu", domain=DOMAIN)
def gelu(step: Step) -> list[str]:
    """``x Phi(x)``."""
    return [_gelu(step, step.x(0))]


@expansion("BiasGelu", domain=DOMAIN)
def bias_gelu(step: Step) -> list[str]:
    """Gelu of a sum."""
    return [_gelu(step, step.op("Add", step.x(0), step.x(1)))]


@expansion("FastGelu", domain=DOMAIN)
def fast_gelu(step: Step) -> list[str]:
    """Gelu by its approximation, ``x sigmoid(2 u)`` with ``u = sqrt(2 / pi) (x + 0.044715 x^3)``."""
    x = step.op("Add", step.x(0), step.x(1)) if step.has(1) else step.x(0)
    root = 2 * math.sqrt(2 / math.pi)
    inner = step.op("Mul", step.op("Mul", x, x), step.number(root * 0.044715))
    inner = step.op("Mul", x, step.op("Add", inner, step.number(root)))
    return [step.op("Mul", x, step.op("Sigmoid", inner))]


@expansion("QuickGelu", domain=DOMAIN)
def quick_gelu(step: Step) -> list[str]:
    """``x sigmoid(alpha x)``."""
    x = step.x(0)
    return [step.op("Mul", x, step.op("Sigmoid", step.op("Mul", x, step.number(step.attribute("alpha", 1.702)))))]


def _gelu(step: Step, x: str) -> str:
    error = step.op("Erf", step.op("Mul", x, step.number(math.sqrt(0.5))))
    return step.op("Mul", step.op("Mul", x, step.number(0.5)), step.op("Add", error, step.number(1)))


@expansion("FusedConv", domain=DOMAIN)
def fused_conv(step: Step) -> list[str]:
    """A convolution, a summand, an activation."""
    names = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    settings = {name: step.attribute(name) for name in names if step.attribute(name) is not None}
    made = step.op("Conv", *(step.x(i) if step.has(i) else "" for i in range(min(len(step.inputs), 3))), **settings)
    if step.has(3):
        made = step.op("Add", made, step.x(3))
    return [_activated(step, made, list(step.attribute("activation_params", [])))]


@expansion("FusedGemm", domain=DOMAIN)
def fused_gemm(step: Step) -> list[str]:
    """A matrix product, a summand, an activation."""
    settings = {name: step.attribute(name) for name in ("alpha", "beta", "transA", "transB") if step.attribute(name)}
    made = step.op("Gemm", *(step.x(i) for i in range(3) if step.has(i)), **settings)
    own = [step.attribute(f"activation_{name}") for name in ("alpha", "beta")]
    return [_activated(step, made, [value for value in own if value is not None])]


def _activated(step: Step, name: str, values: list[float]) -> str:
    kind = step.attribute("activation", "")
    if not kind:
        return name
    if kind == "Clip":
        return step.op("Clip", name, *(step.number(v) for v in values))
    if kind not in ACTIVATIONS:
        raise step.fail(f"there is no rule for its activation {kind}")
    return step.op(kind, name, **dict(zip(ACTIVATIONS[kind], values, strict=False)))


@expansion("FusedMatMul", "TransposeMatMul", domain=DOMAIN)
def fused_matmul(step: Step) -> list[str]:
    """A product of stacks of matrices, turned and scaled; `transBatch` says that the rows come before the stacks."""
    sides = []
    for i, side in enumerate("AB"):
        name, rank = step.x(i), step.rank(step.inputs[i])
        if step.attribute(f"transBatch{side}", 0):
            name = step.op("Transpose", name, perm=[*range(1, rank - 1), 0, rank - 1])
        if step.attribute(f"trans{side}", 0) and rank > 1:
            name = step.op("Transpose", name, perm=[*range(rank - 2), rank - 1, rank - 2])
        sides.append(name)
    made, alpha = step.op("MatMul", *sides), step.attribute("alpha", 1.0)
    return [made if alpha == 1 else step.op("Mul", made, step.number(alpha))]


@expansion("SkipLayerNormalization", domain=DOMAIN)
def skip_layer_normalization(step: Step) -> list[str]:
    """Layer normalisation of a sum, which is a further output."""
    total = _skipped(step, 4)
    more = [step.x(3)] if step.has(3) else []
    epsilon = step.attribute("epsilon", 1e-12)
    made = step.op("LayerNormalization", total, step.x(2), *more, axis=-1, epsilon=epsilon)
    return [made, "", "", total]


@expansion("SkipSimplifiedLayerNormalization", domain=DOMAIN)
def skip_simplified_layer_normalization(step: Step) -> list[str]:
    """The same without centring."""
    total = _skipped(step, 3)
    return [_root_mean_square(step, total, step.x(2), -1), "", "", total]


@expansion("SimplifiedLayerNormalization")
def simplified_layer_normalization(step: Step) -> list[str]:
    """Division by the root of the mean square; onnxruntime writes it into the standard domain."""
    return [_root_mean_square(step, step.x(0), step.x(1), step.attribute("axis", -1))]


def _skipped(step: Step, bias: int) -> str:
    total = step.op("Add", step.x(0), step.x(1))
    return step.op("Add", total, step.x(bias)) if step.has(bias) else total


def _root_mean_square(step: Step, name: str, scale: str, axis: int) -> str:
    rank = step.rank(step.inputs[0])
    axes = step.ints(range(axis % rank, rank))
    square = step.op("ReduceMean", step.op("Mul", name, name), axes)
    spread = step.op("Add", square, step.number(step.attribute("epsilon", 1e-5 if step.node.domain == "" else 1e-12)))
    return step.op("Mul", step.op("Div", name, step.op("Sqrt", spread)), scale)


@expansion("EmbedLayerNormalization", domain=DOMAIN)
def embed_layer_normalization(step: Step) -> list[str]:
    """Embeddings of words, places and segments added up and normalised: gradients end at the tables."""
    words = step.op("Gather", step.x(2), step.inputs[0], axis=0)
    if step.has(8):
        seats = step.op("Gather", step.x(3), step.inputs[8], axis=0)
    else:
        count = step.op("Slice", step.shape_of(step.inputs[0]), step.ints([1]), step.ints([2]))
        seats = step.op("Slice", step.x(3), step.ints([0]), count, step.ints([0]))
    total = step.op("Add", words, seats)
    if step.has(4):
        kinds = step.op("Gather", step.x(4), step.inputs[1], axis=0)
        total = step.op("Add", total, kinds)
    settings: dict[str, Any] = {"axis": -1, "epsilon": step.attribute("epsilon", 1e-12)}
    return [step.op("LayerNormalization", total, step.x(5), step.x(6), **settings), "", total]


@expansion("RotaryEmbedding", domain=DOMAIN)
def rotary_embedding(step: Step) -> list[str]:
    """Pairs of channels turned by angles that grow with the place."""
    if step.attribute("is_packed_batching", 0):
        raise step.fail("its samples are packed")
    flat = step.rank(step.inputs[0]) == 3
    heads, part_width = step.attribute("num_heads", 0), step.attribute("rotary_embedding_dim", 0)
    table = step.shape(step.inputs[2])
    width = (step.shape(step.inputs[0]) or (None,))[-1]
    if table is None or not isinstance(table[1], int) or not isinstance(width, int):
        raise step.fail("nothing tells the width of its heads")
    turned = part_width or 2 * table[1]
    heads = heads or (width // turned if flat else 1)
    x = step.op("Reshape", step.x(0), step.ints([0, 0, heads, -1])) if flat else step.x(0)
    if not flat:
        x = step.op("Transpose", x, perm=[0, 2, 1, 3])  # (N, T, heads, d)
    own = width // heads if flat else width
    cosine, sine = (_angles(step, step.x(i)) for i in (2, 3))
    made = rotated(step, x, cosine, sine, (turned, own), interleaved=step.attribute("interleaved", 0))
    return [step.like(made, step.inputs[0]) if flat else step.op("Transpose", made, perm=[0, 2, 1, 3])]


def _angles(step: Step, table: str) -> str:
    """Rows of a table for the places, (N or 1, T, 1, d / 2); one number is the first place, more are all of them."""
    seats = step.shape(step.inputs[1])
    if seats is None:
        raise step.fail("nothing tells the shape of its places")
    if len(seats) == 2:
        rows = step.op("Gather", table, step.inputs[1], axis=0)
        return step.op("Unsqueeze", rows, step.ints([2]))
    at = 1 if step.rank(step.inputs[0]) == 3 else 2
    length = step.op("Slice", step.shape_of(step.inputs[0]), step.ints([at]), step.ints([at + 1]))
    first = step.op("Reshape", step.inputs[1], step.ints([1]))
    rows = step.op("Slice", table, first, step.op("Add", first, length), step.ints([0]))
    return step.op("Unsqueeze", rows, step.ints([0, 2]))

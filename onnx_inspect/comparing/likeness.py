"""How two models, whatever their architectures, are run on the same inputs to see which of their layers are alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from onnx_inspect.analysis import cka
from onnx_inspect.analysis.depth import along_depth
from onnx_inspect.comparing.stream import BUDGET, Index, opened, pieces, sample_bytes, split
from onnx_inspect.engine import Engine
from onnx_inspect.errors import InputError
from onnx_inspect.graph.model import Layer, Model
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.scene import concrete_shapes

LAYERS = 32  # of each model at most, unless they are named
MINIBATCH = 256  # samples at most: their Gram matrices are as wide


def likeness(
    a: Model,
    inputs_a: Batch,
    b: Model,
    inputs_b: Batch,
    *,
    layers_a: Sequence[Layer] = (),
    layers_b: Sequence[Layer] = (),
    seed: int = 0,
    budget: int = BUDGET,
    make_engine: Callable[[Model], Engine] = Engine,
) -> cka.Likeness:
    """Minibatch CKA of the layers of A with those of B; none of their activations is kept.

    Parameters
    ----------
    inputs_a, inputs_b : Batch
        The same samples in the same order, each as its model takes them.
    layers_a, layers_b : sequence of Layer
        Up to 32 along each network's depth where none are given.
    seed : int
        Of the order in which samples are dealt into minibatches (a folder sorted by class would make poor ones), and of
        the shuffles that tell what chance gives.
    budget : int
        Bytes of activations that a minibatch may take: minibatches are as large as that allows, up to 256 samples.

    Raises
    ------
    InputError
        Fewer than 4 samples, or not the same number for both.
    """
    if inputs_a.n != inputs_b.n:
        raise InputError(
            f"{a.source} is given {inputs_a.n} inputs and {b.source} {inputs_b.n}: give both the same ones"
        )
    cka.enough(inputs_a.n)
    ours = tuple(layers_a) or chosen(a, inputs_a)
    theirs = tuple(layers_b) or chosen(b, inputs_b)
    tensors = [[layer.output.name for layer in layers] for layers in (ours, theirs)]
    each = sample_bytes(a, inputs_a, tensors[0]) + sample_bytes(b, inputs_b, tensors[1])
    parts = minibatches(inputs_a.n, each, seed=seed, budget=budget)
    sums = cka.Sums(len(ours), len(theirs), seed=seed)
    runs = pieces(opened(a, tensors[0], make_engine), inputs_a, tensors[0], parts)
    others = pieces(opened(b, tensors[1], make_engine), inputs_b, tensors[1], parts)
    for mine, other in zip(runs, others, strict=True):
        sums.add([cka.gram(mine[t]) for t in tensors[0]], [cka.gram(other[t]) for t in tensors[1]])
    return sums.likeness([layer.name for layer in ours], [layer.name for layer in theirs])


def chosen(model: Model, batch: Batch) -> tuple[Layer, ...]:
    """Layers to compare where nobody names any: along the network's depth, at block ends where it has blocks."""
    return along_depth(model, concrete_shapes(model, batch), most=LAYERS)


def minibatches(count: int, each: int, *, seed: int, budget: int = BUDGET) -> list[Index]:
    """Deal samples at random into minibatches that fit the budget, each of at least 4 and of almost equal size."""
    most = min(MINIBATCH, max(2 * cka.LEAST, budget // max(each, 1)))
    return split(count, most, np.random.default_rng(seed).permutation(count))

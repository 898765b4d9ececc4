"""What a rule is held against: PyTorch's autograd in float64, and differences of the forward pass itself.

Each case runs four ways: float32 under onnxruntime with the shapes written into the model and with all axes left open,
and float64 under onnx's reference, where agreement is exact but for rounding.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import Phase, settings
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from onnx_inspect.graph.gradient import gradient, gradient_name
from onnx_inspect.graph.model import Model
from tests.conftest import make_model, run_plainly

Arrays = dict[str, NDArray[Any]]
Formula = Callable[..., Any]  # PyTorch tensors in the order of the inputs -> the output

# float32 may be twice as wrong as PyTorch's float32, and by 8 roundings of the largest element, or of numbers of order
# one (which all cases are made of), where that is exact.
FACTOR, ROUNDINGS = 2.0, 8 * 2.0**-24
EXACT = 1e-9  # in float64: sums of up to 1e4 terms in another order
DIFFERENCES = 1e-6  # of central differences with steps of 1e-5 in float64: their own error is about 1e-8


def drawn(count: int) -> settings:
    """Settings of a property: the same cases every time; a failing one is shown as it is, shrinking takes minutes."""
    return settings(
        max_examples=count, deadline=None, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate)
    )


def check(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, NDArray[np.float64]],
    formula: Formula | None = None,
    *,
    constants: Mapping[str, Any] = {},
    opset: int = 18,
    opsets: Sequence[onnx.OperatorSetIdProto] = (),
    output: str = "y",
    open_axes: bool = True,
    double: bool = True,
    differences: bool = True,
    exact: float = EXACT,
    seed: int = 99,
) -> Arrays:
    """Hold the gradients of `output` with respect to all inputs against every oracle; returns those of float32.

    `open_axes` and `double` are off where a rule needs a shape, or onnx's reference doesn't compute the operator.
    """

    def model(dtype: Any, axes_open: bool) -> Model:
        shapes = {n: (dtype, [None] * v.ndim if axes_open else list(v.shape)) for n, v in inputs.items()}
        held = {n: v.astype(dtype) if np.asarray(v).dtype.kind == "f" else v for n, v in constants.items()}
        return make_model(nodes, shapes, [output], held, opset=opset, opsets=list(opsets))

    plain = model(np.float32, False)
    single = {n: v.astype(np.float32) for n, v in inputs.items()}
    made = run_plainly(plain, single, [output])[output]
    weights = np.random.default_rng(seed).normal(size=made.shape)
    truth, own = None, None
    if formula is not None:
        value, truth, own = _autograd(formula, inputs, weights)
        np.testing.assert_allclose(made, value, rtol=1e-4, atol=1e-5 * max(_scale(value), 1.0))  # the same function
    found = _gradients(plain, single, weights, output)
    wide = None
    if double:
        wide = _reference(model(np.float64, False), inputs, weights, output)
        for name, value in wide.items():
            assert value.dtype == np.float64
            if truth is not None:
                assert value.shape == truth[name].shape
                np.testing.assert_allclose(value, truth[name], rtol=exact, atol=exact * max(_scale(truth[name]), 1.0))
        if differences:
            _differences(model(np.float64, False), inputs, weights, output, wide)
    against = truth if truth is not None else wide
    assert against is not None, "a case without any oracle"
    for name, value in found.items():
        _close(value, against[name], own[name] if own is not None else None)
    if open_axes:
        for name, value in _gradients(model(np.float32, True), single, weights, output).items():
            _close(value, against[name], own[name] if own is not None else None)
    return found


class Erf(OpRun):
    """In float64, where the reference's own is float32."""

    op_domain = ""

    def _run(self, x: NDArray[Any]) -> tuple[NDArray[Any]]:
        return (np.vectorize(math.erf, otypes=[x.dtype])(x),)


class Gelu(OpRun):
    """The same in Gelu."""

    op_domain = ""

    def _run(self, x: NDArray[Any], approximate: str = "none") -> tuple[NDArray[Any]]:
        if approximate == "tanh":
            return (0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),)
        return (0.5 * x * (1 + np.vectorize(math.erf, otypes=[x.dtype])(x * math.sqrt(0.5))),)


class Mean(OpRun):
    """Of operands that are all broadcast, which the reference's own can't."""

    op_domain = ""

    def _run(self, *operands: NDArray[Any]) -> tuple[NDArray[Any]]:
        return (sum(operands[1:], operands[0]) / operands[0].dtype.type(len(operands)),)


class Conv(OpRun):
    """By PyTorch: the reference's own is slow, and wrong for some pads with groups."""

    op_domain = ""

    def _run(self, x: Any, w: Any, b: Any = None, **given: Any) -> tuple[NDArray[Any]]:
        return (_convolution(x, w, b, given),)


class ConvTranspose(OpRun):
    """By PyTorch, cut to its pads."""

    op_domain = ""

    def _run(self, x: Any, w: Any, b: Any = None, **given: Any) -> tuple[NDArray[Any]]:
        return (_transposed(x, w, b, given),)


def _convolution(x: Any, w: Any, b: Any, given: Mapping[str, Any]) -> NDArray[Any]:
    torch = _torch()

    rank = x.ndim - 2
    ones = [1] * rank
    strides, dilations = given.get("strides") or ones, given.get("dilations") or ones
    pads = given.get("pads") or [0] * 2 * rank
    if str(given.get("auto_pad", "")).startswith("SAME"):
        reach = [d * (k - 1) for d, k in zip(dilations, w.shape[2:], strict=True)]
        total = [max((-(-n // s) - 1) * s + r + 1 - n, 0) for n, s, r in zip(x.shape[2:], strides, reach, strict=True)]
        less, more = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = less + more if given["auto_pad"] == "SAME_UPPER" else more + less
    around = [(0, 0), (0, 0), *((pads[i], pads[rank + i]) for i in range(rank))]
    wide, weight = torch.tensor(np.pad(x, around)), torch.tensor(np.ascontiguousarray(w))
    function = getattr(torch.nn.functional, f"conv{rank}d")
    bias = None if b is None else torch.tensor(b)
    return function(wide, weight, bias, strides, 0, dilations, given.get("group") or 1).numpy()


def _transposed(x: Any, w: Any, b: Any, given: Mapping[str, Any]) -> NDArray[Any]:
    torch = _torch()

    rank = x.ndim - 2
    ones, zeros = [1] * rank, [0] * rank
    function = getattr(torch.nn.functional, f"conv_transpose{rank}d")
    bias = None if b is None else torch.tensor(b)
    settings = (given.get("strides") or ones, 0, given.get("output_padding") or zeros, given.get("group") or 1)
    whole = function(
        torch.tensor(x), torch.tensor(np.ascontiguousarray(w)), bias, *settings, given.get("dilations") or ones
    ).numpy()
    pads = given.get("pads") or zeros + zeros
    inside = tuple(slice(pads[i], whole.shape[2 + i] - pads[rank + i]) for i in range(rank))
    return whole[(..., *inside)]


def _evaluator(model: Model) -> ReferenceEvaluator:
    return ReferenceEvaluator(model.proto, new_ops=[Erf, Gelu, Mean, Conv, ConvTranspose])


def _gradients(model: Model, feeds: Arrays, weights: NDArray[np.float64], output: str) -> Arrays:
    built = gradient(model, list(feeds), output)
    names = [gradient_name(n) for n in feeds]
    values = run_plainly(built, feeds | {"seed": weights.astype(np.float32)}, names)
    for name in feeds:
        assert values[gradient_name(name)].dtype == np.float32
        assert values[gradient_name(name)].shape == feeds[name].shape
    return {name: values[gradient_name(name)] for name in feeds}


def _reference(model: Model, inputs: Mapping[str, Any], weights: NDArray[np.float64], output: str) -> Arrays:
    built = gradient(model, list(inputs), output)
    onnx.checker.check_model(built.proto)
    names = [gradient_name(n) for n in inputs]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        values = _evaluator(built).run(names, {**inputs, "seed": weights})
    return dict(zip(inputs, values, strict=True))


def _differences(
    model: Model, inputs: Mapping[str, Any], weights: NDArray[np.float64], output: str, gradients: Arrays
) -> None:
    """Central differences along random directions: two per input."""
    rng = np.random.default_rng(1)
    evaluator = _evaluator(model)

    def score(**moved: Any) -> float:
        with np.errstate(all="ignore"):
            return float((evaluator.run([output], {**inputs, **moved})[0] * weights).sum())

    for name, value in inputs.items():
        for _ in range(2):
            direction = rng.normal(size=value.shape)
            step = 1e-5 * direction
            slope = (score(**{name: value + step}) - score(**{name: value - step})) / 2e-5
            expected = float((gradients[name] * direction).sum())
            size = np.abs(gradients[name] * direction).sum() + 1e-3
            assert abs(slope - expected) <= DIFFERENCES * max(size, 1.0), (name, slope, expected)


def _autograd(
    formula: Formula, inputs: Mapping[str, Any], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], Arrays, Arrays]:
    """The value, and the gradients in float64 and in float32."""
    torch = _torch()
    results: list[Arrays] = []
    values = []
    for dtype in (torch.float64, torch.float32):
        leaves = [torch.tensor(v, dtype=dtype, requires_grad=True) for v in inputs.values()]
        value = formula(*leaves)
        values.append(value.detach().numpy())
        (value * torch.tensor(weights, dtype=dtype)).sum().backward()
        gradients = [leaf.grad if leaf.grad is not None else torch.zeros_like(leaf) for leaf in leaves]
        results.append({n: g.numpy().astype(np.float64) for n, g in zip(inputs, gradients, strict=True)})
    return values[0], results[0], results[1]


def _torch() -> Any:
    """PyTorch on one thread: what is computed here is small, and threads that wait for each other take longer."""
    torch = pytest.importorskip("torch", reason="PyTorch's autograd is the oracle")
    torch.set_num_threads(1)
    return torch


def _close(value: NDArray[Any], truth: NDArray[Any], own: NDArray[Any] | None) -> None:
    error = np.abs(value - truth).max(initial=0)
    peer = np.abs(own - truth).max(initial=0) if own is not None else 0.0
    assert np.isfinite(value).all()
    assert error <= FACTOR * peer + ROUNDINGS * max(_scale(truth), 1.0), (error, peer)


def _scale(value: NDArray[Any]) -> float:
    return float(np.abs(value).max(initial=0))

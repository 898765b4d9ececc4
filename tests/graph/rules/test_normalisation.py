"""Normalisations: gradients of input, scale and shift against autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from onnx_inspect.errors import LayerError
from onnx_inspect.graph.gradient import gradient
from onnx_inspect.graph.rules._rule import table
from tests.conftest import make_model
from tests.graph.rules.oracle import check

torch = pytest.importorskip("torch", reason="PyTorch's autograd is the oracle")
F = torch.nn.functional
SMALL = 2.0**-10  # an epsilon that float32 attributes hold exactly
SIZES = [(4,), (4, 5), (4, 5, 3), (4, 3, 2, 3)]


def drawn(*shapes: tuple[int, ...]) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape) for shape in shapes]


@pytest.mark.parametrize("size", SIZES)
def test_batch_normalisation_by_stored_statistics_has_pytorchs_gradients(size: tuple[int, ...]) -> None:
    x, scale, shift, mean = drawn((2, *size), (4,), (4,), (4,))
    inputs = {"x": x, "scale": scale, "shift": shift, "mean": mean, "variance": np.array([0.5, 1.0, 2.0, 0.1])}
    node = helper.make_node("BatchNormalization", list(inputs), ["y"], epsilon=SMALL)

    def formula(x: Any, scale: Any, shift: Any, mean: Any, variance: Any) -> Any:
        view = (-1, *[1] * (x.ndim - 2))
        inverse = torch.rsqrt(variance + SMALL)
        return (x - mean.view(view)) * (scale * inverse).view(view) + shift.view(view)

    check([node], inputs, formula, double=len(size) > 1)  # the reference wants positions


def test_batch_normalisation_in_training_is_refused_and_the_layer_after_it_named() -> None:
    nodes = [
        helper.make_node("BatchNormalization", [*"xsbmv"], ["n", "", ""], training_mode=1, name="norm"),
        helper.make_node("Relu", ["n"], ["r"], name="act"),
        helper.make_node("Relu", ["r"], ["y"]),
    ]
    constants = {name: np.ones(3, np.float32) for name in "sbmv"}
    model = make_model(nodes, {"x": (np.float32, [2, 3, 4])}, ["y"], constants)
    with pytest.raises(LayerError, match=r"'norm' \(BatchNormalization\).*training mode.*nearest.*'norm'"):
        gradient(model, ["x"], "y")
    assert gradient(model, ["n"], "y").outputs[-1].name == "n__gradient"


@pytest.mark.parametrize("axis", [-1, 1, 2, -2, 0])
@pytest.mark.parametrize("bias", [True, False])
def test_layer_normalisation_has_pytorchs_gradients(axis: int, bias: bool) -> None:
    shape = (2, 3, 4)
    own = shape[axis:] if axis else shape
    x, scale, shift = drawn(shape, own, own)
    inputs = {"x": x, "scale": scale} | ({"shift": shift} if bias else {})
    node = helper.make_node("LayerNormalization", list(inputs), ["y"], axis=axis, epsilon=SMALL)
    check([node], inputs, lambda x, s, b=None: F.layer_norm(x, own, s, b, SMALL))


@pytest.mark.parametrize("size", [(5,), (5, 3), (3, 2, 3)])
def test_instance_normalisation_has_pytorchs_gradients(size: tuple[int, ...]) -> None:
    x, scale, shift = drawn((2, 4, *size), (4,), (4,))
    node = helper.make_node("InstanceNormalization", ["x", "scale", "shift"], ["y"], epsilon=SMALL)
    inputs = {"x": x, "scale": scale, "shift": shift}
    check([node], inputs, lambda x, s, b: F.instance_norm(x, None, None, s, b, True, 0.1, SMALL))


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("size", [(5,), (3, 5), (2, 3, 2)])
def test_group_normalisation_has_pytorchs_gradients(groups: int, size: tuple[int, ...]) -> None:
    x, scale, shift = drawn((2, 4, *size), (4,), (4,))
    node = helper.make_node("GroupNormalization", ["x", "scale", "shift"], ["y"], num_groups=groups, epsilon=SMALL)
    inputs = {"x": x, "scale": scale, "shift": shift}
    # no differences: the standard's function normalises in float32
    check([node], inputs, lambda x, s, b: F.group_norm(x, groups, s, b, SMALL), opset=21, differences=False)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_before_opset_21_a_group_had_one_scale(groups: int) -> None:
    x, scale, shift = drawn((2, 4, 3, 5), (groups,), (groups,))
    node = helper.make_node("GroupNormalization", ["x", "scale", "shift"], ["y"], num_groups=groups, epsilon=SMALL)

    def formula(x: Any, s: Any, b: Any) -> Any:
        return F.group_norm(x, groups, s.repeat_interleave(4 // groups), b.repeat_interleave(4 // groups), SMALL)

    inputs = {"x": x, "scale": scale, "shift": shift}
    check([node], inputs, formula, opset=18, double=False, differences=False)


@pytest.mark.parametrize("axis", [-1, 1])
def test_rms_normalisation_has_pytorchs_gradients(axis: int) -> None:
    shape = (2, 3, 4)
    x, scale = drawn(shape, shape[axis:])
    node = helper.make_node("RMSNormalization", ["x", "scale"], ["y"], axis=axis, epsilon=SMALL)
    check([node], {"x": x, "scale": scale}, lambda x, s: F.rms_norm(x, shape[axis:], s, SMALL), opset=23)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_division_by_a_norm_has_pytorchs_gradient(power: int, axis: int) -> None:
    (x,) = drawn((2, 3, 4))
    node = helper.make_node("LpNormalization", ["x"], ["y"], p=power, axis=axis)
    check([node], {"x": x}, lambda x: F.normalize(x, power, axis), double=power == 2)  # the reference sums signed


@pytest.mark.parametrize("size", [1, 3, 5])  # onnxruntime has it for odd sizes and pictures only
def test_local_response_normalisation_has_its_definitions_gradient(size: int) -> None:
    (x,) = drawn((2, 6, 3, 2))
    alpha, beta, bias = 0.5, 0.75, 1.5

    def formula(x: Any) -> Any:
        before, after = (size - 1) // 2, size // 2
        square = F.pad((x * x).movedim(1, -1), (before, after))
        total = square.unfold(-1, size, 1).sum(-1).movedim(-1, 1)
        return x / (bias + alpha / size * total) ** beta

    node = helper.make_node("LRN", ["x"], ["y"], size=size, alpha=alpha, beta=beta, bias=bias)
    check([node], {"x": x}, formula, differences=False)  # the reference computes LRN in float32


@pytest.mark.parametrize("axes", [[0, 2, 3], [2, 3]])
def test_mean_variance_normalisation_follows_its_standard_function(axes: list[int]) -> None:
    (x,) = drawn((2, 3, 4, 2))
    node = helper.make_node("MeanVarianceNormalization", ["x"], ["y"], axes=axes)

    def formula(x: Any) -> Any:
        centred = x - x.mean(axes, keepdim=True)
        return centred / (torch.sqrt((x * x).mean(axes, keepdim=True) - x.mean(axes, keepdim=True) ** 2) + 1e-9)

    check([node], {"x": x}, formula, double=False)


def test_every_rule_of_the_file_is_tested() -> None:
    rules = {name for (_, name), rule in table().items() if rule.__module__.endswith(".normalisation")}
    own = {f"{kind}Normalization" for kind in ("Batch", "Layer", "Instance", "Group", "RMS", "Lp")}
    assert rules == own | {"LRN"}

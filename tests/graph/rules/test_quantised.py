"""Quantised operators: straight through the rounding, against autograd of the real numbers that they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnx_inspect.graph.gradient import gradient, gradient_name, notes
from onnx_inspect.graph.rules._rule import table
from tests.conftest import make_model, run_plainly

torch = pytest.importorskip("torch", reason="PyTorch's autograd is the oracle")
F = torch.nn.functional
OWN = [helper.make_opsetid("com.microsoft", 1)]
ROUNDING = 2e-6  # of float32, relative to the largest gradient
DOMAIN = {"domain": "com.microsoft"}


def steps(shape: tuple[int, ...], dtype: Any = np.uint8, seed: int = 0, spread: int = 40) -> NDArray[Any]:
    middle = 128 if dtype == np.uint8 else 0
    return np.random.default_rng(seed).integers(middle - spread, middle + spread, shape).astype(dtype)


def found(
    nodes: Any, given: dict[str, NDArray[Any]], constants: dict[str, Any], wrt: list[str], opset: int = 18
) -> Any:
    """The value, the seed that was drawn, and the gradients."""
    inputs = {n: (v.dtype, v.shape) for n, v in given.items()}
    model = make_model(nodes, inputs, ["y"], constants, opset=opset, opsets=OWN)
    value = run_plainly(model, given, ["y"])["y"]
    seed = np.random.default_rng(7).normal(size=value.shape).astype(np.float32)
    built = gradient(model, wrt, "y")
    assert "straight through the rounding" in notes(built)[0]
    made = run_plainly(built, given | {"seed": seed}, [gradient_name(n) for n in wrt])
    assert all(v.dtype == np.float32 for v in made.values())
    return value, seed, {n: made[gradient_name(n)] for n in wrt}


def close(value: NDArray[Any], truth: Any) -> None:
    truth = truth.numpy() if hasattr(truth, "numpy") else truth
    np.testing.assert_allclose(value, truth, rtol=1e-5, atol=ROUNDING * np.abs(truth).max())


def autograd(formula: Any, seed: NDArray[Any], *values: NDArray[Any]) -> list[Any]:
    leaves = [torch.tensor(v.astype(np.float64), requires_grad=True) for v in values]
    (formula(*leaves) * torch.tensor(seed.astype(np.float64))).sum().backward()
    return [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("by_channel", [True, False])
def test_rounding_is_passed_straight_through_and_so_is_saturation(dtype: Any, by_channel: bool) -> None:
    scale = np.array([0.02, 0.05, 0.1], np.float32) if by_channel else np.array(0.05, np.float32)
    zero = (np.array([3, 1, 5]) if by_channel else np.array(3)).astype(dtype)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=1),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=1),
    ]
    x = np.random.default_rng(0).normal(0, 5, (2, 3, 4)).astype(np.float32)
    value, seed, made = found(nodes, {"x": x}, {"s": scale, "z": zero}, ["x", "q"])
    assert (np.abs(value - x) > 1).any()  # some are saturated
    close(made["x"], seed)
    view = (1, 3, 1) if by_channel else ()
    close(made["q"], seed * np.broadcast_to(scale.reshape(view), x.shape))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_a_range_that_begins_at_zero_is_a_relu(dtype: Any) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    x = np.random.default_rng(0).normal(0, 5, (4, 5)).astype(np.float32)
    constants = {"s": np.array(0.05, np.float32), "z": np.array(np.iinfo(dtype).min, dtype)}
    _, seed, made = found(nodes, {"x": x}, constants, ["x"])
    close(made["x"], seed * (x > 0.025))  # what rounds to 0 counts as 0


def test_within_its_range_pytorchs_fake_quantisation_has_the_same_gradient() -> None:
    x = np.random.default_rng(0).uniform(-4.5, 4, (4, 5)).astype(np.float32)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    constants = {"s": np.array(0.0375, np.float32), "z": np.array(12, np.int8)}
    _, seed, made = found(nodes, {"x": x}, constants, ["x"])
    leaf = torch.tensor(x, requires_grad=True)
    (torch.fake_quantize_per_tensor_affine(leaf, 0.0375, 12, -128, 127) * torch.tensor(seed)).sum().backward()
    close(made["x"], leaf.grad)


def test_scales_may_belong_to_blocks() -> None:
    x = np.random.default_rng(0).normal(0, 1, (4, 6)).astype(np.float32)
    scale = np.random.default_rng(1).uniform(0.01, 0.1, (2, 6)).astype(np.float32)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s"], ["q"], axis=0, block_size=2, output_dtype=TensorProto.INT8),
        helper.make_node("DequantizeLinear", ["q", "s"], ["y"], axis=0, block_size=2),
    ]
    _, seed, made = found(nodes, {"x": x}, {"s": scale}, ["x", "q"], opset=21)
    wide = np.repeat(scale, 2, axis=0)
    close(made["q"], seed * wide)
    close(made["x"], seed)


def test_dynamic_quantisation_is_passed_straight_through() -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["s", "ws"], ["both"]),
        helper.make_node("Mul", ["f", "both"], ["y"]),
    ]
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    weight = steps((4, 5), np.int8)
    _, seed, made = found(nodes, {"x": x}, {"w": weight, "ws": np.array(0.05, np.float32)}, ["x"])
    close(made["x"], seed @ (0.05 * weight.astype(np.float64)).T)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("by_channel", [True, False])
@pytest.mark.parametrize("relu", [True, False])
def test_quantised_convolutions_have_the_gradient_of_real_ones(groups: int, by_channel: bool, relu: bool) -> None:
    x, weight = steps((2, 4, 5, 6)), steps((6, 4 // groups, 3, 2), np.int8, 1)
    bias = np.random.default_rng(2).integers(-500, 500, 6).astype(np.int32)
    scale = np.random.default_rng(3).uniform(0.01, 0.03, 6 if by_channel else 1).astype(np.float32)
    constants = {
        **{"xs": np.float32(0.02), "xz": np.uint8(120), "w": weight, "ws": scale if by_channel else scale[0]},
        **{
            "wz": np.zeros(scale.shape if by_channel else (), np.int8),
            "ys": np.float32(0.1),
            "yz": np.uint8(0 if relu else 90),
        },
        "b": bias,
    }
    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"]
    node = helper.make_node("QLinearConv", names, ["y"], group=groups, strides=[2, 1], pads=[1, 0, 1, 1])
    value, seed, made = found([node], {"x": x}, constants, ["x"])
    view = scale.reshape(-1, 1, 1, 1)
    real = torch.tensor((weight * view).astype(np.float64))

    def formula(q: Any) -> Any:
        padded = F.pad((q - 120) * 0.02, [0, 1, 1, 1])
        return F.conv2d(padded, real, torch.tensor(bias * 0.02 * scale.astype(np.float64)), (2, 1), 0, 1, groups) / 0.1

    close(made["x"], autograd(formula, seed * (value > 0) if relu else seed, x)[0])


def test_integer_convolutions_have_the_gradient_of_real_ones() -> None:
    x, weight = steps((2, 3, 6)), steps((4, 3, 3), np.int8, 1)
    nodes = [
        helper.make_node("ConvInteger", ["x", "w", "xz"], ["i"], pads=[1, 1]),
        helper.make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
    ]
    _, seed, made = found(nodes, {"x": x}, {"w": weight, "xz": np.uint8(128)}, ["x"])
    real = torch.tensor(weight.astype(np.float64))
    close(made["x"], autograd(lambda q: F.conv1d(q - 128, real, None, 1, 1), seed, x)[0])


def test_quantised_products_have_the_gradient_of_real_ones() -> None:
    a, b = steps((2, 3, 4)), steps((2, 4, 5), seed=1)
    constants = {
        **{"as": np.float32(0.02), "az": np.uint8(120), "bs": np.float32(0.03), "bz": np.uint8(130)},
        **{"ys": np.float32(0.02), "yz": np.uint8(100)},
    }
    node = helper.make_node("QLinearMatMul", ["a", "as", "az", "b", "bs", "bz", "ys", "yz"], ["y"])
    _, seed, made = found([node], {"a": a, "b": b}, constants, ["a", "b"])
    own = autograd(lambda p, q: (p - 120) * 0.02 @ ((q - 130) * 0.03) / 0.02, seed, a, b)
    for name, truth in zip("ab", own, strict=True):
        close(made[name], truth)


@pytest.mark.parametrize("real", [True, False])
def test_quantised_gemms_have_the_gradient_of_real_ones(real: bool) -> None:
    a, weight = steps((3, 4)), steps((5, 4), seed=1)
    constants: dict[str, Any] = {
        **{"as": np.float32(0.02), "az": np.uint8(120), "b": weight, "bs": np.float32(0.03), "bz": np.uint8(130)},
        "c": np.arange(5, dtype=np.int32) * 10,
    }
    names = ["a", "as", "az", "b", "bs", "bz", "c"]
    if not real:
        constants |= {"ys": np.float32(0.05), "yz": np.uint8(100)}
        names += ["ys", "yz"]
    node = helper.make_node("QGemm", names, ["y"], transB=1, alpha=0.5, **DOMAIN)
    _, seed, made = found([node], {"a": a}, constants, ["a"])
    matrix = torch.tensor((weight.astype(np.float64) - 130) * 0.03)
    own = autograd(lambda q: 0.5 * (q - 120) * 0.02 @ matrix.T / (1 if real else 0.05), seed, a)[0]
    close(made["a"], own)


@pytest.mark.parametrize("kind", ["DynamicQuantizeMatMul", "MatMulIntegerToFloat"])
@pytest.mark.parametrize("by_column", [True, False])
def test_products_that_end_in_real_numbers(kind: str, by_column: bool) -> None:
    weight = steps((4, 5), np.int8, 1)
    scale = np.random.default_rng(3).uniform(0.01, 0.03, 5 if by_column else 1).astype(np.float32)
    matrix = (weight * scale).astype(np.float64)
    constants = {"w": weight, "ws": scale if by_column else scale[:1], "b": np.arange(5, dtype=np.float32)}
    if kind == "DynamicQuantizeMatMul":
        x: NDArray[Any] = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
        node = helper.make_node(kind, ["x", "w", "ws", "", "b"], ["y"], **DOMAIN)
        factor = 1.0
    else:
        x, factor = steps((3, 4)), 0.02
        constants |= {"xs": np.float32(0.02), "xz": np.uint8(128)}
        node = helper.make_node(kind, ["x", "w", "xs", "ws", "xz", "", "b"], ["y"], **DOMAIN)
    _, seed, made = found([node], {"x": x}, constants, ["x"])
    close(made["x"], factor * seed @ matrix.T)


@pytest.mark.parametrize("kind", ["QLinearAdd", "QLinearMul"])
def test_quantised_sums_and_products_by_element(kind: str) -> None:
    a, b = steps((2, 3, 4)), steps((4,), seed=1)
    constants = {
        **{"as": np.float32(0.02), "az": np.uint8(120), "bs": np.float32(0.03), "bz": np.uint8(130)},
        **{"ys": np.float32(0.02), "yz": np.uint8(100)},
    }
    node = helper.make_node(kind, ["a", "as", "az", "b", "bs", "bz", "ys", "yz"], ["y"], **DOMAIN)
    _, seed, made = found([node], {"a": a, "b": b}, constants, ["a", "b"])
    join = torch.add if kind == "QLinearAdd" else torch.mul
    own = autograd(lambda p, q: join((p - 120) * 0.02, (q - 130) * 0.03) / 0.02, seed, a, b)
    for name, truth in zip("ab", own, strict=True):
        close(made[name], truth)


@pytest.mark.parametrize(
    ("kind", "settings", "formula", "zero"),
    [
        ("QLinearLeakyRelu", {"alpha": 0.25}, lambda x: F.leaky_relu(x, 0.25), 100),
        ("QLinearSigmoid", {}, torch.sigmoid, 0),
        ("QLinearSoftmax", {"axis": -1, "opset": 13}, lambda x: torch.softmax(x, -1), 0),
        ("QLinearGlobalAveragePool", {}, lambda x: x.mean((2, 3), keepdim=True), 100),
        ("QLinearAveragePool", {"kernel_shape": [2, 2]}, lambda x: F.avg_pool2d(x, 2, 1), 100),
    ],
)
def test_quantised_functions_have_the_gradient_of_real_ones(kind: str, settings: Any, formula: Any, zero: int) -> None:
    x = steps((2, 3, 4, 5))
    scale = 1 / 256 if kind in ("QLinearSigmoid", "QLinearSoftmax") else 0.02
    constants = {"xs": np.float32(0.02), "xz": np.uint8(125), "ys": np.float32(scale), "yz": np.uint8(zero)}
    node = helper.make_node(kind, ["x", "xs", "xz", "ys", "yz"], ["y"], **settings, **DOMAIN)
    value, seed, made = found([node], {"x": x}, constants, ["x"])
    kept = seed * (value > 0) if zero == 0 else seed
    close(made["x"], autograd(lambda q: formula((q - 125) * 0.02) / scale, kept, x)[0])


def test_quantised_pools_may_have_their_channels_last() -> None:
    x = steps((2, 4, 5, 3))
    constants = {"xs": np.float32(0.02), "xz": np.uint8(125), "ys": np.float32(0.02), "yz": np.uint8(100)}
    names = ["x", "xs", "xz", "ys", "yz"]
    node = helper.make_node("QLinearGlobalAveragePool", names, ["y"], channels_last=1, **DOMAIN)
    _, seed, made = found([node], {"x": x}, constants, ["x"])
    close(made["x"], autograd(lambda q: (q - 125).mean((1, 2), keepdim=True), seed, x)[0])


def test_quantised_tensors_are_joined() -> None:
    a, b = steps((2, 3)), steps((2, 4), seed=1)
    constants = {
        **{"ys": np.float32(0.025), "yz": np.uint8(110), "as": np.float32(0.02), "az": np.uint8(120)},
        **{"bs": np.float32(0.03), "bz": np.uint8(130)},
    }
    node = helper.make_node("QLinearConcat", ["ys", "yz", "a", "as", "az", "b", "bs", "bz"], ["y"], axis=1, **DOMAIN)
    _, seed, made = found([node], {"a": a, "b": b}, constants, ["a", "b"])
    own = autograd(lambda p, q: torch.cat([(p - 120) * 0.02, (q - 130) * 0.03], 1) / 0.025, seed, a, b)
    for name, truth in zip("ab", own, strict=True):
        close(made[name], truth)


def test_maxima_and_shapes_of_quantised_numbers_pass_the_gradient() -> None:
    constants = {"s": np.float32(0.05), "z": np.uint8(100), "shape": np.array([0, -1])}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("MaxPool", ["q"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Reshape", ["p", "shape"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "s", "z"], ["y"]),
    ]
    x = np.linspace(-2, 2, 32, dtype=np.float32).reshape(1, 2, 4, 4)[..., ::-1].copy()
    _, seed, made = found(nodes, {"x": x}, constants, ["x", "q", "p"])
    leaf = torch.tensor(x, requires_grad=True)
    (F.max_pool2d(leaf, 2).flatten(1) * torch.tensor(seed)).sum().backward()
    close(made["x"], leaf.grad)


def test_quantised_attention_has_the_gradient_of_a_real_one() -> None:
    x, weight = steps((1, 4, 6), np.uint8), steps((6, 24), np.uint8, 1)
    bias = np.random.default_rng(2).normal(size=24).astype(np.float32)
    constants = {
        **{"w": weight, "b": bias, "xs": np.float32(0.01), "ws": np.float32(0.02)},
        **{"xz": np.uint8(120), "wz": np.uint8(130)},
    }
    names = ["x", "w", "b", "xs", "ws", "", "xz", "wz"]
    node = helper.make_node("QAttention", names, ["y"], num_heads=2, **DOMAIN)
    _, seed, made = found([node], {"x": x}, constants, ["x"])
    matrix = torch.tensor((weight.astype(np.float64) - 130) * 0.02)

    def formula(q: Any) -> Any:
        parts = ((q - 120) * 0.01 @ matrix + torch.tensor(bias.astype(np.float64))).chunk(3, -1)
        query, key, value = (p.reshape(1, 4, 2, 4).transpose(1, 2) for p in parts)
        return (torch.softmax(query @ key.mT / 2, -1) @ value).transpose(1, 2).reshape(1, 4, 8)

    close(made["x"], autograd(formula, seed, x)[0])


def test_every_rule_of_the_files_is_tested() -> None:
    files = ("quantisation", "quantised")
    rules = {name for (_, name), r in table().items() if r.__module__.rpartition(".")[2] in files}
    named = {f"QLinear{kind}" for kind in ("Conv", "MatMul", "Add", "Mul", "LeakyRelu", "Sigmoid", "Softmax", "Concat")}
    named |= {"QLinearAveragePool", "QLinearGlobalAveragePool", "ConvInteger", "MatMulInteger", "QGemm", "QAttention"}
    named |= {"MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLinear"}
    assert rules == named | {"QuantizeLinear", "DequantizeLinear"}

"""The standard attention operators: gradients of queries, keys, values and masks against autograd."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from onnx_inspect.graph.gradient import gradient
from onnx_inspect.graph.rules._rule import table
from tests.conftest import make_model
from tests.graph.rules.oracle import Arrays, check

torch = pytest.importorskip("torch", reason="PyTorch's autograd is the oracle")
N, M, T, S, D = 2, 4, 3, 5, 6
# The reference has the operator in float32 inside; open axes leave the heads' width unknown.
ALIKE: dict[str, Any] = {"double": False, "open_axes": False}


def drawn(*, heads: int = M, keys: int = S, flat: bool = False) -> Arrays:
    rng = np.random.default_rng(0)
    shapes = {"q": (N, M, T, D), "k": (N, heads, keys, D), "v": (N, heads, keys, D)}
    if flat:
        shapes = {n: (shape[0], shape[2], shape[1] * shape[3]) for n, shape in shapes.items()}
    return {n: rng.normal(size=shape) for n, shape in shapes.items()}


def attended(q: Any, k: Any, v: Any, *, bias: Any = 0.0, scale: float | None = None, softcap: float = 0.0) -> Any:
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = q @ k.transpose(-1, -2) * (scale or 1 / math.sqrt(q.shape[-1]))
    scores = softcap * torch.tanh(scores / softcap) if softcap else scores
    shares = torch.softmax(scores + bias, -1)
    return torch.nan_to_num(shares) @ v


def bias_of(allowed: np.ndarray[Any, Any]) -> Any:
    return torch.tensor(np.where(allowed, 0.0, -np.inf))


@pytest.mark.parametrize("settings", [{}, {"scale": 0.25}, {"softcap": 2.0}])
def test_plain_attention_has_pytorchs_gradients(settings: dict[str, float]) -> None:
    inputs = drawn()
    node = helper.make_node("Attention", list(inputs), ["y"], **settings)
    check([node], inputs, lambda *v: attended(*v, **settings), opset=23, **ALIKE)


@pytest.mark.parametrize("shared", [1, 2, 4])
def test_heads_may_share_keys_and_lie_in_one_axis(shared: int) -> None:
    inputs = drawn(heads=shared, flat=True)
    node = helper.make_node("Attention", list(inputs), ["y"], q_num_heads=M, kv_num_heads=shared)

    def formula(q: Any, k: Any, v: Any) -> Any:
        parts = [x.reshape(N, x.shape[1], -1, D).transpose(1, 2) for x in (q, k, v)]
        return attended(*parts).transpose(1, 2).reshape(N, T, M * D)

    check([node], inputs, formula, opset=23, **ALIKE)


@pytest.mark.parametrize("shape", [(T, S), (N, 1, T, S), (1, M, T, S)])
def test_a_mask_of_truths_hides_keys_and_a_hidden_row_gives_zeros(shape: tuple[int, ...]) -> None:
    inputs = drawn()
    allowed = np.random.default_rng(1).random(shape) < 0.6
    allowed[..., 0, :] = False
    node = helper.make_node("Attention", [*inputs, "mask"], ["y"])
    check(
        [node],
        inputs,
        lambda q, k, v: masked(q, k, v, allowed),
        opset=23,
        constants={"mask": allowed},
        **ALIKE,
    )


def masked(q: Any, k: Any, v: Any, allowed: np.ndarray[Any, Any]) -> Any:
    """Without a NaN on the way back: hidden rows are multiplied by 0."""
    shown = torch.tensor(allowed, dtype=q.dtype)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) - 1e4 * (1 - shown)
    return (torch.softmax(scores, -1) * shown) @ v


def test_a_mask_of_numbers_has_a_gradient_too() -> None:
    inputs = drawn() | {"mask": np.random.default_rng(1).normal(size=(N, 1, T, S))}
    node = helper.make_node("Attention", list(inputs), ["y"])
    check([node], inputs, lambda q, k, v, mask: attended(q, k, v, bias=mask), opset=23, **ALIKE)


@pytest.mark.parametrize("past", [0, 2])
def test_causality_counts_the_past(past: int) -> None:
    inputs = drawn(keys=T)
    if past:
        rng = np.random.default_rng(2)
        inputs |= {"pk": rng.normal(size=(N, M, past, D)), "pv": rng.normal(size=(N, M, past, D))}
    names = ["q", "k", "v", *(["", "pk", "pv"] if past else [])]
    outputs = ["y", *(["present_k", "present_v"] if past else [])]
    node = helper.make_node("Attention", names, outputs, is_causal=1)
    allowed = np.arange(past + T) <= np.arange(T)[:, None] + past

    def formula(q: Any, k: Any, v: Any, *before: Any) -> Any:
        if before:
            k, v = torch.cat([before[0], k], 2), torch.cat([before[1], v], 2)
        return attended(q, k, v, bias=bias_of(allowed).to(q.dtype))

    check([node], inputs, formula, opset=23, **ALIKE)


def test_padding_behind_the_keys_gets_nothing() -> None:
    inputs, lengths = drawn(), np.array([3, 5])
    node = helper.make_node("Attention", ["q", "k", "v", "", "", "", "lengths"], ["y"])
    allowed = (np.arange(S) < lengths[:, None])[:, None, None]
    made = check(
        [node],
        inputs,
        lambda q, k, v: attended(q, k, v, bias=bias_of(allowed).to(q.dtype)),
        opset=24,
        constants={"lengths": lengths},
        **ALIKE,
    )
    np.testing.assert_array_equal(made["k"][0, :, 3:], 0)


@pytest.mark.parametrize("reach", [(1, -1), (-1, 1), (1, 0), (0, 2)])
def test_windows_around_a_query_hide_what_lies_outside(reach: tuple[int, int]) -> None:
    inputs = drawn()
    settings = {"left_window_size": reach[0], "right_window_size": reach[1]}
    node = helper.make_node("Attention", list(inputs), ["y"], **settings)
    places = np.arange(S) - np.arange(T)[:, None]
    allowed = ((places >= -reach[0]) | (reach[0] < 0)) & ((places <= reach[1]) | (reach[1] < 0))
    model = make_model([node], {n: (np.float32, v.shape) for n, v in inputs.items()}, ["y"], opset=25)
    feeds = {n: v.astype(np.float32) for n, v in inputs.items()}
    wrt = ["q", "k", "v"]
    built = gradient(model, wrt, "y")
    made = ReferenceEvaluator(built.proto).run(None, feeds | {"seed": np.ones((N, M, T, D), np.float32)})
    leaves = [torch.tensor(v, requires_grad=True) for v in inputs.values()]
    value = attended(*leaves, bias=bias_of(allowed))
    value.sum().backward()
    np.testing.assert_allclose(made[0], value.detach().numpy(), atol=1e-5)
    for gradient_made, leaf in zip(made[1:], leaves, strict=True):
        np.testing.assert_allclose(gradient_made, leaf.grad.numpy(), atol=1e-5)


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_the_products_shown_have_gradients(mode: int) -> None:
    inputs = drawn()
    node = helper.make_node(
        "Attention", list(inputs), ["o", "", "", "y"], qk_matmul_output_mode=mode, softcap=2.0, is_causal=0
    )

    def formula(q: Any, k: Any, v: Any) -> Any:
        scores = q @ k.transpose(-1, -2) / math.sqrt(D)
        capped = 2 * torch.tanh(scores / 2)
        return (scores, capped, capped, torch.softmax(capped, -1))[mode] + 0 * v.sum()

    found = {"q": inputs["q"], "k": inputs["k"]}
    check([node], found, lambda q, k: formula(q, k, torch.zeros(1)), opset=23, constants={"v": inputs["v"]}, **ALIKE)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("listed", [True, False])
def test_what_was_turned_by_its_place_is_turned_back(interleaved: int, listed: bool) -> None:
    rng = np.random.default_rng(0)
    angles = rng.uniform(0, 6, (7, D // 2))
    places = np.array([[0, 2, 4], [1, 5, 6]])
    inputs = {"x": rng.normal(size=(N, M, T, D))}
    names = ["x", "cos", "sin", *(["places"] if listed else [])]
    node = helper.make_node("RotaryEmbedding", names, ["y"], interleaved=interleaved)

    def formula(x: Any) -> Any:
        turn = torch.tensor(angles[places], dtype=x.dtype)[:, None]
        one, other = (x[..., ::2], x[..., 1::2]) if interleaved else x.chunk(2, -1)
        real = one * torch.cos(turn) - other * torch.sin(turn)
        imaginary = one * torch.sin(turn) + other * torch.cos(turn)
        if interleaved:
            return torch.stack([real, imaginary], -1).reshape(x.shape)
        return torch.cat([real, imaginary], -1)

    own = angles if listed else angles[places]
    constants = {"cos": np.cos(own), "sin": np.sin(own)} | ({"places": places} if listed else {})
    check([node], inputs, formula, opset=23, constants=constants, **ALIKE)


def test_only_a_part_of_a_head_may_be_turned() -> None:
    rng = np.random.default_rng(0)
    angles = rng.uniform(0, 6, (N, T, 2))
    inputs = {"x": rng.normal(size=(N, T, M * D))}
    settings = {"num_heads": M, "rotary_embedding_dim": 4}
    node = helper.make_node("RotaryEmbedding", ["x", "cos", "sin"], ["y"], **settings)

    def formula(x: Any) -> Any:
        heads, turn = x.reshape(N, T, M, D), torch.tensor(angles, dtype=x.dtype)[:, :, None]
        one, other, rest = heads.split([2, 2, 2], -1)
        real = one * torch.cos(turn) - other * torch.sin(turn)
        imaginary = one * torch.sin(turn) + other * torch.cos(turn)
        return torch.cat([real, imaginary, rest], -1).reshape(N, T, M * D)

    check([node], inputs, formula, opset=23, constants={"cos": np.cos(angles), "sin": np.sin(angles)}, **ALIKE)


def test_every_rule_of_the_file_is_tested() -> None:
    rules = {name for (_, name), rule in table().items() if rule.__module__.endswith(".rules.attention")}
    assert rules == {"Attention", "RotaryEmbedding"}

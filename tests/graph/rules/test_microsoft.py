"""onnxruntime's own operators: gradients against autograd of what they are made of."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from onnx import helper

from onnx_inspect.errors import LayerError
from onnx_inspect.graph.gradient import gradient
from onnx_inspect.graph.rules._rule import table
from tests.conftest import make_model
from tests.graph.rules.oracle import Arrays, check

torch = pytest.importorskip("torch", reason="PyTorch's autograd is the oracle")
F = torch.nn.functional
SMALL = 2.0**-10
OWN = (helper.make_opsetid("com.microsoft", 1),)
# onnx's reference has none of these operators.
ALIKE: dict[str, Any] = {"double": False, "opsets": OWN}


def made(kind: str, inputs: list[str], outputs: list[str] | None = None, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs, outputs or ["y"], domain="com.microsoft", **attributes)


def drawn(**shapes: tuple[int, ...]) -> Arrays:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def tanh_gelu(x: Any) -> Any:
    return F.gelu(x, approximate="tanh")


@pytest.mark.parametrize(
    ("kind", "formula"),
    [("Gelu", F.gelu), ("FastGelu", tanh_gelu), ("QuickGelu", lambda x: x * torch.sigmoid(1.75 * x))],
)
def test_activations_have_their_formulas_gradient(kind: str, formula: Any) -> None:
    settings = {"alpha": 1.75} if kind == "QuickGelu" else {}
    check([made(kind, ["x"], **settings)], drawn(x=(2, 3, 5)), formula, **ALIKE)


@pytest.mark.parametrize(("kind", "formula"), [("BiasGelu", F.gelu), ("FastGelu", tanh_gelu)])
def test_the_bias_of_an_activation_has_a_gradient(kind: str, formula: Any) -> None:
    check([made(kind, ["x", "b"])], drawn(x=(2, 3, 5), b=(5,)), lambda x, b: formula(x + b), **ALIKE)


@pytest.mark.parametrize(
    ("activation", "values", "function"),
    [
        ("Relu", [], F.relu),
        ("Sigmoid", [], torch.sigmoid),
        ("LeakyRelu", [0.25], lambda x: F.leaky_relu(x, 0.25)),
        ("Clip", [-0.5, 1.5], lambda x: x.clamp(-0.5, 1.5)),
        ("HardSigmoid", [0.25, 0.5], lambda x: (0.25 * x + 0.5).clamp(0, 1)),
    ],
)
@pytest.mark.parametrize("summand", [True, False])
def test_a_fused_convolution_is_one_with_an_activation(
    activation: str, values: list[float], function: Any, summand: bool
) -> None:
    inputs = drawn(x=(2, 3, 5, 6), w=(4, 3, 3, 2), b=(4,), **({"z": (2, 4, 2, 6)} if summand else {}))
    settings: dict[str, Any] = {"pads": [1, 1, 0, 0], "strides": [2, 1], "activation": activation}
    settings |= {"activation_params": values} if values else {}

    def formula(x: Any, w: Any, b: Any, z: Any = 0) -> Any:
        return function(F.conv2d(F.pad(x, [1, 0, 1, 0]), w, b, (2, 1)) + z)

    check([made("FusedConv", list(inputs), **settings)], inputs, formula, open_axes=False, **ALIKE)


def test_a_fused_gemm_is_one_with_an_activation() -> None:
    inputs = drawn(a=(2, 4), b=(3, 4), c=(3,))
    settings = {"transB": 1, "alpha": 0.5, "activation": "LeakyRelu", "activation_alpha": 0.25}
    formula = lambda a, b, c: F.leaky_relu(0.5 * a @ b.T + c, 0.25)  # noqa: E731
    check([made("FusedGemm", list(inputs), **settings)], inputs, formula, **ALIKE)


@pytest.mark.parametrize("turned", [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("kind", ["FusedMatMul", "TransposeMatMul"])
def test_fused_products_turn_and_scale(turned: tuple[int, int], kind: str) -> None:
    inputs = drawn(a=(2, 4, 3) if turned[0] else (2, 3, 4), b=(2, 5, 4) if turned[1] else (2, 4, 5))
    node = made(kind, ["a", "b"], transA=turned[0], transB=turned[1], alpha=0.5)

    def formula(a: Any, b: Any) -> Any:
        return 0.5 * (a.mT if turned[0] else a) @ (b.mT if turned[1] else b)

    check([node], inputs, formula, **ALIKE)


def test_fused_products_take_stacks_behind_their_rows() -> None:
    inputs = drawn(a=(3, 2, 4), b=(2, 4, 5))
    node = made("FusedMatMul", ["a", "b"], transBatchA=1)
    check([node], inputs, lambda a, b: a.transpose(0, 1) @ b, **ALIKE)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shown", [0, 3])
def test_a_normalised_sum_has_gradients_of_all_its_parts(bias: bool, shown: int) -> None:
    inputs = drawn(x=(2, 3, 4), skip=(2, 3, 4), scale=(4,), shift=(4,), **({"bias": (4,)} if bias else {}))
    outputs = ["y"] if shown == 0 else ["o", "", "", "y"]

    def formula(x: Any, skip: Any, scale: Any, shift: Any, bias: Any = 0) -> Any:
        total = x + skip + bias
        return total if shown else F.layer_norm(total, (4,), scale, shift, SMALL)

    names = ["x", "skip", "scale", "shift", *(["bias"] if bias else [])]
    node = made("SkipLayerNormalization", names, outputs, epsilon=SMALL)
    if shown:  # scale and shift have no say in the sum
        constants = {n: inputs.pop(n) for n in ("scale", "shift")}
        check([node], inputs, lambda x, s, b=0: x + s + b, constants=constants, open_axes=False, **ALIKE)
    else:
        check([node], inputs, formula, open_axes=False, **ALIKE)


def test_normalised_sums_without_centring() -> None:
    inputs = drawn(x=(2, 3, 4), skip=(2, 3, 4), scale=(4,))
    node = made("SkipSimplifiedLayerNormalization", list(inputs), epsilon=SMALL)
    check([node], inputs, lambda x, s, w: F.rms_norm(x + s, (4,), w, SMALL), open_axes=False, **ALIKE)
    del inputs["skip"]
    plain = helper.make_node("SimplifiedLayerNormalization", ["x", "scale"], ["y"], axis=-1, epsilon=SMALL)
    check([plain], inputs, lambda x, w: F.rms_norm(x, (4,), w, SMALL), open_axes=False, **ALIKE)


def test_embedding_tables_have_gradients() -> None:
    rng = np.random.default_rng(0)
    inputs = drawn(words=(9, 4), seats=(6, 4), kinds=(2, 4), scale=(4,), shift=(4,))
    ids, segments = rng.integers(0, 9, (2, 5)).astype(np.int32), rng.integers(0, 2, (2, 5)).astype(np.int32)
    names = ["ids", "segments", "words", "seats", "kinds", "scale", "shift"]
    node = made("EmbedLayerNormalization", names, ["y", "mask"], epsilon=SMALL)

    def formula(words: Any, seats: Any, kinds: Any, scale: Any, shift: Any) -> Any:
        total = words[torch.tensor(ids)] + seats[:5] + kinds[torch.tensor(segments)]
        return F.layer_norm(total, (4,), scale, shift, SMALL)

    check([node], inputs, formula, constants={"ids": ids, "segments": segments}, open_axes=False, **ALIKE)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("flat", [True, False])
def test_what_was_turned_by_its_place_is_turned_back(interleaved: int, listed: bool, flat: bool) -> None:
    rng = np.random.default_rng(0)
    angles = rng.uniform(0, 6, (8, 3))
    places = np.array([[0, 2, 4], [1, 5, 6]]) if listed else np.array([2])
    rows = angles[places] if listed else angles[None, 2:5]
    inputs = {"x": rng.normal(size=(2, 3, 4 * 6) if flat else (2, 4, 3, 6))}
    node = made("RotaryEmbedding", ["x", "places", "cos", "sin"], interleaved=interleaved)

    def formula(x: Any) -> Any:
        heads = x.reshape(2, 3, 4, 6).transpose(1, 2) if flat else x
        turn = torch.tensor(rows, dtype=x.dtype)[:, None]
        one, other = (heads[..., ::2], heads[..., 1::2]) if interleaved else heads.chunk(2, -1)
        real = one * torch.cos(turn) - other * torch.sin(turn)
        imaginary = one * torch.sin(turn) + other * torch.cos(turn)
        both = torch.stack([real, imaginary], -1).flatten(-2) if interleaved else torch.cat([real, imaginary], -1)
        return both.transpose(1, 2).reshape(x.shape) if flat else both

    constants = {"cos": np.cos(angles), "sin": np.sin(angles), "places": places}
    check([node], inputs, formula, constants=constants, open_axes=False, **ALIKE)


T, D, M = 5, 8, 2


def attended(q: Any, k: Any, v: Any, bias: Any = 0.0, scale: float | None = None) -> Any:
    parts = [x.reshape(x.shape[0], -1, M, x.shape[-1] // M).transpose(1, 2) for x in (q, k, v)]
    return heads_attended(*parts, bias, scale).transpose(1, 2).reshape(q.shape[0], q.shape[1], -1)


def heads_attended(q: Any, k: Any, v: Any, bias: Any = 0.0, scale: float | None = None) -> Any:
    scores = q @ k.mT * (scale or 1 / math.sqrt(q.shape[-1])) + bias
    return torch.softmax(scores, -1) @ v


MASKS: dict[str, Any] = {
    "none": (None, np.ones((1, 1, 1, T))),
    "lengths": (np.array([3, 5], np.int32), (np.arange(T) < np.array([[3], [5]]))[:, None, None]),
    "rows": (np.array([[1, 1, 0, 1, 0], [1, 1, 1, 1, 1]], np.int32), None),
    "squares": (np.tril(np.ones((2, T, T), np.int32)), None),
}


def bias_of(mask: str, dtype: Any) -> Any:
    given, allowed = MASKS[mask]
    if allowed is None:
        allowed = given[:, None, None] if given.ndim == 2 else given[:, None]
    return torch.tensor((1 - np.asarray(allowed, float)) * -10000.0, dtype=dtype)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("causal", [0, 1])
def test_attention_with_its_projections_has_gradients(mask: str, causal: int) -> None:
    inputs = drawn(x=(2, T, 6), w=(6, 3 * D), b=(3 * D,))
    given = MASKS[mask][0]
    names = ["x", "w", "b", *(["mask"] if given is not None else [])]
    node = made("Attention", names, num_heads=M, unidirectional=causal)

    def formula(x: Any, w: Any, b: Any) -> Any:
        hidden = torch.triu(torch.full((T, T), -10000.0, dtype=x.dtype), 1) if causal else 0
        return attended(*(x @ w + b).chunk(3, -1), bias_of(mask, x.dtype) + hidden)

    constants = {} if given is None else {"mask": given}
    check([node], inputs, formula, constants=constants, open_axes=False, **ALIKE)


def test_attention_remembers_its_past() -> None:
    inputs = drawn(x=(2, T, 6), w=(6, 3 * D), b=(3 * D,), past=(2, 2, M, 3, D // M))
    names = ["x", "w", "b", "", "past"]
    node = made("Attention", names, ["y", "present"], num_heads=M, scale=0.25)

    def formula(x: Any, w: Any, b: Any, past: Any) -> Any:
        q, k, v = (p.reshape(2, T, M, D // M).transpose(1, 2) for p in (x @ w + b).chunk(3, -1))
        k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        return heads_attended(q, k, v, 0.0, 0.25).transpose(1, 2).reshape(2, T, D)

    check([node], inputs, formula, open_axes=False, **ALIKE)


@pytest.mark.parametrize("bias", [True, False])
def test_attention_of_what_was_projected_before(bias: bool) -> None:
    inputs = drawn(q=(2, 3, D), k=(2, T, D), v=(2, T, D))
    inputs |= drawn(b=(3 * D,)) if bias else {}
    inputs |= drawn(added=(1, M, 3, T))
    names = ["q", "k", "v", "b" if bias else "", "", "added"]

    def formula(q: Any, k: Any, v: Any, *rest: Any) -> Any:
        if bias:
            q, k, v = (x + y for x, y in zip((q, k, v), rest[0].chunk(3), strict=True))
        return attended(q, k, v, rest[-1])

    check([made("MultiHeadAttention", names, num_heads=M)], inputs, formula, open_axes=False, **ALIKE)


@pytest.mark.parametrize("mask", ["none", "lengths", "rows"])
def test_keys_may_be_hidden_from_projected_queries(mask: str) -> None:
    inputs, given = drawn(q=(2, T, D), k=(2, T, D), v=(2, T, D)), MASKS[mask][0]
    names = ["q", "k", "v", *(["", "mask"] if given is not None else [])]
    node = made("MultiHeadAttention", names, num_heads=M, unidirectional=1)

    def formula(q: Any, k: Any, v: Any) -> Any:
        hidden = torch.triu(torch.full((T, T), -10000.0, dtype=q.dtype), 1)
        return attended(q, k, v, bias_of(mask, q.dtype) + hidden)

    check([node], inputs, formula, constants={} if given is None else {"mask": given}, open_axes=False, **ALIKE)


def test_keys_and_values_may_come_by_head_with_a_past() -> None:
    shape = (2, M, T, D // M)
    inputs = drawn(q=(2, 3, D), k=shape, v=shape)
    node = made("MultiHeadAttention", ["q", "k", "v"], num_heads=M)

    def formula(q: Any, k: Any, v: Any) -> Any:
        heads = q.reshape(2, 3, M, D // M).transpose(1, 2)
        return heads_attended(heads, k, v).transpose(1, 2).reshape(2, 3, D)

    check([node], inputs, formula, open_axes=False, **ALIKE)
    past = (2, M, 2, D // M)
    inputs = drawn(q=(2, 3, D), k=(2, 3, D), v=(2, 3, D), pk=past, pv=past)
    node = made("MultiHeadAttention", ["q", "k", "v", "", "", "", "pk", "pv"], ["y", "k2", "v2"], num_heads=M)

    def remembered(q: Any, k: Any, v: Any, pk: Any, pv: Any) -> Any:
        q, k, v = (x.reshape(2, 3, M, D // M).transpose(1, 2) for x in (q, k, v))
        made = heads_attended(q, torch.cat([pk, k], 2), torch.cat([pv, v], 2))
        return made.transpose(1, 2).reshape(2, 3, D)

    check([node], inputs, remembered, open_axes=False, **ALIKE)


def test_what_has_no_rule_is_refused_though_it_makes_integers() -> None:
    node = made("MurmurHash3", ["i"], ["h"], name="hash")
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=6),
        node,
        helper.make_node("Cast", ["h"], ["f"], to=1),
        helper.make_node("Mul", ["f", "x"], ["y"]),
    ]
    model = make_model(nodes, {"x": (np.float32, [3])}, ["y"], opsets=list(OWN))
    built = gradient(model, ["x"], "y")  # the cast to integers is where that way ends
    assert [n.op_type for n in built.proto.graph.node].count("MurmurHash3") == 1
    fused = made("MatMulFpQ4", ["x", "w", "s"], ["y"], name="packed")
    inputs = {"x": (np.float32, [2, 4])}
    model = make_model([fused], inputs, ["y"], {"w": np.zeros(4, np.uint8), "s": np.array([4, 4])}, opsets=list(OWN))
    with pytest.raises(LayerError, match=r"'packed' \(com.microsoft::MatMulFpQ4\)"):
        gradient(model, ["x"], "y")


def test_every_rule_of_the_files_is_tested() -> None:
    rules = {name for (_, name), r in table().items() if r.__module__.rpartition(".")[2].startswith("microsoft")}
    named = {"Gelu", "BiasGelu", "FastGelu", "QuickGelu", "FusedConv", "FusedGemm", "FusedMatMul", "TransposeMatMul"}
    named |= {"SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "EmbedLayerNormalization"}
    assert rules == named | {"SimplifiedLayerNormalization", "RotaryEmbedding", "Attention", "MultiHeadAttention"}

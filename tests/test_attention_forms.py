"""Each form of attention, made by hand, against a plain numpy loop.

Tolerance 1e-5: both sides compute in float32 or better, and sums in another order differ by some 1e-7.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from onnx_inspect.attention import capture
from onnx_inspect.engine import PROVIDERS, Engine
from onnx_inspect.errors import LayerError
from onnx_inspect.graph.attention import Recipe, find
from onnx_inspect.graph.attention.opened import Selection, opened
from onnx_inspect.graph.bind import bind
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.surgery import extract
from onnx_inspect.heads import Attentions
from onnx_inspect.inputs.batch import Batch

Floats = NDArray[Any]
Make = Callable[..., Model]
MICROSOFT = {"opsets": [helper.make_opsetid("com.microsoft", 1)]}
N, HEADS, T, S, WIDTH = 2, 4, 5, 7, 8


def node(op_type: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    names = ["" if n == "-" else n for n in inputs.split()]
    return helper.make_node(op_type, names, outputs.split(), name=outputs.split()[0], **attributes)


def batch(arrays: Mapping[str, Floats], shared: frozenset[str] = frozenset()) -> Batch:
    count = max(len(a) for n, a in arrays.items() if n not in shared)
    none = (None,) * count
    first = next(iter(arrays))
    return Batch(arrays, first, tuple(map(str, range(count))), none, none, None, None, (), shared)


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def softmax(scores: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        e = np.exp(scores - scores.max(-1, keepdims=True))
    e = np.where(np.isnan(e), 0, e)
    total = e.sum(-1, keepdims=True)
    return e / np.where(total == 0, 1, total)


def by_head(x: Floats, heads: int = HEADS) -> Floats:
    """(N, T, heads * d) as (N, heads, T, d), float64."""
    n, tokens, width = x.shape
    return x.astype(np.float64).reshape(n, tokens, heads, width // heads).transpose(0, 2, 1, 3)


def expected(query: Floats, key: Floats, bias: Any = 0.0, scale: float | None = None) -> Floats:
    """Probabilities of (N, heads, q, d) and (N, heads, k, d)."""
    width = query.shape[-1]
    return softmax(query @ key.swapaxes(-1, -2) * (scale or width**-0.5) + bias)


def triangle(queries: int, keys: int, past: int = 0) -> Floats:
    return np.where(np.arange(keys)[None] > np.arange(queries)[:, None] + past, -np.inf, 0.0)


def matches(found: Attentions, *probabilities: Floats) -> None:
    assert not found.refused
    assert len(found.maps) == len(probabilities)
    for own, other in zip(found.maps, probabilities, strict=True):
        assert own.probabilities.shape == other.shape
        assert np.abs(own.probabilities - other).max() < 1e-5
        assert own.error < 1e-5


def decomposing(model: Model) -> Engine:
    """An engine that runs on the CPU but says that another provider was wanted, whose kernels hand nothing out."""
    engine = Engine(model)
    engine.wanted = [PROVIDERS["cuda"], PROVIDERS["cpu"]]
    engine._runner = lambda freed: Engine(model)._runner(freed)  # type: ignore[method-assign]
    return engine


# The standard Attention

FORMS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "plain": ("q k v", {}, {}),
    "causal": ("q k v", {"is_causal": 1}, {}),
    "scaled": ("q k v", {"scale": 0.7}, {}),
    "softcap": ("q k v", {"softcap": 0.5}, {}),
    "mask": ("q k v mask", {}, {"mask": normal(T, S, seed=9)}),
    "mask for all queries": ("q k v mask", {}, {"mask": normal(1, S, seed=9)}),
    "bool mask": ("q k v mask", {}, {"mask": np.arange(T)[:, None] + 2 >= np.arange(S)}),
    "nothing to see": ("q k v mask", {}, {"mask": np.arange(T)[:, None] + np.zeros(S) > 0}),
}


@pytest.mark.parametrize("way", [Engine, decomposing])
@pytest.mark.parametrize("rank", [3, 4])
@pytest.mark.parametrize("shared", [HEADS, 2])
@pytest.mark.parametrize("form", FORMS)
def test_the_standard_attention(make: Make, form: str, shared: int, rank: int, way: Any) -> None:
    inputs, attributes, constants = FORMS[form]
    arrays = {
        "q": normal(N, T, HEADS * WIDTH),
        "k": normal(N, S, shared * WIDTH, seed=1),
        "v": normal(N, S, shared * WIDTH, seed=2),
    }
    heads = {"q": HEADS, "k": shared, "v": shared}
    query, key = by_head(arrays["q"]), by_head(arrays["k"], shared).repeat(HEADS // shared, 1)
    bias: Any = 0.0
    if "mask" in constants:
        mask = constants["mask"]
        bias = np.where(mask, 0.0, -np.inf) if mask.dtype == bool else mask
    elif form == "causal":
        bias = triangle(T, S)
    scores = query @ key.swapaxes(-1, -2) * attributes.get("scale", WIDTH**-0.5)
    cap = attributes.get("softcap", 0.0)
    wanted = softmax((np.tanh(scores / cap) * cap if cap else scores) + bias)
    if rank == 4:
        arrays = {n: by_head(a, heads[n]).astype(np.float32) for n, a in arrays.items()}
    else:
        attributes = {**attributes, "q_num_heads": HEADS, "kv_num_heads": shared}
    ends = {n: ("float32", ["N", *a.shape[1:]]) for n, a in arrays.items()}
    model = make([node("Attention", inputs, "y", **attributes)], ends, ["y"], constants, opset=23)
    found = capture(model, batch(arrays), make_engine=way)
    matches(found, wanted)
    assert found.maps[0].kind == "Attention"
    assert found.maps[0].cross
    assert bool(found.notes) == (way is decomposing)


@pytest.mark.parametrize("way", [Engine, decomposing])
def test_the_standard_attention_remembers_keys(make: Make, way: Any) -> None:
    past, new = 3, 2
    arrays = {
        **{n: normal(N, HEADS, new, WIDTH, seed=i) for i, n in enumerate("qkv")},
        **{n: normal(N, HEADS, past, WIDTH, seed=i) for i, n in enumerate(("pk", "pv"), 5)},
    }
    ends = {n: ("float32", ["N", *a.shape[1:]]) for n, a in arrays.items()}
    nodes = [node("Attention", "q k v - pk pv", "y present_key present_value", is_causal=1)]
    model = make(nodes, ends, ["y", "present_key", "present_value"], opset=23)
    key = np.concatenate([arrays["pk"], arrays["k"]], 2)
    found = capture(model, batch(arrays), make_engine=way)
    matches(found, expected(arrays["q"], key, triangle(new, past + new, past)))
    assert found.maps[0].key_inputs == ("k",)


def test_scores_that_others_read_stay_what_they_are(make: Make) -> None:
    arrays = {n: normal(N, HEADS, T, WIDTH, seed=i) for i, n in enumerate("qkv")}
    nodes = [node("Attention", "q k v", "y - - scores"), node("ReduceSum", "scores", "total", keepdims=0)]
    nodes[0].output[:] = ["y", "", "", "scores"]
    model = make(nodes, {n: ("float32", ["N", *a.shape[1:]]) for n, a in arrays.items()}, ["y", "total"], opset=23)
    matches(capture(model, batch(arrays)), expected(arrays["q"], arrays["k"]))


# com.microsoft

MASKS: dict[str, Floats] = {
    "which keys": np.array([[1] * T, [1] * (T - 2) + [0] * 2], np.int32),
    "which keys, for each query": np.tril(np.ones((N, T, T), np.int32)),
    "how many keys": np.array([T, T - 2], np.int32),
}


def fused_arrays() -> dict[str, Floats]:
    return {"x": normal(N, T, 12)}


@pytest.mark.parametrize("mask", [None, *MASKS])
@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("widths", [None, [32, 32, 16]])
def test_attention_with_its_projections_inside(
    make: Make, mask: str | None, causal: int, widths: list[int] | None
) -> None:
    total = sum(widths or [32] * 3)
    weight, bias = normal(12, total, seed=1) * 0.5, normal(total, seed=2)
    arrays = fused_arrays()
    given = MASKS[mask] if mask else None
    if given is not None:
        arrays["mask"] = given
    more = {"qkv_hidden_sizes": widths} if widths else {}
    attend = node(
        "Attention",
        "x w b mask" if mask else "x w b",
        "y",
        domain="com.microsoft",
        num_heads=4,
        unidirectional=causal,
        **more,
    )
    ends = {n: ("float32" if a.dtype == np.float32 else "int32", ["N", *a.shape[1:]]) for n, a in arrays.items()}
    model = make([attend], ends, ["y"], {"w": weight, "b": bias}, **MICROSOFT)
    product = arrays["x"].astype(np.float64) @ weight + bias
    query, key = by_head(product[..., :32]), by_head(product[..., 32:64])
    hidden = triangle(T, T) if causal else np.zeros((T, T))
    if given is not None and given.ndim == 1:
        hidden = hidden + np.where(np.arange(T) < given[:, None, None, None], 0, -np.inf)
    elif given is not None:
        hidden = hidden + np.where(given.reshape(N, 1, -1, T) != 0, 0, -np.inf)
    matches(capture(model, batch(arrays)), expected(query, key, hidden))


def test_attention_remembers_keys(make: Make) -> None:
    weight, bias = normal(12, 96, seed=1) * 0.5, normal(96, seed=2)
    arrays = {"x": normal(1, 2, 12), "past": normal(2, 1, 4, 3, 8, seed=3)}
    attend = node("Attention", "x w b - past", "y present", domain="com.microsoft", num_heads=4, unidirectional=1)
    ends = {n: ("float32", a.shape) for n, a in arrays.items()}
    model = make([attend], ends, ["y", "present"], {"w": weight, "b": bias}, **MICROSOFT)
    product = arrays["x"].astype(np.float64) @ weight + bias
    key = np.concatenate([arrays["past"][0], by_head(product[..., 32:64])], 2)
    wanted = expected(by_head(product[..., :32]), key, triangle(2, 5, 3))
    matches(capture(model, batch(arrays, frozenset({"past"}))), wanted)


@pytest.mark.parametrize("form", ["plain", "bias", "which keys", "how many keys", "added", "causal", "past", "by head"])
def test_multi_head_attention(make: Make, form: str) -> None:
    keys = T if form == "causal" else S
    arrays: dict[str, Floats] = {
        "q": normal(N, T, 32),
        "k": normal(N, keys, 32, seed=1),
        "v": normal(N, keys, 16, seed=2),
    }
    constants: dict[str, Floats] = {}
    inputs, attributes, bias = ["q", "k", "v"], {"num_heads": 4}, 0.0
    query, key = by_head(arrays["q"]), by_head(arrays["k"])
    if form == "bias":
        constants["b"] = normal(80, seed=3)
        inputs.append("b")
        query = by_head(arrays["q"] + constants["b"][:32])
        key = by_head(arrays["k"] + constants["b"][32:64])
    elif form in ("which keys", "how many keys"):
        counts = np.array([S, S - 3])
        seen = np.arange(S) < counts[:, None]
        arrays["mask"] = seen.astype(np.int32) if form == "which keys" else counts.astype(np.int32)
        inputs += ["", "mask"]
        bias = np.where(seen[:, None, None], 0, -np.inf)
    elif form == "added":
        constants["added"] = normal(1, 4, T, S, seed=4)
        inputs += ["", "", "added"]
        bias = constants["added"]
    elif form == "causal":
        attributes["unidirectional"] = 1
        bias = triangle(T, T)
    elif form == "past":
        arrays |= {"pk": normal(N, 4, 3, 8, seed=5), "pv": normal(N, 4, 3, 4, seed=6)}
        arrays["v"] = normal(N, keys, 32, seed=2)
        arrays["pv"] = normal(N, 4, 3, 8, seed=6)
        inputs += ["", "", "", "pk", "pv"]
        key = np.concatenate([arrays["pk"], key], 2)
    elif form == "by head":
        arrays["k"], arrays["v"] = by_head(arrays["k"]).astype(np.float32), normal(N, 4, S, 8, seed=2)
    attend = helper.make_node("MultiHeadAttention", inputs, ["y"], name="y", domain="com.microsoft", **attributes)
    if form == "past":
        attend.output.extend(["present_key", "present_value"])
    ends = {n: (str(a.dtype), ["N", *a.shape[1:]]) for n, a in arrays.items()}
    model = make([attend], ends, list(attend.output), constants, **MICROSOFT)
    matches(capture(model, batch(arrays)), expected(query, key, bias))


@pytest.mark.parametrize("what", ["queries, keys and values", "keys and values"])
def test_packed_multi_head_attention(make: Make, plainly: Callable[..., Any], what: str) -> None:
    """Only CUDA's kernel takes packed tensors: here what is computed beside it is held against numpy."""
    whole = normal(N, T, 4, 3, 8)
    if what == "keys and values":
        arrays: dict[str, Floats] = {"q": whole[..., 0, :].reshape(N, T, 32), "kv": whole[..., 1:, :].copy()}
    else:
        arrays = {"qkv": whole}
    attend = helper.make_node("MultiHeadAttention", list(arrays), ["y"], name="y", domain="com.microsoft", num_heads=4)
    model = make([attend], {n: ("float32", ["N", *a.shape[1:]]) for n, a in arrays.items()}, ["y"], **MICROSOFT)
    query, key = (whole[..., i, :].transpose(0, 2, 1, 3).astype(np.float64) for i in (0, 1))
    (recipe,) = find(model, bind(model, {n: a[:1].shape for n, a in arrays.items()}))
    assert isinstance(recipe, Recipe)
    found = opened(model, [recipe], {"y": Selection()})
    alone = extract(found.model, list(arrays), [found.probabilities["y"]])  # without the fused node
    (soft,) = plainly(alone, arrays).values()
    assert np.abs(soft[:, 0] - expected(query, key)).max() < 1e-5


@pytest.mark.parametrize("past", [0, 3])
@pytest.mark.parametrize("rotary", [0, 1])
@pytest.mark.parametrize("packed", [False, True])
def test_group_query_attention(make: Make, past: int, rotary: int, packed: bool) -> None:
    heads, shared, width = 4, 2, 16
    tokens = 1 if past else 5
    new = {
        "q": normal(1, tokens, heads * width),
        "k": normal(1, tokens, shared * width, seed=1),
        "v": normal(1, tokens, shared * width, seed=2),
    }
    arrays: dict[str, Floats] = {"x": np.concatenate(list(new.values()), -1)} if packed else dict(new)
    arrays |= {n: normal(1, shared, past, width, seed=i) for i, n in enumerate(("pk", "pv"), 5)}
    constants: dict[str, Floats] = {
        "lengths": np.array([past + tokens - 1], np.int32),
        "total": np.array(past + tokens, np.int32),
    }
    inputs = [*(["x", "", ""] if packed else "qkv"), "pk", "pv", "lengths", "total"]
    angles = np.arange(16)[:, None] * 10.0 ** -np.arange(width // 2)
    if rotary:
        constants |= {"cos": np.cos(angles).astype(np.float32), "sin": np.sin(angles).astype(np.float32)}
        inputs += ["cos", "sin"]
    attend = helper.make_node(
        "GroupQueryAttention",
        inputs,
        ["y", "present_key", "present_value"],
        name="y",
        domain="com.microsoft",
        num_heads=heads,
        kv_num_heads=shared,
        do_rotary=rotary,
    )
    ends = {n: ("float32", a.shape) for n, a in arrays.items()}
    model = make([attend], ends, list(attend.output), constants, **MICROSOFT)

    def turned(x: Floats) -> Floats:
        half = x.shape[-1] // 2
        cos, sin = (f(angles[past : past + tokens]) for f in (np.cos, np.sin))
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1) if rotary else x

    query, key = turned(by_head(new["q"], heads)), turned(by_head(new["k"], shared))
    key = np.concatenate([arrays["pk"], key], 2).repeat(2, 1)
    found = capture(model, batch(arrays))
    matches(found, expected(query, key, triangle(tokens, past + tokens, past)))
    assert not found.maps[0].cross
    elsewhere = capture(model, batch(arrays), make_engine=decomposing)
    assert elsewhere.refused == (("y", "its probabilities are only handed out by the kernel of the CPU: run it there"),)


@pytest.mark.parametrize("operator", ["PackedAttention", "LongformerAttention", "DecoderMaskedSelfAttention"])
def test_fused_operators_that_are_not_known_are_refused(make: Make, operator: str) -> None:
    attend = helper.make_node(operator, ["x", "w"], ["y"], name="attend", domain="com.microsoft", num_heads=4)
    model = make([attend], {"x": ("float32", ["N", T, 12])}, ["y"], {"w": normal(12, 96)}, **MICROSOFT)
    found = capture(model, batch(fused_arrays()))
    assert not found.maps
    ((layer, reason),) = found.refused
    assert layer == "attend"
    assert "only CUDA runs it" in reason or operator in reason


# Written out

PROJECTED = [node("MatMul", "x wq", "q"), node("MatMul", "x wk", "k"), node("MatMul", "x wv", "v")]
WEIGHTS = {n: normal(12, 12, seed=i) * 0.5 for i, n in enumerate(("wq", "wk", "wv"), 3)}


def written_out(make: Make, nodes: list[onnx.NodeProto], constants: Mapping[str, Any] = {}, **more: Any) -> Model:
    ends = {"x": ("float32", ["N", T, 12])}
    return make([*PROJECTED, *nodes], ends, [nodes[-1].output[0]], {**WEIGHTS, **constants}, **more)


def single_head(x: Floats) -> Floats:
    query, key = (x.astype(np.float64) @ WEIGHTS[n] for n in ("wq", "wk"))
    return expected(query[:, None], key[:, None], scale=1.0)


WAYS: dict[str, tuple[list[onnx.NodeProto], dict[str, Any]]] = {
    "one head": (
        [
            node("Transpose", "k", "kt", perm=[0, 2, 1]),
            node("MatMul", "q kt", "s"),
            node("Softmax", "s", "p", axis=-1),
            node("MatMul", "p v", "y"),
        ],
        {},
    ),
    "values on the left": (  # as convolutional networks write it: values (N, d, T), probabilities turned
        [
            node("Transpose", "k", "kt", perm=[0, 2, 1]),
            node("MatMul", "q kt", "s"),
            node("Softmax", "s", "p", axis=-1),
            node("Transpose", "p", "pt", perm=[0, 2, 1]),
            node("Transpose", "v", "vt", perm=[0, 2, 1]),
            node("MatMul", "vt pt", "y"),
        ],
        {},
    ),
    "softmax over rows": (  # scores (N, keys, queries)
        [
            node("Transpose", "q", "qt", perm=[0, 2, 1]),
            node("MatMul", "k qt", "s"),
            node("Softmax", "s", "p", axis=1),
            node("Transpose", "v", "vt", perm=[0, 2, 1]),
            node("MatMul", "vt p", "y"),
        ],
        {},
    ),
    "Einsum": (
        [
            node("Einsum", "q k", "s", equation="bqd,bkd->bqk"),
            node("Softmax", "s", "p", axis=-1),
            node("Einsum", "p v", "y", equation="bqk,bkd->bqd"),
        ],
        {},
    ),
    "Einsum, context turned": (
        [
            node("Einsum", "k q", "s", equation="bkd,bqd->bqk"),
            node("Softmax", "s", "p", axis=-1),
            node("Einsum", "v p", "y", equation="bkd,bqk->dbq"),
        ],
        {},
    ),
    "exponentials": (
        [
            node("Transpose", "k", "kt", perm=[0, 2, 1]),
            node("MatMul", "q kt", "s"),
            node("ReduceMax", "s last", "m", keepdims=1),
            node("Sub", "s m", "c"),
            node("Exp", "c", "e"),
            node("ReduceSum", "e last", "t", keepdims=1),
            node("Div", "e t", "p"),
            node("MatMul", "p v", "y"),
        ],
        {"last": [-1]},
    ),
    "dropout and casts": (
        [
            node("Transpose", "k", "kt", perm=[0, 2, 1]),
            node("MatMul", "q kt", "s"),
            node("Cast", "s", "wide", to=11),
            node("Softmax", "wide", "p", axis=-1),
            node("Cast", "p", "narrow", to=1),
            node("Dropout", "narrow", "kept"),
            node("MatMul", "kept v", "y"),
        ],
        {},
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_attention_written_out(make: Make, way: str) -> None:
    nodes, constants = WAYS[way]
    arrays = fused_arrays()
    found = capture(written_out(make, nodes, constants), batch(arrays))
    matches(found, single_head(arrays["x"]))
    assert found.maps[0].layer == "p"
    assert not found.maps[0].cross


@pytest.mark.parametrize("opset", [9, 11, 12, 13, 17, 18, 21])
def test_attention_in_every_operator_set(make: Make, opset: int) -> None:
    nodes = WAYS["one head"][0]
    if opset < 13:
        nodes = [*nodes[:2], node("Softmax", "s", "p", axis=2), nodes[3]]
    arrays = fused_arrays()
    model = written_out(make, nodes, opset=opset)
    matches(capture(model, batch(arrays)), single_head(arrays["x"]))
    mean = capture(model, batch(arrays), reduce="max", queries=(1,))
    assert np.abs(mean.maps[0].probabilities - single_head(arrays["x"])[:, :, 1:2]).max() < 1e-5


def test_attention_without_a_batch(make: Make) -> None:
    nodes = [
        node("MatMul", "x wq", "q"),
        node("MatMul", "x wk", "k"),
        node("MatMul", "x wv", "v"),
        node("Transpose", "k", "kt", perm=[1, 0]),
        node("MatMul", "q kt", "s"),
        node("Softmax", "s", "p", axis=-1),
        node("MatMul", "p v", "y"),
    ]
    model = make(nodes, {"x": ("float32", [T, 12])}, ["y"], WEIGHTS)
    x = normal(T, 12)
    one = Batch({"x": x}, "x", ("x",), (None,), (None,), None, None, (), frozenset({"x"}))
    found = capture(model, one)
    assert [m.probabilities.shape for m in found.maps] == [(1, 1, T, T)] or found.refused


# What looks like attention and isn't, or can't be proved

NOT_ATTENTION: dict[str, tuple[list[onnx.NodeProto], dict[str, Any]]] = {
    "a classifier": ([node("MatMul", "x wq", "s"), node("Softmax", "s", "y", axis=-1)], {}),
    "an expectation over bins": (
        [node("MatMul", "x wq", "s"), node("Softmax", "s", "p", axis=-1), node("MatMul", "p bins", "y")],
        {"bins": normal(12, 1)},
    ),
    "a mixture of experts": (
        [
            node("MatMul", "x wq", "s"),
            node("Softmax", "s", "p", axis=-1),
            node("Unsqueeze", "p two", "p4"),
            node("MatMul", "x w1", "e"),
            node("Reshape", "e rows", "e4"),
            node("MatMul", "p4 e4", "y"),
        ],
        {"two": [2], "w1": normal(12, 48), "rows": [0, T, 12, 4]},
    ),
}


@pytest.mark.parametrize("what", NOT_ATTENTION)
def test_other_softmaxes_are_not_taken_for_attention(make: Make, what: str) -> None:
    nodes, constants = NOT_ATTENTION[what]
    model = make(nodes, {"x": ("float32", ["N", T, 12])}, ["y"], {**WEIGHTS, **constants})
    with pytest.raises(LayerError, match="has no attention"):
        capture(model, batch(fused_arrays()))


REFUSED: dict[str, tuple[list[onnx.NodeProto], dict[str, Any], str]] = {
    "among channels": (
        [
            node("Transpose", "q", "qt", perm=[0, 2, 1]),
            node("MatMul", "qt k", "s"),
            node("Softmax", "s", "p", axis=-1),
            node("Transpose", "v", "vt", perm=[0, 2, 1]),
            node("MatMul", "p vt", "y"),
        ],
        {},
        "channel",
    ),
    "mixed after the softmax": (
        [
            *WAYS["one head"][0][:3],
            node("Conv", "p wc", "mixed"),
            node("MatMul", "mixed v", "y"),
        ],
        {"wc": normal(T, T, 1)},
        "changed before they meet the values (Conv reads them)",
    ),
    "gated": (
        [*WAYS["one head"][0][:3], node("Mul", "p gate", "g"), node("MatMul", "g v", "y")],
        {"gate": np.float32(0.5)},
        "not proved: its rows sum to 1 only within 0.5",
    ),
    "not finite": (
        [
            *WAYS["one head"][0][:2],
            node("Add", "s nothing", "masked"),
            node("Softmax", "masked", "p", axis=-1),
            node("MatMul", "p v", "y"),
        ],
        {"nothing": np.full((T, T), -np.inf, np.float32)},
        "aren't finite",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cant_be_proved_is_refused_with_its_reason(make: Make, what: str) -> None:
    nodes, constants, reason = REFUSED[what]
    found = capture(written_out(make, nodes, constants), batch(fused_arrays()))
    assert not found.maps
    ((layer, why),) = found.refused
    assert layer == "p"
    assert reason in why


def test_attention_inside_control_flow_is_refused(make: Make) -> None:
    body = helper.make_graph(
        [
            node("Transpose", "x", "xt", perm=[0, 2, 1]), node("MatMul", "x xt", "s"),
            node("Softmax", "s", "p", axis=-1), node("MatMul", "p x", "inner"),
        ],
        "body", [], [onnx.ValueInfoProto(name="inner")],
    )  # fmt: skip
    other = helper.make_graph([node("Identity", "x", "same")], "other", [], [onnx.ValueInfoProto(name="same")])
    choose = helper.make_node("If", ["yes"], ["y"], name="choose", then_branch=body, else_branch=other)
    ends = {"x": ("float32", ["N", T, 12]), "yes": ("bool", [])}
    model = make([choose], ends, ["y"])
    one = batch({"x": normal(N, T, 12), "yes": np.array(True)}, frozenset({"yes"}))
    found = capture(model, one)
    assert not found.maps
    assert found.refused[0][0] == "choose/then_branch/p"
    assert "control flow" in found.refused[0][1]

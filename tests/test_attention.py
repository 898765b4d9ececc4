"""What capturing attention promises whatever the model: what is chosen, reduced, kept and said."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper

from onnx_inspect import attention
from onnx_inspect.attention import capture
from onnx_inspect.engine import Engine
from onnx_inspect.errors import InputError, LayerError
from onnx_inspect.graph.attention import find
from onnx_inspect.graph.attention.tokens import place
from onnx_inspect.graph.bind import bind
from onnx_inspect.graph.lineage import Lineage
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import read
from onnx_inspect.graph.surgery import expose
from onnx_inspect.heads import Attentions
from onnx_inspect.inputs.batch import Batch

Arrays = Mapping[str, NDArray[Any]]


def batch(arrays: Arrays) -> Batch:
    count = len(next(iter(arrays.values())))
    none = (None,) * count
    return Batch(arrays, next(iter(arrays)), tuple(f"input {i}" for i in range(count)), none, none, None, None, ())


@pytest.fixture(scope="module")
def vit() -> Model:
    return read(Path(__file__).parents[1] / "fixtures" / "digits_vit.onnx")


@pytest.fixture(scope="module")
def pictures() -> Batch:
    return batch({"input": np.random.default_rng(0).normal(0, 1, (5, 3, 32, 32)).astype(np.float32)})


@pytest.fixture(scope="module")
def whole(vit: Model, pictures: Batch) -> Attentions:
    return capture(vit, pictures)


def test_every_attention_of_the_fixture_is_found_and_proved(vit: Model, whole: Attentions) -> None:
    assert [m.layer for m in whole.maps] == [la.name for la in vit.layers if la.op_type == "Softmax"]
    assert not whole.refused
    assert whole.sources == tuple(f"input {i}" for i in range(5))
    assert whole.provider == "CPUExecutionProvider"
    assert whole.passes >= 5
    for found in whole.maps:
        assert found.probabilities.shape == (5, 4, 65, 65)
        assert found.count == 5
        assert np.abs(found.probabilities.sum(-1) - 1).max() < 1e-5  # sums of float32
        assert found.error < 1e-5
        assert (found.grid, found.prefix, found.prefix_names) == ((8, 8), 1, ("cls",))
        assert not found.probabilities.flags.writeable


def test_probabilities_are_what_the_graph_itself_computes(
    vit: Model, pictures: Batch, whole: Attentions, plainly: Callable[..., Any]
) -> None:
    names = [vit.layer(m.layer).output.name for m in whole.maps]
    own = plainly(expose(vit, names), pictures.arrays, names)
    for found, name in zip(whole.maps, names, strict=True):
        assert np.abs(found.probabilities - own[name]).max() < 1e-6  # the same nodes, fused otherwise


@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_reducing_in_the_graph_equals_reducing_afterwards(
    vit: Model, pictures: Batch, whole: Attentions, reduce: str
) -> None:
    reduced = capture(vit, pictures, reduce=reduce, heads=(0, 2), queries=(0, -1))
    for own, full in zip(reduced.maps, whole.maps, strict=True):
        wanted = getattr(full.probabilities[:, [0, 2]][:, :, [0, 64]], reduce)(1, keepdims=True)
        assert own.probabilities.shape == (5, 1, 2, 65)
        assert np.abs(own.probabilities - wanted).max() < 1e-6  # sums of float32 in another order
        assert (own.heads, own.queries, own.reduced) == ((0, 2), (0, 64), reduce)
        assert own.error < 1e-5  # proved whole, whatever was kept of it
        assert (own.causal, own.cross, own.grid) == (full.causal, full.cross, full.grid)


def test_chosen_heads_come_in_the_order_asked_for(vit: Model, pictures: Batch, whole: Attentions) -> None:
    some = capture(vit, pictures, heads=(3, 1), layers=("-1",))
    assert [m.index for m in some.maps] == [2]
    assert np.array_equal(some.maps[0].probabilities, whole.maps[2].probabilities[:, [3, 1]])


@pytest.mark.parametrize(
    ("asked", "indices"),
    [
        (("0",), [0]),
        (("-1", "0"), [0, 2]),
        (("node_softmax_1",), [1]),
        (("*softmax*",), [0, 1, 2]),
        (("Softmax:-1",), [2]),
    ],
)
def test_layers_are_named_as_everywhere(
    vit: Model, pictures: Batch, asked: tuple[str, ...], indices: list[int]
) -> None:
    assert [m.index for m in capture(vit, pictures, layers=asked, queries=(0,)).maps] == indices


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"layers": ("3",)}, "attention 3 is not in"),
        ({"layers": ("Conv:0",)}, "'Conv:0' is no attention of"),
        ({"layers": ("nowhere",)}, "layer 'nowhere' is not in"),
        ({"heads": (4,)}, "has no head 4: it has 4, 0 to 3"),
        ({"queries": (65,)}, "has no query 65: it has 65, 0 to 64"),
        ({"reduce": "median"}, "can't be reduced by 'median'"),
    ],
)
def test_what_isnt_there_is_said_in_one_line(vit: Model, pictures: Batch, chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(LayerError, match=message) as caught:
        capture(vit, pictures, **chosen)
    assert "\n" not in str(caught.value)


def test_a_model_without_attention_says_so(fixtures: Path) -> None:
    net = read(fixtures / "digits_convnet.onnx")
    with pytest.raises(LayerError, match="has no attention"):
        capture(net, batch({"input": np.zeros((1, 3, 32, 32), np.float32)}))


def test_the_model_given_is_left_as_it_was(vit: Model, pictures: Batch) -> None:
    before = vit.proto.SerializeToString()
    capture(vit, pictures, reduce="mean")
    assert vit.proto.SerializeToString() == before


def test_small_budgets_change_nothing(
    vit: Model, pictures: Batch, whole: Attentions, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Engine] = []

    def make_engine(model: Model) -> Engine:
        made.append(Engine(model))
        return made[-1]

    one = 4 * 4 * 65 * 65  # bytes of one attention of one sample
    monkeypatch.setattr(attention, "BUDGET", 2 * one)
    found = capture(vit, pictures, make_engine=make_engine)
    assert [e.max_chunk for e in made[1:]] == [1, 2]  # two layers of a sample at once, then one of two
    for own, full in zip(found.maps, whole.maps, strict=True):
        assert np.abs(own.probabilities - full.probabilities).max() < 1e-6
    monkeypatch.setattr(attention, "AT_ONCE", 5 * one)
    assert len(capture(vit, pictures, make_engine=make_engine).maps) == 3
    assert len(made) == 3 + 4  # the first only tells where it runs; each layer then has a run of its own


def test_too_much_to_keep_is_refused_before_anything_runs(
    vit: Model, pictures: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "LIMIT", 10**6)
    with pytest.raises(InputError, match=r"reduce the heads \(--reduce mean\)"):
        capture(vit, pictures)
    assert capture(vit, pictures, queries=(0,)).maps


def test_what_is_told_in_json_holds_all_but_the_numbers(whole: Attentions) -> None:
    told = json.loads(json.dumps([m.meta() for m in whole.maps]))
    assert told[0]["shape"] == [5, 4, 65, 65]
    assert told[0]["grid"] == [8, 8]
    assert told[0]["prefix_names"] == ["cls"]
    assert told[0]["error"] == whole.maps[0].error


def test_keys_are_laid_out_as_the_picture(whole: Attentions) -> None:
    found = whole.maps[0]
    laid = found.on_grid(np.arange(65, dtype=np.float32)[None])
    assert np.array_equal(laid, np.arange(1, 65).reshape(8, 8))  # the class token is left out
    assert found.query_at(2, 3) == (0, 1 + 2 * 8 + 3)
    with pytest.raises(ValueError, match="outside the grid"):
        found.query_at(8, 0)


# Where tokens come from


def tokens(make: Callable[..., Model], nodes: list[Any], inputs: dict[str, Any], constants: dict[str, Any]) -> Any:
    """Where the last axis of the tensor ``t`` lies."""
    model = make(nodes, inputs, ["t"], constants)
    lineage = Lineage(model, bind(model))
    return place([], lineage.of("t")[1], model)


def cut(op_type: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(op_type, inputs.split(), [output], name=output, **attributes)


PATCHES = [
    cut("Reshape", "x apart", "a"),  # (N, 3, rows, 4, columns, 4): patches cut without a convolution
    cut("Transpose", "a", "b", perm=[0, 2, 4, 3, 5, 1]),
    cut("Reshape", "b joined", "c"),
]
CUT = {"apart": [0, 3, 3, 4, 5, 4], "joined": [0, 15, 48], "w": np.zeros((48, 8), np.float32)}
PLANE = {"x": ("float32", [1, 3, 12, 20])}


def test_patches_cut_by_reshaping_have_their_grid(make: Callable[..., Model]) -> None:
    found = tokens(make, [*PATCHES, cut("MatMul", "c w", "t")], PLANE, CUT)
    assert (found.grid, found.names) == ((3, 5), ())
    assert np.array_equal(found.cells, np.arange(15)[None])


def test_tokens_behind_the_patches_are_known_for_what_they_are(make: Callable[..., Model]) -> None:
    constants = CUT | {
        "query_tokens": np.zeros((1, 2, 8), np.float32),
        "head.cls_token": np.zeros((1, 1, 8), np.float32),
    }
    nodes = [*PATCHES, cut("MatMul", "c w", "p"), cut("Concat", "head.cls_token p query_tokens", "t", axis=1)]
    found = tokens(make, nodes, PLANE, constants)
    assert found.names == ("cls", "reg1", "reg2")
    assert found.cells[0].tolist() == [-1, *range(15), -1, -1]


def test_patches_in_another_order_keep_their_places(make: Callable[..., Model]) -> None:
    order = np.random.default_rng(0).permutation(15)
    nodes = [*PATCHES, cut("MatMul", "c w", "p"), cut("Gather", "p order", "t", axis=1)]
    found = tokens(make, nodes, PLANE, CUT | {"order": order})
    assert found.cells[0].tolist() == order.tolist()


def test_windows_that_padding_fills_up_leave_it_out(make: Callable[..., Model]) -> None:
    nodes = [  # a plane of 3x5 in windows of 2x2: one row and one column of padding
        cut("Reshape", "x plane", "p"),
        cut("Shape", "p", "s"),
        cut("Gather", "s axes", "have", axis=0),
        cut("Mod", "have two", "over"),
        cut("Concat", "five over one", "pads", axis=0),  # nothing before any axis, what is missing after two of them
        cut("Pad", "p pads", "padded"),
        cut("Reshape", "padded apart", "a"),
        cut("Transpose", "a", "b", perm=[0, 1, 3, 2, 4, 5]),
        cut("Reshape", "b joined", "t"),
    ]
    constants = {
        **{"plane": [0, 3, 5, 8], "axes": [1, 2], "two": np.int64(2), "five": [0] * 5, "one": [0]},
        **{"apart": [1, 2, 2, 3, 2, 8], "joined": [6, 4, 8]},
    }
    model = make(nodes, {"x": ("float32", [1, 3, 5, 8])}, ["t"], constants)
    axes = Lineage(model, bind(model)).of("t")
    found = place([axes[0]], axes[1], model)
    assert found is not None
    plane = np.pad(np.arange(15).reshape(3, 5), ((0, 1), (0, 1)), constant_values=-1)
    assert found.grid == (3, 5)
    assert np.array_equal(found.cells, plane.reshape(2, 2, 3, 2).transpose(0, 2, 1, 3).reshape(6, 4))
    assert found.names == ()


def test_dropped_patches_leave_no_grid(make: Callable[..., Model]) -> None:
    nodes = [*PATCHES, cut("MatMul", "c w", "p"), cut("Gather", "p order", "t", axis=1)]
    assert tokens(make, nodes, PLANE, CUT | {"order": [0, 3, 7, 14]}) is None


def test_words_lie_on_no_grid(make: Callable[..., Model]) -> None:
    nodes = [cut("Gather", "table ids", "t", axis=0)]
    model = make(nodes, {"ids": ("int64", [1, 6])}, ["t"], {"table": np.zeros((9, 8), np.float32)})
    assert place([], Lineage(model, bind(model)).of("t")[1], model) is None


# Models of others


@pytest.mark.parametrize(
    ("name", "count", "heads", "error"),
    [
        ("vit_cifar10_pgd_2_3_16", 2, 3, 1e-5),
        ("minilm_l6_cutvocab_int8", 6, 12, 1e-5),  # int8 weights, the attention itself in float32
        ("minilm_l1_op23_fp16", 1, 12, 1e-2),  # half precision: 11 bits
    ],
)
def test_real_transformers_are_opened(real: Path, name: str, count: int, heads: int, error: float) -> None:
    model = read(real / "models" / f"{name}.onnx")
    rng = np.random.default_rng(0)
    if name.startswith("vit"):
        arrays: Arrays = {model.inputs[0].name: rng.random((2, 3, 32, 32)).astype(np.float32)}
        grid, length = (2, 2), 5
    else:
        ids = rng.integers(1, 300, (2, 9))
        arrays = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        grid, length = None, 9
    found = capture(model, batch(arrays))
    assert not found.refused
    assert len(found.maps) == count
    for one in found.maps:
        assert one.probabilities.shape == (2, heads, length, length)
        assert one.error < error
        assert one.grid == grid
        assert one.prefix_names == (("cls",) if grid else ())


def test_softmaxes_of_real_networks_that_dont_attend_are_left_alone(real: Path) -> None:
    for path in sorted((real / "models").glob("*.onnx")):
        if "vit" in path.stem or "minilm" in path.stem:
            continue
        model = read(path)
        assert find(model, bind(model)) == (), path.stem

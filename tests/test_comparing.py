"""Two models compared: what accumulates, what a layer errs by itself, and which layer is to blame."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks import planted_faults, siblings
from onnx_inspect.analysis.comparison import Comparison, Limits
from onnx_inspect.analysis.differences import Tolerance, difference
from onnx_inspect.comparing.closeups import closeups
from onnx_inspect.comparing.models import compare
from onnx_inspect.comparing.subjects import ModelSubject
from onnx_inspect.engine import Engine
from onnx_inspect.errors import InputError
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import read
from onnx_inspect.inputs.paired import paired
from onnx_inspect.inputs.read import read as read_batch

NONE = Limits()


def exact(model: Model) -> Engine:
    return Engine(model, exact=True)


def subjects(one: Path, other: Path, words: list[str], **more: Any) -> tuple[ModelSubject, ModelSubject, Any]:
    a, b = read(one), read(other)
    batch = read_batch(a.inputs, words, metadata=a.metadata)
    twin, names = paired(batch, a, b)
    return ModelSubject(a, batch, exact, **more), ModelSubject(b, twin, exact, **more), list(names.items())


def compared(one: Path, other: Path, words: list[str], limits: Limits = NONE, **more: Any) -> Comparison:
    a, b, given = subjects(one, other, words, **more)
    return compare(a, b, given, sources=a.batch.sources, limits=limits, make_engine=exact)


@pytest.fixture
def digits(fixtures: Path) -> list[str]:
    return [str(fixtures / "inputs" / f"digit_{n}.png") for n in (3, 5)]


@pytest.fixture
def scaled(fixtures: Path, tmp_path: Path) -> Path:
    """The digits network with the weight of its second convolution scaled by 1.2."""
    model = onnx.load(fixtures / "digits_convnet.onnx")
    conv = [n for n in model.graph.node if n.op_type == "Conv"][1]
    weight = next(t for t in model.graph.initializer if t.name == conv.input[1])
    weight.CopyFrom(numpy_helper.from_array(1.2 * numpy_helper.to_array(weight), weight.name))
    onnx.save(model, tmp_path / "scaled.onnx")
    return tmp_path / "scaled.onnx"


def test_identical_files_are_equal_throughout(fixtures: Path, digits: list[str]) -> None:
    found = compared(fixtures / "digits_convnet.onnx", fixtures / "digits_convnet.onnx", digits)
    assert found.identical and found.agree and found.culprit is None
    assert all(p.apart.equal and p.local is not None and p.local.equal for p in found.matched)
    assert not found.unmatched_a and not found.unmatched_b


def test_errors_accumulate_but_only_the_guilty_layer_has_its_own(
    fixtures: Path, scaled: Path, digits: list[str]
) -> None:
    found = compared(fixtures / "digits_convnet.onnx", scaled, digits)
    by_name = {p.a: p for p in found.matched}
    apart = [p.a for p in found.matched if not p.apart.equal]
    alone = [p.a for p in found.matched if p.local is not None and not p.local.equal]
    assert apart[0] == "conv2d_1" and apart[-1] == "logits"
    assert alone == ["conv2d_1"]
    # B's convolution is 1.2 times A's but for the bias: a fifth of what the weight adds
    a, _, _ = subjects(fixtures / "digits_convnet.onnx", scaled, digits)
    bias = next(
        numpy_helper.to_array(t)
        for t in onnx.load(scaled).graph.initializer
        if t.name.endswith("bias") and t.dims == [16]
    )
    values = np.concatenate([a.values(i, ["conv2d_1"])["conv2d_1"] for i in (0, 1)]).astype(np.float64)
    expected = 0.2 * (values - bias[:, None, None])
    noise = (expected**2).sum() / (values**2).sum()
    assert by_name["conv2d_1"].local is not None
    assert by_name["conv2d_1"].local.noise == pytest.approx(noise, rel=1e-4)  # float32 sums
    assert found.culprit is not None and found.culprit.a == "conv2d_1"
    assert "weight differs by 0.2" in found.culprit.why


def test_accumulated_errors_are_those_of_two_plain_runs(
    fixtures: Path, scaled: Path, digits: list[str], plainly: Callable[..., Any]
) -> None:
    found = compared(fixtures / "digits_convnet.onnx", scaled, digits)
    a, b, _ = subjects(fixtures / "digits_convnet.onnx", scaled, digits)
    runs = [plainly(path, s.batch.arrays)["logits"] for path, s in ((fixtures / "digits_convnet.onnx", a), (scaled, b))]
    expected = difference(*runs)
    last = next(p for p in found.matched if p.a == "logits")
    assert last.apart.sqnr_db == pytest.approx(expected.sqnr_db, abs=1e-3)
    assert found.outputs[0].difference.max_abs == pytest.approx(expected.max_abs, rel=1e-4)


def test_little_memory_gives_the_same_numbers(fixtures: Path, digits: list[str]) -> None:
    paths = fixtures / "shapes_resnet.onnx", fixtures / "int8_qdq.onnx"
    words = [str(fixtures / "inputs/shape_star.png")]
    whole, parts = (compared(*paths, words, budget=budget) for budget in (2**28, 2**17))
    assert [p.a for p in whole.matched] == [p.a for p in parts.matched]
    for one, other in zip(whole.matched, parts.matched, strict=True):
        assert one.apart.sqnr_db == other.apart.sqnr_db
        assert (one.local and one.local.sqnr_db) == (other.local and other.local.sqnr_db)


def test_a_relu_that_quantisation_dropped_is_no_error(fixtures: Path) -> None:
    """By names alone, `relu` of the int8 file is before the Relu: that shows an error that doesn't exist."""
    words = [str(fixtures / "inputs/shape_star.png")]
    a, b, given = subjects(fixtures / "shapes_resnet.onnx", fixtures / "int8_qdq.onnx", words)
    by_name = difference(a.values(0, ["relu"])["relu"], b.values(0, ["relu"])["relu"])
    assert by_name.sqnr_db is not None and by_name.sqnr_db < 6
    found = compare(a, b, given, sources=a.batch.sources, limits=Limits(), make_engine=exact)
    pair = next(p for p in found.matched if p.a == "relu")
    assert pair.b == "relu_DequantizeLinear_Output"
    assert pair.apart.sqnr_db is not None and pair.apart.sqnr_db > 30


def test_half_the_layers_of_a_channels_last_twin_are_turned_before_they_are_compared(
    fixtures: Path, tmp_path: Path, digits: list[str]
) -> None:
    siblings.channels_last(fixtures / "digits_convnet.onnx", tmp_path / "last.onnx", None)
    found = compared(fixtures / "digits_convnet.onnx", tmp_path / "last.onnx", digits)
    assert found.agree and not found.unmatched_a
    assert any(p.order for p in found.matched)
    for p in found.matched:
        assert p.apart.noise < 1e-10  # float32: convolutions may sum in another order
        assert p.local is not None and p.local.noise < 1e-10


def test_limits_name_the_first_layer_that_breaks_them(fixtures: Path, scaled: Path, digits: list[str]) -> None:
    paths = fixtures / "digits_convnet.onnx", scaled
    before = fixtures / "digits_convnet_epoch1.onnx", fixtures / "digits_convnet.onnx"
    assert "'node_conv2d' (conv2d)" in compared(*before, digits, Limits(min_cosine=0.99999)).offence
    assert "conv2d_1" in compared(*paths, digits, Limits(Tolerance(1e-3, 1e-3))).offence
    assert compared(*paths, digits, Limits(Tolerance(1e3))).agree
    assert compared(*paths, digits, Limits(max_flips=0)).agree
    assert "change their class" in compared(*before, ["random"] * 4, Limits(max_flips=0)).offence
    assert compared(*before, ["random"] * 4, Limits(max_flips=4)).agree


def test_numbers_that_are_not_finite_in_one_model_never_agree(
    fixtures: Path, tmp_path: Path, digits: list[str]
) -> None:
    model = onnx.load(fixtures / "digits_convnet.onnx")
    gemm = [n for n in model.graph.node if n.op_type == "Gemm"][-1]
    bias = next(t for t in model.graph.initializer if t.name == gemm.input[2])
    values = numpy_helper.to_array(bias).copy()
    values[7] = np.nan
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    onnx.save(model, tmp_path / "nan.onnx")
    for limits in (Limits(), Limits(Tolerance(1e9)), Limits(max_flips=10), Limits(min_cosine=-1)):
        found = compared(fixtures / "digits_convnet.onnx", tmp_path / "nan.onnx", digits, limits)
        assert not found.agree and "NaN" in found.offence
    assert found.culprit is not None and found.culprit.a == "logits"


def test_networks_that_share_nothing_are_refused(fixtures: Path, tmp_path: Path, make: Callable[..., Any]) -> None:
    node = onnx.helper.make_node
    model = make(
        [node("Sqrt", ["x"], ["y"]), node("ReduceSum", ["y"], ["z"], keepdims=0)],
        {"x": (np.float32, ["N", 3, 32, 32])},
        ["z"],
    )
    onnx.save(model.proto, tmp_path / "other.onnx")
    with pytest.raises(InputError, match="nothing of"):
        compared(fixtures / "digits_convnet.onnx", tmp_path / "other.onnx", ["random"])


FAULTS = [f for f in planted_faults.FAULTS if f != "activation badly quantised"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named_first(fixtures: Path, tmp_path: Path, digits: list[str], fault: str) -> None:
    garden = planted_faults.Garden(onnx.load(fixtures / "digits_convnet.onnx"), random.Random(1))
    plant = planted_faults.FAULTS[fault](garden)
    if plant is None:  # this network pads nothing
        garden = planted_faults.Garden(onnx.load(fixtures / "skip.onnx"), random.Random(1))
        plant = planted_faults.FAULTS[fault](garden)
        assert plant is not None
        source, words = fixtures / "skip.onnx", ["random", "random"]
    else:
        source, words = fixtures / "digits_convnet.onnx", digits
    onnx.save(plant.model, tmp_path / "planted.onnx")
    found = compared(source, tmp_path / "planted.onnx", words)
    assert found.culprit is not None
    assert found.culprit.a == plant.guilty, plant.what


def test_a_badly_quantised_activation_is_named_first(fixtures: Path, tmp_path: Path) -> None:
    words = [str(fixtures / "inputs" / f"shape_{n}.png") for n in ("star", "cross")]
    garden = planted_faults.Garden(onnx.load(fixtures / "int8_qdq.onnx"), random.Random(3))
    plant = planted_faults.range_wrong(garden)
    assert plant is not None
    onnx.save(plant.model, tmp_path / "planted.onnx")
    found = compared(fixtures / "shapes_resnet.onnx", tmp_path / "planted.onnx", words)
    assert found.culprit is not None
    assert found.culprit.b == plant.guilty.replace("QuantizeLinear", "DequantizeLinear")
    assert "8-bit steps" in found.culprit.why


def test_what_b_adds_is_named(fixtures: Path, tmp_path: Path, digits: list[str]) -> None:
    model = onnx.load(fixtures / "digits_convnet.onnx")
    nodes = list(model.graph.node)
    gemm = next(n for n in nodes if n.op_type == "Gemm" and n.output[0] != "logits")
    added = onnx.helper.make_node("Tanh", [gemm.output[0]], ["added"], "added_node")
    for other in nodes:
        other.input[:] = ["added" if n == gemm.output[0] else n for n in other.input]
    del model.graph.node[:]
    for one in nodes:
        model.graph.node.extend([one, added] if one is gemm else [one])
    onnx.save(model, tmp_path / "added.onnx")
    found = compared(fixtures / "digits_convnet.onnx", tmp_path / "added.onnx", digits)
    assert found.culprit is not None
    assert "B adds the Tanh" in found.culprit.why and found.culprit.b == "added"


def test_close_ups_show_the_worst_channels_of_both(fixtures: Path, scaled: Path, digits: list[str]) -> None:
    a, b, given = subjects(fixtures / "digits_convnet.onnx", scaled, digits)
    found = compare(a, b, given, sources=a.batch.sources, limits=Limits(), make_engine=exact)
    looks = closeups(found, a, b)
    assert looks[0].what == "culprit" and looks[0].a == "conv2d_1" and looks[0].kind == "maps"
    index = next(p.apart.worst[0] for p in found.matched if p.a == "conv2d_1")
    of_a, of_b = (s.values(index, ["conv2d_1"])["conv2d_1"][0].astype(np.float64) for s in (a, b))
    worst = np.abs(of_a - of_b).max(axis=(1, 2)).argsort()[::-1][:4]
    assert set(looks[0].numbers) == set(worst.tolist())
    np.testing.assert_array_equal(looks[0].of_b[0], of_b[looks[0].numbers[0]])
    same = compared(fixtures / "digits_convnet.onnx", fixtures / "digits_convnet.onnx", digits)
    assert closeups(same, a, a) == ()

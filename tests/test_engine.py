"""Any number of samples in, as many out, whatever the model fixes; what ran, and how, is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_inspect import engine as engines
from onnx_inspect.engine import Engine, available, measure
from onnx_inspect.errors import InputError, ModelError, ProviderError, RunError
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import read
from onnx_inspect.graph.surgery import expose

FIXTURES = Path(__file__).parents[1] / "fixtures"
NAMES = sorted(p.stem for p in FIXTURES.glob("*.onnx") if "epoch" not in p.stem)


def node(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


ROWS = {"x": ("float32", ["N", 4])}
X = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)


# How many samples, in what chunks


@pytest.mark.parametrize("name", NAMES)
def test_n_in_n_out_each_as_if_alone(name: str, some: Any, plainly: Any) -> None:
    model = read(FIXTURES / f"{name}.onnx")
    feeds = some(model, 5)
    for count in (1, 2, 3, 5):
        found = Engine(model, exact=True).run({n: a[:count] for n, a in feeds.items()})
        for i in range(count):
            alone = plainly(FIXTURES / f"{name}.onnx", {n: a[i : i + 1] for n, a in feeds.items()})
            for output, values in alone.items():
                np.testing.assert_allclose(
                    found[output][i : i + 1], values, rtol=1e-4, atol=2e-3 if name == "fp16" else 1e-5
                )
        assert all(len(values) == count for values in found.values())


@pytest.mark.parametrize("name", NAMES)
def test_results_do_not_depend_on_the_chunk(name: str, some: Any) -> None:
    model = read(FIXTURES / f"{name}.onnx")
    feeds = some(model, 7)
    whole = Engine(model).run(feeds)
    for chunk in (1, 2, 3, 7):
        found = Engine(model, max_chunk=chunk).run(feeds)
        for output, values in whole.items():
            np.testing.assert_allclose(found[output], values, rtol=1e-4, atol=5e-3 if name == "fp16" else 1e-5)


def counted(engine: Engine) -> list[int]:
    """Have an engine write down how many samples each of its runs holds."""
    seen: list[int] = []
    plain = engine._run

    def run(arrays: Any, names: Any, count: int, **more: Any) -> Any:
        seen.append(count)
        return plain(arrays, names, count, **more)

    engine._run = run  # type: ignore[method-assign]
    return seen


def test_samples_run_in_chunks_once_that_is_proved(make: Callable[..., Model]) -> None:
    engine = Engine(make([node("Relu", "x")], ROWS, ["y"]), max_chunk=3)
    seen = counted(engine)
    np.testing.assert_array_equal(engine.run({"x": X})["y"], np.maximum(X, 0))
    assert seen == [1, 1, 2, 3, 2]  # two alone and together, then the five left
    assert engine.passes == 9
    engine.run({"x": X})
    assert seen[5:] == [3, 3, 1]
    assert engine.batching == "in batches, as the model declares"


def test_a_budget_makes_chunks_smaller(make: Callable[..., Model]) -> None:
    model = make(
        [node("Expand", "x s", "a"), node("ReduceMean", "a axes")],
        {"x": ("float32", ["N", 1, 4])},
        ["y"],
        {"s": [1, 5000, 4], "axes": [1]},
    )
    x = np.random.default_rng(0).normal(size=(20, 1, 4)).astype(np.float32)
    small, large = Engine(model, budget=5 * (3 * 5000 * 4 + 4) * 4), Engine(model)
    seen = counted(small)
    np.testing.assert_allclose(small.run({"x": x})["y"], large.run({"x": x})["y"], rtol=1e-3)  # sums of 5000
    assert max(seen) == 5  # 3 of the largest tensors and the output for each sample


def test_a_budget_counts_axes_that_the_model_leaves_free(make: Callable[..., Model]) -> None:
    weight = {"w": np.zeros((64, 3, 3, 3), np.float32)}
    model = make(
        [node("Conv", "x w", "a"), node("GlobalMaxPool", "a")], {"x": ("float32", ["N", 3, "H", "W"])}, ["y"], weight
    )
    engine = Engine(model, budget=2**22)
    seen = counted(engine)
    engine.run({"x": np.random.default_rng(0).normal(size=(6, 3, 40, 40)).astype(np.float32)})
    assert max(seen) == 3  # one sample takes 64 * 38 * 38 * 4 bytes three times


def test_an_empty_batch_and_unequal_ones_are_refused(make: Callable[..., Model]) -> None:
    with pytest.raises(InputError, match="holds no sample"):
        Engine(make([node("Relu", "x")], ROWS, ["y"])).run({"x": X[:0]})


def test_samples_alike_prove_nothing(make: Callable[..., Model]) -> None:
    """With equal samples a model that mixes them looks as if it didn't; different ones must find it out later."""
    model = make([node("ReduceMean", "x axes", "m"), node("Add", "x m")], ROWS, ["y"], {"axes": [0]})
    engine = Engine(model)
    np.testing.assert_allclose(engine.run({"x": np.ones((5, 4))})["y"], np.full((5, 4), 2))
    np.testing.assert_allclose(engine.run({"x": X})["y"], 2 * X, rtol=1e-6)
    assert engine.batching == "one sample at a time: a batch of two changes 'y'"


def test_outputs_asked_for_later_are_proved_too(make: Callable[..., Model]) -> None:
    nodes = [node("Relu", "x", "plain"), node("ReduceMean", "x axes", "m"), node("Sub", "x m", "mixed")]
    engine = Engine(make(nodes, ROWS, ["plain", "mixed"], {"axes": [0]}))
    engine.run({"x": X}, ["plain"])
    assert engine.batching.startswith("in batches")
    np.testing.assert_array_equal(engine.run({"x": X}, ["mixed"])["mixed"], np.zeros_like(X))
    assert engine.batching.startswith("one sample at a time")


@pytest.mark.parametrize(
    "nodes",
    [
        [node("ReduceMean", "x axes", "m"), node("Sub", "x m")],
        [node("ReduceMax", "x axes", "m"), node("Div", "x m")],
        [node("DynamicQuantizeLinear", "x", "q s z"), node("DequantizeLinear", "q s z")],  # one scale for all samples
        [node("Softmax", "x", "y", axis=0)],
        [node("CumSum", "x zero")],
        [node("Transpose", "x", "t"), node("MatMul", "x t", "g"), node("ReduceSum", "g axes1")],
    ],
)
def test_models_that_mix_samples_run_one_by_one_and_say_so(
    make: Callable[..., Model], plainly: Any, nodes: list[onnx.NodeProto]
) -> None:
    model = make(nodes, ROWS, ["y"], {"axes": [0], "zero": np.int64(0), "axes1": [1]})
    engine = Engine(model)
    found = engine.run({"x": X})["y"]
    for i in range(len(X)):
        np.testing.assert_allclose(found[i], plainly(model, {"x": X[i : i + 1]})["y"][0], rtol=1e-5, atol=1e-6)
    assert engine.batching.startswith("one sample at a time: a batch of two changes 'y'")


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 9])
def test_a_batch_fixed_at_four_runs_in_blocks(make: Callable[..., Model], count: int) -> None:
    nodes = [node("Reshape", "x t", "a"), node("MatMul", "a w")]
    weight = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    model = make(nodes, {"x": ("float32", [4, 2, 2])}, ["y"], {"t": [4, 4], "w": weight})
    x = np.random.default_rng(count).normal(size=(count, 2, 2)).astype(np.float32)
    engine = Engine(model)
    np.testing.assert_allclose(engine.run({"x": x})["y"], x.reshape(count, 4) @ weight, rtol=1e-5, atol=1e-6)
    assert engine.batching == ("" if count == 4 else "in blocks of 4, at which the model's batch is fixed")


def test_a_block_whose_samples_mix_is_said(make: Callable[..., Model]) -> None:
    model = make(
        [node("ReduceMean", "x axes", "m"), node("Sub", "x m")], {"x": ("float32", [4, 2])}, ["y"], {"axes": [0]}
    )
    engine = Engine(model)
    engine.run({"x": X[:6, :2]})
    assert engine.batching.endswith("; a block's samples change each other's results")


def test_a_block_s_output_without_samples_is_refused(make: Callable[..., Model]) -> None:
    model = make([node("ReduceMean", "x", keepdims=0)], {"x": ("float32", [4, 2])}, ["y"])
    assert Engine(model).run({"x": X[:4, :2]})["y"] == pytest.approx(X[:4, :2].mean())
    with pytest.raises(RunError, match=r"output 'y' has shape \[\], no axis of which holds the 4 samples"):
        Engine(model).run({"x": X[:5, :2]})


def test_inputs_that_all_samples_share_come_once(make: Callable[..., Model]) -> None:
    inputs = ROWS | {"w": ("float32", [4, 2])}
    model = make([node("MatMul", "x w", "y"), node("Exp", "w", "only_w")], inputs, ["y", "only_w"])
    w = np.ones((4, 2), np.float32)
    found = Engine(model).run({"x": X, "w": w})
    np.testing.assert_allclose(found["y"], X @ w, rtol=1e-5)
    np.testing.assert_allclose(found["only_w"], np.exp(w), rtol=1e-6)  # once, not once for each sample


def test_shapes_are_those_of_one_sample_and_hold_nothing_up(make: Callable[..., Model]) -> None:
    engine = Engine(make([node("Relu", "x", "y"), node("Shape", "x", "shape")], ROWS, ["y", "shape"]), max_chunk=3)
    for count in (7, 7, 2, 1):
        assert engine.run({"x": X[:count]})["shape"].tolist() == [1, 4]
    assert engine.batching == "in batches, as the model declares"


# What comes out


def test_samples_on_another_axis_are_joined_there(fixtures: Path) -> None:
    model = read(fixtures / "lstm.onnx")
    engine = Engine(expose(model, ["states", "last"]))
    x = np.load(fixtures / "inputs" / "lstm.npy")
    found = engine.run({"input": x})
    assert found["states"].shape == (12, 2, 3, 8)  # (T, ways, N, H)
    assert engine.samples_first("states", found["states"], 3).shape == (3, 12, 2, 8)
    one = Engine(expose(model, ["states"])).run({"input": x[1:2]})["states"]
    np.testing.assert_allclose(found["states"][:, :, 1:2], one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_outputs_without_an_axis_of_samples_get_one(make: Callable[..., Model], count: int) -> None:
    nodes = [node("ReduceSum", "x", "sum", keepdims=0), node("Reshape", "x t", "folded"), node("Shape", "x", "shape")]
    model = make(nodes, {"x": ("float32", ["N", 6])}, ["sum", "folded", "shape"], {"t": [-1, 2]})
    x = np.random.default_rng(0).normal(size=(count, 6)).astype(np.float32)
    engine = Engine(model)
    found = {n: engine.samples_first(n, v, count) for n, v in engine.run({"x": x}).items()}
    np.testing.assert_allclose(found["sum"], x.sum(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(found["folded"], x.reshape(count, 3, 2))
    assert found["shape"].shape == (count, 2)


def test_samples_folded_into_an_axis_run_in_batches(make: Callable[..., Model]) -> None:
    """Windows, heads or tokens: (N * 3, 2)."""
    engine = Engine(make([node("Reshape", "x t")], {"x": ("float32", ["N", 6])}, ["y"], {"t": [-1, 2]}))
    x = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)
    np.testing.assert_array_equal(engine.run({"x": x})["y"], x.reshape(9, 3, 2))
    assert engine.batching.startswith("in batches")


def test_ragged_outputs_are_refused(make: Callable[..., Model]) -> None:
    engine = Engine(make([node("NonZero", "x")], ROWS, ["y"]))
    with pytest.raises(RunError, match=r"output 'y' has another shape for each sample .*run the inputs one by one"):
        engine.run({"x": np.array([[1, 0, 0, 1], [0, 0, 1, 0], [1, 1, 1, 1]])})


def test_sequences_are_stacked(make: Callable[..., Model]) -> None:
    model = make([node("SplitToSequence", "x", "y", axis=1)], ROWS, ["y"])
    assert Engine(model).run({"x": X[:1]})["y"].shape == (4, 1, 1)
    found = Engine(model).run({"x": X})["y"]
    np.testing.assert_array_equal(found[:, :, 0, 0], X)
    ragged = make([node("SplitToSequence", "x s", "y", axis=1)], ROWS, ["y"], {"s": [1, 3]})
    with pytest.raises(RunError, match="sequence of tensors of different shapes"):
        Engine(ragged).run({"x": X[:1]})


def test_an_optional_output_that_is_absent_is_said(make: Callable[..., Model]) -> None:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    model = make(
        [
            node("Optional", "", "y", type=helper.make_tensor_type_proto(TensorProto.FLOAT, None)),
            node("Relu", "x", "z"),
        ],
        ROWS,
        ["z"],
    )
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    proto.graph.output.append(onnx.ValueInfoProto(name="y", type=kind))
    from onnx_inspect.graph.read import parse

    optional = parse(proto.SerializeToString())
    assert set(Engine(optional).run({"x": X[:1]}, ["z"])) == {"z"}
    with pytest.raises(RunError, match="output 'y' is optional and this run gave none"):
        Engine(optional).run({"x": X[:1]})


def test_dictionaries_become_columns(real: Path) -> None:
    model = read(real / "models" / "iris_logreg_zipmap.onnx")
    x = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3], [5.9, 3.0, 4.2, 1.5]], np.float32)
    found = Engine(model).run({"input": x})
    assert found["output_probability"].shape == (3, 3)
    np.testing.assert_allclose(found["output_probability"].sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(found["output_probability"].argmax(axis=1), found["output_label"])


def test_only_what_is_asked_for_comes(make: Callable[..., Model]) -> None:
    model = make([node("Relu", "x", "a"), node("Neg", "a")], ROWS, ["a", "y"])
    assert list(Engine(model).run({"x": X}, ["y"])) == ["y"]
    with pytest.raises(RunError, match="Invalid output name:nothing"):
        Engine(model).run({"x": X}, ["nothing"])


# Sessions, seeds, modes


def test_sessions_are_made_once(make: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    plain = onnxruntime.InferenceSession

    def session(*words: Any, **more: Any) -> Any:
        made.append(words)
        return plain(*words, **more)

    monkeypatch.setattr(engines.ort, "InferenceSession", session)
    engine = Engine(make([node("Relu", "x")], ROWS, ["y"]))
    assert not made  # none before the first run
    for count in (1, 2, 5, 7):
        engine.run({"x": X[:count]})
        assert engine.provider == "CPUExecutionProvider"
    assert len(made) == 1
    fixed = Engine(read(FIXTURES / "fixed_batch.onnx"))
    for count in (1, 4, 4):
        fixed.run({"input": np.random.default_rng(0).normal(size=(count, 3, 12, 12))})
        assert fixed.provider == "CPUExecutionProvider"
    assert len(made) == 3  # as it is, and freed


def test_random_operators_give_the_same_in_every_engine(make: Callable[..., Model]) -> None:
    nodes = [node("RandomNormalLike", "x", "noise"), node("Add", "x noise", "a"), node("Dropout", "a half on", "y")]
    model = make(nodes, ROWS, ["y"], {"half": np.float32(0.5), "on": np.bool_(True)})
    first = Engine(model).run({"x": X[:1]})["y"]
    np.testing.assert_array_equal(Engine(model).run({"x": X[:1]})["y"], first)
    assert not np.array_equal(first, 2 * X[:1])


def test_exact_mode_keeps_every_node(fixtures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fused nodes change last digits; with none fused an exposed run equals the plain one."""
    levels = []
    plain = onnxruntime.InferenceSession

    def session(proto: Any, options: Any, **more: Any) -> Any:
        levels.append(options.graph_optimization_level)
        return plain(proto, options, **more)

    monkeypatch.setattr(engines.ort, "InferenceSession", session)
    model = read(fixtures / "gap.onnx")
    x = {"input": np.zeros((1, 3, 12, 20), np.float32)}
    Engine(model, exact=True).run(x)
    Engine(model).run(x)
    assert levels == [
        onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    ]


def test_progress_counts_the_samples(make: Callable[..., Model]) -> None:
    seen: list[tuple[int, int]] = []
    engine = Engine(
        make([node("Relu", "x")], ROWS, ["y"]), max_chunk=3, progress=lambda done, total: seen.append((done, total))
    )
    engine.run({"x": X})
    assert seen == sorted(seen)
    assert seen[-1] == (7, 7)


def test_shapes_are_measured_for_one_sample(fixtures: Path, some: Any) -> None:
    model = read(fixtures / "if_loop.onnx")
    found = measure(model, some(model, 1), ["loop_state", "relu", "input", "logits"])
    assert found == {"loop_state": (1, 4, 8, 10), "relu": (1, 4, 8, 10), "logits": (1, 4)}


# Providers


def test_a_missing_provider_is_an_error_with_the_remedy(make: Callable[..., Model]) -> None:
    model = make([node("Relu", "x")], ROWS, ["y"])
    if "CUDAExecutionProvider" in available():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(
        ProviderError, match=r"provider 'cuda' is not available: .*\[gpu\]; or pass --allow-fallback"
    ) as caught:
        Engine(model, providers=("cuda", "cpu"))
    assert caught.value.exit_code == 4
    with pytest.raises(
        ProviderError, match=r"provider 'abacus' is not available: this onnxruntime has: .*CPUExecutionProvider"
    ):
        Engine(model, providers=("abacus",))


def test_a_fallback_that_is_allowed_is_reported(make: Callable[..., Model]) -> None:
    model = make([node("Relu", "x")], ROWS, ["y"])
    if "CUDAExecutionProvider" in available():
        pytest.skip("this onnxruntime has CUDA")
    engine = Engine(model, providers=("cuda",), allow_fallback=True)
    np.testing.assert_array_equal(engine.run({"x": X})["y"], np.maximum(X, 0))
    assert engine.provider == "CPUExecutionProvider"


class Elsewhere:
    """A session that got another provider than it was asked for, as onnxruntime gives without an error."""

    def __init__(self, *words: Any, providers: list[str], **more: Any) -> None:
        self.providers = ["CPUExecutionProvider"]

    def get_providers(self) -> list[str]:
        return self.providers


def test_a_provider_that_does_not_start_is_never_silently_replaced(
    make: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "available", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(engines.ort, "InferenceSession", Elsewhere)
    model = make([node("Relu", "x")], ROWS, ["y"])
    with pytest.raises(ProviderError, match=r"CUDAExecutionProvider could not start .*\(onnxruntime chose CPU"):
        Engine(model, providers=("cuda",)).run({"x": X})
    assert Engine(model, providers=("cuda",), allow_fallback=True).provider == "CPUExecutionProvider"


def test_a_provider_that_fails_to_start_is_replaced_only_when_allowed(
    make: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = onnxruntime.InferenceSession

    def session(proto: Any, options: Any, *, providers: list[str], **more: Any) -> Any:
        if providers[0] == "CUDAExecutionProvider":
            raise RuntimeError("CUDA failure 35: driver too old")
        return plain(proto, options, providers=providers, **more)

    monkeypatch.setattr(engines, "available", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(engines.ort, "InferenceSession", session)
    model = make([node("Relu", "x")], ROWS, ["y"])
    with pytest.raises((ModelError, RunError), match="driver too old"):
        Engine(model, providers=("cuda", "cpu")).run({"x": X})
    engine = Engine(model, providers=("cuda", "cpu"), allow_fallback=True)
    np.testing.assert_array_equal(engine.run({"x": X})["y"], np.maximum(X, 0))
    assert engine.provider == "CPUExecutionProvider"


@pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(), reason="needs a GPU and onnxruntime-gpu"
)
def test_cuda_gives_what_the_cpu_gives(some: Any) -> None:
    for name in ("shapes_resnet", "digits_vit"):
        model = read(FIXTURES / f"{name}.onnx")
        feeds = some(model, 5)
        engine = Engine(model, providers=("cuda",))
        np.testing.assert_allclose(
            engine.run(feeds)["logits"], Engine(model).run(feeds)["logits"], rtol=1e-2, atol=1e-2
        )
        assert engine.provider.startswith("CUDAExecutionProvider")


# What the runtime refuses


def test_a_model_that_the_runtime_refuses_is_a_model_error_on_one_line(
    make: Callable[..., Model], capfd: pytest.CaptureFixture[str]
) -> None:
    model = make([node("NoSuchOperator", "x")], ROWS, ["y"])
    with pytest.raises(
        ModelError, match=r"made.onnx is not a model that onnxruntime accepts: .*NoSuchOperator"
    ) as caught:
        Engine(model).run({"x": X})
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None
    assert capfd.readouterr() == ("", "")  # nor does the runtime print a word


def test_an_operator_that_the_runtime_lacks_is_a_run_error(make: Callable[..., Model]) -> None:
    inputs = {"x": ("float64", ["N", 4, 4, 4])}
    model = make([node("LpPool", "x", "y", kernel_shape=[2, 2])], inputs, ["y"])
    with pytest.raises(RunError, match=r"onnxruntime can't run made.onnx: .*LpPool"):
        Engine(model).run({"x": np.zeros((1, 4, 4, 4))})


def test_a_failure_while_running_is_a_run_error_on_one_line(
    make: Callable[..., Model], capfd: pytest.CaptureFixture[str]
) -> None:
    model = make([node("Gather", "w x")], {"x": ("int64", ["N"])}, ["y"], {"w": np.zeros((3, 2), np.float32)})
    with pytest.raises(
        RunError, match=r"made.onnx failed while running: .*Gather.*indices element out of data bounds"
    ) as caught:
        Engine(model).run({"x": np.array([7])})
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4
    assert capfd.readouterr() == ("", "")


def test_an_input_size_that_the_network_can_not_take_is_a_run_error(real: Path) -> None:
    model = read(real / "models" / "silero_vad_16k_op15.onnx")
    feeds = {"input": np.zeros((1, 16)), "state": np.zeros((2, 1, 128)), "sr": 16000}
    with pytest.raises(RunError, match=r"failed while running: .*Pad"):
        Engine(model).run(feeds)


def test_external_weights_in_a_tail_are_found(fixtures: Path, some: Any) -> None:
    from onnx_inspect.graph.surgery import cut

    model = read(fixtures / "external.onnx")
    parts = cut(model, "pool")
    feeds = some(model, 3)
    middle = Engine(parts.head).run(feeds)
    np.testing.assert_allclose(
        Engine(parts.tail).run(middle)["logits"], Engine(model).run(feeds)["logits"], rtol=1e-5, atol=1e-6
    )
    assert isinstance(numpy_helper.to_array(model.constants["conv.weight"], str(model.folder)), np.ndarray)


@pytest.mark.parametrize("name", ["digits_convnet", "fixed_batch", "shapes_resnet"])
def test_settled_engines_give_the_same_bits_whatever_ran_before(
    name: str, fixtures: Path, some: Callable[..., Any]
) -> None:
    net = read(fixtures / f"{name}.onnx")
    feeds = some(net, 9)
    first = {key: array[:3] for key, array in feeds.items()}

    def settled() -> Engine:
        engine = Engine(net, threads=1)
        engine.settle(first)
        return engine

    whole, used = settled(), settled()
    used.run({key: array[::-1][:7] for key, array in feeds.items()})
    used.run({key: array[:1] for key, array in feeds.items()})
    expected = whole.run(feeds)
    for key, value in used.run(feeds).items():
        np.testing.assert_array_equal(value, expected[key])


def test_an_engine_that_could_not_settle_runs_samples_one_by_one(fixtures: Path, some: Callable[..., Any]) -> None:
    net = read(fixtures / "digits_convnet.onnx")
    feeds = some(net, 5)
    engine = Engine(net, threads=1)
    engine.settle({key: np.repeat(array[:1], 3, axis=0) for key, array in feeds.items()})  # alike: nothing is proven
    passes = engine.passes
    engine.run(feeds)
    assert engine.passes == passes + 5 and not engine.batching.startswith("in batches")

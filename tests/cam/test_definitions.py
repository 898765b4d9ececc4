"""Each method against a plain, slow loop written straight from its definition, with onnxruntime and numpy only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from onnx_inspect import methods as explain
from onnx_inspect.cam._budget import Budget
from onnx_inspect.cam.recipro_cam import window
from onnx_inspect.errors import InspectError
from onnx_inspect.graph.read import read
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.targets import ClassTarget

FIXTURES = Path(__file__).parents[2] / "fixtures"
CASES = [  # model, layer's tensor is found by name; (C, H, W)
    ("shapes_resnet", "Relu:-1", (3, 64, 64)),
    ("shapes_resnet", "Relu:3", (3, 64, 64)),  # in the middle: residual connections cross the cut
    ("digits_convnet", "MaxPool:-1", (3, 32, 32)),  # no pooling to one value: not a linear tail
    ("gap", "Relu:-1", (3, 12, 20)),  # neither square nor symmetric
]


def session(proto: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


class Plain:
    """The whole model, its layer's output, and the model with that tensor's readers reading a new input instead."""

    def __init__(self, name: str, layer: str) -> None:
        path = FIXTURES / f"{name}.onnx"
        tensor = read(path).layer(layer).output.name
        proto = onnx.load(path)
        self.input = proto.graph.input[0].name
        self.output = proto.graph.output[0].name
        opened = onnx.ModelProto()
        opened.CopyFrom(proto)
        opened.graph.output.append(onnx.ValueInfoProto(name=tensor))
        replaced = onnx.ModelProto()
        replaced.CopyFrom(proto)
        for node in replaced.graph.node:
            node.input[:] = ["replaced" if n == tensor else n for n in node.input]
        replaced.graph.input.append(onnx.helper.make_tensor_value_info("replaced", onnx.TensorProto.FLOAT, None))
        self.tensor = tensor
        self.whole, self.tail = session(opened), session(replaced)

    def scores(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        return self.whole.run([self.output], {self.input: x[None]})[0][0].astype(np.float64)

    def activation(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.whole.run([self.tensor], {self.input: x[None]})[0][0]

    def after(self, x: NDArray[np.float32], a: NDArray[np.float32]) -> NDArray[np.float64]:
        return self.tail.run([self.output], {self.input: x[None], "replaced": a[None]})[0][0].astype(np.float64)


def softmax(v: NDArray[np.float64]) -> NDArray[np.float64]:
    e = np.exp(v - v.max())
    return e / e.sum()


def upsample(a: NDArray[np.float32], height: int, width: int) -> NDArray[np.float64]:
    """Bilinear, half-pixel centres, edges repeated: one output pixel at a time."""
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * a.shape[0] / height - 0.5, 0), a.shape[0] - 1)
            x = min(max((j + 0.5) * a.shape[1] / width - 0.5, 0), a.shape[1] - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, a.shape[0] - 1), min(x0 + 1, a.shape[1] - 1)
            fy, fx = y - y0, x - x0
            top, bottom = a[y0, x0] * (1 - fx) + a[y0, x1] * fx, a[y1, x0] * (1 - fx) + a[y1, x1] * fx
            out[i, j] = top * (1 - fy) + bottom * fy
    return out


def slow_score_cam(plain: Plain, x: NDArray[np.float32], target: int) -> NDArray[np.float64]:
    a = plain.activation(x)
    baseline = plain.scores(np.zeros_like(x))[target]
    s = []
    for k in range(len(a)):
        mask = upsample(a[k], *x.shape[1:])
        mask = (mask - mask.min()) / (mask.max() - mask.min() + 1e-8)
        s.append(plain.scores((x * mask).astype(np.float32))[target] - baseline)
    return np.tensordot(softmax(np.array(s)), a, 1)


def slow_ablation_cam(plain: Plain, x: NDArray[np.float32], target: int) -> NDArray[np.float64]:
    a = plain.activation(x)
    y = plain.after(x, a)[target]
    total = np.zeros(a.shape[1:])
    for k in range(len(a)):
        without = a.copy()
        without[k] = 0
        total += (y - plain.after(x, without)[target]) / abs(y) * a[k]
    return total


def slow_recipro_cam(plain: Plain, x: NDArray[np.float32], target: int) -> NDArray[np.float64]:
    a = plain.activation(x)
    out = np.zeros(a.shape[1:])
    for i in range(a.shape[1]):
        for j in range(a.shape[2]):
            alone = np.zeros_like(a)
            alone[:, i, j] = a[:, i, j]
            out[i, j] = softmax(plain.after(x, alone))[target]
    return out


def slow_windowed_recipro_cam(plain: Plain, x: NDArray[np.float32], target: int) -> NDArray[np.float64]:
    a = plain.activation(x)
    out = np.zeros(a.shape[1:])
    for i in range(a.shape[1]):
        for j in range(a.shape[2]):
            alone = np.zeros_like(a)
            for k in range(max(i - 1, 0), min(i + 2, a.shape[1])):
                for m in range(max(j - 1, 0), min(j + 2, a.shape[2])):
                    alone[:, k, m] = a[:, k, m] / 2 ** (abs(i - k) + abs(j - m))
            out[i, j] = plain.after(x, alone)[target]
    return out


def slow_eigen_cam(plain: Plain, x: NDArray[np.float32], target: int) -> NDArray[np.float64]:
    a = plain.activation(x).astype(np.float64)
    v = np.linalg.svd(a.reshape(len(a), -1).T, full_matrices=False)[2][0]
    out = np.tensordot(v, a, 1)
    return out if np.corrcoef(out.ravel(), a.mean(axis=0).ravel())[0, 1] >= 0 else -out


PAPER = {"window": "1", "score": "probability"}
SLOW = {
    "score-cam": slow_score_cam,
    "ablation-cam": slow_ablation_cam,
    "recipro-cam": slow_windowed_recipro_cam,
    "recipro-cam, paper": slow_recipro_cam,
    "eigen-cam": slow_eigen_cam,
}


def batch_of(arrays: NDArray[np.float32], name: str) -> Batch:
    n = len(arrays)
    return Batch({name: arrays}, name, tuple(map(str, range(n))), (None,) * n, (None,) * n, None, None, ())


def cosine(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    u, v = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(u @ v / (np.linalg.norm(u) * np.linalg.norm(v)))


@pytest.mark.parametrize("method", SLOW)
@pytest.mark.parametrize(("name", "layer", "shape"), CASES)
def test_method_equals_its_definition(method: str, name: str, layer: str, shape: tuple[int, int, int]) -> None:
    if method == "score-cam" and layer == "Relu:3":
        pytest.skip("score-cam runs no tail: the cut's place changes nothing but the number of passes")
    plain, net = Plain(name, layer), read(FIXTURES / f"{name}.onnx")
    x = np.random.default_rng(3).uniform(-1, 1, (2, *shape)).astype(np.float32)
    view = explain.scene(net, batch_of(x, net.inputs[0].name), layer=layer, target=ClassTarget(1))
    kind, _, paper = method.partition(", ")
    found = explain.attribute(view, kind, PAPER if paper else {}).values
    for n in range(2):
        expected = SLOW[method](plain, x[n], 1)
        assert found[n].shape == expected.shape
        assert cosine(found[n], expected) > 0.9999
        # Not the direction alone: float32 sums of at most a few thousand terms agree to 1e-3 of the range.
        np.testing.assert_allclose(found[n], expected, atol=1e-3 * max(np.ptp(expected), 1e-6))


def test_cam_plus_bias_averages_to_the_score() -> None:
    """The closed form of CAM: the mean of the map is the class's score less the bias (which is 0 here)."""
    net = read(FIXTURES / "gap.onnx")
    x = np.random.default_rng(4).uniform(-1, 1, (3, 3, 12, 20)).astype(np.float32)
    view = explain.scene(net, batch_of(x, net.inputs[0].name), target=ClassTarget(2))
    found = explain.attribute(view, "cam").values
    np.testing.assert_allclose(found.mean(axis=(1, 2)), view.base[:, 2], rtol=1e-4, atol=1e-5)


def test_recipro_cam_of_logits_is_cam_over_positions() -> None:
    """Recipro-CAM times the number of positions is CAM on pooling and a linear layer without bias."""
    net = read(FIXTURES / "gap.onnx")
    x = np.random.default_rng(5).uniform(-1, 1, (2, 3, 12, 20)).astype(np.float32)
    view = explain.scene(net, batch_of(x, net.inputs[0].name), target=ClassTarget(0))
    cam = explain.attribute(view, "cam").values
    alone = explain.attribute(view, "recipro-cam", PAPER | {"score": "logit"}).values
    np.testing.assert_allclose(alone * cam[0].size, cam, rtol=1e-3, atol=1e-4)


def test_ablation_cam_of_a_linear_tail_equals_its_tail_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The closed form w_k mean(A_k) stands for the K tail runs that a tail of another kind needs."""
    net = read(FIXTURES / "shapes_resnet.onnx")
    x = np.random.default_rng(6).uniform(-1, 1, (2, 3, 64, 64)).astype(np.float32)
    view = explain.scene(net, batch_of(x, net.inputs[0].name), layer="Relu:-1")
    assert view.base.shape == (2, 6)  # the inputs' own scores are no cost of the method
    closed = explain.attribute(view, "ablation-cam")
    monkeypatch.setattr("onnx_inspect.cam._probe.Probe.linear_weights", lambda self: None)
    run = explain.attribute(view, "ablation-cam")
    assert closed.tail_passes == 0
    assert run.tail_passes >= 2 * view.captured[view.layer.output.name].shape[1]
    np.testing.assert_allclose(closed.values, run.values, atol=1e-5 * np.abs(run.values).max())


@pytest.mark.parametrize(
    "params", [{}, {"score": "probability"}, {"gaussian": "true"}, PAPER, {"window": "5"}, PAPER | {"gaussian": "true"}]
)
def test_recipro_cam_of_a_linear_tail_equals_its_tail_runs(
    monkeypatch: pytest.MonkeyPatch, params: dict[str, str]
) -> None:
    """Scores of channel means stand for the h * w tail runs that a tail of another kind needs."""
    net = read(FIXTURES / "gap.onnx")
    x = np.random.default_rng(6).uniform(-1, 1, (3, 3, 12, 20)).astype(np.float32)
    view = explain.scene(net, batch_of(x, net.inputs[0].name))
    closed = explain.attribute(view, "recipro-cam", params)
    monkeypatch.setattr("onnx_inspect.cam._probe.Probe.pooled_scores", lambda self, pooled, of, probability: None)
    monkeypatch.setattr("onnx_inspect.cam._probe.Probe.linear_weights", lambda self: None)
    run = explain.attribute(view, "recipro-cam", params)
    assert closed.tail_passes == 0
    assert run.tail_passes >= 3 * view.form.cells
    np.testing.assert_allclose(closed.values, run.values, atol=1e-5 * np.abs(run.values).max())  # float32's rounding


def test_recipro_cams_window_keeps_its_middle_whole_and_evenly_less_beside() -> None:
    np.testing.assert_array_equal(window(4, 1), np.eye(4))
    assert window(4, 3).tolist() == [[1, 0.5, 0, 0], [0.5, 1, 0.5, 0], [0, 0.5, 1, 0.5], [0, 0, 0.5, 1]]
    np.testing.assert_allclose(window(7, 5)[3], [0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3, 0], rtol=1e-6)
    assert window(1, 3).tolist() == [[1]]


def test_recipro_cam_runs_a_tail_that_is_not_linear() -> None:
    net = read(FIXTURES / "digits_convnet.onnx")
    x = np.random.default_rng(6).uniform(-1, 1, (1, 3, 32, 32)).astype(np.float32)
    view = explain.scene(net, batch_of(x, net.inputs[0].name))
    assert explain.attribute(view, "recipro-cam").tail_passes >= view.form.cells


def test_the_whole_model_and_the_head_share_one_engine_unless_tensors_cross_the_cut() -> None:
    """Weights are held once, and what the inputs themselves cost is not counted as the method's."""
    net = read(FIXTURES / "shapes_resnet.onnx")
    x = np.random.default_rng(6).uniform(-1, 1, (2, 3, 64, 64)).astype(np.float32)
    last = explain.scene(net, batch_of(x, net.inputs[0].name), layer="Relu:-1")
    found = explain.attribute(last, "occlusion")
    assert last.whole is last.head
    assert found.passes - 2 in range(2 * 81, 2 * 81 + 4)  # 81 windows, two inputs; a proof may take a few
    crossed = explain.scene(net, batch_of(x, net.inputs[0].name), layer="Conv:-2")
    assert crossed.sections.split.crossing
    assert crossed.whole is not crossed.head


def test_cam_is_refused_where_the_tail_is_not_linear() -> None:
    net = read(FIXTURES / "digits_convnet.onnx")
    x = np.zeros((1, 3, 32, 32), np.float32)
    view = explain.scene(net, batch_of(x, net.inputs[0].name))
    with pytest.raises(InspectError, match="Gemm"):
        explain.attribute(view, "cam")


def test_cutting_out_the_head_changes_nothing_but_the_passes() -> None:
    """Three inputs at once give what each gives alone."""
    net = read(FIXTURES / "digits_convnet.onnx")
    x = np.random.default_rng(7).uniform(-1, 1, (3, 3, 32, 32)).astype(np.float32)
    name = net.inputs[0].name
    for method in ("ablation-cam", "recipro-cam", "score-cam", "eigen-cam"):
        together = explain.attribute(explain.scene(net, batch_of(x, name)), method).values
        alone = [explain.attribute(explain.scene(net, batch_of(x[i : i + 1], name)), method).values for i in range(3)]
        np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-3, atol=1e-5)


def test_score_cam_under_a_budget_estimates_the_whole() -> None:
    """A sixth of the passes comes near the full map, and says that it is an estimate."""
    net = read(FIXTURES / "shapes_resnet.onnx")
    x = np.random.default_rng(8).uniform(-1, 1, (2, 3, 64, 64)).astype(np.float32)
    view = explain.scene(net, batch_of(x, net.inputs[0].name))
    full = explain.attribute(view, "score-cam")
    few = explain.attribute(view, "score-cam", budget=Budget(passes=8))
    assert full.estimate is None
    assert few.estimate is not None
    assert few.estimate.passes == (8, 8)
    assert min(few.estimate.whole) > 40  # 48 channels: the constant ones share a mask
    assert few.passes < full.passes / 4
    assert min(cosine(few.values[n], full.values[n]) for n in range(2)) > 0.95

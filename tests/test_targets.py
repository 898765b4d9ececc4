"""Whether each kind of target reads the number that it says, for each input, and refuses what a model doesn't have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from onnx_inspect.errors import TargetError
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import read
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.inputs.placement import place
from onnx_inspect.methods import attribute, explain_all, scene
from onnx_inspect.targets import BoxTarget, ClassTarget, EveryClass, Target, parse
from onnx_inspect.targets._plane import overlap
from onnx_inspect.targets.decoders import find

FIXTURES = Path(__file__).parents[1] / "fixtures"
LABELS = ("cat, house cat", "dog", "grey fox", "red fox")
RNG = np.random.default_rng(11)


def batch_of(array: NDArray[Any], name: str, original: tuple[int, int] | None = None) -> Batch:
    n = len(array)
    placement = place(original, (array.shape[2], array.shape[3]), "stretch") if original is not None else None
    return Batch({name: array}, name, tuple(map(str, range(n))), (None,) * n, (placement,) * n, None, LABELS, ())


def saved(
    folder: Path, nodes: Sequence[Any], x: Sequence[int], outputs: dict[str, Sequence[Any]], **weights: Any
) -> Model:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x))],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(shape)) for n, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in weights.items()],
    )
    path = folder / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return read(path)


def gap() -> tuple[Model, Batch]:
    net = read(FIXTURES / "gap.onnx")
    return net, batch_of(RNG.uniform(-1, 1, (3, 3, 12, 20)).astype(np.float32), net.inputs[0].name)


# Words


@pytest.mark.parametrize(
    ("text", "index"), [("1", 1), ("dog", 1), ("DOG", 1), ("house cat", 0), ("grey", 2), ("category:red fox", 3)]
)
def test_a_class_is_found_by_index_label_synonym_or_part(text: str, index: int) -> None:
    (target,) = parse(text, LABELS)
    assert isinstance(target, ClassTarget)
    assert target.index == index


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fox", "fits 2 classes"),
        ("dogg", "closest: 'dog'"),
        ("9", "class 9 doesn't exist"),
        ("top-0", "top-0 names no class"),
        ("", "empty target"),
        ("box:1,2,3", "needs x0,y0,x1,y1"),
        ("box:5,5,5,9", "has no area"),
        ("output:y[a]", "is no index"),
        ("similar:layer@", "needs a second picture"),
        ("dog~dog", "from itself"),
        ("regression:3", "takes nothing"),
    ],
)
def test_what_is_no_target_is_refused_with_a_reason(text: str, says: str) -> None:
    with pytest.raises(TargetError, match=says):
        parse(text, LABELS)


@pytest.mark.parametrize(
    "text",
    [
        "dog",
        "3",
        "all",
        "cat~dog, red fox",
        "output:y[0,3]",
        "regression",
        "box:1,2,3,4@dog",
        "box:best",
        "segment:dog",
        "region:0,0,5,5",
        "similar:@a.png",
        "similar:layer@a.png",
    ],
)
def test_a_target_says_itself_as_it_was_said(text: str) -> None:
    (target,) = parse(text, LABELS)
    assert target.describe() == text
    assert parse(target.describe(), LABELS) == (target,)


def test_a_label_that_looks_like_another_kind_is_still_a_label() -> None:
    (target,) = parse("box: red", ("tree", "box: red", "a~b"))
    assert isinstance(target, ClassTarget)
    assert target.index == 1
    assert parse("a~b", ("tree", "a~b"))[0] == ClassTarget(1, name="a~b")


# Classes


def test_ranks_are_each_inputs_own_order_of_classes() -> None:
    net, batch = gap()
    order = np.argsort(-scene(net, batch).base, axis=1)
    for rank, target in enumerate(parse("top-3")):
        assert scene(net, batch, target=target).fixed.classes.tolist() == order[:, rank].tolist()


def test_all_classes_get_the_maps_that_each_gets_alone_and_share_their_runs() -> None:
    net, batch = gap()
    together, _ = explain_all(net, batch, methods=["recipro-cam"], layers=["conv_node"], targets=[EveryClass()])
    assert len(together) == scene(net, batch).base.shape[1]
    for index, (_, found) in enumerate(together):
        alone = attribute(scene(net, batch, layer="conv_node", target=ClassTarget(index)), "recipro-cam")
        np.testing.assert_allclose(found.values, alone.values, rtol=1e-6)
        assert (found.tail_passes == 0) == (index > 0)


def test_a_contrast_is_the_score_less_a_share_of_the_others_mean() -> None:
    net, batch = gap()
    base = scene(net, batch).base
    view = scene(net, batch, target=parse("0~1,2", None, gamma=0.6)[0])
    np.testing.assert_allclose(view.base[:, 0], base[:, 0] - 0.6 * base[:, 1:3].mean(axis=1), rtol=1e-6, atol=1e-7)
    cams = [attribute(scene(net, batch, target=ClassTarget(c)), "cam").values for c in range(3)]
    np.testing.assert_allclose(attribute(view, "cam").values, cams[0] - 0.3 * (cams[1] + cams[2]), atol=1e-5)


def test_a_contrast_without_others_takes_those_with_the_nearest_scores() -> None:
    net, batch = gap()
    base = scene(net, batch).base
    fixed = scene(net, batch, target=parse("1~")[0]).fixed
    assert fixed.mix is not None
    for row, scores in zip(fixed.mix, base, strict=True):
        distance = np.abs(scores - scores[1])
        chosen = np.flatnonzero(row < 0)
        assert distance[chosen].max() <= np.delete(distance, [1, *chosen]).min(initial=np.inf)


def test_a_single_sigmoid_score_becomes_a_probability_and_a_single_number_stays_as_it_is(tmp_path: Path) -> None:
    x = RNG.normal(size=(2, 2, 4, 6)).astype(np.float32)
    weight = RNG.normal(size=(1, 2)).astype(np.float32)
    pooled = [
        helper.make_node("MaxPool", ["x"], ["a"], kernel_shape=[1, 1]),
        helper.make_node("GlobalAveragePool", ["a"], ["p"]),
    ]
    flat = [*pooled, helper.make_node("Flatten", ["p"], ["f"]), helper.make_node("Gemm", ["f", "w"], ["y"], transB=1)]
    expected = x.mean(axis=(2, 3)) @ weight.T
    plain = saved(tmp_path, flat, ["n", 2, 4, 6], {"y": ["n", 1]}, w=weight)
    view = scene(plain, batch_of(x, "x"), layer="MaxPool:0")
    np.testing.assert_allclose(view.target_scores, expected[:, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        scene(plain, batch_of(x, "x"), target=parse("regression")[0]).base, expected, rtol=1e-5, atol=1e-6
    )
    squashed = saved(
        tmp_path, [*flat, helper.make_node("Sigmoid", ["y"], ["z"])], ["n", 2, 4, 6], {"z": ["n", 1]}, w=weight
    )
    view = scene(squashed, batch_of(x, "x"), layer="MaxPool:0")
    np.testing.assert_allclose(view.target_scores, 1 / (1 + np.exp(-expected[:, 0])), rtol=1e-5)


# Raw outputs


@pytest.mark.parametrize(
    ("place", "index"), [("2", np.s_[:, 2]), ("1:3", np.s_[:, 1:3]), ("...", np.s_[:]), ("-1", np.s_[:, -1])]
)
def test_an_output_target_sums_the_elements_that_numpy_would_take(place: str, index: Any) -> None:
    net, batch = gap()
    name = net.outputs[0].name
    view = scene(net, batch, target=parse(f"output:{name}[{place}]")[0])
    expected = view.outputs[name][index].reshape(batch.n, -1).sum(axis=1)
    np.testing.assert_allclose(view.base[:, 0], expected, rtol=1e-6)


def test_an_element_of_a_layer_in_the_middle_is_a_target_too() -> None:
    net, batch = gap()
    layer = net.layer("Conv:-1")
    view = scene(net, batch, target=parse(f"output:{layer.name}[1,2,3]")[0])
    assert view.base.shape == (3, 1)
    with pytest.raises(TargetError, match="no element"):
        _ = scene(net, batch, target=parse(f"output:{layer.name}[1,2,300]")[0]).fixed


# Boxes


def test_overlap_is_intersection_over_union() -> None:
    boxes = np.array([[[0, 0, 1, 1], [0.5, 0, 1.5, 1], [2, 2, 3, 3], [0.25, 0.25, 0.75, 0.75], [1, 1, 0, 0]]], float)
    np.testing.assert_allclose(overlap(np.array([[0, 0, 1, 1]], float), boxes), [[1, 1 / 3, 0, 0.25, 0]])


SIZE = (64, 96)  # of the input's plane
WANTED = np.array([0.25, 0.125, 0.5, 0.5])  # corners of the box that every family below proposes
CELLS = 8 * 12 + 4 * 6 + 2 * 3


def yolo_v5() -> dict[str, NDArray[Any]]:
    values = np.zeros((1, 3 * CELLS, 5 + 3))
    values[0, 17] = [36, 20, 24, 24, 0.5, 0, 0.8, 0]
    return {"out": values}


def yolo_v8() -> dict[str, NDArray[Any]]:
    values = np.zeros((1, 4 + 3, CELLS))
    values[0, :, 17] = [36, 20, 24, 24, 0, 0.4, 0]
    return {"out": values}


def ssd() -> dict[str, NDArray[Any]]:
    scores = np.tile([1.0, 0, 0], (1, 1200, 1))
    boxes = np.zeros((1, 1200, 4))
    scores[0, 17], boxes[0, 17] = [0.6, 0.4, 0], WANTED
    return {"s": scores, "b": boxes}


def detr() -> dict[str, NDArray[Any]]:
    logits = np.tile([-9.0, -9, 9], (1, 100, 1))
    boxes = np.zeros((1, 100, 4))
    logits[0, 17], boxes[0, 17] = np.log([1e-9, 0.4, 0.6]), [0.375, 0.3125, 0.25, 0.375]
    return {"pred_logits": logits, "pred_boxes": boxes}


def nanodet() -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    for stride in (8, 16, 32):
        n = (SIZE[0] // stride) * (SIZE[1] // stride)
        scores, bins = np.zeros((1, n, 3)), np.full((1, n, 4, 8), -50.0)
        if stride == 8:  # cell (2, 4): its centre lies at 35.5, 19.5
            scores[0, 2 * 12 + 4, 1] = 0.4
            for side, distance in enumerate(np.array([35.5 - 24, 19.5 - 8, 48 - 35.5, 32 - 19.5]) / 8):
                low = int(distance)
                with np.errstate(divide="ignore"):
                    bins[0, 2 * 12 + 4, side, low : low + 2] = np.log([low + 1 - distance, distance - low])
        found |= {f"c{stride}": scores, f"d{stride}": bins.reshape(1, n, 32)}
    return found


def yunet() -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    for stride in (8, 16, 32):
        n = (SIZE[0] // stride) * (SIZE[1] // stride)
        classes, objects, boxes = np.zeros((1, n, 1)), np.zeros((1, n, 1)), np.zeros((1, n, 4))
        if stride == 8:
            classes[0, 2 * 12 + 4], objects[0, 2 * 12 + 4] = 0.8, 0.2
            boxes[0, 2 * 12 + 4] = [0.5, 0.5, np.log(3), np.log(3)]
        found |= {f"cls_{stride}": classes, f"obj_{stride}": objects, f"bbox_{stride}": boxes}
    return found


@pytest.mark.parametrize(
    ("family", "column", "outputs"),
    [
        ("yolo", 1, yolo_v5()),
        ("yolo", 1, yolo_v8()),
        ("ssd", 1, ssd()),
        ("detr", 1, detr()),
        ("nanodet", 1, nanodet()),
        ("yunet", 0, yunet()),
    ],
    ids=["yolo v5", "yolo v8", "ssd", "detr", "nanodet", "yunet"],
)
def test_each_family_of_detectors_is_recognised_and_its_box_found(
    family: str, column: int, outputs: dict[str, NDArray[Any]]
) -> None:
    """One proposal of score 0.4 at a known box, written in each family's own form; all others score next to nothing."""
    layout = find({n: a.shape for n, a in outputs.items()}, SIZE)
    assert layout.family == family
    found = layout.decode([outputs[n] for n in layout.tensors], SIZE)
    best = np.unravel_index(int(found.scores.argmax()), found.scores.shape)
    assert best[2] == column
    np.testing.assert_allclose(found.scores[best], 0.4, rtol=1e-4)
    np.testing.assert_allclose(found.boxes[0, best[1]], WANTED, atol=1e-5)


def test_detectors_that_say_whether_there_is_anything_are_heard() -> None:
    """Objectness: an output of its own, or what the background leaves; none where only classes are scored."""
    for outputs, expected in [
        (yolo_v5(), yolo_v5()["out"][0, :, 4].max()),
        (yolo_v8(), None),
        (ssd(), 0.4),
        (detr(), 0.4),
        (nanodet(), None),
        (yunet(), 0.2),
    ]:
        layout = find({n: a.shape for n, a in outputs.items()}, SIZE)
        objects = layout.decode([outputs[n] for n in layout.tensors], SIZE).objects
        assert (None if objects is None else pytest.approx(objects.max(), rel=1e-3)) == expected


def test_outputs_that_are_no_boxes_are_not_taken_for_boxes() -> None:
    for shape in [(1, 1000), (1, 50, 384), (1, 21, 64, 64), (1, 8, 3)]:
        with pytest.raises(TargetError, match="--decoder"):
            find({"out": shape}, SIZE)
    with pytest.raises(TargetError, match="unknown decoder 'rcnn'; there are: detr, nanodet"):
        find({"out": (1, 8, 3)}, SIZE, "rcnn")
    assert find({"out": (1, 40, 85)}, SIZE, "yolo").tensors == ("out",)  # asked for: the number of boxes is not checked


def detector(folder: Path) -> tuple[Model, Batch]:
    """Each of 12 cells of a 3x4 grid proposes its own square; scores are the two channels there, cell by cell."""
    y, x = np.divmod(np.arange(12), 4)
    corners = np.stack([x / 4, y / 3, (x + 1) / 4, (y + 1) / 3], axis=1).astype(np.float32)
    boxes = np.tile(corners, (100, 1))[None]  # 1200 proposals, as many as the family needs
    nodes = [
        helper.make_node("MaxPool", ["x"], ["a"], kernel_shape=[1, 1]),
        helper.make_node("AveragePool", ["a"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),  # (N, 2, 3, 4)
        helper.make_node("Reshape", ["p", "flat"], ["f"]),
        helper.make_node("Transpose", ["f"], ["t"], perm=[0, 2, 1]),  # (N, 12, 2)
        helper.make_node("Tile", ["t", "times"], ["many"]),
        helper.make_node("Sub", ["one", "many"], ["rest"]),
        helper.make_node("ReduceMin", ["rest"], ["background"], axes=[2], keepdims=1),
        helper.make_node("Concat", ["background", "many"], ["scores"], axis=2),
        helper.make_node("Mul", ["many", "zero"], ["nothing"]),
        helper.make_node("Concat", ["nothing", "nothing"], ["still"], axis=2),
        helper.make_node("Add", ["still", "corners"], ["boxes"]),
    ]
    weights = {"flat": np.array([0, 2, 12]), "times": np.array([1, 100, 1]), "one": np.float32([1]), "corners": boxes}
    out = {"scores": ["n", 1200, 3], "boxes": ["n", 1200, 4]}
    net = saved(folder, nodes, ["n", 2, 6, 8], out, zero=np.float32([0]), **weights)
    x = np.zeros((2, 2, 6, 8), np.float32)
    x[0, 1, 2:4, 4:6] = 0.9  # class 2 in the square of row 1, column 2
    x[1, 0, 4:6, 0:2] = 0.7  # class 1 in the square of row 2, column 0
    return net, batch_of(x, "x", (60, 80))


def test_without_a_target_a_detectors_best_box_is_explained_and_said(tmp_path: Path) -> None:
    net, batch = detector(tmp_path)
    view = scene(net, batch, layer="MaxPool:0")
    np.testing.assert_allclose(view.base[:, 0], [0.9, 0.7], rtol=1e-5)
    assert view.fixed.boxes == (
        (0.5, pytest.approx(1 / 3), 0.75, pytest.approx(2 / 3)),
        (0, pytest.approx(2 / 3), 0.25, 1),
    )
    assert view.fixed.words == ("grey fox in box 40,20,60,40", "dog in box 0,40,20,60")
    assert "best box" in view.fixed.notes[0]
    assert "read as ssd" in view.fixed.notes[0]


def test_a_boxs_score_is_overlap_times_the_classs_score_in_the_pictures_pixels(tmp_path: Path) -> None:
    net, batch = detector(tmp_path)
    view = scene(net, batch, layer="MaxPool:0", target=BoxTarget((40, 20, 70, 40), 2))
    np.testing.assert_allclose(view.base[:, 0], [0.9 * 2 / 3, 0], atol=1e-6)  # half of the neighbour: 2/3 of the union
    own = scene(net, batch, layer="MaxPool:0", target=parse("box:40,20,60,40", LABELS)[0])
    assert own.fixed.words[0].startswith("grey fox in box")  # the class that matches best there


def test_only_the_explained_box_is_evidence(tmp_path: Path) -> None:
    net, batch = detector(tmp_path)
    found = attribute(scene(net, batch, layer="MaxPool:0"), "occlusion", {"window": "2", "stride": "2"}).values
    for n, (rows, columns) in enumerate([(slice(2, 4), slice(4, 6)), (slice(4, 6), slice(0, 2))]):
        inside = np.zeros((6, 8), bool)
        inside[rows, columns] = True
        assert found[n][inside].min() > 0.5
        assert np.abs(found[n][~inside]).max() < 1e-6


def test_a_box_that_no_model_can_have_is_refused(tmp_path: Path) -> None:
    net, batch = detector(tmp_path)
    with pytest.raises(TargetError, match="outside what the network sees"):
        _ = scene(net, batch, target=parse("box:100,0,120,20")[0]).fixed
    with pytest.raises(TargetError, match="class 7 doesn't exist"):
        _ = scene(net, batch, target=BoxTarget((0, 0, 9, 9), 7)).fixed
    with pytest.raises(TargetError, match="no boxes can be read"):
        scene(*gap(), target=BoxTarget())


# Segments


def segmenter(folder: Path, last: str) -> tuple[Model, Batch]:
    """The three channels are the classes' scores; `last` closes the network."""
    closing = {
        "ArgMax": [
            helper.make_node("ArgMax", ["a"], ["i"], axis=1, keepdims=0),
            helper.make_node("Cast", ["i"], ["y"], to=1),
        ],
        "Softmax": [helper.make_node("Softmax", ["a"], ["y"], axis=1)],
        "nothing": [helper.make_node("Identity", ["a"], ["y"])],
    }[last]
    shape = ["n", 4, 6] if last == "ArgMax" else ["n", 3, 4, 6]
    net = saved(
        folder, [helper.make_node("MaxPool", ["x"], ["a"], kernel_shape=[1, 1]), *closing], ["n", 3, 4, 6], {"y": shape}
    )
    return net, batch_of(RNG.uniform(0, 1, (2, 3, 4, 6)).astype(np.float32), "x", (40, 60))


@pytest.mark.parametrize("last", ["ArgMax", "Softmax", "nothing"])
def test_a_segment_scores_its_class_over_its_own_pixels(tmp_path: Path, last: str) -> None:
    net, batch = segmenter(tmp_path, last)
    x = batch.arrays["x"]
    view = scene(net, batch, target=parse("segment:1")[0])
    expected = np.where(x.argmax(axis=1) == 1, x[:, 1], 0).sum(axis=(1, 2))
    np.testing.assert_allclose(view.base[:, 0], expected, rtol=1e-5)
    largest = scene(net, batch, target=parse("segment:largest")[0]).fixed
    for n, words in enumerate(largest.words):
        areas = np.bincount(x[n].argmax(axis=0).ravel(), minlength=3)
        assert words.startswith(LABELS[1 + int(areas[1:].argmax())])


def test_a_region_scores_the_pixels_in_a_box_of_the_picture(tmp_path: Path) -> None:
    net, batch = segmenter(tmp_path, "nothing")
    x = batch.arrays["x"][..., 1:3, 2:5]  # 10 of the picture's pixels to a cell
    of_all = scene(net, batch, target=parse("region:20,10,50,30")[0]).base
    np.testing.assert_allclose(of_all[:, 0], x.max(axis=1).sum(axis=(1, 2)), rtol=1e-5)
    of_one = scene(net, batch, target=parse("region:20,10,50,30@grey", LABELS)[0]).base
    np.testing.assert_allclose(of_one[:, 0], x[:, 2].sum(axis=(1, 2)), rtol=1e-5)


# Likeness


def test_likeness_is_the_cosine_of_embeddings(tmp_path: Path) -> None:
    net, batch = gap()
    other = RNG.uniform(-1, 1, (1, 3, 12, 20)).astype(np.float32)
    np.save(tmp_path / "other.npy", other)
    name = net.inputs[0].name
    view = scene(net, batch, target=parse(f"similar:@{tmp_path / 'other.npy'}")[0])
    tensor = view.sections.tensors[0]
    second = scene(net, batch_of(other, name), target=parse(f"output:{tensor}[...]")[0]).outputs[tensor].ravel()
    own = view.outputs[tensor].reshape(batch.n, -1)
    expected = own @ second / np.linalg.norm(own, axis=1) / np.linalg.norm(second)
    np.testing.assert_allclose(view.base[:, 0], expected, rtol=1e-5)
    assert own.shape[1] == net.layer("Conv:-1").output.shape[1]  # type: ignore[index]  # what the linear layer reads
    np.save(tmp_path / "self.npy", batch.arrays[name][:1])
    itself = scene(net, batch, target=parse(f"similar:@{tmp_path / 'self.npy'}")[0])
    np.testing.assert_allclose(itself.base[0, 0], 1, rtol=1e-6)


# Flipping


@pytest.mark.parametrize("text", ["segment:1", "region:20,10,50,30", "region:0,0,10,10@2"])
def test_mirrored_pixels_score_the_mirrored_input_alike(text: str, tmp_path: Path) -> None:
    net, batch = segmenter(tmp_path, "nothing")
    view = scene(net, batch, target=parse(text)[0])
    flipped = replace(batch, arrays={"x": np.ascontiguousarray(batch.arrays["x"][..., ::-1])})
    np.testing.assert_allclose(view.of(flipped, settled=view.fixed.mirrored()).base, view.base, rtol=1e-5)
    assert not np.allclose(view.of(flipped, settled=view.fixed).base, view.base)


def test_a_mirrored_box_lies_at_the_other_side(tmp_path: Path) -> None:
    net, batch = detector(tmp_path)
    fixed = scene(net, batch, layer="MaxPool:0", target=parse("box:0,20,20,40@2")[0]).fixed
    assert fixed.mirrored().boxes == ((0.75, 1 / 3, 1, 2 / 3),) * 2
    assert fixed.mirrored().mirrored().boxes == fixed.boxes


def test_targets_are_all_of_one_kind() -> None:
    assert all(isinstance(t, Target) for text in ("1", "~", "all", "top-2", "box:best") for t in parse(text))


def test_pictures_can_be_read_for_likeness_through_the_batchs_own_preprocess(tmp_path: Path) -> None:
    from onnx_inspect.inputs.read import read as read_inputs

    net = read(FIXTURES / "shapes_resnet.onnx")
    star = FIXTURES / "inputs" / "shape_star.png"
    batch = read_inputs(net.inputs, [str(star)], metadata=net.metadata)
    Image.open(star).save(tmp_path / "again.png")
    view = scene(net, batch, target=parse(f"similar:@{tmp_path / 'again.png'}")[0])
    np.testing.assert_allclose(view.base, 1, rtol=1e-6)
    assert "embedding" in view.fixed.notes[0]


def test_scores_that_are_only_enlarged_are_read_before(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MaxPool", ["x"], ["a"], kernel_shape=[1, 1]),
        helper.make_node("Resize", ["a", "", "four"], ["large"], mode="linear"),
        helper.make_node("ArgMax", ["large"], ["i"], axis=1, keepdims=0),
        helper.make_node("Cast", ["i"], ["y"], to=1),
    ]
    net = saved(tmp_path, nodes, ["n", 3, 4, 6], {"y": ["n", 16, 24]}, four=np.float32([1, 1, 4, 4]))
    batch = batch_of(RNG.uniform(0, 1, (2, 3, 4, 6)).astype(np.float32), "x")
    assert scene(net, batch, target=parse("segment:1")[0]).sections.tensors == ("a",)


def test_maps_that_may_be_a_picture_are_no_segments_unless_asked_for(tmp_path: Path) -> None:
    net, batch = segmenter(tmp_path, "nothing")
    assert scene(net, batch).target is None
    assert scene(net, batch, target=parse("segment:largest")[0]).target is not None
    closed, batch = segmenter(tmp_path, "Softmax")
    assert scene(closed, batch).target is not None

"""`track`: what a planted training run must show, and what its files hold."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

FIXTURES = Path(__file__).parents[2] / "fixtures"
RUN = [FIXTURES / f"digits_convnet{end}.onnx" for end in ("", "_epoch3", "_epoch1")]
DIGITS = [FIXTURES / "inputs" / f"digit_{digit}.png" for digit in (0, 3, 5, 7)]
Run = Callable[..., Any]


def edited(source: Path, target: Path, edit: Callable[[onnx.GraphProto], object]) -> Path:
    proto = onnx.load(source)
    edit(proto.graph)
    onnx.save(proto, target)
    return target


def changed(graph: onnx.GraphProto, op_type: str, number: int, slot: int, how: Callable[[Any], Any]) -> None:
    node = [n for n in graph.node if n.op_type == op_type][number]
    tensor = next(t for t in graph.initializer if t.name == node.input[slot])
    tensor.CopyFrom(numpy_helper.from_array(how(numpy_helper.to_array(tensor)).astype(np.float32), tensor.name))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three steps: as it is, its first filters scaled by 1.5, and four of its first channels dead as well."""
    folder = tmp_path_factory.mktemp("run")
    first = edited(RUN[0], folder / "net-1.onnx", lambda graph: None)
    second = edited(first, folder / "net-2.onnx", lambda g: changed(g, "Conv", 0, 1, lambda w: 1.5 * w))

    def kill(bias: Any) -> Any:
        return np.where(np.arange(len(bias)) < 4, -1e3, bias)

    return [first, second, edited(second, folder / "net-10.onnx", lambda g: changed(g, "Conv", 0, 2, kill))]


def test_planted_changes_are_found_where_they_were_made(run: Run, planted: list[Path], tmp_path: Path) -> None:
    result = run("track", *planted[::-1], *DIGITS, "-o", tmp_path, "--save", tmp_path / "t.npz", "--json")
    assert result.code == 0, result.err
    found = result.json
    assert [c["label"] for c in found["checkpoints"]] == ["net-1", "net-2", "net-10"]
    assert [c["step"] for c in found["checkpoints"]] == [1, 2, 10]
    weights = {w["weight"]: w for w in found["weights"]}
    assert weights["node_conv2d"]["from_first"] == pytest.approx([0, 0.5, 0.5], abs=1e-6)
    assert weights["node_conv2d"]["from_previous"] == pytest.approx([0, 0.5, 0], abs=1e-6)
    assert weights["node_conv2d"]["cosine_last"] == pytest.approx([1, 1, 1])
    assert all(w["from_first"] == [0, 0, 0] for name, w in weights.items() if name != "node_conv2d")
    layers = {layer["layer"]: layer for layer in found["layers"]}
    assert [len(d) for d in layers["node_relu"]["dead"]] == [
        *[len(layers["node_relu"]["dead"][0])] * 2,
        len({0, 1, 2, 3} | set(layers["node_relu"]["dead"][0])),
    ]
    assert layers["node_conv2d"]["cka_last"][2] == pytest.approx(1)
    assert layers["node_conv2d"]["cka_first"][0] == pytest.approx(1)
    assert layers["node_conv2d"]["cka_first"] == pytest.approx(
        [1, 1, 1], abs=1e-4
    )  # a scale and an offset: nothing new
    assert layers["node_relu"]["cka_last"][0] < 0.9995
    with np.load(tmp_path / "t.npz") as stored:
        assert stored["labels"].tolist() == ["net-1", "net-2", "net-10"]
        assert stored["weights/from_first"].shape == (5, 3)
        np.testing.assert_allclose(stored["embeddings"].shape, (3, 4, 2))


def test_predictions_and_flips_are_those_of_the_models(run: Run, tmp_path: Path) -> None:
    result = run("track", *RUN, *DIGITS, "-o", tmp_path, "--json")
    assert result.code == 0, result.err
    answers = [run("predict", path, *DIGITS, "--json").json["inputs"] for path in RUN[::-1]]
    classes = [[entry["top"][0]["index"] for entry in one] for one in answers]
    found = result.json["predictions"]
    assert found["classes"] == classes
    flips = [sum(a != b for a, b in zip(x, y, strict=True)) for x, y in pairwise(classes)]
    assert found["flips"] == [0, *flips]
    assert found["unlike_last"][-1] == 0
    assert found["confidence"][2][0] == pytest.approx(answers[2][0]["top"][0]["score"], abs=1e-5)


def test_all_figures_are_drawn_and_the_gif_has_a_frame_for_each_checkpoint(run: Run, tmp_path: Path) -> None:
    result = run("track", *RUN, *DIGITS[:2], "-o", tmp_path, "--json")
    assert result.code == 0, result.err
    names = [Path(path).name for path in result.json["figures"]]
    assert names[:3] == ["overview.png", "layers.png", "digit_0-strip.png"]  # three inputs make embeddings
    assert "digit_3-strip.gif" in names
    for path in result.json["figures"]:
        with Image.open(path) as image:
            assert np.asarray(image.convert("L")).std() > 5
            if path.endswith(".gif"):
                assert getattr(image, "n_frames", 1) == 3
                assert image.info["loop"] == 0


def test_a_strip_shows_the_layers_own_channel(run: Run, tmp_path: Path) -> None:
    words = ["--show-layer", "Relu:0", "--channel", "2", "-o", tmp_path, "--json"]
    assert run("track", *RUN, DIGITS[0], *words).code == 0
    assert (tmp_path / "digit_0-strip.png").is_file()
    assert run("track", *RUN, DIGITS[0], "--show-layer", "Relu:0", "--channel", "6", "-o", tmp_path).code == 2


def test_strips_of_a_method_follow_the_last_checkpoints_class(run: Run, tmp_path: Path) -> None:
    result = run("track", *RUN, DIGITS[1], "--cam", "eigen-cam", "-o", tmp_path, "--json")
    assert result.code == 0, result.err
    assert (tmp_path / "digit_3-strip.gif").is_file()
    assert run("track", *RUN, DIGITS[1], "--cam", "recipro-cam", "--target", "3", "-o", tmp_path).code == 0


def test_without_inputs_only_weights_are_followed(run: Run, tmp_path: Path) -> None:
    result = run("track", *RUN, "-o", tmp_path, "--json")
    assert result.code == 0, result.err
    assert "only the weights" in result.err
    assert result.json["layers"] == []
    assert result.json["predictions"] is None
    assert {p.name for p in tmp_path.iterdir()} == {"overview.png", "layers.png"}


def test_renamed_nodes_are_followed_by_their_places(run: Run, tmp_path: Path) -> None:
    def rename(graph: onnx.GraphProto) -> None:
        for number, node in enumerate(graph.node):
            node.name = f"other_{number}"

    other = edited(RUN[1], tmp_path / "net_epoch3.onnx", rename)
    plain = run("track", RUN[1], RUN[0], *DIGITS, "-o", tmp_path / "a", "--json").json
    found = run("track", other, RUN[0], *DIGITS, "-o", tmp_path / "b", "--json").json
    assert found["layers"] == plain["layers"]
    assert found["weights"] == plain["weights"]


def test_globs_name_checkpoints_and_everything_else_is_an_input(run: Run, planted: list[Path], tmp_path: Path) -> None:
    result = run("track", planted[0].parent / "net-*.onnx", DIGITS[0].parent / "digit_*.png", "-o", tmp_path, "--json")
    assert result.code == 0, result.err
    assert len(result.json["checkpoints"]) == 3
    assert len(result.json["inputs"]) == 4


def test_tensorboard_gets_curves_histograms_and_pictures(run: Run, planted: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra 'tensorboard'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    board = tmp_path / "board"
    assert run("track", *planted, *DIGITS, "-o", tmp_path, "--tensorboard", board, "--quiet").code == 0
    events = EventAccumulator(str(board), size_guidance={"tensors": 0})
    events.Reload()
    tags = set(events.Tags()["tensors"])
    assert {"weights_from_first/node_conv2d", "weights/node_conv2d", "predictions/flips", "checkpoint"} <= tags
    assert any(tag.startswith("digit_0/channel") for tag in tags)
    read = events.Tensors("weights_from_first/node_conv2d")
    assert [event.step for event in read] == [1, 2, 10]
    values = [float(np.asarray(tensor_util.make_ndarray(event.tensor_proto))) for event in read]
    assert values == pytest.approx([0, 0.5, 0.5], abs=1e-6)


FAILURES: dict[str, tuple[list[Any], int, str]] = {
    "one checkpoint": ([RUN[0], DIGITS[0]], 2, "at least two checkpoints"),
    "the same twice": ([RUN[0], RUN[0]], 2, "given twice"),
    "another network": ([RUN[0], FIXTURES / "digits_vit.onnx"], 2, "no checkpoint of the network"),
    "missing": ([RUN[0], "nowhere.onnx"], 3, "nowhere.onnx"),
    "missing input": ([RUN[0], RUN[1], "nowhere.png"], 2, "nowhere.png"),
    "no such glob": (["nowhere-*.onnx", RUN[0], RUN[1]], 2, "no checkpoint matches"),
    "one file for all": ([RUN[0], RUN[1], "-o", "one.png"], 2, "takes a folder"),
    "wrong layer": ([RUN[0], RUN[1], DIGITS[0], "--layer", "node_conv9"], 2, "node_conv9"),
    "layer without maps": ([RUN[0], RUN[1], DIGITS[0], "--show-layer", "Gemm:-1"], 2, "no maps to show"),
    "unknown method": ([RUN[0], RUN[1], DIGITS[0], "--cam", "magic"], 2, "magic"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_failures_are_one_line_and_write_nothing(
    case: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words, code, telling = FAILURES[case]
    result = run("track", *words, "--quiet")
    assert result.code == code, result.err
    assert len(result.err.splitlines()) == 1, result.err
    assert telling in result.err
    assert list(tmp_path.rglob("*")) == []

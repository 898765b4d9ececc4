"""A second model sees what the first one sees, each through its own convention."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from onnx_inspect.errors import InputError
from onnx_inspect.graph.read import read
from onnx_inspect.inputs.paired import convention, paired
from onnx_inspect.inputs.read import read as read_batch

node = helper.make_node


def picture_net(make: Callable[..., Any], dtype: Any, shape: list[Any], name: str = "x", **metadata: str) -> Any:
    nodes = [node("Cast", [name], ["f"], to=1), node("ReduceSum", ["f"], ["y"], keepdims=0)]
    return make(nodes, {name: (dtype, shape)}, ["y"])


def quantised_net(make: Callable[..., Any], dtype: Any, scale: float, zero: int) -> Any:
    constants = {"s": np.float32(scale), "z": dtype(zero)}
    nodes = [node("DequantizeLinear", ["q", "s", "z"], ["f"]), node("ReduceSum", ["f"], ["y"], keepdims=0)]
    return make(nodes, {"q": (dtype, [1, 8, 8, 3])}, ["y"], constants)


def test_pictures_go_through_each_model_s_own_layout_and_type(make: Callable[..., Any], fixtures: Path) -> None:
    a = picture_net(make, np.float32, [1, 3, 16, 16])
    b = picture_net(make, np.uint8, [1, 16, 16, 3], "image")
    batch = read_batch(a.inputs, [str(fixtures / "inputs/shape_star.png")], preprocess="unit")
    twin, names = paired(batch, a, b)
    assert names == {"x": "image"}
    assert twin.arrays["image"].dtype == np.uint8
    np.testing.assert_allclose(
        twin.arrays["image"],
        batch.arrays["x"].transpose(0, 2, 3, 1) * 255,
        atol=0.5001,  # rounded to whole pixels
    )


def test_arrays_are_turned_and_cast_not_drawn_again(make: Callable[..., Any], tmp_path: Path) -> None:
    a, b = picture_net(make, np.float32, ["N", 3, 8, 6]), picture_net(make, np.float16, ["N", 8, 6, 3], "image")
    values = np.random.default_rng(0).normal(size=(2, 3, 8, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", values)
    batch = read_batch(a.inputs, [str(tmp_path / "x.npy")])
    twin, _ = paired(batch, a, b)
    np.testing.assert_array_equal(twin.arrays["image"], values.transpose(0, 2, 3, 1).astype(np.float16))


@pytest.mark.parametrize(("dtype", "zero"), [(np.uint8, 128), (np.int8, 0)])
def test_a_quantised_input_says_which_numbers_its_float_twin_takes(
    make: Callable[..., Any], dtype: Any, zero: int
) -> None:
    a, b = picture_net(make, np.float32, [1, 8, 8, 3]), quantised_net(make, dtype, 1 / 128, zero)
    found = convention(a, b)
    assert found is not None
    made, reason = found
    array, _ = made.apply(np.full((8, 8, 3), 255, np.uint8))
    np.testing.assert_allclose(array, 127 / 128, rtol=1e-6)
    assert "quantised input" in reason
    batch = read_batch(a.inputs, ["random"], preprocess=made)
    twin, _ = paired(batch, a, b)
    steps = twin.arrays["q"].astype(np.float64) - zero
    np.testing.assert_allclose(steps / 128, batch.arrays["x"], atol=1e-6)  # the very same pixels


def test_a_recorded_convention_is_never_overruled(fixtures: Path, make: Callable[..., Any]) -> None:
    assert convention(read(fixtures / "shapes_resnet.onnx"), quantised_net(make, np.uint8, 0.1, 0)) is None


def test_arrays_for_a_quantised_input_go_through_its_scale(make: Callable[..., Any], tmp_path: Path) -> None:
    a, b = picture_net(make, np.float32, [1, 8, 8, 3]), quantised_net(make, np.uint8, 0.25, 10)
    np.save(tmp_path / "x.npy", np.full((1, 8, 8, 3), 2.0, np.float32))
    twin, _ = paired(read_batch(a.inputs, [str(tmp_path / "x.npy")]), a, b)
    assert (twin.arrays["q"] == 18).all()


def test_inputs_of_other_names_go_by_their_place(make: Callable[..., Any]) -> None:
    def net(names: list[str]) -> Any:
        inputs = {names[0]: (np.float32, ["N", 4]), names[1]: (np.float32, ["N", 4])}
        return make([node("Sub", names, ["y"])], inputs, ["y"])

    a, b = net(["p", "q"]), net(["left", "right"])
    batch = read_batch(a.inputs, ["random"], named={"q": "[[1, 2, 3, 4]]"})
    twin, names = paired(batch, a, b)
    assert names == {"p": "left", "q": "right"}
    np.testing.assert_array_equal(twin.arrays["right"], [[1, 2, 3, 4]])
    _, names = paired(batch, a, net(["q", "p"]))
    assert names == {"p": "p", "q": "q"}


def test_an_input_without_a_counterpart_is_named(make: Callable[..., Any], fixtures: Path) -> None:
    a = make([node("Neg", ["x"], ["y"])], {"x": (np.float32, ["N", 4])}, ["y"])
    b = make([node("Sub", ["x", "mask"], ["y"])], {"x": (np.float32, ["N", 4]), "mask": (np.float32, ["N", 4])}, ["y"])
    with pytest.raises(InputError, match="'mask'"):
        paired(read_batch(a.inputs, ["random"]), a, b)

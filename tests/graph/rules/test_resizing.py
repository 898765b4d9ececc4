"""Resizing and pixel shuffling: gradients against autograd where PyTorch has the mode, else against differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from onnx_inspect.graph.rules._rule import table
from tests.graph.rules.oracle import check

torch = pytest.importorskip("torch", reason="PyTorch's autograd is the oracle")
F = torch.nn.functional
NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


@pytest.mark.parametrize("factors", [(2.0, 2.0), (1.0, 3.0), (1.5, 2.5), (0.5, 0.75)])
@pytest.mark.parametrize("by", ["scales", "sizes"])
def test_the_nearest_pixel_gets_the_gradient(factors: tuple[float, float], by: str) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 6))
    size = [int(np.floor(n * f)) for n, f in zip((4, 6), factors, strict=True)]
    constants = {"a": np.array([1, 1, *factors], np.float32)} if by == "scales" else {"a": np.array([2, 3, *size])}
    constants = {"a": constants["a"]}
    names = ["x", "", "a"] if by == "scales" else ["x", "", "", "a"]
    node = helper.make_node("Resize", names, ["y"], **NEAREST)
    more = {"scale_factor": factors, "recompute_scale_factor": False} if by == "scales" else {"size": size}
    check([node], {"x": x}, lambda x: F.interpolate(x, mode="nearest", **more), constants=constants, double=False)


@pytest.mark.parametrize("size", [(8, 12), (7, 5), (3, 6), (1, 1)])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_interpolation_spreads_the_gradient_as_pytorch_does(size: tuple[int, int], aligned: bool, mode: str) -> None:
    x = np.random.default_rng(0).normal(size=(2, 2, 4, 6))
    where = "align_corners" if aligned else "half_pixel"
    settings = {"mode": mode, "coordinate_transformation_mode": where, "cubic_coeff_a": -0.75}
    node = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], **settings)
    constants = {"sizes": np.array([2, 2, *size])}
    how = {"linear": "bilinear", "cubic": "bicubic"}[mode]
    check(
        [node],
        {"x": x},
        lambda x: F.interpolate(x, size, mode=how, align_corners=aligned),
        constants=constants,
        double=False,
    )


@pytest.mark.parametrize("factor", [2.0, 2.5])
def test_scales_are_used_as_given(factor: float) -> None:
    x = np.random.default_rng(0).normal(size=(1, 2, 5, 5))
    settings = {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], **settings)
    constants = {"scales": np.array([1, 1, factor, factor], np.float32)}

    def formula(x: Any) -> Any:
        more = {"scale_factor": factor, "recompute_scale_factor": False}
        return F.interpolate(x, mode="bilinear", align_corners=False, **more)

    check([node], {"x": x}, formula, constants=constants, double=False)


@pytest.mark.parametrize("rank", [3, 5])
def test_sequences_and_volumes_are_resized_too(rank: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, 2, 4, 3, 5)[:rank])
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="linear")
    constants = {"scales": np.array([1, 1, *[2.0] * (rank - 2)], np.float32)}
    mode = {3: "linear", 5: "trilinear"}[rank]
    check([node], {"x": x}, lambda x: F.interpolate(x, scale_factor=2.0, mode=mode), constants=constants, double=False)


@pytest.mark.parametrize("opset", [9, 10, 11])
def test_older_forms_are_upgraded_first(opset: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, 2, 3, 4))
    scales = {"scales": np.array([1, 1, 2, 2], np.float32)}
    kind, names = ("Upsample", ["x", "scales"]) if opset == 9 else ("Resize", ["x", "scales"])
    constants: dict[str, Any] = dict(scales)
    settings = {"mode": "nearest"}
    if opset == 11:
        names, constants["roi"] = ["x", "roi", "scales"], np.array([], np.float32)
        settings |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    node = helper.make_node(kind, names, ["y"], **settings)
    check([node], {"x": x}, lambda x: F.interpolate(x, scale_factor=2), opset=opset, constants=constants, double=False)


def test_axes_may_be_named() -> None:
    x = np.random.default_rng(0).normal(size=(2, 2, 3, 4))
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="linear", axes=[3, 2])
    constants = {"scales": np.array([2.0, 3.0], np.float32)}
    check([node], {"x": x}, lambda x: F.interpolate(x, (9, 8), mode="bilinear"), constants=constants, double=False)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_pixel_shuffles_are_undone(mode: str) -> None:
    x = np.random.default_rng(0).normal(size=(2, 12, 3, 5))

    def formula(x: Any) -> Any:
        if mode == "CRD":
            return F.pixel_shuffle(x, 2)
        count, channels, height, width = x.shape
        blocks = x.reshape(count, 2, 2, channels // 4, height, width).permute(0, 3, 4, 1, 5, 2)
        return blocks.reshape(count, channels // 4, 2 * height, 2 * width)

    check([helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=2, mode=mode)], {"x": x}, formula)


def test_shuffled_blocks_are_put_back() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 6))

    def formula(x: Any) -> Any:
        blocks = x.reshape(2, 3, 2, 2, 3, 2).permute(0, 3, 5, 1, 2, 4)
        return blocks.reshape(2, 12, 2, 3)

    check([helper.make_node("SpaceToDepth", ["x"], ["y"], blocksize=2)], {"x": x}, formula)


def test_every_rule_of_the_file_is_tested() -> None:
    rules = {name for (_, name), rule in table().items() if rule.__module__.endswith(".resizing")}
    assert rules == {"Resize", "DepthToSpace", "SpaceToDepth"}

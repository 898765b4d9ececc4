"""Arrays are converted where that loses nothing but precision; everything else is refused in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import helper

from onnx_inspect.engine import Engine
from onnx_inspect.errors import InputError
from onnx_inspect.graph.model import Model

X = np.arange(12, dtype=np.float32).reshape(3, 4) - 5


def doubling(make: Callable[..., Model], dtype: str, shape: Any = ("N", 4)) -> Model:
    return make([helper.make_node("Add", ["x", "x"], ["y"])], {"x": (dtype, list(shape))}, ["y"])


GIVEN: dict[str, Any] = {
    "float64": X.astype(np.float64),
    "float16": X.astype(np.float16),
    "int64": X.astype(np.int64),
    "big-endian": X.astype(">f4"),
    "big-endian float64": X.astype(">f8"),
    "columns first": np.asfortranarray(X),
    "every other": np.repeat(X, 2, axis=1)[:, ::2],
    "backwards": X[::-1, ::-1][::-1, ::-1],
    "read-only": np.broadcast_to(X, X.shape),
    "list": X.tolist(),
}


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int64", "int32", "int8"])
@pytest.mark.parametrize("given", GIVEN)
def test_any_array_of_these_numbers_gives_the_same(make: Callable[..., Model], dtype: str, given: str) -> None:
    found = Engine(doubling(make, dtype)).run({"x": GIVEN[given]})["y"]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, 2 * X)


def test_inputs_are_left_untouched(make: Callable[..., Model]) -> None:
    given = X.astype(">f8")
    before = given.copy()
    Engine(doubling(make, "float32")).run({"x": given})
    np.testing.assert_array_equal(given, before)
    assert given.dtype == ">f8"


@pytest.mark.parametrize(
    ("dtype", "array", "message"),
    [
        ("float32", np.zeros((3, 5)), r"input 'x' wants float32 \[N, 4\], got float64 \[3, 5\]"),
        ("float32", np.zeros(4), r"got float64 \[4\]"),
        ("float32", np.zeros((1, 3, 4)), r"got float64 \[1, 3, 4\]"),
        ("float32", np.zeros((3, 4), complex), "got values of type complex128"),
        ("float32", np.full((3, 4), "a"), "got values of type <U1"),
        ("float32", np.zeros((3, 4), "V4"), r"got values of type \|V4"),
        ("float32", np.full((3, 4), 1e39), "1e[+]39, which float32 can't hold"),
        ("float16", np.full((3, 4), 70000.0), "70000, which float16 can't hold"),
        ("uint8", np.full((3, 4), -1), "-1 to -1; uint8 holds 0 to 255"),
        ("uint8", np.full((3, 4), 300.0), "300.0 to 300.0; uint8 holds 0 to 255"),
        ("int64", np.full((3, 4), 0.5), r"got fractions \(float64\)"),
        ("int64", np.full((3, 4), np.nan), "got fractions"),
        ("float32", np.zeros((0, 4)), r"input 'x' holds no sample: its shape is \[0, 4\]"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[..., Model], dtype: str, array: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Engine(doubling(make, dtype)).run({"x": array})
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_nan_and_infinity_reach_the_model(make: Callable[..., Model]) -> None:
    x = np.array([[np.nan, np.inf, -np.inf, 1]])
    np.testing.assert_array_equal(Engine(doubling(make, "float16")).run({"x": x})["y"], 2 * x)


def test_booleans_are_zeros_and_ones(make: Callable[..., Model]) -> None:
    model = make([helper.make_node("Not", ["x"], ["y"])], {"x": (np.bool_, ["N", 2])}, ["y"])
    for given in (np.array([[True, False]]), np.array([[1, 0]]), np.array([[1.0, 0.0]])):
        np.testing.assert_array_equal(Engine(model).run({"x": given})["y"], [[False, True]])
    with pytest.raises(InputError, match="values other than 0 and 1"):
        Engine(model).run({"x": np.array([[2, 0]])})


def test_text_goes_in_and_out(make: Callable[..., Model]) -> None:
    model = make([helper.make_node("Identity", ["x"], ["y"])], {"x": (8, ["N", 2])}, {"y": (8, ["N", 2])})
    for given in (
        np.array([["a", "éß"]]),
        np.array([["a", "éß"]], object),
        np.array([[b"a", "éß".encode()]], object),
        [["a", "éß"]],
    ):
        assert Engine(model).run({"x": given})["y"].tolist() == [["a", "éß"]]
    with pytest.raises(InputError, match="wants string"):
        Engine(model).run({"x": np.array([["a", None]], object)})
    several = np.array([["a", "b"], ["c", "d"], ["e", "f"]])
    assert Engine(model).run({"x": several})["y"].tolist() == several.tolist()


def test_a_number_for_all_samples_has_no_axis(make: Callable[..., Model]) -> None:
    inputs = {"x": ("float32", ["N", 4]), "gain": ("float32", [])}
    model = make([helper.make_node("Mul", ["x", "gain"], ["y"])], inputs, ["y"])
    np.testing.assert_array_equal(Engine(model).run({"x": X, "gain": 3})["y"], 3 * X)


def test_names_that_are_missing_or_unknown_are_said(make: Callable[..., Model]) -> None:
    model = make(
        [helper.make_node("Mul", ["x", "z"], ["y"])], {"x": ("float32", ["N", 4]), "z": ("float32", ["N", 4])}, ["y"]
    )
    with pytest.raises(InputError, match=r"made.onnx also needs 'z' \(float32 \[N, 4\]\): give it with -I z=@FILE"):
        Engine(model).run({"x": X})
    with pytest.raises(InputError, match=r"made.onnx has no input 'w'; it has: x, z"):
        Engine(model).run({"x": X, "z": X, "w": X})


def test_inputs_of_different_counts_are_refused_and_one_serves_all(make: Callable[..., Model]) -> None:
    model = make(
        [helper.make_node("Mul", ["x", "z"], ["y"])], {"x": ("float32", ["N", 4]), "z": ("float32", ["N", 4])}, ["y"]
    )
    np.testing.assert_array_equal(Engine(model).run({"x": X, "z": X[:1]})["y"], X * X[:1])
    with pytest.raises(InputError, match="different numbers of samples: 'x' 3, 'z' 2; give as many of each, or one"):
        Engine(model).run({"x": X, "z": X[:2]})

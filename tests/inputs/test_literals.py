from __future__ import annotations

import numpy as np
import pytest

from onnx_inspect.errors import InputError
from onnx_inspect.graph.model import TensorSpec
from onnx_inspect.inputs import literals


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x=@a.npy", ("x", "@a.npy")),
        ("x=a=b", ("x", "a=b")),
        ("x:1,2", ("x", "random:1,2")),
        ("x:0=5", ("x:0", "5")),
        ("x:0:1x2", ("x:0", "random:1x2")),
        ("a=b=7", ("a=b", "7")),
        ("0:3", ("0", "random:3")),
    ],
)
def test_split_finds_the_longest_name(text, expected):
    assert literals.split(text, ["x", "x:0", "a=b", "0"]) == expected


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(InputError, match=r"no input 'input_id'; closest: 'input_ids'. Its inputs: 'mask', 'input_ids'"):
        literals.split("input_id=3", ["mask", "input_ids"])


@pytest.mark.parametrize("text", ["1,3,8,9", "[1,3,8,9]", "1x3x8x9", " [1, 3, 8, 9] "])
def test_shapes_are_read_as_people_write_them(text):
    assert literals.shape(text, "x") == (1, 3, 8, 9)


@pytest.mark.parametrize("text", ["", "[]"])
def test_an_empty_shape_is_a_scalars(text):
    assert literals.shape(text, "x") == ()


@pytest.mark.parametrize("text", ["1,0", "a", "1,,2", "-1,2", "1.5", "N,3"])
def test_what_is_no_shape_is_refused(text):
    with pytest.raises(InputError, match="is not a shape; write it like x:1,3,224,224"):
        literals.shape(text, "x")


@pytest.mark.parametrize(
    ("value", "dtype", "shape", "expected"),
    [
        ("16000", "int64", (), 16000),
        ("0.5", "float32", (1,), [0.5]),
        ("2", "float32", ("N", 2, 2), [[[2, 2], [2, 2]]]),
        ("[1,2,3]", "int64", ("N", 3), [1, 2, 3]),
        ("true", "bool", (), True),
        ("hello", "string", (), "hello"),
        ('["a","b"]', "string", (None,), ["a", "b"]),
    ],
)
def test_values_are_json_and_one_number_fills_a_known_shape(value, dtype, shape, expected):
    found = literals.array(value, TensorSpec("x", dtype, shape))
    np.testing.assert_array_equal(found, expected)
    assert found.shape == np.shape(expected)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("hello", "'hello' is not a value; give @FILE, a number, a JSON list, random, zeros or ones"),
        ("[[1],[1,2]]", "ragged"),
        ("null", "is not a value"),
        ("[]", "is not a value"),
        ('{"a": 1}', "is not a value"),
        ("3", "one number doesn't say its shape"),
    ],
)
def test_what_is_no_value_is_refused(value, message):
    with pytest.raises(InputError, match=message):
        literals.array(value, TensorSpec("x", "int64", ("batch", "sequence")))


def test_fills_are_told_from_values():
    assert literals.fill("zeros", "x") == ("zeros", None)
    assert literals.fill("ones:2,3", "x") == ("ones", (2, 3))
    assert literals.fill("random:", "x") == ("random", ())
    assert literals.fill("3", "x") is None

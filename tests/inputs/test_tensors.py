from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from onnx_inspect.errors import InputError
from onnx_inspect.graph.model import TensorSpec
from onnx_inspect.inputs.tensors import cast, fit, has_batch, numpy_dtype


def spec(dtype="float32", shape=("N", 3), name="x"):
    return TensorSpec(name, dtype, shape)


@pytest.mark.parametrize("found", ["float16", "float32", "float64", ">f4", "int64", "uint8", "bool"])
@pytest.mark.parametrize("wanted", ["float16", "float32", "float64", "bfloat16"])
def test_numbers_become_the_models_float(found, wanted):
    array = np.array([[0, 1, 1]]).astype(found)
    made = cast(array, spec(wanted), "a.npy")
    assert made.dtype == numpy_dtype(spec(wanted)) and made.dtype.isnative
    np.testing.assert_array_equal(made.astype(float), [[0, 1, 1]])


def test_cast_copies_and_is_contiguous():
    array = np.arange(12, dtype=np.float32).reshape(3, 4).T
    made = cast(array, spec(), "a.npy")
    assert made.flags.c_contiguous and not np.shares_memory(made, array)


@pytest.mark.parametrize(
    ("array", "wanted", "message"),
    [
        (np.ones(3), "int64", "found float64, but input 'x' takes int64; convert the array first"),
        (np.ones(3, ml_dtypes.bfloat16), "int64", "found bfloat16"),
        (np.ones(3, complex), "float32", "found complex128"),
        (np.array(["a"]), "float32", "found <U1"),
        (np.zeros(2, "V2"), "float32", "found .V2"),
        (np.ones(3), "bool", "found float64, but input 'x' takes bool"),
        (np.array([300]), "uint8", r"can't hold values 300..300"),
        (np.array([-1, 5]), "uint8", r"can't hold values -1..5"),
        (np.array([2]), "bool", r"can't hold values 2..2"),
        (np.array([1e39]), "float32", "can't hold 1e\\+39"),
        (np.array([70000]), "float16", "can't hold 70000"),
        (np.ones(3), "string", "give text"),
        (np.ones(3), "sequence", "is a sequence, not a tensor"),
    ],
)
def test_a_dtype_that_does_not_fit_says_both_sides(array, wanted, message):
    with pytest.raises(InputError, match=message):
        cast(array, spec(wanted), "a.npy")


def test_infinities_and_nans_that_were_there_stay():
    made = cast(np.array([np.inf, -np.inf, np.nan]), spec("float16"), "a.npy")
    np.testing.assert_array_equal(made, np.array([np.inf, -np.inf, np.nan], np.float16))


def test_an_array_without_a_batch_axis_gets_one():
    assert fit(np.zeros((3, 4)), spec(shape=("N", 3, 4)), "a").shape == (1, 3, 4)
    assert fit(np.zeros((5, 3, 4)), spec(shape=(1, 3, 4)), "a").shape == (5, 3, 4)
    assert fit(np.zeros(()), spec(shape=("N",)), "a").shape == (1,)


def test_a_whole_input_gets_no_batch_axis():
    assert fit(np.array([16000]), spec("int64", ()), "a", batched=False).shape == ()
    with pytest.raises(InputError, match=r"found float64 \[1, 128\].*takes float32 \[2, batch, 128\]"):
        fit(np.zeros((1, 128)), spec(shape=(2, "batch", 128)), "a", batched=False)


@pytest.mark.parametrize("shape", [(2, 4), (2, 3, 1), (4,), (0, 3)])
def test_a_shape_that_does_not_fit_says_both_sides(shape):
    with pytest.raises(InputError, match=r"a.npy: found float64 .*(takes float32 \[N, 3\]|no samples)"):
        fit(np.zeros(shape), spec(), "a.npy")


def test_the_batch_axis_is_the_first_unless_the_spec_says_otherwise():
    image = spec(shape=("batch", 3, "H", "W"), name="image")
    for shape in (("batch", 5), (1, 5), (None, 5), ("n", 5), None):
        assert has_batch(spec(shape=shape), image)
    for shape in ((), (2, "batch", 128), ("layers", "batch", 128), ("H", 4), (7,)):
        assert not has_batch(spec(shape=shape), image)
    assert has_batch(spec(shape=(8, 2)), spec(shape=(8, 3, 4, 4), name="image"))

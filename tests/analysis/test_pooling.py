"""Pooling takes what it says over the axes that it should, whatever their order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_inspect.analysis.pooling import Pool, pool
from onnx_inspect.errors import LayerError
from onnx_inspect.graph.spatial import Spatial

MAPS = np.random.default_rng(0).normal(size=(3, 5, 4, 6)).astype(np.float32)  # (N, K, h, w)
TOKENS = np.random.default_rng(1).normal(size=(3, 13, 5)).astype(np.float32)  # one before a grid of 3 x 4
FIRST = Spatial("channels-first", (4, 6))
LAST = Spatial("channels-last", (4, 6))
PATCHES = Spatial("tokens", (3, 4), prefix=1)
CASES: list[tuple[Any, Spatial | None, Pool, Any]] = [
    (MAPS, FIRST, "mean", MAPS.mean(axis=(2, 3))),
    (MAPS, FIRST, "max", MAPS.max(axis=(2, 3))),
    (MAPS, None, "mean", MAPS.mean(axis=(2, 3))),
    (np.moveaxis(MAPS, 1, -1), LAST, "mean", MAPS.mean(axis=(2, 3))),
    (np.moveaxis(MAPS, 1, -1), LAST, "max", MAPS.max(axis=(2, 3))),
    (MAPS.reshape(3, 5, 24), Spatial("flat", (4, 6)), "mean", MAPS.mean(axis=(2, 3))),
    (MAPS[..., 0], Spatial("channels-first", (4,)), "max", MAPS[..., 0].max(axis=2)),
    (np.stack([MAPS, MAPS], axis=2), Spatial("channels-first", (2, 4, 6)), "mean", MAPS.mean(axis=(2, 3))),
    (TOKENS, PATCHES, "mean", TOKENS[:, 1:].mean(axis=1)),
    (TOKENS, PATCHES, "max", TOKENS[:, 1:].max(axis=1)),
    (TOKENS, PATCHES, "cls", TOKENS[:, 0]),
    (TOKENS, None, "cls", TOKENS[:, 0]),
    (TOKENS, None, "mean", TOKENS.mean(axis=1)),
    (MAPS, FIRST, "flatten", MAPS.reshape(3, -1)),
    (MAPS, FIRST, "none", MAPS),
    (MAPS[:, :, 0, 0], None, "max", MAPS[:, :, 0, 0]),
    (np.arange(3), None, "mean", np.arange(3)[:, None]),
]


@pytest.mark.parametrize(("values", "form", "how", "expected"), CASES)
def test_pooling_is_taken_over_positions(values: Any, form: Spatial | None, how: Pool, expected: Any) -> None:
    found = pool(values, how, form)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)  # float32 means in another order
    assert found.dtype == (values.dtype if how == "none" else np.float32)


def test_tokens_that_only_fill_up_do_not_count() -> None:
    mask = (np.arange(13)[None] < np.array([[13], [4], [1]])).astype(np.int64)
    mean, most = (pool(TOKENS, how, None, mask=mask) for how in ("mean", "max"))
    for n, length in enumerate((13, 4, 1)):
        np.testing.assert_allclose(mean[n], TOKENS[n, :length].mean(axis=0), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(most[n], TOKENS[n, :length].max(axis=0))


def test_halves_are_summed_in_single_precision() -> None:
    halves = np.full((1, 1, 400, 400), 100, np.float16)  # their sum is far beyond float16
    assert pool(halves, "mean", Spatial("channels-first", (400, 400))).item() == 100


@pytest.mark.parametrize(
    ("values", "form"),
    [
        (MAPS, FIRST),
        (TOKENS[:, 1:], Spatial("tokens", (3, 4))),
        (MAPS[:, :, 0, 0], None),
        (MAPS.reshape(3, 5, 24), FIRST),
    ],
)
def test_what_has_no_class_token_says_so(values: Any, form: Spatial | None) -> None:
    with pytest.raises(LayerError, match="no class token"):
        pool(values, "cls", form, layer="x")

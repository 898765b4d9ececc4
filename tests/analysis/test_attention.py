"""Statistics by hand, rollout against a plain loop and a closed form, queries against the grid they point at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect.analysis.attention import rollout, stack, statistics, why_no_rollout
from onnx_inspect.analysis.attention_query import Query, looks, parse, usual, weights
from onnx_inspect.errors import InputError, MethodError
from onnx_inspect.heads import AttentionMap
from onnx_inspect.inputs.placement import place


def heads(probabilities: NDArray[Any], **more: Any) -> AttentionMap:
    """An attention that was never captured."""
    p = np.asarray(probabilities, np.float32)
    grid = more.get("grid")
    prefix = more.get("prefix", 0)
    cells = None if grid is None else np.arange(-prefix, p.shape[3] - prefix).clip(-1)[None]
    known: dict[str, Any] = {
        "layer": "softmax", "index": 0, "kind": "softmax", "heads": tuple(range(p.shape[1])), "queries": None,
        "reduced": None, "causal": False, "cross": False, "grid": grid, "cells": cells, "prefix": prefix,
        "prefix_names": ("cls", "dist")[:prefix], "windows": 1, "query_grid": grid, "query_cells": cells, "error": 0.0,
    }  # fmt: skip
    return AttentionMap(probabilities=p, **(known | more))


def random(count: int, tokens: int, n_heads: int = 2, seed: int = 0) -> NDArray[np.float32]:
    raw = np.random.default_rng(seed).exponential(1, (count, n_heads, tokens, tokens)) ** 2
    return (raw / raw.sum(axis=-1, keepdims=True)).astype(np.float32)


def one(rows: Sequence[Sequence[float]], **more: Any) -> Any:
    return statistics(heads(np.array([[rows]]), **more))[0]


def test_statistics_of_a_small_matrix_are_those_by_hand() -> None:
    rows = [[0.5, 0.25, 0.25, 0], [0, 1, 0, 0], [0.25, 0.25, 0.25, 0.25], [0, 0, 0.5, 0.5]]
    found = one(rows)
    entropies = [1.5 * np.log(2), 0, np.log(4), np.log(2)]
    assert found.entropy == pytest.approx(np.mean(entropies), abs=1e-9)
    assert found.evenness == pytest.approx(np.mean(entropies) / np.log(4), abs=1e-9)
    assert found.distance == pytest.approx(np.mean([0.25 + 0.5, 0, 0.5 + 0.25 + 0.25, 0.5]))
    assert found.first == pytest.approx((0.5 + 0 + 0.25 + 0) / 4)
    assert found.itself == pytest.approx((0.5 + 1 + 0.25 + 0.5) / 4)
    assert found.previous == pytest.approx((0 + 0.25 + 0.5) / 3)  # the first has none before it
    assert found.following == pytest.approx((0.25 + 0 + 0.25) / 3)
    mean = np.mean(rows, axis=0)
    assert found.movement == pytest.approx(np.mean([np.abs(np.array(row) - mean).sum() / 2 for row in rows]))
    assert found.name == ""


@pytest.mark.parametrize(
    ("matrix", "name", "dead"),
    [
        (np.full((6, 6), 1 / 6), "even", True),
        (np.eye(6), "diagonal", False),
        (np.eye(6, k=-1) + np.eye(6)[:1].T @ np.eye(6)[:1], "previous", False),
        (np.eye(6, k=1) + np.eye(6)[5:].T @ np.eye(6)[5:], "next", False),
        (np.tile([1.0, 0, 0, 0, 0, 0], (6, 1)), "first", False),
        (np.tile([0.1, 0.5, 0.4, 0, 0, 0], (6, 1)), "fixed", True),
    ],
)
def test_heads_of_one_habit_are_named(matrix: NDArray[Any], name: str, dead: bool) -> None:
    found = one(matrix.tolist())
    assert (found.name, found.dead) == (name, dead)


def test_distance_on_a_picture_is_in_patches_and_leaves_the_class_token_out() -> None:
    p = np.zeros((1, 1, 7, 7), np.float32)  # a class token and a grid of 2 x 3
    p[0, 0, :, 0] = 0.5  # half of all attention goes to the class token
    for query, key in enumerate([0, 6, 2, 1, 4, 5, 6]):
        p[0, 0, query, key] += 0.5
    found = statistics(heads(p, grid=(2, 3), prefix=1))[0]
    # Patches 0..5; patch 0 looks at 5: one row and two columns away; patch 1 at itself; patch 2 at patch 0: two columns
    apart = [np.hypot(1, 2), 0, 2, 0, 0, 0]
    wanted = [(0, 5), (1, 1), (2, 0), (3, 3), (4, 4), (5, 5)]
    assert [int(p[0, 0, q + 1, 1:].argmax()) for q, _ in wanted] == [k for _, k in wanted]
    assert found.distance == pytest.approx(np.mean(apart), rel=1e-6)


def test_padding_takes_no_part_in_statistics() -> None:
    small = random(1, 5, seed=3)
    padded = np.zeros((1, 2, 8, 8), np.float32)
    padded[:, :, :5, :5] = small
    padded[:, :, 5:, :] = 1 / 8  # what padding itself looks at
    seen = np.array([[True] * 5 + [False] * 3])
    for alone, within in zip(statistics(heads(small)), statistics(heads(padded), seen), strict=True):
        for key in set(alone.__dataclass_fields__) - {"head"}:
            assert getattr(within, key) == pytest.approx(getattr(alone, key), rel=1e-12), key


def test_a_causal_head_that_looks_at_all_it_may_is_even() -> None:
    size = 12
    p = np.tril(np.ones((size, size))) / np.arange(1, size + 1)[:, None]
    found = statistics(heads(p[None, None], causal=True))[0]
    assert found.evenness == pytest.approx(1, abs=1e-6)
    assert found.name == "even"
    assert statistics(heads(p[None, None]))[0].name == ""


def test_statistics_dont_depend_on_which_other_heads_or_samples_are_there() -> None:
    p = random(3, 6, n_heads=4)
    together = statistics(heads(p))
    assert [s.head for s in together] == ["0", "1", "2", "3"]
    alone = statistics(heads(p[:, 2:3], heads=(2,)))[0]
    assert alone == together[2]
    apart = [statistics(heads(p[n : n + 1]))[1].entropy for n in range(3)]
    assert np.mean(apart) == pytest.approx(together[1].entropy, rel=1e-9)


def test_heads_reduced_by_their_maximum_are_scaled_back_to_shares() -> None:
    p = random(1, 6).max(axis=1, keepdims=True)
    assert p.sum(axis=-1).max() > 1.05
    found = statistics(heads(p, reduced="max", heads=(0, 1)))[0]
    assert found.head == "max"
    assert 0 <= found.evenness <= 1


def test_what_means_nothing_is_nan() -> None:
    found = statistics(heads(random(1, 6)[:, :, :4], cross=True))[0]
    assert np.isnan([found.distance, found.itself, found.previous, found.following]).all()
    assert np.isfinite([found.entropy, found.first]).all()


# Rollout


def plain_rollout(layers: Sequence[NDArray[Any]], discard: float = 0.0) -> NDArray[np.float64]:
    """The definition, entry by entry."""
    count, _, size, _ = layers[0].shape
    results = []
    for n in range(count):
        total = np.eye(size)
        for p in layers:
            fused = [
                [sum(float(p[n, h, i, j]) for h in range(p.shape[1])) / p.shape[1] for j in range(size)]
                for i in range(size)
            ]
            entries = sorted((fused[i][j], i, j) for i in range(size) for j in range(size))
            for _, i, j in entries[: int(size * size * discard)]:
                fused[i][j] = 0.0
            mixed = np.array([[(fused[i][j] + (i == j)) / 2 for j in range(size)] for i in range(size)])
            for i in range(size):
                mixed[i] /= sum(mixed[i])
            total = mixed @ total
        results.append(total)
    return np.stack(results)


@pytest.mark.parametrize("discard", [0.0, 0.3, 0.9])
def test_rollout_is_its_definition_entry_by_entry(discard: float) -> None:
    layers = [random(3, 5, seed=seed) for seed in range(3)]
    found = rollout([heads(p) for p in layers], discard=discard)
    # float32 probabilities summed in another order
    np.testing.assert_allclose(found, plain_rollout(layers, discard), atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-12)


def test_rollout_of_two_layers_has_its_closed_form() -> None:
    a, b = random(1, 4, n_heads=1, seed=1), random(1, 4, n_heads=1, seed=2)
    eye = np.eye(4)
    # (B + I)(A + I) / 4 = (BA + A + B + I) / 4, rows of A and B sum to 1
    expected = (b[0, 0] @ a[0, 0] + a[0, 0] + b[0, 0] + eye) / 4
    np.testing.assert_allclose(rollout([heads(a), heads(b)])[0], expected, atol=1e-6)


def test_discarding_counts_in_each_sample_by_itself() -> None:
    layers = [random(2, 6, seed=seed) for seed in (4, 5)]
    layers[0][1] = random(1, 6, seed=9)[0] ** 3
    layers[0][1] /= layers[0][1].sum(axis=-1, keepdims=True)
    both = rollout([heads(p) for p in layers], discard=0.5)
    for n in range(2):
        np.testing.assert_allclose(both[n], rollout([heads(p[n : n + 1]) for p in layers], discard=0.5)[0], atol=1e-12)


def test_rollout_takes_the_largest_of_heads_where_asked() -> None:
    p = random(1, 4, n_heads=3)
    fused = p.max(axis=1)[0] + np.eye(4)
    np.testing.assert_allclose(
        rollout([heads(p)], reduce="max")[0], fused / fused.sum(axis=-1, keepdims=True), atol=1e-6
    )


@pytest.mark.parametrize(
    ("maps", "says"),
    [
        ([], "no attention was recovered"),
        ([heads(random(4, 4), windows=4)], "attends within 4 windows"),
        ([heads(random(1, 4)), heads(random(1, 4), cross=True)], "from one sequence to another"),
        ([heads(random(1, 4)), heads(random(1, 5))], "has 5 queries and 5 keys, the first layer 4"),
        ([heads(random(1, 4)[:, :, :1], queries=(0,))], "only some query rows"),
    ],
)
def test_rollout_is_refused_where_tokens_dont_stay_the_same(maps: list[AttentionMap], says: str) -> None:
    assert says in why_no_rollout(maps)
    with pytest.raises(MethodError, match="no rollout: "):
        rollout(maps)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_what_is_no_share_is_not_discarded(share: float) -> None:
    with pytest.raises(MethodError, match="share from 0 to below 1"):
        rollout([heads(random(1, 4))], discard=share)


def test_one_tower_of_two_is_followed() -> None:
    picture, text = heads(random(1, 10), grid=(3, 3), prefix=1), heads(random(1, 7))
    assert stack([picture, picture, text, text]) == (text, text)
    assert stack([picture, text, text], length=10) == (picture,)


# Queries


@pytest.mark.parametrize("text", ["cls", "mean", "7", "-1", "12,40", "1.5, 2"])
def test_queries_are_read(text: str) -> None:
    assert parse(text).text


@pytest.mark.parametrize("text", ["", "dog", "1,2,3", "-1,4", "1.5"])
def test_what_is_no_query_is_one_line(text: str) -> None:
    with pytest.raises(InputError, match="--query is cls, mean, a token's number, or x,y"):
        parse(text)


def test_the_class_token_is_asked_where_there_is_one() -> None:
    assert usual(heads(random(1, 7), grid=(2, 3), prefix=1)).text == "cls"
    assert usual(heads(random(1, 6), grid=(2, 3))).text == "mean"


def test_a_point_of_the_picture_asks_its_patch() -> None:
    found = heads(random(1, 7), grid=(2, 3), prefix=1)
    placement = place((100, 300), (40, 60), "stretch")
    for x, y, patch in ((10, 10, 0), (150, 10, 1), (290, 90, 5), (110, 60, 4)):
        chosen, words = weights(parse(f"{x},{y}"), found, placement, None)
        assert chosen.argmax() == patch + 1  # behind the class token
        assert f"row {patch // 3 + 1}, column {patch % 3 + 1}" in words
    with pytest.raises(InputError, match="outside what the network saw"):
        weights(parse("10,10"), found, place((100, 300), (40, 40), "crop"), None)


def test_the_mean_is_over_patches_and_not_over_padding() -> None:
    chosen, words = weights(Query("mean"), heads(random(1, 8), grid=(2, 3), prefix=2), None, None)
    np.testing.assert_allclose(chosen, [[0, 0, *[1 / 6] * 6]])
    assert words == "the mean of all patches"
    chosen, _ = weights(Query("mean"), heads(random(1, 4)), None, np.array([True, True, False, False]))
    np.testing.assert_allclose(chosen, [[0.5, 0.5, 0, 0]])


def test_looks_are_rows_of_the_probabilities() -> None:
    found = heads(random(2, 7), grid=(2, 3), prefix=1)
    chosen, _ = weights(parse("cls"), found, None, None)
    np.testing.assert_allclose(looks(found, 1, chosen)[:, 0], found.probabilities[1, :, 0], atol=1e-7)
    chosen, _ = weights(Query("mean"), found, None, None)
    np.testing.assert_allclose(looks(found, 0, chosen)[:, 0], found.probabilities[0, :, 1:].mean(axis=1), atol=1e-6)


def test_a_query_in_a_window_leaves_other_windows_unknown() -> None:
    cells = np.array([[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]])
    p = random(8, 4)  # two samples of four windows
    found = heads(p, windows=4, grid=(4, 4), cells=cells, query_grid=(4, 4), query_cells=cells)
    chosen, _ = weights(parse("15,2"), found, place((20, 20), (20, 20), "stretch"), None)
    seen = found.on_grid(looks(found, 1, chosen))  # (heads, 4, 4)
    assert np.isfinite(seen[0]).sum() == 4
    np.testing.assert_allclose(seen[:, :2, 2:].reshape(2, 4), p[5, :, 1], atol=1e-7)
    everywhere, _ = weights(Query("mean"), found, None, None)
    assert np.isfinite(found.on_grid(looks(found, 0, everywhere))).all()


@pytest.mark.parametrize(
    ("text", "says"),
    [("9", "has 4 queries: 0 to 3"), ("cls", "no class token"), ("3,3", "needs the patches of a picture")],
)
def test_a_query_that_isnt_there_is_one_line(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        weights(parse(text), heads(random(1, 4), causal=True), None, None)

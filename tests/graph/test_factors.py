from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnx_inspect.graph.factors import Axes, beginnings, born, joined, kind, picked, pieces, reshaped, resolve, size


def positions(axes: Axes, shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Flat place in a first tensor of `shape` of each entry of a later one, as its axes tell it; -1 where in none."""
    found = resolve(axes)
    flat = np.zeros(tuple(size(a) for a in axes), np.intp)
    there = np.ones(flat.shape, bool)
    seen = set()
    for base, where in found.items():
        step = math.prod(shape[base.axis + 1 :])
        flat = flat + np.where(where >= 0, where, 0) * step
        there &= where >= 0
        seen.add(base.axis)
    assert seen <= set(range(len(shape)))
    return np.where(there, flat, -1)


def splits(n: int, draw: Any) -> list[int]:
    parts = []
    while n > 1:
        divisors = [d for d in range(2, n + 1) if n % d == 0]
        parts.append(draw(st.sampled_from(divisors)))
        n //= parts[-1]
    return parts


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_axes_follow_entries_through_any_rearrangement(data: st.DataObject) -> None:
    draw = data.draw
    shape = tuple(draw(st.lists(st.sampled_from([2, 3, 4, 6, 8]), min_size=2, max_size=3)))
    axes: Axes = born("position", shape, "x")
    array = np.arange(math.prod(shape)).reshape(shape)
    for step in range(draw(st.integers(1, 6))):
        move = draw(st.sampled_from(["transpose", "reshape", "pick", "roll"]))
        along = draw(st.integers(0, array.ndim - 1))
        if move == "transpose":
            order = draw(st.permutations(range(array.ndim)))
            array, axes = array.transpose(order), tuple(axes[i] for i in order)
        elif move == "reshape":
            fine = [part for n in array.shape for part in splits(n, draw)] or [1]
            joints = draw(st.lists(st.booleans(), min_size=len(fine), max_size=len(fine)))
            merged: list[int] = []
            for part, join in zip(fine, joints, strict=True):
                if merged and join:
                    merged[-1] *= part
                else:
                    merged.append(part)
            dealt = reshaped(axes, merged)
            if dealt is None:
                continue  # a slice can't be dealt out to what it doesn't divide into
            array, axes = array.reshape(merged), dealt
        elif move == "pick":
            count = array.shape[along]
            index = np.array(sorted(draw(st.sets(st.integers(0, count - 1), min_size=1))), np.intp)
            taken = picked(axes[along], index, f"pick{step}", along, "x")
            array, axes = array.take(index, along), (*axes[:along], taken, *axes[along + 1 :])
        else:
            count = array.shape[along]
            cut = draw(st.integers(0, count))
            parts = [np.arange(cut, count), np.arange(cut)]
            rolled = joined(
                [picked(axes[along], p, f"cut{step}", along, "x") for p in parts], f"roll{step}", along, "xx"
            )
            array, axes = np.roll(array, -cut, along), (*axes[:along], rolled, *axes[along + 1 :])
    assert np.array_equal(positions(axes, shape), array)


def test_a_shift_and_its_way_back_leave_the_axis_as_it_was() -> None:
    (axis,) = born("position", (8,), "x")

    def rolled(axis: Any, by: int) -> Any:
        index = np.roll(np.arange(8), by)
        cut = 8 - by % 8
        return joined(
            [picked(axis, index[: by % 8], "a", 0, "x"), picked(axis, np.arange(cut), "b", 0, "x")], "c", 0, "ab"
        )

    assert rolled(rolled(axis, 3), 5) == axis


def test_padding_and_strung_together_tokens_are_told_apart() -> None:
    (tokens,) = born("position", (4,), "patches")
    (special,) = born("constant", (1,), "cls")
    whole = joined([special, tokens], "cat", 1, ["cls", "patches"])
    assert list(pieces(whole)) == [("cls", 1), ("patches", 4)]
    assert kind(whole) == "position"
    padded = picked(whole, np.array([-1, 0, 1, 2, 3, 4]), "pad", 1, "cat")
    assert list(pieces(padded)) == [("", 1), ("cls", 1), ("patches", 4)]
    (base,) = (b for b in resolve([padded]) if b.origin == "patches")
    assert resolve([padded])[base].tolist() == [-1, -1, 0, 1, 2, 3]
    assert {b.origin for b in beginnings([padded])} == {"pad", "cat", "cls", "patches"} - {"cat"}


def test_a_lone_sample_goes_with_the_heads_it_was_folded_into() -> None:
    (sample,), (heads,), (tokens,) = (born(k, (n,), k) for k, n in (("sample", 1), ("channel", 4), ("position", 5)))
    folded = reshaped((heads, sample, tokens), (4, 5))  # (heads * samples, tokens)
    assert folded is not None
    assert [f.base.kind for f in folded[0]] == ["channel", "sample"]
    flat = reshaped((sample, tokens, heads), (5, 4))  # (samples * tokens, channels), as a product of matrices wants it
    assert flat is not None
    assert [f.base.kind for f in flat[0]] == ["sample", "position"]


def test_what_doesnt_divide_is_unknown() -> None:
    assert reshaped(born("position", (6,), "x"), (4, 2)) is None
    assert reshaped(born("position", (3, 2), "x"), (2, 3)) is None

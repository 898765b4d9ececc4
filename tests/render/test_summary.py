"""A summary in a terminal: whole at 80 and 120 columns, honest about what is unknown."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from onnx_inspect.analysis.summary import Summary, summarise
from onnx_inspect.graph.read import read
from onnx_inspect.render.summary import STAR, middle, short, show

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "fixtures"
REAL = ROOT / "../shared/real/models"


def printed(summary: Summary, width: int, *, whole: bool = False) -> list[str]:
    stream = io.StringIO()
    show(summary, Console(file=stream, width=width, force_terminal=False), whole=whole)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_the_whole_text_of_a_small_model() -> None:
    found = summarise(read(FIXTURES / "digits_convnet.onnx"), ranks={"relu2_node": 1, "relu1_node": 2})
    names = [row.layer.name for row in found.layers]
    text = "\n".join(printed(found, 100)[1:])
    assert "parameters   62.0 k" in text
    assert "MACs         652 k" in text
    assert "activations  72.3 kB in all, 37.6 kB at once" in text
    assert all(name in text for name in names)
    totals = text.split("op     ")[-1]
    assert totals.splitlines()[1].split()[:5] == ["Conv", "2", "2,872", "593", "k"]  # 6*75*28*28 + 16*150*10*10


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.onnx")), ids=lambda path: path.stem)
def test_no_line_is_wider_than_the_terminal(path: Path, width: int) -> None:
    summary = summarise(read(path))
    lines = printed(summary, width)
    assert max(map(len, lines)) <= width
    numbered = [line.split()[0] for line in lines if line and line.split()[0].isdigit()]
    assert len(numbered) + sum("prepare constants" in line for line in lines) > 0


def test_real_models_fit() -> None:
    if not REAL.is_dir():
        pytest.skip("the real models are not here")
    for path in sorted(REAL.rglob("*.onnx")):
        summary = summarise(read(path))
        for width in (80, 120):
            lines = printed(summary, width)
            assert max(map(len, lines)) <= width, path.name


def test_rows_that_only_prepare_constants_are_folded_unless_all_are_asked_for() -> None:
    summary = summarise(read(FIXTURES / "int8_qdq.onnx"))
    folded, whole = printed(summary, 100), printed(summary, 100, whole=True)
    constant = sum(row.constant for row in summary.layers)
    assert constant > 10
    counted = sum(int(line.split()[1]) for line in folded if "that prepare constants" in line)
    single = len(whole) - len(folded) - counted + sum("that prepare constants" in line for line in folded)
    assert single == 0
    assert not any("that prepare constants" in line for line in whole)


def test_the_default_layer_of_a_cam_is_starred_and_others_ranked() -> None:
    summary = summarise(read(FIXTURES / "gap.onnx"))
    ranked = {row.layer.name: rank for rank, row in enumerate(summary.layers[:2], 1)}
    lines = printed(summarise(read(FIXTURES / "gap.onnx"), ranks=ranked), 80)
    rows = [line for line in lines if line.split()[:1] in (["0"], ["1"])]
    assert rows[0].endswith(STAR)
    assert rows[1].endswith("2")
    assert any("default layer of a CAM" in line for line in lines)
    assert not any(STAR in line for line in printed(summary, 80))


def test_unknown_costs_say_what_to_give() -> None:
    path = REAL / "ppocr_v2_cls.onnx"
    if not path.exists():
        pytest.skip("the real models are not here")
    text = " ".join(" ".join(printed(summarise(read(path)), 100)).split())
    assert "layers of unknown cost: give --shape for x" in text
    assert "activations unknown" in text
    known = " ".join(printed(summarise(read(path), shapes={"x": (1, 3, 48, 192)}), 100))
    assert "16.3 M (for x 1×3×48×192)" in known


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "?"),
        (0, "0"),
        (9_999, "9,999"),
        (10_000, "10.0 k"),
        (99_960, "100 k"),
        (999_499, "999 k"),
        (999_600, "1.00 M"),
        (2**40, "1.10 T"),
    ],
)
def test_counts_are_short(number: int | None, text: str) -> None:
    assert short(number) == text


def test_shortened_names_keep_both_ends() -> None:
    assert middle("abcdefghij", 10) == "abcdefghij"
    assert middle("abcdefghijk", 10) == "ab…efghijk"
    assert len(middle("x" * 500, 33)) == 33

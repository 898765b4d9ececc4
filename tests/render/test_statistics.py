"""Whether the terminal's table says of each layer what is known, and leaves out what says nothing."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from onnx_inspect.analysis.statistics import LayerStatistics
from onnx_inspect.render.statistics import show


def layer(**fields: Any) -> LayerStatistics:
    usual: dict[str, Any] = {
        "name": "conv1",
        "op_type": "Conv",
        "shape": (2, 8, 5, 5),
        "dtype": "float32",
        "mean": 0.5,
        "std": 1.25,
        "min": -2.0,
        "max": 3.0,
        "zeros": 0.125,
        "channels": 8,
        "dead": (1, 2),
        "constant": (),
        "saturated": None,
        "nan": 0,
        "inf": 0,
    }
    return LayerStatistics(**(usual | fields))


def printed(*layers: LayerStatistics, width: int = 80) -> str:
    stream = io.StringIO()
    show(layers, Console(file=stream, width=width))
    return stream.getvalue()


def test_a_row_has_name_operator_shape_and_numbers() -> None:
    text = printed(layer())
    for word in ("conv1", "Conv 2×8×5×5", "0.5", "1.25", "-2", "3", "12.5%", "2/8"):
        assert word in text


def test_columns_that_say_nothing_are_left_out() -> None:
    assert not {"constant", "saturated", "NaN", "Inf"} & set(printed(layer()).split())
    text = printed(layer(constant=(3,), saturated=(), nan=7), layer(name="b"), width=120)
    assert {"constant", "1/8", "NaN", "7"} <= set(text.split())
    assert "Inf" not in text


def test_unknown_numbers_are_dashes() -> None:
    text = printed(layer(mean=None, std=None, min=None, max=None, zeros=None, dead=None, nan=9))
    assert text.count(" -") >= 6


def test_names_are_printed_as_they_are_and_long_ones_shortened() -> None:
    assert "[bold]x[/bold]" in printed(layer(name="[bold]x[/bold]"))
    long = printed(layer(name="start" + "x" * 300 + "end"))
    assert "start" in long
    assert "end" in long
    assert len(long) < 600

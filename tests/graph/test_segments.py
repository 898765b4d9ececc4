"""A model cut at many tensors gives what each part makes of what is fed before it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from onnx_inspect.engine import Engine
from onnx_inspect.errors import LayerError
from onnx_inspect.graph.read import read
from onnx_inspect.graph.segments import MADE, segments
from onnx_inspect.graph.surgery import expose

node = helper.make_node


def chain(make: Callable[..., Any]) -> Any:
    nodes = [node("Add", ["x", "one"], ["a"]), node("Mul", ["a", "two"], ["b"]), node("Sub", ["b", "a"], ["c"])]
    return make(nodes, {"x": (np.float32, [1, 2])}, ["c"], {"one": np.float32(1), "two": np.float32(2)})


def test_each_part_reads_what_is_fed_and_not_what_the_model_makes(
    make: Callable[..., Any], plainly: Callable[..., Any]
) -> None:
    part = segments(chain(make), ["a", "b"], ["a", "b", "c"], {})
    x, a, b = (np.full((1, 2), v, np.float32) for v in (1, 10, 100))
    made = plainly(part, {"x": x, "a": a, "b": b})
    assert {name: float(value[0, 0]) for name, value in made.items()} == {"a" + MADE: 2, "b" + MADE: 20, "c": 90}


def test_only_what_is_needed_is_asked_for(make: Callable[..., Any]) -> None:
    part = segments(chain(make), ["a", "b"], ["c"], {})
    assert {s.name for s in part.inputs} == {"a", "b"}
    assert {n.op_type for n in part.proto.graph.node} == {"Sub"}


def test_fed_its_own_values_a_model_makes_them_again(fixtures: Path, some: Callable[..., Any]) -> None:
    for name in ("skip", "digits_vit", "multi_input", "int8_qdq"):
        model = read(fixtures / f"{name}.onnx")
        names = [la.output.name for la in model.layers if la.output.name in model.producers]
        feeds = some(model, 1)
        own = Engine(expose(model, names), exact=True).run(feeds, names)
        floats = [n for n in names if own[n].dtype.kind == "f"]
        part = segments(model, floats, floats, {n: str(own[n].dtype) for n in floats})
        made = Engine(part, exact=True).run({s.name: (own | feeds)[s.name] for s in part.inputs})
        for tensor in floats:
            np.testing.assert_allclose(made[tensor + MADE], own[tensor], rtol=1e-5, atol=1e-5)


def test_the_model_given_stays_as_it_is(make: Callable[..., Any]) -> None:
    model = chain(make)
    before = model.proto.SerializeToString()
    segments(model, ["a"], ["c"], {})
    assert model.proto.SerializeToString() == before


def test_a_tensor_that_is_not_computed_is_named(make: Callable[..., Any]) -> None:
    with pytest.raises(LayerError, match="'nowhere'"):
        segments(chain(make), ["nowhere"], ["c"], {})

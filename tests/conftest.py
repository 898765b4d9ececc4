"""What many tests share: where the models are, small graphs made on the spot, and onnxruntime itself as the oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnx_inspect.graph.batch import batch_axes
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import parse

Arrays = dict[str, NDArray[Any]]
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of small models."""
    return ROOT / "fixtures"


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of models that other people trained; tests that use it are skipped where it is missing."""
    folder = ROOT / "../shared/real"
    if not folder.is_dir():
        pytest.skip("the real models are not on this machine")
    return folder


def make_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[Any, Sequence[Any] | None]],
    outputs: Sequence[str] | Mapping[str, tuple[Any, Sequence[Any] | None]],
    constants: Mapping[str, Any] = {},
    *,
    opset: int = 18,
    source: str = "made.onnx",
    **more: Any,
) -> Model:
    """A Model of these nodes; inputs and outputs are (numpy type or ONNX number, shape)."""

    def info(name: str, given: tuple[Any, Sequence[Any] | None]) -> onnx.ValueInfoProto:
        kind = given[0] if isinstance(given[0], int) else helper.np_dtype_to_tensor_dtype(np.dtype(given[0]))
        return helper.make_tensor_value_info(name, kind, given[1])

    ends = outputs if isinstance(outputs, Mapping) else None
    graph = helper.make_graph(
        nodes,
        "made",
        [info(n, i) for n, i in inputs.items()],
        [info(n, i) for n, i in ends.items()] if ends else [onnx.ValueInfoProto(name=n) for n in outputs],
        [
            v if isinstance(v, onnx.TensorProto) else numpy_helper.from_array(np.asarray(v), n)
            for n, v in constants.items()
        ],
    )
    opsets = [helper.make_opsetid("", opset), *more.pop("opsets", [])]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=more.pop("ir_version", 10), **more)
    return parse(proto.SerializeToString(), source=source)


def run_plainly(
    model: Model | Path | onnx.ModelProto, feeds: Mapping[str, Any], names: Sequence[str] | None = None
) -> Arrays:
    """Outputs by name, straight from onnxruntime without optimisations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    if isinstance(model, Model):
        model = model.proto
    given = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    wanted = list(names) if names is not None else [o.name for o in session.get_outputs()]
    return dict(zip(wanted, session.run(wanted, dict(feeds)), strict=True))


def random_feeds(model: Model, count: int, seed: int = 0, free: int = 16) -> Arrays:
    """`count` different samples for each input; axes that the model leaves free get the length `free`."""
    rng, axes, feeds = np.random.default_rng(seed), batch_axes(model), {}
    for spec in model.inputs:
        shape = [
            count if i == axes[spec.name] else d if isinstance(d, int) else free for i, d in enumerate(spec.shape or ())
        ]
        if spec.dtype.startswith("float"):
            feeds[spec.name] = rng.normal(0, 1, shape).astype(spec.dtype)
        else:
            feeds[spec.name] = rng.integers(0, 2, shape).astype(spec.dtype)
    return feeds


@pytest.fixture(scope="session")
def make() -> Callable[..., Model]:
    return make_model


@pytest.fixture(scope="session")
def plainly() -> Callable[..., Arrays]:
    return run_plainly


@pytest.fixture(scope="session")
def some() -> Callable[..., Arrays]:
    return random_feeds

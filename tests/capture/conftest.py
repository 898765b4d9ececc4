"""A data set of digits, small enough to be captured many times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect.capture.setup import Job, job, source
from onnx_inspect.engine import Engine
from onnx_inspect.graph.read import read
from onnx_inspect.inputs.dataset import find
from onnx_inspect.inputs.labels import read_labels
from onnx_inspect.inputs.read import primary_of

FIXTURES = Path(__file__).parents[2] / "fixtures"
NET = FIXTURES / "digits_convnet.onnx"


@pytest.fixture(scope="session")
def digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """All digits and their classes."""
    with np.load(FIXTURES / "inputs" / "digits.npz") as file:
        return file["images"], file["labels"]


def make_job(data: Path, layers: list[str], *, net: Path = NET, threads: int | None = 1, **options: Any) -> Job:
    """A capture of a data set, ready to run on one thread."""
    model = read(net)
    specs = {spec.name: spec for spec in model.inputs}
    primary = primary_of(specs)
    dataset = find([str(data)], specs, primary)
    found = source(model, dataset, primary=primary, labels=read_labels(None, model.metadata))
    chosen = [model.layer(layer) for layer in layers]
    return job(found, chosen, make_engine=lambda part: Engine(part, threads=threads), **options)


@pytest.fixture(scope="session")
def plan_of() -> Any:
    return make_job

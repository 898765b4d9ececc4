"""A data set of digits, small enough to be captured many times."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect.capture.setup import Job, prepared
from onnx_inspect.engine import Engine

FIXTURES = Path(__file__).parents[2] / "fixtures"
NET = FIXTURES / "digits_convnet.onnx"


@pytest.fixture(scope="session")
def digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """All digits and their classes."""
    with np.load(FIXTURES / "inputs" / "digits.npz") as file:
        return file["images"], file["labels"]


def make_job(data: Path, layers: list[str], *, net: Path = NET, threads: int | None = 1, **options: Any) -> Job:
    """A capture of a data set, ready to run on one thread."""
    return prepared(net, data, layers, make_engine=partial(Engine, threads=threads), **options)


@pytest.fixture(scope="session")
def plan_of() -> Any:
    return make_job

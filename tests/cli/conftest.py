"""Running the program in this process, as the console script does."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import pytest

from onnx_inspect.cli.app import main


@dataclass(frozen=True)
class Ran:
    """What one run of the program left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))


@pytest.fixture
def run() -> Callable[..., Ran]:
    """Run the program with some words; whatever it raises but its own exit is a failure of the test."""

    def call(*words: object) -> Ran:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        code = ended.value.code
        assert isinstance(code, int)
        return Ran(code, out.getvalue(), err.getvalue())

    return call

"""The one function that pytorch-grad-cam's SESS imports; the benchmark doesn't call it."""

from __future__ import annotations

from typing import Any


def resize(*args: Any, **kwargs: Any) -> Any:
    raise NotImplementedError("this torchvision is a stub for benchmarks: install the real one")

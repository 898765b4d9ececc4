"""Names that pytorch-grad-cam's image helpers import; the benchmark calls none of them."""

from __future__ import annotations

from typing import Any


class _Absent:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("this torchvision is a stub for benchmarks: install the real one")


class Compose(_Absent): ...


class Normalize(_Absent): ...


class ToTensor(_Absent): ...

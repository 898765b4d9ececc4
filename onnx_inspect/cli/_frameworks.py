"""Which training frameworks the program knows by their exporters, and what of the command line names their models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from onnx_inspect import discover
from onnx_inspect.errors import InputError

EXPORTERS = "exporters"


def names() -> list[str]:
    """The exporters, without importing any."""
    return discover.names(EXPORTERS)


def load(name: str) -> ModuleType:
    """Import one."""
    return discover.load(EXPORTERS, name)


def is_source(text: str) -> bool:
    """Whether a word is ``module.path:factory`` rather than a file.

    Examples
    --------
    >>> is_source("my.models:resnet"), is_source("C:/net.onnx"), is_source("net.onnx")
    (True, False, False)
    """
    module, colon, factory = text.partition(":")
    dotted = all(part.isidentifier() for part in (*module.split("."), *factory.split(".")))
    return bool(colon) and dotted and not Path(text).exists()


def opened(source: str, weights: Path | None) -> Callable[[Any], Any]:
    """A framework's network, ready to be run layer by layer.

    Raises
    ------
    InputError
        No exporter can.
    """
    for name in names():
        exporter = load(name)
        if hasattr(exporter, "layers"):
            found: Callable[[Any], Any] = exporter.layers(source, weights=weights)
            return found
    raise InputError(f"no exporter can run {source}: export it, and compare the file")

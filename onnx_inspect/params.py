"""How ``key=value`` texts become the parameters of a method or a projection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnx_inspect.errors import MethodError


def parse_params(kind: type[Any], given: Mapping[str, str], method: str) -> Any:
    """Make a method's `Params` from ``key=value`` texts.

    Raises
    ------
    MethodError
        An unknown key or a value of the wrong type; the message lists the fields.
    """
    defaults = kind()
    known = {name: getattr(defaults, name) for name in kind.__dataclass_fields__}
    values: dict[str, Any] = {}
    for key, text in given.items():
        if key not in known:
            fields = ", ".join(f"{n}={v}" for n, v in known.items()) or "none"
            raise MethodError(f"{method} has no parameter {key!r}; its parameters and defaults: {fields}")
        values[key] = _value(key, text, known[key], method)
    try:
        return kind(**values)
    except ValueError as error:
        raise MethodError(f"{method}: {error}") from error


def _value(key: str, text: str, default: Any, method: str) -> Any:
    if isinstance(default, bool):
        if text.lower() in ("true", "yes", "1", "false", "no", "0"):
            return text.lower() in ("true", "yes", "1")
        raise MethodError(f"{method}: {key} is true or false, got {text!r}")
    try:
        return type(default)(text)
    except ValueError:
        raise MethodError(f"{method}: {key} is of type {type(default).__name__}, got {text!r}") from None

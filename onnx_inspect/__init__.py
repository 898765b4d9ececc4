"""See what any ONNX network sees, on a CPU, without a training framework."""

from typing import TYPE_CHECKING, Any

from onnx_inspect._version import __version__

if TYPE_CHECKING:
    from onnx_inspect.api import Explanation, explain

__all__ = ["Explanation", "__version__", "explain"]


def __getattr__(name: str) -> Any:
    """Import the public functions when they are first used: `import onnx_inspect` itself stays light."""
    if name in ("Explanation", "explain"):
        from onnx_inspect import api

        return getattr(api, name)
    raise AttributeError(f"module 'onnx_inspect' has no attribute {name!r}")

"""See what any ONNX network sees, on a CPU, without a training framework."""

from onnx_inspect._version import __version__

__all__ = ["__version__"]

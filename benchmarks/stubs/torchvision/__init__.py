"""Stands in for torchvision, which pytorch-grad-cam imports and has no CPU build for torch's own.

Nothing that the benchmark measures calls into it: every name here only has to exist.
"""

__version__ = "0.0.0+stub"

"""Activations of a whole data set: planned, run in portions, written to disk in shards, and read back.

Examples
--------
>>> import numpy as np, tempfile
>>> from onnx_inspect import capture
>>> from onnx_inspect.cli.app import main
>>> folder = tempfile.TemporaryDirectory()
>>> words = ["capture", "fixtures/digits_convnet.onnx", "fixtures/inputs/digits.npz", "--layer", "Relu:-1"]
>>> try:
...     main([*words, "-o", folder.name + "/digits", "--quiet"])  # doctest: +ELLIPSIS
... except SystemExit as ended:
...     ended.code
/...
0
>>> found = capture.open(folder.name + "/digits")
>>> found.layers, found.array(found.layers[0]).shape, found.labels[:3]
(('node_relu_3',), (1797, 84), array([0, 1, 2]))
>>> folder.cleanup()
"""

from onnx_inspect.capture.reading import Captured, Sharded, described, is_capture, open

__all__ = ["Captured", "Sharded", "described", "is_capture", "open"]

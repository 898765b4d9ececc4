"""Activations of a whole data set: planned, run in portions, written to disk in shards, and read back.

Examples
--------
>>> from tempfile import TemporaryDirectory
>>> from onnx_inspect import capture
>>> job = capture.prepared("fixtures/digits_convnet.onnx", "fixtures/inputs/digits.npz", ["Relu:-1", "Conv:0"])
>>> with TemporaryDirectory() as folder:
...     _ = capture.write(job, folder)
...     found = capture.open(folder)
...     [(layer, found.array(layer).shape) for layer in found.layers]
[('node_conv2d', (1797, 6, 28, 28)), ('node_relu_3', (1797, 84))]
>>> found.labels[:3], found.predictions[:3], round(found.accuracy, 3)
(array([0, 1, 2]), array([0, 1, 2]), 0.999)
"""

from onnx_inspect.capture.local import write
from onnx_inspect.capture.reading import Captured, Sharded, described, is_capture, open
from onnx_inspect.capture.setup import prepared

__all__ = ["Captured", "Sharded", "described", "is_capture", "open", "prepared", "write"]

"""What the integers of a quantised tensor stand for: its scale and zero point, read off the nodes around it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_inspect.graph.constants import Scope
from onnx_inspect.graph.model import Model

# Where a node keeps the scale of what it makes; the zero point follows it. Other QLinear operators keep it last.
MADE = {"QuantizeLinear": 1, "QLinearConv": 6, "QLinearMatMul": 6, "QGemm": 7, "QLinearConcat": 0}
LAST = ("QLinearAdd", "QLinearMul")  # (a, scale, zero) * 2, scale, zero
UNARY = ("QLinearGlobalAveragePool", "QLinearAveragePool", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax")
PASSING = frozenset(  # what they give is in the steps of what they take
    "Identity Reshape Flatten Squeeze Unsqueeze Transpose MaxPool Slice Split Pad Gather Expand Tile Relu Clip Resize"
    " DepthToSpace SpaceToDepth Max Min".split()
)
READ = {"DequantizeLinear": (0,), "QLinearConv": (0,), "QLinearMatMul": (0, 3), "QGemm": (0,)}


@dataclass(frozen=True)
class Steps:
    """A quantised tensor's real values are ``(steps - zero_point) * scale``."""

    scale: float
    zero_point: float

    def real(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """What steps stand for, in float64: uint8 never wraps around."""
        return (np.asarray(values, np.float64) - self.zero_point) * self.scale

    def steps(self, values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Real values as steps: to the nearest, ties to even, saturated at the type's ends as QuantizeLinear does."""
        info = np.iinfo(dtype)
        rounded = np.rint(np.asarray(values, np.float64) / self.scale) + self.zero_point
        return np.clip(np.nan_to_num(rounded), info.min, info.max).astype(dtype)


class Quantisers:
    """Scales and zero points of a model's tensors; one scope serves all of them."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._scope = Scope(model, model.proto.graph)

    def of(self, tensor: str) -> Steps | None:
        """Return the steps of a tensor; None where it has none, or one per channel, or an input decides them."""
        seen: set[str] = set()
        waiting = [tensor]
        while waiting:
            name = waiting.pop(0)
            if name in seen:
                continue
            seen.add(name)
            for at, node in self._places(name):
                if (found := self._read(node, at)) is not None:
                    return found
            waiting.extend(self._alike(name))
        return None

    def _places(self, name: str) -> Iterable[tuple[int, onnx.NodeProto]]:
        """Where nodes around a tensor keep its scale."""
        maker = self.model.producers.get(name)
        if maker is not None:
            if maker.op_type in MADE:
                yield MADE[maker.op_type], maker
            elif maker.op_type in LAST:
                yield 6, maker
            elif maker.op_type in UNARY:
                yield 3, maker
        for reader in self.model.consumers.get(name, []):
            known = READ.get(reader.op_type)
            quantised = reader.op_type.startswith("QLinear")
            for at, read in enumerate(reader.input):
                if read == name and (at in known if known is not None else quantised):
                    yield at + 1, reader

    def _alike(self, name: str) -> Iterable[str]:
        """Tensors around it that are in the same steps."""
        maker = self.model.producers.get(name)
        if maker is not None and maker.op_type in PASSING:
            yield maker.input[0]
        for reader in self.model.consumers.get(name, []):
            if reader.op_type in PASSING and reader.input[0] == name:
                yield from reader.output

    def _read(self, node: onnx.NodeProto, at: int) -> Steps | None:
        scale = self._scope.constant(node.input[at]) if at < len(node.input) else None
        if scale is None or scale.size != 1 or not scale.dtype.startswith(("float", "bfloat")):
            return None
        zero = self._scope.constant(node.input[at + 1]) if at + 1 < len(node.input) else None
        return Steps(float(scale.array().reshape(())), 0.0 if zero is None else float(zero.array().reshape(-1)[0]))

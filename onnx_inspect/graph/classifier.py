"""Where a model keeps its class scores: which output, and the logits before its last Softmax."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from onnx_inspect.errors import TargetError
from onnx_inspect.graph.batch import fixed_batch, varying
from onnx_inspect.graph.constants import Scope
from onnx_inspect.graph.dependence import ancestors
from onnx_inspect.graph.model import Dim, Model

CARRIERS = frozenset("Identity Reshape Flatten Squeeze Unsqueeze Transpose Cast Dropout DequantizeLinear".split())
SQUASHERS = frozenset({"Softmax", "LogSoftmax", "Sigmoid"})
FINDERS = frozenset("NonMaxSuppression NonZero EfficientNMS_TRT BatchedNMS_TRT MultiClassNMS".split())
POINTWISE = SQUASHERS | CARRIERS | {"QuantizeLinear"}


@dataclass(frozen=True)
class Classifier:
    """Class scores of a model.

    Attributes
    ----------
    output : str
        The output that holds one score per class and sample.
    scores : str
        The tensor to explain: the logits where they can be had, else `output`, or what a ZipMap made it of.
    squash : str
        ``Softmax``, ``LogSoftmax`` or ``Sigmoid`` that turns `scores` into `output`; "" when nothing does.
    scale, zero_point : float
        What the output's steps stand for, where it is quantised: ``(value - zero_point) * scale``.
    """

    output: str
    scores: str
    squash: str
    scale: float = 1.0
    zero_point: float = 0.0

    @property
    def logits(self) -> bool:
        """Whether `scores` are known to be taken before the squashing."""
        return bool(self.squash)


def find(model: Model, shapes: Mapping[str, tuple[int, ...]] | None = None, output: str | None = None) -> Classifier:
    """Find the class scores; `output` names the output to take, `shapes` are concrete ones for a single sample.

    Raises
    ------
    TargetError
        No output has the form (N, classes); the message says what the outputs are.
    """
    names = [o.name for o in model.outputs]
    if output is not None and output not in names:
        raise TargetError(f"{model.source} has no output {output!r}; it has: {', '.join(names)}")
    fitting = [o for o in model.outputs if (output is None or o.name == output) and _is_scores(o.name, model, shapes)]
    if not fitting:
        forms = "; ".join(f"{o.name!r} is {o.describe()}" for o in model.outputs[:3])
        raise TargetError(f"{model.source} gives no class scores of the form [N, classes]: {forms}")
    return _trace_back(model, fitting[0].name)


def _is_scores(name: str, model: Model, shapes: Mapping[str, tuple[int, ...]] | None) -> bool:
    spec = model.tensor(name)
    if spec.dtype == "sequence":
        return _makes_maps(model, name)
    if spec.dtype in ("string", "bool", "map", "int32", "int64"):  # integers that aren't quantised number classes
        return False
    shape = (shapes or {}).get(name) or spec.shape
    if shape is None or len(shape) < 2:
        return False
    if _counts_finds(model, name, shape[0]):
        return False
    inner = [d for d in shape[1:] if d != 1]
    # (N, classes), or pooled maps that kept their axes: (N, classes, 1, 1); (N, boxes, 1) is a detector's
    return len(shape) in (2, 4, 5) and len(inner) <= 1 and all(isinstance(d, int) for d in inner)


def _counts_finds(model: Model, name: str, rows: Dim) -> bool:
    """Whether an output's rows are what was found in one sample, like a detector's boxes (n, 4)."""
    if isinstance(rows, int) and rows not in (1, fixed_batch(model) or 1):
        return True
    finders = {n for n in ancestors(model, [name]) if n in model.producers and model.producers[n].op_type in FINDERS}
    return bool(finders & varying(model)) if finders else False  # of constants, NonZero only numbers places


def _trace_back(model: Model, output: str) -> Classifier:
    """Walk up from the output through what only moves or rescales the scores to the last Softmax."""
    scope = Scope(model, model.proto.graph)
    scale, zero_point, quantised = 1.0, 0.0, False
    start = name = model.producers[output].input[0] if _makes_maps(model, output) else output
    while (node := model.producers.get(name)) is not None and node.op_type in POINTWISE:
        if node.op_type == "QuantizeLinear" and not quantised:
            scale, zero_point, quantised = *_steps(node, scope), True
        elif node.op_type == "DequantizeLinear" and not quantised:
            quantised = True  # the output is real numbers; what lies above is another matter
        if node.op_type in SQUASHERS:
            return Classifier(output, _real(model, node.input[0]), node.op_type, scale, zero_point)
        name = node.input[0]
    return Classifier(output, _real(model, start), "", scale, zero_point)


def _makes_maps(model: Model, name: str) -> bool:
    """Whether an output is skl2onnx's list of dictionaries; the scores lie before it, in the classes' order."""
    return name in model.producers and model.producers[name].op_type == "ZipMap"


def _real(model: Model, name: str) -> str:
    """Nearest tensor of real numbers on the way up: what a QuantizeLinear read."""
    node = model.producers.get(name)
    while node is not None and not model.tensor(name).is_float and node.op_type in CARRIERS | {"QuantizeLinear"}:
        name = node.input[0]
        node = model.producers.get(name)
    return name


def _steps(node: onnx.NodeProto, scope: Scope) -> tuple[float, float]:
    """Scale and zero point of a QuantizeLinear."""
    scale = scope.constant(node.input[1])
    zero = scope.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if scale is None or scale.size != 1:
        return 1.0, 0.0
    return float(scale.array().reshape(-1)[0]), float(zero.array().reshape(-1)[0]) if zero is not None else 0.0

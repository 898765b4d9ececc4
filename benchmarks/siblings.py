"""How one model becomes another that computes the same, and which of its tensors each of the first's becomes."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper, version_converter

Truth = dict[str, set[str]]  # A's tensor -> B's tensors of which any is right; none: it is gone
RELUS = ("Relu", "Clip")


@dataclass(frozen=True)
class Sibling:
    """B's file, and what of it each of A's tensors is; tensors that the truth doesn't name aren't counted."""

    path: Path
    truth: Truth


def tensors(model: onnx.ModelProto) -> list[str]:
    return [name for node in model.graph.node for name in node.output if name]


def producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def same_names(a: onnx.ModelProto, b: onnx.ModelProto) -> Truth:
    there = set(tensors(b))
    return {name: {name} & there for name in tensors(a)}


def half(path: Path, target: Path, feeds: Any) -> Truth:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(path)
    made = convert_float_to_float16(copy.deepcopy(model), keep_io_types=True)
    onnx.save(made, target)
    return same_names(model, made)


def dynamic(path: Path, target: Path, feeds: Any) -> Truth:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(path, target)
    return same_names(onnx.load(path), onnx.load(target))


class _Feeds:
    def __init__(self, feeds: list[dict[str, NDArray[Any]]]) -> None:
        self.rest = iter(feeds)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self.rest, None)


def _static(path: Path, target: Path, feeds: Any, operators: bool) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    version = next(o.version for o in onnx.load(path).opset_import if not o.domain)

    class Reader(_Feeds, CalibrationDataReader):  # type: ignore[misc]
        pass

    quantize_static(
        path,
        target,
        Reader(feeds),
        quant_format=QuantFormat.QOperator if operators else QuantFormat.QDQ,
        per_channel=not operators and version >= 13,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8 if not operators else QuantType.QUInt8,
    )


def qdq(path: Path, target: Path, feeds: Any) -> Truth:
    _static(path, target, feeds, False)
    a, b = onnx.load(path), onnx.load(target)
    there, made_a, made_b = set(tensors(b)), producers(a), producers(b)
    truth: Truth = {}
    for name in tensors(a):
        forms = {
            f"{name}_{end}" for end in ("DequantizeLinear_Output", "QuantizeLinear_Output", "QuantizeLinear_Input")
        }
        if name in there and made_a[name].op_type == made_b[name].op_type:
            forms.add(name)
        if name in there and made_b[name].op_type == "DequantizeLinear":
            forms.add(name)
        reader = next((n for n in a.graph.node if name in n.input and n.op_type in RELUS), None)
        after = "" if reader is None or name in there else reader.output[0]
        if after in there and made_b[after].op_type == made_a[name].op_type:
            forms.add(after)  # the Relu is gone, and what it read has its name
        truth[name] = forms & there
    return truth


def qoperator(path: Path, target: Path, feeds: Any) -> Truth:
    _static(path, target, feeds, True)
    a, b = onnx.load(path), onnx.load(target)
    there, made = set(tensors(b)), producers(b)
    truth = {name: {name, f"{name}_quantized"} & there for name in tensors(a)}
    for node in a.graph.node:
        if node.op_type not in RELUS:
            continue
        own, before = node.output[0], node.input[0]
        if own not in made or made[own].op_type == "DequantizeLinear":
            truth[own], truth[before] = truth[own] | truth[before], set()  # its values have the name of what it read
    return truth


def opset(path: Path, target: Path, feeds: Any) -> Truth:
    a = onnx.load(path)
    current = next(o.version for o in a.opset_import if not o.domain)
    b = version_converter.convert_version(copy.deepcopy(a), 21 if current < 21 else 18)
    onnx.save(b, target)
    return same_names(a, b)


def slim(path: Path, target: Path, feeds: Any) -> Truth:
    import onnxslim

    a = onnx.load(path)
    onnx.save(onnxslim.slim(copy.deepcopy(a)), target)
    return same_names(a, onnx.load(target))


def _optimised(path: Path, target: Path, level: Any) -> Truth:
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 4
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return same_names(onnx.load(path), onnx.load(target))


def basic(path: Path, target: Path, feeds: Any) -> Truth:
    return _optimised(path, target, ort.GraphOptimizationLevel.ORT_ENABLE_BASIC)


def extended(path: Path, target: Path, feeds: Any) -> Truth:
    return _optimised(path, target, ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED)


def renamed(path: Path, target: Path, feeds: Any) -> Truth:
    """Every tensor and node under another name, nodes in another (valid) order, initialisers shuffled."""
    a, rng = onnx.load(path), random.Random(0)
    b = copy.deepcopy(a)
    fixed = {v.name for v in (*b.graph.input, *b.graph.output)}
    names = sorted({n for node in b.graph.node for n in (*node.input, *node.output) if n} - fixed)
    numbers = list(range(len(names)))
    rng.shuffle(numbers)
    new = {name: f"t{number}" for name, number in zip(names, numbers, strict=True)}
    nodes = list(b.graph.node)
    for node in nodes:
        node.name = f"n{rng.randrange(10**9)}"
        node.input[:] = [new.get(n, n) for n in node.input]
        node.output[:] = [new.get(n, n) for n in node.output]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                raise ValueError("bodies aren't renamed here")
    known = {v.name for v in b.graph.input} | {new.get(t.name, t.name) for t in b.graph.initializer} | {""}
    ordered: list[onnx.NodeProto] = []
    waiting = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    while waiting:
        ready = [n for n in waiting if all(i in known for i in n.input)]
        node = rng.choice(ready)
        waiting.remove(node)
        ordered.append(node)
        known.update(node.output)
    weights = [onnx.TensorProto.FromString(t.SerializeToString()) for t in b.graph.initializer]
    rng.shuffle(weights)
    for tensor in weights:
        tensor.name = new.get(tensor.name, tensor.name)
    for field, values in ((b.graph.node, ordered), (b.graph.initializer, weights)):
        del field[:]
        field.extend(values)
    del b.graph.value_info[:]
    onnx.save(b, target)
    return {name: {new.get(name, name)} for name in tensors(a)}


def transposed(path: Path, target: Path, feeds: Any) -> Truth:
    """Each Gemm's weight stored the other way; every second one as MatMul and Add."""
    a = onnx.load(path)
    b = copy.deepcopy(a)
    weights, truth = {t.name: t for t in b.graph.initializer}, same_names(a, a)
    nodes: list[onnx.NodeProto] = []
    for number, node in enumerate(b.graph.node):
        turned = [x for x in node.attribute if x.name == "transB" and x.i]
        if node.op_type != "Gemm" or node.input[1] not in weights:
            nodes.append(node)
            continue
        old = numpy_helper.to_array(weights[node.input[1]])
        name = f"{node.input[1]}_turned"
        b.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(old.T), name))
        if turned and number % 2:
            middle = f"{node.output[0]}_product"
            nodes += [
                helper.make_node("MatMul", [node.input[0], name], [middle], f"{node.name}_product"),
                helper.make_node("Add", [middle, node.input[2]], [node.output[0]], node.name),
            ]
        else:
            kept = [x for x in node.attribute if x.name != "transB"]
            changed = helper.make_node("Gemm", [node.input[0], name, *node.input[2:]], list(node.output), node.name)
            changed.attribute.extend([*kept, *([] if turned else [helper.make_attribute("transB", 1)])])
            nodes.append(changed)
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del b.graph.node[:]
    b.graph.node.extend(nodes)
    onnx.save(b, target)
    return truth


TO_LAST, TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
SPATIAL = {"Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "BatchNormalization"}
ELEMENTWISE = {
    "Relu",
    "Clip",
    "Add",
    "Mul",
    "Sub",
    "Div",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Sqrt",
    "Erf",
    "Identity",
}


def channels_last(path: Path, target: Path, feeds: Any) -> Truth:
    """The layout of a TensorFlow export: (N, H, W, C) throughout, Transposes around what needs the channels first."""
    a = onnx.load(path)
    b = copy.deepcopy(a)
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in onnx.shape_inference.infer_shapes(a).graph.value_info}
    ranks |= {v.name: len(v.type.tensor_type.shape.dim) for v in (*a.graph.input, *a.graph.output)}
    weights = {t.name: t for t in b.graph.initializer}
    last = {v.name for v in a.graph.input if ranks[v.name] == 4 and v.name not in weights}
    nodes: list[onnx.NodeProto] = []
    turned: dict[str, str] = {}

    def first(name: str, reader: str) -> str:
        if name not in last:
            return name
        made = f"{name}__first_for_{reader}"
        nodes.append(helper.make_node("Transpose", [name], [made], f"{made}_node", perm=TO_FIRST))
        return made

    def constant(name: str) -> str:
        """A constant that meets (N, H, W, C) elementwise."""
        values = numpy_helper.to_array(weights[name])
        if values.ndim < 3:
            return name
        if name not in turned:
            turned[name] = f"{name}__last"
            value = values.transpose(TO_LAST) if values.ndim == 4 else values.transpose(1, 2, 0)
            b.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), turned[name]))
        return turned[name]

    for index, node in enumerate(a.graph.node):
        node = onnx.NodeProto.FromString(node.SerializeToString())
        reads = [n for n in node.input if n in last]
        concat = node.op_type == "Concat" and reads and all(n in last for n in node.input)
        if reads and (node.op_type in ELEMENTWISE or concat):
            node.input[:] = [constant(n) if n in weights and node.op_type != "Clip" else n for n in node.input]
            for attribute in node.attribute:
                if concat and attribute.name == "axis":
                    attribute.i = {0: 0, 1: 3, 2: 1, 3: 2}[attribute.i % 4]
            nodes.append(node)
            last.update(node.output)
            continue
        key = f"{node.op_type}_{index}"
        node.input[:] = [first(n, key) for n in node.input]
        if reads and node.op_type in SPATIAL and ranks.get(node.output[0]) == 4:
            own = node.output[0]
            node.output[0] = f"{own}__first"
            nodes.append(node)
            nodes.append(helper.make_node("Transpose", [f"{own}__first"], [own], f"{own}_last_node", perm=TO_LAST))
            last.add(own)
        else:
            nodes.append(node)
    del b.graph.node[:]
    b.graph.node.extend(nodes)
    del b.graph.value_info[:]
    for note in b.metadata_props:
        note.value = note.value.replace("NCHW", "NHWC")
    for value in b.graph.input:
        if value.name in last:
            dims = [
                onnx.TensorShapeProto.Dimension.FromString(d.SerializeToString())
                for d in value.type.tensor_type.shape.dim
            ]
            del value.type.tensor_type.shape.dim[:]
            value.type.tensor_type.shape.dim.extend(dims[i] for i in TO_LAST)
    for value in b.graph.output:
        if value.name in last:
            raise ValueError("maps as outputs aren't turned here")
    onnx.save(b, target)
    there = set(tensors(b))
    return {name: {name, f"{name}__first"} & there for name in tensors(a)}


KINDS: dict[str, Callable[[Path, Path, Any], Truth]] = {
    "fp16": half,
    "dynamic int8": dynamic,
    "static int8, QDQ": qdq,
    "static int8, QOperator": qoperator,
    "opset changed": opset,
    "onnxslim": slim,
    "ORT basic": basic,
    "ORT extended": extended,
    "renamed, shuffled": renamed,
    "NCHW against NHWC": channels_last,
    "Gemm transposed": transposed,
}


def made(
    path: Path, folder: Path, feeds: list[dict[str, NDArray[Any]]], only: str = ""
) -> Iterator[tuple[str, Sibling | str]]:
    """Every sibling that can be made of a file, or why it can't."""
    import contextlib
    import io
    import logging

    logging.disable(logging.WARNING)
    for kind, make in KINDS.items():
        if only and kind != only:
            continue
        target = folder / f"{path.stem}-{kind.replace(' ', '-').replace(',', '')}.onnx"
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                truth = make(path, target, feeds)
        except Exception as error:
            yield kind, f"{type(error).__name__}: {str(error).splitlines()[0][:90] if str(error) else ''}"
            continue
        yield kind, Sibling(target, truth)

"""How a model's gradients become a model: reverse mode, written down in standard operators that any runtime runs.

The backward pass is a graph like the forward one. :func:`gradient` walks a model from a tensor back to the wanted ones,
asks each node's rule (:mod:`onnx_inspect.graph.rules`, one file per family of operators) for nodes that give the
gradients of its inputs from those of its outputs, adds them up where a tensor has several readers, and appends the lot
to the model. What needs no gradient is not visited. Forward tensors are read, never changed.

Gradients are float32 (float64 where the forward tensor is), whatever the model computes in.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from onnx_inspect.errors import LayerError
from onnx_inspect.graph.declare import value_info
from onnx_inspect.graph.dependence import SHAPE_READERS, descendants
from onnx_inspect.graph.model import METADATA_PREFIX, Layer, Model, TensorSpec, node_inputs
from onnx_inspect.graph.rules._rule import Rule, find, passes_integers
from onnx_inspect.graph.rules._step import NoRule, Step
from onnx_inspect.graph.rules._writer import DOUBLE, FLOAT, Writer
from onnx_inspect.graph.upgrade import upgrade

SEED, INDEX, ARGMAX, ONES = "seed", "index", "argmax", "ones"
SELECTIONS = (SEED, INDEX, ARGMAX, ONES)
STEPS = ("int8", "uint8", "int16", "uint16")  # numbers that may stand for real ones: quantised maps, pixels
GRADIENT = "__gradient"  # ends the name of an output that is one
NOTES = METADATA_PREFIX + "gradient"  # metadata key: a JSON list of what a reader of the gradients must know


class FlatError(LayerError):
    """A gradient that is zero everywhere: the target is constant, or moves in steps."""


def gradient_name(tensor: str) -> str:
    """Name of the output that holds a tensor's gradient."""
    return tensor + GRADIENT


def gradient(
    model: Model, wrt: Iterable[Layer | str], of: Layer | str, *, select: str | int = SEED, guided: bool = False
) -> Model:
    """Return a model that also outputs the gradients of one tensor with respect to others.

    Each sample's gradient is its own: with a batch, entry n of every gradient is that of sample n's target.

    Parameters
    ----------
    wrt : iterable of Layer or str
        Layers, or names of tensors: inputs, activations, or weights (whose gradients are summed over samples). Of
        quantised ones and of pixels the gradient is that of a step.
    of : Layer or str
        The tensor that holds the target: class scores (N, classes), scores (N,), maps (N, classes, H, W), ...
    select : str or int
        What of it is the target. ``seed``: its sum weighted by a further input ``seed`` of its shape (a vector-Jacobian
        product: one model serves every target). ``index``: the class on axis 1 that a further input ``index``, (N,)
        int64, names for each sample, summed over what positions there are. A number: that class for all samples.
        ``argmax``: each sample's largest class (by its mean, where there are positions), which is a further output
        ``index``. ``ones``: the sum of all its elements.
    guided : bool
        Whether rectifiers (Relu, and Clip from 0 on, as ReLU6 is exported) let only positive gradients pass: guided
        backpropagation (Springenberg et al. 2014, arXiv:1412.6806), which is no gradient of anything.

    Returns
    -------
    Model
        The model's own outputs, then for each tensor of `wrt` one called ``<tensor>__gradient`` (with underscores after
        it where that name is taken), of the tensor's shape, float32 (float64 where the tensor is). Its operators are
        standard ones of opset 18 or later, the forward ones brought there where the model is older; what the forward
        pass gives is unchanged.

    Raises
    ------
    LayerError
        A tensor isn't the model's, or isn't one of real numbers; or a node on the way has no rule: the message names
        the node, the operator, and the nearest layer whose gradient can be had.
    FlatError
        A LayerError: `of` doesn't depend on a tensor, or its derivative by it is zero everywhere.
    """
    target = of.output.name if isinstance(of, Layer) else of
    wanted = list(dict.fromkeys(item.output.name if isinstance(item, Layer) else item for item in wrt))
    model = upgrade(model)
    writer = Writer(model)
    _check(model, writer, wanted, target)
    seed, inputs, outputs = _seed(model, writer, target, select)
    nodes = list(model.proto.graph.node)
    run = _Sweep(writer, guided=guided)
    found = run.back(nodes, {target: seed}, wanted)
    missing = [name for name in wanted if name in run.tainted or name not in found]
    if missing:
        raise _refusal(model, run, missing[0], target)
    for name in wanted:
        made = _free_name(model, gradient_name(name))  # a gradient's own gradient comes after it
        writer.nodes.append(onnx.helper.make_node("Identity", [found[name]], [made], name=made))
        own = writer.spec(name)
        outputs.append(replace(own, name=made, dtype=DOUBLE if own.dtype == DOUBLE else FLOAT))
    return _with(model, writer, inputs, outputs, run.notes)


def notes(model: Model) -> tuple[str, ...]:
    """What a reader of a model's gradients must know, for instance which steps they were passed straight through."""
    return tuple(json.loads(model.metadata.get(NOTES, "[]")))


@dataclass
class _Sweep:
    """Reverse mode over a list of nodes.

    `blocked` holds the nodes that have no rule with the reason, `tainted` the tensors whose gradients would have come
    through them, `flat` the nodes whose derivative is zero everywhere.
    """

    writer: Writer
    blocked: list[tuple[onnx.NodeProto, str]] = field(default_factory=list)
    tainted: set[str] = field(default_factory=set)
    flat: list[onnx.NodeProto] = field(default_factory=list)
    reached: dict[str, str] = field(default_factory=dict)
    depth: int = 0
    guided: bool = False

    @property
    def notes(self) -> list[str]:
        return sorted(self.writer.notes)

    def back(
        self, nodes: Sequence[onnx.NodeProto], seeds: Mapping[str, str], wanted: Collection[str]
    ) -> dict[str, str]:
        """Return the gradients of the wanted tensors, as far as they are reached."""
        useful = active(nodes, wanted, self.writer)
        arriving: dict[str, list[str]] = {name: [seed] for name, seed in seeds.items()}
        whole: dict[str, str] = {}
        for node in reversed(nodes):
            outputs = [name for name in node.output if name and (name in arriving or name in self.tainted)]
            inputs = [name for name in node_inputs(node) if name in useful]
            if not outputs or not inputs:
                continue
            if self.tainted.intersection(outputs):
                self.tainted.update(inputs)
                continue
            for name in outputs:
                whole[name] = self._sum(arriving.pop(name), node)
            if self.guided and _rectifies(node, self.writer):
                whole[outputs[0]] = self.writer.op("Relu", whole[outputs[0]])
            step = self._step(node, tuple(whole.get(n, "") if n else "" for n in node.output), useful)
            try:
                given = self._rule(node)(step)
            except NoRule as reason:
                if self.depth:
                    raise
                self.blocked.append((node, str(reason)))
                self.tainted.update(inputs)
                continue
            if not given:
                self.flat.append(node)
            for position, name in given.items():
                if step.wants(position):
                    arriving.setdefault(node.input[position], []).append(name)
        for name in set(wanted) & arriving.keys():
            whole[name] = self._sum(arriving[name], None)
        if not self.depth:
            self.reached = whole
        return {name: whole[name] for name in wanted if name in whole}

    def _step(self, node: onnx.NodeProto, grads: tuple[str, ...], useful: set[str]) -> Step:
        if not self.depth:
            self.writer.origin = node.name
        return Step(node, grads, frozenset(useful), self.writer, len(self.writer.nodes), self._inside)

    def _inside(
        self, nodes: Sequence[onnx.NodeProto], seeds: Mapping[str, str], wanted: Collection[str]
    ) -> Mapping[str, str]:
        """Differentiate nodes that a rule has written down."""
        return _Sweep(self.writer, depth=self.depth + 1, guided=self.guided).back(nodes, seeds, wanted)

    def _rule(self, node: onnx.NodeProto) -> Rule:
        if (found := find(node.domain, node.op_type)) is not None:
            return found
        from onnx_inspect.graph.rules._standard import function_of

        return function_of(node, self.writer)

    def _sum(self, parts: list[str], node: onnx.NodeProto | None) -> str:
        """Add up what the readers of a tensor send back."""
        if len(parts) == 1:
            return parts[0]
        if not self.depth:
            self.writer.origin = node.name if node is not None else ""
        return self.writer.op("Add" if len(parts) == 2 else "Sum", *parts)


def _rectifies(node: onnx.NodeProto, writer: Writer) -> bool:
    """Whether a node is a rectifier: nothing below 0 passes, and what is above passes as it is."""
    if node.op_type != "Clip" or node.domain not in ("", "ai.onnx"):
        return node.op_type == "Relu" and node.domain in ("", "ai.onnx")
    low = writer.value(node.input[1]) if len(node.input) > 1 and node.input[1] else None
    return low is not None and not low.any()


def active(nodes: Iterable[onnx.NodeProto], wanted: Collection[str], writer: Writer) -> set[str]:
    """Return the tensors through which the wanted ones act on others, by numbers that vary smoothly.

    Integers end the way, except where an operator rounds to steps (QuantizeLinear), and as long as their type is kept.
    """
    found = set(wanted)
    for node in nodes:
        read = [name for name in node_inputs(node) if name in found]
        if not read or node.op_type in SHAPE_READERS:
            continue
        known = node.domain in ("", "ai.onnx") or find(node.domain, node.op_type) is not None
        integers = passes_integers(node.domain, node.op_type) or not known  # what has no rule shall say so
        kept = {writer.spec(name).dtype for name in read}
        for name in filter(None, node.output):
            spec = writer.spec(name)
            if integers or spec.is_float or spec.dtype in ("", "sequence", "optional") or spec.dtype in kept:
                found.add(name)
    return found


def _check(model: Model, writer: Writer, wanted: Sequence[str], target: str) -> None:
    """Refuse tensors that can't have a gradient before anything is written."""
    inputs = {i.name for i in model.inputs}
    for name in (target, *wanted):
        if name not in inputs and name not in model.producers and name not in model.constants:
            inside = " in the main graph: it lies inside control flow" if name in model.tensors else ""
            raise LayerError(f"tensor {name!r} is not computed by {model.source}{inside}; choose another layer")
        dtype = writer.spec(name).dtype
        if dtype and not writer.spec(name).is_float and dtype not in STEPS:
            near = _first_float(model, writer, name) if name != target else ""
            raise LayerError(
                f"tensor {name!r} of {model.source} holds {dtype}: gradients need real numbers"
                + (f"; the nearest layer that has them is {near!r}" if near else "")
            )
        if name != target and target not in descendants(model, name):
            raise FlatError(f"tensor {target!r} of {model.source} doesn't depend on {name!r}: choose an earlier layer")


def _first_float(model: Model, writer: Writer, tensor: str) -> str:
    """First layer of real numbers after a tensor, such as the embedding of token numbers."""
    below = descendants(model, tensor)
    return next((la.name for la in model.layers if la.output.name in below and la.output.is_float), "")


def _seed(
    model: Model, writer: Writer, target: str, select: str | int
) -> tuple[str, list[TensorSpec], list[TensorSpec]]:
    """Write down the gradient of the target tensor itself; further inputs and outputs that this takes."""
    spec = writer.spec(target)
    dtype = DOUBLE if spec.dtype == DOUBLE else FLOAT
    if select == SEED:
        name = _free_name(model, SEED)
        return name, [replace(spec, name=name, dtype=dtype)], []
    if select == ONES:
        return writer.op("Expand", writer.constant(np.array(1, dtype)), writer.shape_of(target)), [], []
    if isinstance(select, str) and select not in SELECTIONS:
        raise ValueError(f"select is one of {', '.join(SELECTIONS)} or a number, not {select!r}")
    if spec.shape is None:
        raise LayerError(f"nothing tells how many axes {target!r} of {model.source} has: give its gradient as a seed")
    rank = len(spec.shape)
    axis = 1 if rank > 1 else 0
    rows: tuple[int | str | None, ...] = (spec.shape[0],) if rank > 1 else ()
    inputs, outputs = [], []
    if select == INDEX:
        index = _free_name(model, INDEX)
        inputs.append(TensorSpec(index, "int64", rows))
    elif select == ARGMAX:
        scores = target
        if rank > 2:
            scores = writer.op("ReduceMean", target, writer.constant(list(range(2, rank))), keepdims=0)
        index = _free_name(model, INDEX)
        arg = writer.op("ArgMax", scores, axis=axis, keepdims=0)
        writer.nodes.append(onnx.helper.make_node("Identity", [arg], [index], name=index))
        outputs.append(TensorSpec(index, "int64", rows))
    else:
        index = writer.constant(np.array(select, np.int64))
    classes = writer.op("Gather", writer.shape_of(target), writer.constant(np.array(axis)), axis=0)
    index = writer.op("Mod", writer.op("Add", index, classes), classes)  # -1 is the last class, as in Python
    numbers = writer.op("Range", writer.constant(np.array(0)), classes, writer.constant(np.array(1)))
    if not isinstance(select, int) and rank > 1:
        index = writer.op("Unsqueeze", index, writer.constant([1]))
    hot = writer.cast(writer.op("Equal", index, numbers), dtype)  # (N, classes) or (classes,)
    if rank > 2:
        hot = writer.op("Unsqueeze", hot, writer.constant(list(range(-(rank - 2), 0))))
    return writer.op("Expand", hot, writer.shape_of(target)), inputs, outputs


def _free_name(model: Model, name: str) -> str:
    while name in model.tensors or name in model.constants or name in model.producers:
        name += "_"
    return name


def _refusal(model: Model, run: _Sweep, name: str, target: str) -> LayerError:
    """Say what keeps a gradient from being had, and which layer is nearest to have one."""
    below = descendants(model, name)
    clean = [
        la for la in model.layers if la.output.name in below and la.output.name in run.reached and la.output.is_float
    ]
    clean = [la for la in clean if la.output.name not in run.tainted and la.output.name != target]
    nearest = f"the nearest layer that has one is {clean[0].name!r}" if clean else "no layer before it has one either"
    if name in run.tainted:
        node, reason = run.blocked[-1]
        domain = f"{node.domain}::" if node.domain not in ("", "ai.onnx") else ""
        return LayerError(
            f"{name!r} of {model.source} has no gradient: node {node.name!r} ({domain}{node.op_type}) can't be"
            f" differentiated, {reason}; {nearest}"
        )
    flat = next((n for n in run.flat if below.intersection(node_inputs(n))), None)
    where = f" at node {flat.name!r} ({flat.op_type}), which is flat" if flat is not None else ""
    return FlatError(f"{name!r} of {model.source} has no gradient: it is zero everywhere{where}; {nearest}")


def _with(
    model: Model, writer: Writer, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], said: Sequence[str]
) -> Model:
    """Append what was written to the model; nodes that nothing reads are left out."""
    needed = {spec.name for spec in outputs}
    kept: list[onnx.NodeProto] = []
    for node in reversed(writer.nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node_inputs(node))
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for info in proto.graph.output:
        if not info.HasField("type"):  # a runtime infers it, the checker wants it
            info.CopyFrom(value_info(writer.spec(info.name)))
    proto.graph.node.extend(reversed(kept))
    proto.graph.initializer.extend(t for name, t in writer.stored.items() if name in needed)
    proto.graph.input.extend(value_info(s, needs_type=True) for s in inputs)
    proto.graph.output.extend(value_info(s) for s in outputs)
    onnx.helper.set_model_props(proto, {**model.metadata, NOTES: json.dumps(list(said))})
    known = dict(model.tensors) | {s.name: s for s in (*inputs, *outputs)}
    return replace(
        model, proto=proto, inputs=(*model.inputs, *inputs), outputs=(*model.outputs, *outputs), tensors=known
    )

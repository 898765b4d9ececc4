"""How normalisations are differentiated."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_inspect.graph.rules._rule import Gradients, rule
from onnx_inspect.graph.rules._step import Step
from onnx_inspect.graph.rules.reduction import TINY


@rule("BatchNormalization")
def batch_normalization(step: Step) -> Gradients:
    """With stored statistics it is linear: ``scale / sqrt(variance + epsilon)`` for each channel."""
    if step.attribute("training_mode", 0):
        raise step.fail("it is in training mode, where samples change each other's results")
    rank = step.rank(step.inputs[0])
    spread = step.op("Add", step.x(4), step.number(step.attribute("epsilon", 1e-5)))
    inverse = step.op("Reciprocal", step.op("Sqrt", spread))
    factor = step.op("Mul", step.x(1), inverse)
    others = [0, *range(2, rank)]
    found = {}
    if step.wants(0):
        found[0] = step.op("Mul", step.g, _by_channel(step, factor, rank))
    if step.wants(1) or step.wants(4):
        centred = step.op("Sub", step.x(0), _by_channel(step, step.x(3), rank))
        along = step.total(step.op("Mul", step.g, centred), others, keep=False)
        found[1] = step.op("Mul", along, inverse)
        change = step.op("Mul", factor, step.op("Div", step.number(-0.5), spread))
        found[4] = step.op("Mul", along, change)
    if step.wants(2) or step.wants(3):
        found[2] = step.total(step.g, others, keep=False)
        found[3] = step.op("Neg", step.op("Mul", found[2], factor))
    return found


@rule("LayerNormalization")
def layer_normalization(step: Step) -> Gradients:
    """Normalised over the axes from one on, then scaled and shifted."""
    rank = step.rank(step.inputs[0])
    axis = step.axis(step.attribute("axis", -1), step.inputs[0])
    if any(step.grads[1:]):
        raise step.fail("its mean or deviation is read by other nodes")
    axes = list(range(axis, rank))
    normal, inverse = normalised(step, step.x(0), axes, step.attribute("epsilon", 1e-5))
    found = {}
    if step.wants(0):
        scaled = step.op("Mul", step.g, step.x(1)) if step.has(1) else step.g
        found[0] = centred_gradient(step, scaled, normal, inverse, axes)
    if step.wants(1):
        found[1] = step.sum_to(step.op("Mul", step.g, normal), 1)
    if step.wants(2):
        found[2] = step.sum_to(step.g, 2)
    return found


@rule("InstanceNormalization")
def instance_normalization(step: Step) -> Gradients:
    """Each channel of each sample is normalised over its positions."""
    rank = step.rank(step.inputs[0])
    space = list(range(2, rank))
    normal, inverse = normalised(step, step.x(0), space, step.attribute("epsilon", 1e-5))
    found = {}
    if step.wants(0):
        scaled = step.op("Mul", step.g, _by_channel(step, step.x(1), rank))
        found[0] = centred_gradient(step, scaled, normal, inverse, space)
    if step.wants(1):
        found[1] = step.total(step.op("Mul", step.g, normal), [0, *space], keep=False)
    if step.wants(2):
        found[2] = step.total(step.g, [0, *space], keep=False)
    return found


@rule("GroupNormalization")
def group_normalization(step: Step) -> Gradients:
    """Groups of channels are normalised together; before opset 21 a group had one scale, now a channel has its own."""
    rank, groups = step.rank(step.inputs[0]), step.attribute("num_groups")
    by_group = step.writer.model.opsets["ai.onnx"] < 21
    flat = step.ints([0, groups, -1])
    normal, inverse = normalised(step, step.op("Reshape", step.x(0), flat), [2], step.attribute("epsilon", 1e-5))
    found = {}
    scale = step.x(1)
    others = [0, *range(2, rank)]
    if step.wants(0):
        if by_group:
            scaled = step.op("Mul", step.op("Reshape", step.g, flat), step.op("Unsqueeze", scale, step.ints([1])))
        else:
            scaled = step.op("Reshape", step.op("Mul", step.g, _by_channel(step, scale, rank)), flat)
        found[0] = step.like(centred_gradient(step, scaled, normal, inverse, [2]), step.inputs[0])
    if step.wants(1):
        whole = step.op("Mul", step.g, step.like(normal, step.inputs[0]))
        found[1] = _over_groups(step, whole, flat) if by_group else step.total(whole, others, keep=False)
    if step.wants(2):
        found[2] = _over_groups(step, step.g, flat) if by_group else step.total(step.g, others, keep=False)
    return found


def _over_groups(step: Step, name: str, flat: str) -> str:
    return step.total(step.op("Reshape", name, flat), [0, 2], keep=False)


@rule("RMSNormalization")
def rms_normalization(step: Step) -> Gradients:
    """Divided by the root of the mean square, not centred."""
    rank = step.rank(step.inputs[0])
    axes = list(range(step.axis(step.attribute("axis", -1), step.inputs[0]), rank))
    x = step.x(0)
    square = step.op("ReduceMean", step.op("Mul", x, x), step.ints(axes))
    spread = step.op("Add", square, step.number(step.attribute("epsilon", 1e-5)))
    inverse = step.op("Reciprocal", step.op("Sqrt", spread))
    normal = step.op("Mul", x, inverse)
    found = {}
    if step.wants(0):
        scaled = step.op("Mul", step.g, step.x(1))
        along = step.op("ReduceMean", step.op("Mul", scaled, normal), step.ints(axes))
        found[0] = step.op("Mul", inverse, step.op("Sub", scaled, step.op("Mul", normal, along)))
    if step.wants(1):
        found[1] = step.sum_to(step.op("Mul", step.g, normal), 1)
    return found


@rule("LpNormalization")
def lp_normalization(step: Step) -> Gradients:
    """``x / |x|_p`` along an axis, for p of 1 or 2."""
    power, axis = step.attribute("p", 2), step.ints([step.attribute("axis", -1)])
    x, y = step.x(0), step.y()
    size = step.op("Max", step.op(f"ReduceL{power}", x, axis), step.number(TINY))
    along = step.op("ReduceSum", step.op("Mul", step.g, y), axis)
    direction = y if power == 2 else step.op("Sign", x)
    return {0: step.op("Div", step.op("Sub", step.g, step.op("Mul", direction, along)), size)}


@rule("LRN")
def local_response_normalization(step: Step) -> Gradients:
    """``x s^-beta`` with ``s = bias + alpha / size (x^2 summed over neighbouring channels)``."""
    size, beta = step.attribute("size"), step.attribute("beta", 0.75)
    rate = step.attribute("alpha", 1e-4) / size
    x = step.x(0)
    around = _neighbours(step, step.op("Mul", x, x), size, (size - 1) // 2)
    total = step.op("Add", step.op("Mul", around, step.number(rate)), step.number(step.attribute("bias", 1.0)))
    share = step.op("Mul", step.g, step.op("Pow", total, step.number(-beta)))
    back = _neighbours(step, step.op("Div", step.op("Mul", share, x), total), size, size // 2)
    return {0: step.op("Sub", share, step.op("Mul", step.op("Mul", x, back), step.number(2 * rate * beta)))}


def _neighbours(step: Step, name: str, size: int, before: int) -> str:
    """Sum each channel with its neighbours, `before` of them on one side and the rest of `size` on the other."""
    sheet = step.op("Reshape", name, step.ints([0, 0, -1]))
    sheet = step.op("Unsqueeze", sheet, step.ints([1]))  # (N, 1, C, positions)
    pads = [before, 0, size - 1 - before, 0]
    mean = step.op("AveragePool", sheet, kernel_shape=[size, 1], pads=pads, count_include_pad=1)
    return step.like(step.op("Mul", mean, step.number(size)), step.inputs[0])


def normalised(step: Step, x: str, axes: Sequence[int], epsilon: float) -> tuple[str, str]:
    """A tensor normalised over axes, and 1 over its deviation there."""
    over = step.ints(axes)
    centred = step.op("Sub", x, step.op("ReduceMean", x, over))
    variance = step.op("ReduceMean", step.op("Mul", centred, centred), over)
    inverse = step.op("Reciprocal", step.op("Sqrt", step.op("Add", variance, step.number(epsilon))))
    return step.op("Mul", centred, inverse), inverse


def centred_gradient(step: Step, gradient: str, normal: str, inverse: str, axes: Sequence[int]) -> str:
    """``(g - mean(g) - n mean(g n)) / deviation``: the gradient of what was normalised to n."""
    over = step.ints(axes)
    centre = step.op("ReduceMean", gradient, over)
    along = step.op("ReduceMean", step.op("Mul", gradient, normal), over)
    rest = step.op("Sub", step.op("Sub", gradient, centre), step.op("Mul", normal, along))
    return step.op("Mul", rest, inverse)


def _by_channel(step: Step, name: str, rank: int) -> str:
    """A list of one number per channel, ready to be broadcast over (N, C, ...)."""
    return step.op("Unsqueeze", name, step.ints(range(1, rank - 1))) if rank > 2 else name

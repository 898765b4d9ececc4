"""How sums, differences, products and quotients are differentiated, whatever is broadcast."""

from __future__ import annotations

from onnx_inspect.graph.declare import elem_type
from onnx_inspect.graph.rules._rule import Gradients, rule
from onnx_inspect.graph.rules._step import Step
from onnx_inspect.graph.rules._writer import DOUBLE, FLOAT


@rule("Add")
def add(step: Step) -> Gradients:
    """``d(a + b) = da + db``."""
    return {i: step.sum_to(step.g, i) for i in (0, 1) if step.wants(i)}


@rule("Sub")
def sub(step: Step) -> Gradients:
    """``d(a - b) = da - db``."""
    found = {}
    if step.wants(0):
        found[0] = step.sum_to(step.g, 0)
    if step.wants(1):
        found[1] = step.op("Neg", step.sum_to(step.g, 1))
    return found


@rule("Mul")
def mul(step: Step) -> Gradients:
    """``d(a b) = b da + a db``."""
    return {i: step.sum_to(step.op("Mul", step.g, step.x(1 - i)), i) for i in (0, 1) if step.wants(i)}


@rule("Div")
def div(step: Step) -> Gradients:
    """``d(a / b) = da / b - (a / b) db / b``."""
    share = step.op("Div", step.g, step.x(1))
    found = {}
    if step.wants(0):
        found[0] = step.sum_to(share, 0)
    if step.wants(1):
        found[1] = step.sum_to(step.op("Neg", step.op("Mul", share, step.y())), 1)
    return found


@rule("Sum")
def sum_of(step: Step) -> Gradients:
    """Each summand gets the whole gradient."""
    return {i: step.sum_to(step.g, i) for i in range(len(step.inputs)) if step.wants(i)}


@rule("Neg")
def neg(step: Step) -> Gradients:
    """``d(-x) = -dx``."""
    return {0: step.op("Neg", step.g)}


@rule("Identity")
def same(step: Step) -> Gradients:
    """What passes unchanged."""
    return {0: step.g}


@rule("Dropout")
def dropout(step: Step) -> Gradients:
    """At inference everything passes."""
    training = step.value(2)
    if step.has(2) and (training is None or training.any()):
        raise step.fail("it is in training mode, where it drops numbers at random")
    return {0: step.g}


@rule("Mean")
def mean_of(step: Step) -> Gradients:
    """Each input gets an equal share."""
    share = step.op("Div", step.g, step.number(len(step.inputs)))
    return {i: step.sum_to(share, i) for i in range(len(step.inputs)) if step.wants(i)}


@rule("CumSum")
def cumulative_sum(step: Step) -> Gradients:
    """Sums from the other end."""
    settings = {"exclusive": step.attribute("exclusive", 0), "reverse": 1 - step.attribute("reverse", 0)}
    return {0: step.op("CumSum", step.g, step.inputs[1], **settings)}


@rule("Cast", "CastLike")
def cast(step: Step) -> Gradients:
    """The gradient is cast back; float16 and float32 have float32 gradients both."""
    if not step.wants(0):
        return {}
    ends = (step.inputs[0], step.outputs[0])
    before, after = (DOUBLE if step.writer.spec(name).dtype == DOUBLE else FLOAT for name in ends)
    return {0: step.g if before == after else step.op("Cast", step.g, to=elem_type(before))}

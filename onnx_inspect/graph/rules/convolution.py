"""How convolutions and transposed convolutions are differentiated: each is the other's way back.

The wide side of a window is the input of a Conv and the output of a ConvTranspose; the narrow side is the other one.
"""

from __future__ import annotations

from onnx_inspect.graph.input_shapes import fixed
from onnx_inspect.graph.rules._rule import Gradients, rule
from onnx_inspect.graph.rules._step import Step
from onnx_inspect.graph.rules._window import END, Window, space, to_wide, window


@rule("Conv")
def conv(step: Step) -> Gradients:
    """The input gets the transposed convolution of the gradient, the weight its convolution with the input."""
    view = window(step, _kernel(step))
    found = {}
    if step.wants(0):
        found[0] = to_wide(step, view, step.g, step.x(1), lambda: _turned(step, view), step.attribute("group", 1))
    if step.wants(1):
        found[1] = _weight(step, view, view.pads(space(step, step.inputs[0])), step.x(0), step.g)
    if step.wants(2):
        found[2] = step.total(step.g, [0, *view.axes], keep=False)
    return found


@rule("ConvTranspose")
def conv_transpose(step: Step) -> Gradients:
    """The input gets the convolution of the gradient: input and gradient have changed roles."""
    view = window(step, _kernel(step))
    pads = _pads_of_transposed(step, view)
    found = {}
    if step.wants(0):
        more = {"strides": view.strides, "dilations": view.dilations, "group": step.attribute("group", 1)}
        found[0] = step.op("Conv", step.g, step.x(1), kernel_shape=view.kernel, pads=pads, **more)
    if step.wants(1):
        found[1] = _weight(step, view, pads, step.g, step.x(0))
    if step.wants(2):
        found[2] = step.total(step.g, [0, *view.axes], keep=False)
    return found


def _kernel(step: Step) -> list[int] | None:
    sizes = fixed((step.shape(step.inputs[1]) or (None,))[2:])
    return list(sizes) if sizes else None


def _turned(step: Step, view: Window) -> str | None:
    """Weight (M, C/group, ...) as the way back reads it: (C, M/group, ...), reversed along space."""
    groups = step.attribute("group", 1)
    shape = fixed(step.shape(step.inputs[1]))
    weight = step.x(1)
    if groups == 1:
        weight = step.op("Transpose", weight, perm=[1, 0, *view.axes])
    elif shape is None:
        return None
    elif shape[:2] != (groups, 1):
        made, read = shape[0] // groups, shape[1]
        weight = step.op("Reshape", weight, step.ints([groups, made, read, *view.kernel]))
        weight = step.op("Transpose", weight, perm=[0, 2, 1, *range(3, 3 + view.rank)])
        weight = step.op("Reshape", weight, step.ints([groups * read, made, *view.kernel]))
    if all(k == 1 for k in view.kernel):
        return weight
    backwards = step.ints([-1] * view.rank)
    return step.op("Slice", weight, backwards, step.ints([-END] * view.rank), step.ints(view.axes), backwards)


def _weight(step: Step, view: Window, pads: list[int] | None, wide: str, narrow: str) -> str:
    """Gradient (M, C/group, ...) of the weight: the wide side convolved with the narrow one, samples as channels.

    What was a stride between windows is now a dilation, and the other way round.
    """
    if pads is None:
        raise step.fail("its padding follows from a size that isn't known before the model runs")
    groups = step.attribute("group", 1)
    tail = list(view.axes)
    if groups == 1:
        images = step.op("Transpose", wide, perm=[1, 0, *tail])  # (C, N, ...)
    else:
        sizes = step.op("Slice", step.op("Shape", wide), step.ints([2]), step.ints([END]))
        count = step.op("Slice", step.op("Shape", wide), step.ints([0]), step.ints([1]))
        parted = step.op("Concat", count, step.ints([groups, -1]), sizes, axis=0)
        images = step.op("Reshape", wide, parted)  # (N, group, C/group, ...)
        images = step.op("Transpose", images, perm=[2, 1, 0, *(a + 1 for a in tail)])
        images = step.op("Reshape", images, step.op("Concat", step.ints([0, -1]), sizes, axis=0))
    filters = step.op("Transpose", narrow, perm=[1, 0, *tail])  # (M, N, ...)
    made = step.op(
        "Conv", images, filters, group=groups, pads=pads, strides=view.dilations, dilations=view.strides
    )  # (C/group, M, at least the kernel)
    made = step.op("Slice", made, step.ints([0] * view.rank), step.ints(view.kernel), step.ints(tail))
    return step.op("Transpose", made, perm=[1, 0, *tail])


def _pads_of_transposed(step: Step, view: Window) -> list[int]:
    """Pads of a ConvTranspose, also where it names the size that it wants instead."""
    asked = step.attribute("output_shape")
    if view.given is not None and not asked:
        return list(view.given)
    wide, narrow = space(step, step.outputs[0]), space(step, step.inputs[0])
    if wide is None or narrow is None:
        raise step.fail("its padding follows from a size that isn't known before the model runs")
    extra = step.attribute("output_padding") or [0] * view.rank
    sizes = zip(narrow, view.strides, view.reach, extra, wide, strict=True)
    totals = [(n - 1) * s + r + 1 + e - w for n, s, r, e, w in sizes]
    if any(-total >= stride for total, stride in zip(totals, view.strides, strict=True)):
        raise step.fail("its output is longer than its windows cover")
    totals = [max(total, 0) for total in totals]
    less, more = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return less + more if view.auto == "SAME_UPPER" else more + less

"""How each operator is differentiated: one file per family, the rule beside the operator's name.

A rule is a function from a :class:`~onnx_inspect.graph.rules._step.Step`, which is one node seen on the way back, to
the gradients of the node's inputs by position; inputs left out get none. A file of this folder registers its rules by
decorating them, and being in this folder is all that it takes::

    @rule("Sigmoid")
    def sigmoid(step: Step) -> Gradients:
        y = step.y()
        return {0: step.op("Mul", step.g, step.op("Mul", y, step.op("Sub", step.number(1), y)))}

What a step offers:

- ``step.g`` (or ``step.grads[k]``): name of the gradient that arrives at output 0 (or k; "" where none does);
- ``step.x(i)``, ``step.y(k)``: names of the forward inputs and outputs as numbers to calculate with: float16, bfloat16
  and quantised ones come cast to float32, in which all gradients flow (float64 stays float64). Indices, shapes and
  conditions are read as they are: ``step.inputs[i]``, "" where an input is left out;
- ``step.wants(i)``: whether input i needs a gradient; skip the work where it doesn't;
- ``step.attribute(name, default)``; ``step.value(i)``: the numbers of a constant input, else None;
- ``step.shape(name)``: what is known of a shape, with symbols; ``step.shape_of(name)``: a tensor that holds it when
  the model runs;
- ``step.op(kind, *inputs, **attributes)`` adds a standard operator of opset 18 and returns its output's name;
  ``step.ops(kind, count, ...)`` one of several outputs; ``step.number(1.0)``, ``step.ints([0, 2])`` add constants;
- ``step.sum_to(gradient, i)`` sums a gradient over the axes along which input i was broadcast;
- ``step.fail(reason)`` makes the error to raise where a rule doesn't hold for a node's attributes or shapes.

Forward nodes are read in the form of opset 18 or later: :mod:`onnx_inspect.graph.upgrade` has brought them there, so a
rule never asks whether ``axes`` is an attribute or an input.

Fused operators are easier to write down than to differentiate: ``@expansion`` takes a function that returns the names
of the node's outputs, computed anew from ``step.x(i)`` by standard operators, and differentiates those::

    @expansion("QuickGelu", domain="com.microsoft")
    def quick_gelu(step: Step) -> list[str]:
        x = step.x(0)
        return [step.op("Mul", x, step.op("Sigmoid", step.op("Mul", x, step.number(step.attribute("alpha", 1.702)))))]

An operator without either is expanded by the function that the ONNX standard defines it with, where it has one.
A derivative that is zero everywhere (Floor, Sign) is a rule too: one that returns nothing. Integers end the way back;
``integers=True`` lets it go on through those that an operator makes, for quantised numbers, whose gradient is that of
one step. What a reader of the gradients must know goes to ``step.writer.notes``.
"""

from __future__ import annotations

"""How sums over indices, written as Einstein did, are differentiated."""

from __future__ import annotations

import string

from onnx_inspect.graph.model import Dim
from onnx_inspect.graph.rules._rule import Gradients, rule
from onnx_inspect.graph.rules._step import Step


@rule("Einsum")
def einsum(step: Step) -> Gradients:
    """Each operand gets the sum over the others and the gradient, its own indices left open."""
    terms, made = _parse(step)
    found = {}
    for i, term in enumerate(terms):
        if not step.wants(i):
            continue
        if len(set(term)) < len(term):
            raise step.fail(f"operand {i} is read along a diagonal ({term})")
        others = [(t, step.x(k)) for k, t in enumerate(terms) if k != i]
        reach = {*made, *"".join(t for t, _ in others)}
        open_ = "".join(letter for letter in term if letter in reach)
        equation = ",".join([made, *(t for t, _ in others)]) + f"->{open_}"
        value = step.op("Einsum", step.g, *(name for _, name in others), equation=equation)
        alone = [axis for axis, letter in enumerate(term) if letter not in reach]  # summed over in this operand alone
        if alone:
            value = step.op("Unsqueeze", value, step.ints(alone))
        found[i] = step.spread(value, step.inputs[i]) if alone else value
    return found


def _parse(step: Step) -> tuple[list[str], str]:
    """Letters of each operand and of the result; an ellipsis becomes capital letters, the last axis always the last."""
    equation = step.attribute("equation").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    counts = [step.rank(step.inputs[i]) - len(t.replace("...", "")) if "..." in t else 0 for i, t in enumerate(terms)]
    letters = [c for c in string.ascii_uppercase if c not in equation][: max(counts)]
    shapes = [step.shape(name) or () for name in step.inputs]
    for i, term in enumerate(terms):
        if "..." in term and (counts[i] < max(counts) or _broadcast(term, shapes[i], shapes, terms)):
            raise step.fail("an ellipsis stands for axes that are broadcast")
    terms = [t.replace("...", "".join(letters)) for t in terms]
    if arrow:
        return terms, right.replace("...", "".join(letters))
    every = "".join(terms)
    once = sorted(c for c in set(every) if every.count(c) == 1 and c not in letters)
    return terms, "".join([*letters, *once])


def _broadcast(term: str, shape: tuple[Dim, ...], shapes: list[tuple[Dim, ...]], terms: list[str]) -> bool:
    """Whether an axis under an operand's ellipsis is shorter than in another operand."""
    at = term.index("...")
    own = shape[at : len(shape) - (len(term) - at - 3)]
    for other, their in zip(shapes, terms, strict=True):
        if "..." in their:
            start = their.index("...")
            same = other[start : len(other) - (len(their) - start - 3)]
            if any(a == 1 and b != 1 for a, b in zip(own, same, strict=False)):
                return True
    return False

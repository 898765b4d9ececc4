"""Which rule differentiates an operator: every file of this folder registers its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache

from onnx_inspect import discover
from onnx_inspect.graph.rules._step import Step

PACKAGE = "onnx_inspect.graph.rules"
Gradients = Mapping[int, str]  # names by position of the input
Rule = Callable[[Step], Gradients]
Expansion = Callable[[Step], Sequence[str]]  # names of the node's outputs, computed anew

_registered: dict[tuple[str, str], Rule] = {}
_through_integers: set[tuple[str, str]] = set()


def rule(*operators: str, domain: str = "", integers: bool = False) -> Callable[[Rule], Rule]:
    """Register a function as the rule of operators; `integers`: the gradient goes on through integer outputs too."""

    def register(function: Rule) -> Rule:
        for name in operators:
            assert (domain, name) not in _registered, f"{name} has two rules"
            _registered[domain, name] = function
            if integers:
                _through_integers.add((domain, name))
        return function

    return register


def expansion(*operators: str, domain: str = "", integers: bool = False) -> Callable[[Expansion], Expansion]:
    """Register a function that writes operators down by others; those are what is differentiated."""

    def register(function: Expansion) -> Expansion:
        def through(step: Step) -> Gradients:
            return step.through(function(step))

        through.__module__, through.__doc__ = function.__module__, function.__doc__
        rule(*operators, domain=domain, integers=integers)(through)
        return function

    return register


def find(domain: str, operator: str) -> Rule | None:
    """Rule of an operator, or None where no file has one."""
    return table().get(("" if domain == "ai.onnx" else domain, operator))


def passes_integers(domain: str, operator: str) -> bool:
    """Whether gradients go on through integers that an operator makes, as through quantised numbers."""
    table()  # a file that nobody has loaded has registered nothing
    return ("" if domain == "ai.onnx" else domain, operator) in _through_integers


@cache
def table() -> Mapping[tuple[str, str], Rule]:
    """All rules by (domain, operator); the standard domain is ""."""
    for name in discover.names(PACKAGE):
        discover.load(PACKAGE, name)
    return _registered

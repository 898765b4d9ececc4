"""The one number that a model predicts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_inspect.errors import TargetError
from onnx_inspect.targets._base import Context, Options, Outputs, Target
from onnx_inspect.targets.output import FixedElements


@dataclass(frozen=True)
class RegressionTarget(Target):
    """The only number of an output (N, 1)."""

    def describe(self) -> str:
        """Give its word."""
        return "regression"

    def tensors(self, context: Context) -> tuple[str, ...]:
        """Name the first output with one number for each sample."""
        for output in context.model.outputs:
            shape = context.shapes.get(output.name)
            if shape is not None and output.is_float and int(np.prod(shape[1:])) == 1 and len(shape) > 1:
                return (output.name,)
        forms = "; ".join(f"{o.name!r} is {o.describe()}" for o in context.model.outputs[:3])
        raise TargetError(f"{context.model.source} has no output of one number for each sample: {forms}")

    def fix(self, context: Context, outputs: Outputs) -> FixedElements:
        """Take the number as it is."""
        name = self.tensors(context)[0]
        count = len(outputs[name])
        return FixedElements((name,) * count, np.full(count, -1), (), name, (Ellipsis,))


def parse(text: str, options: Options) -> tuple[RegressionTarget]:
    """Read nothing: the word alone says it.

    Raises
    ------
    TargetError
        Something follows.
    """
    if text:
        raise TargetError(f"regression takes nothing behind it, found {text!r}; output:NAME[...] names one of several")
    return (RegressionTarget(),)

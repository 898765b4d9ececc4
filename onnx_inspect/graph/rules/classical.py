"""How the operators of classical models are differentiated, where they are smooth: scalers, norms, linear scores."""

from __future__ import annotations

import math

import numpy as np

from onnx_inspect.graph.rules._rule import Gradients, expansion, rule
from onnx_inspect.graph.rules._step import Step

DOMAIN = "ai.onnx.ml"


@rule("Scaler", domain=DOMAIN)
def scaler(step: Step) -> Gradients:
    """``(x - offset) scale``."""
    return {0: step.op("Mul", step.g, step.numbers(step.attribute("scale", [1.0])))}


@rule("Imputer", domain=DOMAIN)
def imputer(step: Step) -> Gradients:
    """What wasn't there has no gradient."""
    missing = step.attribute("replaced_value_float", 0.0)
    if math.isnan(missing):
        kept = step.op("Not", step.op("IsNaN", step.x(0)))
    else:
        kept = step.op("Not", step.op("Equal", step.x(0), step.number(missing)))
    return {0: step.op("Mul", step.g, step.writer.cast(kept, step.dtype))}


@expansion("Normalizer", domain=DOMAIN)
def normalizer(step: Step) -> list[str]:
    """Rows divided by a norm."""
    kind = {"MAX": "ReduceMax", "L1": "ReduceL1", "L2": "ReduceL2"}[step.attribute("norm", "MAX")]
    size = step.op(kind, step.x(0), step.ints([-1]))
    return [step.op("Div", step.x(0), size)]


@expansion("LinearRegressor", domain=DOMAIN)
def linear_regressor(step: Step) -> list[str]:
    """Linear functions of a row."""
    if step.attribute("post_transform", "NONE") != "NONE":
        raise step.fail("its result is transformed")
    return [_linear(step, step.attribute("targets", 1))]


@expansion("LinearClassifier", domain=DOMAIN)
def linear_classifier(step: Step) -> list[str]:
    """Linear scores, maybe squashed; the labels have no gradient."""
    count = len(step.attribute("classlabels_ints") or step.attribute("classlabels_strings") or [])
    rows = len(step.attribute("intercepts") or []) or count
    if rows != count:
        raise step.fail("two classes share one score")
    scores, squash = _linear(step, rows), step.attribute("post_transform", "NONE")
    kinds = {"NONE": "", "LOGISTIC": "Sigmoid", "SOFTMAX": "Softmax"}
    if squash not in kinds:
        raise step.fail(f"its scores are transformed by {squash}")
    return ["", step.op(kinds[squash], scores) if kinds[squash] else scores]


def _linear(step: Step, rows: int) -> str:
    """``x W^T + b`` with the numbers of the node's attributes."""
    weights = np.reshape(step.attribute("coefficients"), (rows, -1))
    made = step.op("MatMul", step.x(0), step.numbers(weights.T))
    intercepts = step.attribute("intercepts")
    return step.op("Add", made, step.numbers(intercepts)) if intercepts else made

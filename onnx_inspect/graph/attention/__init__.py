"""Where a model attends, whatever wrote it: every attention with what must be added to read its probabilities."""

from __future__ import annotations

from collections.abc import Mapping

from onnx_inspect.graph.attention import microsoft, softmax, standard
from onnx_inspect.graph.attention._recipe import Found as Found
from onnx_inspect.graph.attention._recipe import Recipe as Recipe
from onnx_inspect.graph.attention._recipe import Refusal as Refusal
from onnx_inspect.graph.lineage import Lineage
from onnx_inspect.graph.model import Model

HIDDEN = "it lies inside control flow: its probabilities can't be proved against a context in the main graph"


def find(model: Model, shapes: Mapping[str, tuple[int, ...]], *, decompose: bool = False) -> tuple[Found, ...]:
    """Every attention of a model, nearest the input first: how its probabilities are had, or why they can't be.

    A classifier's softmax, gates and expectations aren't among them; attention among channels is refused.

    Parameters
    ----------
    shapes : mapping of tensor name to shape
        Concrete shapes for one sample (or for the samples at which the model's batch is fixed).
    decompose : bool
        Compute anew what only onnxruntime's kernels for the CPU hand out.
    """
    lineage = Lineage(model, shapes)
    found = [
        *softmax.find(lineage),
        *standard.find(lineage, decompose=decompose),
        *microsoft.find(lineage, decompose=decompose),
        *_inside(model),
    ]
    return tuple(sorted(found, key=lambda f: f.layer.index))


def _inside(model: Model) -> list[Found]:
    """Attentions inside the bodies of If, Loop and Scan: told by a fused operator, or a softmax between products."""
    kinds: dict[str, set[str]] = {}
    for layer in model.inner:
        kinds.setdefault(layer.name.rpartition("/")[0], set()).add(layer.op_type)
    return [
        Refusal(layer, HIDDEN)
        for layer in model.inner
        if "Attention" in layer.op_type
        or (layer.op_type == "Softmax" and "MatMul" in kinds[layer.name.rpartition("/")[0]])
    ]

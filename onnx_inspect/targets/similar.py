"""How much an input resembles a second picture: the cosine of their embeddings.

The embedding is what the last linear layer before the class scores reads; the first output of real numbers in a model
without class scores; or any output, layer or tensor named before the @. The cosine takes no heed of an embedding's
length, so a method that leaves nearly everything out (Recipro-CAM) says little here; one that hides a little
(occlusion) says most.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import TargetError
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.inputs.read import read
from onnx_inspect.targets._base import Context, Fixed, Floats, Index, Options, Outputs, Target

LINEAR = frozenset("Gemm MatMul Conv FusedMatMul QLinearMatMul QLinearConv QGemm".split())
CLOSING = frozenset("Add Identity Flatten Reshape Squeeze Softmax LogSoftmax Sigmoid GlobalAveragePool Cast".split())


@dataclass(frozen=True)
class SimilarTarget(Target):
    """Resemblance to another picture (or array file).

    Attributes
    ----------
    path : str
    name : str
        Output, layer or tensor that holds the embedding; "" to choose it.
    """

    path: str
    name: str = ""

    def describe(self) -> str:
        """Give ``similar:@other.png``."""
        return f"similar:{self.name}@{self.path}"

    def tensors(self, context: Context) -> tuple[str, ...]:
        """Name the embedding."""
        model = context.model
        if not self.name:
            return (_embedding(context),)
        if self.name in model.tensors or self.name in {o.name for o in model.outputs}:
            return (self.name,)
        return (model.layer(self.name).output.name,)

    def fix(self, context: Context, outputs: Outputs) -> FixedEmbedding:
        """Run the model on the second picture."""
        name = self.tensors(context)[0]
        other = np.asarray(context.run(_feeds(self.path, context.batch, context), [name])[name], np.float64)
        wanted = other.reshape(len(other), -1)[0]
        if wanted.shape != outputs[name][0].reshape(-1).shape:
            own = list(outputs[name].shape[1:])
            raise TargetError(f"{name!r} has another size for {self.path}: {list(other.shape[1:])}, not {own}")
        if not np.isfinite(wanted).all() or not np.any(wanted):
            raise TargetError(f"{name!r} of {self.path} is all 0, or not finite: it has no direction to compare with")
        count = len(outputs[name])
        note = f"embedding: {name!r}, {wanted.size} numbers; name another: similar:NAME@{self.path}"
        notes = () if self.name else (note,)
        words = (f"cosine with {Path(self.path).name}",) * count
        return FixedEmbedding(words, np.full(count, -1), notes, name, wanted / np.linalg.norm(wanted))


@dataclass(frozen=True)
class FixedEmbedding(Fixed):
    """A direction, of length 1, in the space of one tensor."""

    tensor: str
    direction: Floats

    def read(self, outputs: Outputs, of: Index) -> Floats:
        """Cosines, in [-1, 1]; 0 for an embedding of zeros."""
        own = np.asarray(outputs[self.tensor], np.float64).reshape(len(of), -1)
        lengths = np.linalg.norm(own, axis=1)
        return (own @ self.direction / np.where(lengths > 0, lengths, 1))[:, None]


def parse(text: str, options: Options) -> tuple[SimilarTarget]:
    """Read ``@other.png`` or ``NAME@other.png``.

    Raises
    ------
    TargetError
        No file is named.
    """
    name, sign, path = text.partition("@")
    if not sign or not path:
        raise TargetError(f"similar needs a second picture, like similar:@other.png, found {text!r}")
    return (SimilarTarget(path, name),)


def _embedding(context: Context) -> str:
    """What the last linear layer reads; without class scores the first output of real numbers."""
    model = context.model
    if context.classifier is not None:
        name = context.classifier.scores
        while (node := model.producers.get(name)) is not None and node.op_type in CLOSING:
            name = next((n for n in node.input if n and n not in model.constants), "")
        if node is not None and node.op_type in LINEAR:
            shape = context.shapes.get(node.input[0], ())
            if shape and sum(extent > 1 for extent in shape[1:]) == 1:
                return str(node.input[0])
        return context.classifier.scores
    found = next((o.name for o in model.outputs if o.is_float), None)
    if found is None:
        raise TargetError(f"{model.source} gives no real numbers to compare: name a layer, similar:NAME@FILE")
    return found


def _feeds(path: str, batch: Batch, context: Context) -> dict[str, NDArray[Any]]:
    """The second picture as the model is fed, with the first sample's other inputs."""
    spec = next(i for i in context.model.inputs if i.name == batch.primary)
    other = read([spec], [path], preprocess=batch.preprocess, metadata=context.model.metadata)
    feeds = {name: a if name in batch.shared else a[:1] for name, a in batch.arrays.items()}
    return feeds | {batch.primary: other.arrays[batch.primary][:1]}

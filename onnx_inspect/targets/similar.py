"""How much an input resembles a second picture or text: the cosine of their embeddings.

The embedding is what the last linear layer before the class scores reads; the first output of real numbers in a model
without class scores; or any output, layer or tensor named before the @. Where that holds a vector for each token of a
text, the embedding is their mean over the tokens that aren't padding, as sentence encoders are read. The cosine takes
no heed of an embedding's length, so a method that leaves nearly everything out (Recipro-CAM) says little here; one that
hides a little (occlusion) says most.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import TargetError
from onnx_inspect.inputs.read import read
from onnx_inspect.inputs.tokens import TextInput
from onnx_inspect.targets._base import Context, Fixed, Floats, Index, Options, Outputs, Target

LINEAR = frozenset("Gemm MatMul Conv FusedMatMul QLinearMatMul QLinearConv QGemm".split())
CLOSING = frozenset("Add Identity Flatten Reshape Squeeze Softmax LogSoftmax Sigmoid GlobalAveragePool Cast".split())


@dataclass(frozen=True)
class SimilarTarget(Target):
    """Resemblance to another picture, array file or text.

    Attributes
    ----------
    path : str
        A file, or for texts the text itself.
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
        """Run the model on the second picture or text."""
        name, text = self.tensors(context)[0], context.batch.read_as
        feeds, other_seen = _text_feeds(self.path, text, context) if text else (_feeds(self.path, context), None)
        other = np.asarray(context.run(feeds, [name])[name], np.float64)
        seen = None
        if text is not None and other_seen is not None and other.ndim == 3 and other.shape[1] == other_seen.shape[1]:
            seen = np.stack([~np.array(tokens.padding, bool) for tokens in text.tokens])  # (N, T)
            other = pooled(other, other_seen)
        wanted = other.reshape(len(other), -1)[0]
        if wanted.size != (outputs[name].shape[-1] if seen is not None else outputs[name][0].size):
            own = list(outputs[name].shape[1:])
            raise TargetError(f"{name!r} has another size for {self.path}: {list(other.shape[1:])}, not {own}")
        if not np.isfinite(wanted).all() or not np.any(wanted):
            raise TargetError(f"{name!r} of {self.path} is all 0, or not finite: it has no direction to compare with")
        count = len(outputs[name])
        note = f"embedding: {name!r}, {wanted.size} numbers; name another: similar:NAME@{self.path}"
        mean = (f"embedding: the mean of {name!r} over the tokens that aren't padding",) if seen is not None else ()
        notes = mean or (() if self.name else (note,))
        short = self.path if len(self.path) <= 60 else f"{self.path[:59]}…"
        what = Path(self.path).name if text is None else f"“{short}”"
        words = (f"cosine with {what}",) * count
        return FixedEmbedding(words, np.full(count, -1), notes, name, wanted / np.linalg.norm(wanted), seen)


@dataclass(frozen=True)
class FixedEmbedding(Fixed):
    """A direction, of length 1, in the space of one tensor.

    `seen` (N, T) says which tokens a tensor of one vector a token is averaged over; None for one vector a sample.
    """

    tensor: str
    direction: Floats
    seen: NDArray[np.bool_] | None = None

    def read(self, outputs: Outputs, of: Index) -> Floats:
        """Cosines, in [-1, 1]; 0 for an embedding of zeros."""
        values = np.asarray(outputs[self.tensor], np.float64)
        own = (values if self.seen is None else pooled(values, self.seen[of])).reshape(len(of), -1)
        lengths = np.linalg.norm(own, axis=1)
        return (own @ self.direction / np.where(lengths > 0, lengths, 1))[:, None]

    @property
    def linear(self) -> bool:
        """A cosine isn't."""
        return False

    def slopes(self, outputs: Outputs, of: Index) -> dict[str, Floats]:
        """Derivatives of the cosine: what of the direction is at right angles to the embedding, over its length."""
        values = np.asarray(outputs[self.tensor], np.float64)
        own = (values if self.seen is None else pooled(values, self.seen[of])).reshape(len(of), -1)
        lengths = np.linalg.norm(own, axis=1, keepdims=True)
        unit = own / np.where(lengths > 0, lengths, 1)
        slopes = (self.direction - (unit @ self.direction)[:, None] * unit) / np.where(lengths > 0, lengths, np.inf)
        if self.seen is not None:
            seen = self.seen[of]
            slopes = slopes[:, None] * (seen / np.maximum(seen.sum(axis=1, keepdims=True), 1))[..., None]  # (B, T, D)
        return {self.tensor: slopes.reshape(values.shape)}


def parse(text: str, options: Options) -> tuple[SimilarTarget]:
    """Read ``@other.png`` or ``NAME@other.png``; for texts ``another text`` or ``NAME@another text``.

    Raises
    ------
    TargetError
        Nothing is named.
    """
    name, sign, path = text.partition("@")
    if not sign:
        name, path = "", text
    if not path.strip():
        raise TargetError(f"similar needs a second picture or text, like similar:@other.png, found {text!r}")
    return (SimilarTarget(path, name),)


def pooled(values: Floats, seen: NDArray[np.bool_]) -> Floats:
    """Mean (B, D) of vectors (B, T, D) over the tokens that are seen, (B, T)."""
    return np.asarray(np.einsum("btd,bt->bd", values, seen / np.maximum(seen.sum(axis=1, keepdims=True), 1)))


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


def _text_feeds(path: str, text: TextInput, context: Context) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_]]:
    """The second text as the model is fed, with the first sample's other inputs; and which tokens are no padding."""
    if text.coder is None or (text.coder.tokenizer is None and not path.replace(",", " ").replace(" ", "").isdecimal()):
        raise TargetError(f"similar:{path} needs a tokenizer: give --tokenizer tokenizer.json, or ids instead of words")
    arrays, tokens, _ = text.coder.encode([path])
    batch = context.batch
    own = {name: a if name in batch.shared else a[:1] for name, a in batch.arrays.items()}
    return own | arrays, ~np.array([tokens[0].padding], bool)


def _feeds(path: str, context: Context) -> dict[str, NDArray[Any]]:
    """The second picture as the model is fed, with the first sample's other inputs."""
    batch = context.batch
    spec = next(i for i in context.model.inputs if i.name == batch.primary)
    other = read([spec], [path], preprocess=batch.preprocess, metadata=context.model.metadata)
    feeds = {name: a if name in batch.shared else a[:1] for name, a in batch.arrays.items()}
    return feeds | {batch.primary: other.arrays[batch.primary][:1]}

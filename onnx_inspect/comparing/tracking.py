"""How checkpoints of one network are run, one after the other, to see what changed along the training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis import cka, procrustes
from onnx_inspect.analysis.checkpoints import Checkpoint
from onnx_inspect.analysis.statistics import LayerStatistics, Running
from onnx_inspect.analysis.track import Embeddings, LayerTrack, Predictions, Track, WeightTrack, change, cosine
from onnx_inspect.comparing.likeness import minibatches
from onnx_inspect.comparing.locking import locked_layers
from onnx_inspect.comparing.stream import opened, pieces, sample_bytes, split
from onnx_inspect.engine import Engine
from onnx_inspect.errors import InputError, TargetError
from onnx_inspect.graph import classifier as classifiers
from onnx_inspect.graph.classifier import Classifier
from onnx_inspect.graph.model import Layer, Model
from onnx_inspect.graph.spatial import spatial
from onnx_inspect.graph.weights import LEARNED, LayerWeight, distinct, layer_weights
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.scene import concrete_shapes
from onnx_inspect.targets import dequantised, matrix, probabilities

Array = NDArray[Any]
Grams = list[list[cka.Floats]]  # of each layer, of each minibatch
Told = Callable[[str, Array, int], None]  # (name of a weight, its numbers, place of the checkpoint)
Read = Callable[[Checkpoint], Model]


def track(
    steps: Sequence[Checkpoint],
    read: Read,
    inputs: Callable[[Model], Batch] | None,
    *,
    layers: Sequence[str] = (),
    seed: int = 0,
    tell: Told | None = None,
    make_engine: Callable[[Model], Engine] = Engine,
) -> Track:
    """Follow a network through its checkpoints; of their activations and weights none are kept but what is compared.

    Parameters
    ----------
    steps : sequence of Checkpoint
        At least two, in order.
    read : callable
        Reads a checkpoint's model.
    inputs : callable, optional
        Reads the inputs for a model, the same for each; only weights are followed where None.
    layers : sequence of str
        Which layers to follow; all that compute something where none are given.
    tell : callable, optional
        Told each weight of each checkpoint, as it is read.

    Raises
    ------
    InputError
        The checkpoints are not of one architecture.
    """
    last = read(steps[-1])
    followed = _followed(last, layers)
    weights = _Weights(last, {layer.name for layer in followed} if layers else None)
    seen = _Activations(last, followed, inputs(last), len(steps), seed, make_engine) if inputs is not None else None
    end = len(steps) - 1
    if seen is not None and inputs is not None:  # first, as all others are compared with it
        seen.add(last, common_names(last, last), inputs(last), end)
    for place, step in enumerate(steps):
        model = last if place == end else read(step)
        names = common_names(last, model)
        weights.add(model, names, place, tell)
        if seen is not None and inputs is not None and place != end:
            seen.add(model, names, inputs(model), place)
    return Track(
        steps=tuple(steps),
        sources=seen.sources if seen is not None else (),
        weights=weights.tracks(),
        layers=seen.tracks() if seen is not None else (),
        predictions=seen.predictions() if seen is not None else None,
        embeddings=seen.embeddings() if seen is not None else None,
        notes=seen.notes if seen is not None else (),
    )


def common_names(last: Model, model: Model) -> dict[str, Layer]:
    """The layer of a checkpoint for each of the last one's, by its name: by place where all operators are the same.

    Raises
    ------
    InputError
        Fewer than half of the layers correspond: it is another architecture.
    """
    if [la.op_type for la in last.layers] == [la.op_type for la in model.layers]:
        return {own.name: other for own, other in zip(last.layers, model.layers, strict=True)}
    theirs = {la.name: la for la in model.layers}
    found = {
        la.name: theirs[la.name] for la in last.layers if la.name in theirs and theirs[la.name].op_type == la.op_type
    }
    if 2 * len(found) < len(last.layers):
        raise InputError(
            f"{model.source} is no checkpoint of the network {last.source}: {len(found)} of {len(last.layers)} layers"
            f" correspond; see how alike they are with onnx-inspect compare {model.source} {last.source} INPUT... --cka"
        )
    return found


def _followed(last: Model, names: Sequence[str]) -> tuple[Layer, ...]:
    if not names:
        return locked_layers(last)
    found = {layer.name: layer for text in names for layer in last.find(text)}
    return tuple(sorted(found.values(), key=lambda layer: layer.index))


@dataclass
class _Weights:
    """Rows of numbers of each weight, filled checkpoint by checkpoint."""

    last: Model
    only: set[str] | None
    kept: dict[str, LayerWeight] = field(init=False)
    rows: dict[str, dict[str, list[float | None]]] = field(default_factory=dict)
    first: dict[str, Array] = field(default_factory=dict)
    before: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        chosen = distinct(w for w in layer_weights(self.last) if w.role in LEARNED)
        self.kept = {_weight_name(w): w for w in chosen if self.only is None or w.layer.name in self.only}

    def add(self, model: Model, names: Mapping[str, Layer], place: int, tell: Told | None) -> None:
        """Read the weights of one checkpoint."""
        own = {(w.layer.name, w.role): w for w in layer_weights(model)}
        for name, weight in self.kept.items():
            partner = names.get(weight.layer.name)
            found = own.get((partner.name, weight.role)) if partner is not None else None
            if found is None and weight.layer.name not in names:
                found = own.get((weight.layer.name, weight.role))  # inside control flow
            rows = self.rows.setdefault(name, {})
            if found is None or found.shape != weight.shape:
                for row in WEIGHT_ROWS:
                    rows.setdefault(row, []).append(None)
                continue
            values = found.array().astype(np.float64)
            if tell is not None:
                tell(name, values, place)
            start, previous = self.first.setdefault(name, values), self.before.get(name, values)
            numbers = (
                float(np.linalg.norm(values)),
                float(values.mean()),
                float(values.std()),
                float((values == 0).mean()),
                change(values, start),
                change(values, previous),
                cosine(values, weight.array()),
            )
            for row, number in zip(WEIGHT_ROWS, numbers, strict=True):
                rows.setdefault(row, []).append(number)
            self.before[name] = values

    def tracks(self) -> tuple[WeightTrack, ...]:
        """What was found, in the order of the network."""
        return tuple(
            WeightTrack(name, weight.shape, **{row: tuple(self.rows[name][row]) for row in WEIGHT_ROWS})
            for name, weight in self.kept.items()
        )


WEIGHT_ROWS = ("norm", "mean", "std", "zeros", "from_first", "from_previous", "cosine_last")


def _weight_name(weight: LayerWeight) -> str:
    return weight.layer.name if weight.role == "weight" else f"{weight.layer.name} {weight.role}"


class _Activations:
    """What each checkpoint's layers hold for the inputs, reduced to statistics, Gram matrices, answers and points."""

    def __init__(
        self,
        last: Model,
        layers: Sequence[Layer],
        batch: Batch,
        count: int,
        seed: int,
        make_engine: Callable[[Model], Engine],
    ) -> None:
        self.last, self.layers, self.make_engine, self.count = last, layers, make_engine, count
        self.sources, self.labels = batch.sources, batch.labels
        tensors = [layer.output.name for layer in layers]
        each = sample_bytes(last, batch, tensors)
        self.alike = batch.n >= cka.LEAST
        self.notes: tuple[str, ...] = (
            () if self.alike else (f"CKA needs at least {cka.LEAST} inputs, there are {batch.n}: likeness is left out",)
        )
        self.parts = minibatches(batch.n, each, seed=seed) if self.alike else split(batch.n, batch.n)
        self.readings = spatial(last, concrete_shapes(last, batch))
        self.classifier = _classifier(last)
        self.penultimate = penultimate(last, self.classifier)
        self.statistics: dict[int, list[LayerStatistics]] = {}
        self.ends: dict[int, Grams] = {}  # of the first and the last checkpoint
        self.likeness: dict[tuple[int, int], list[float | None]] = {}  # of a checkpoint to one of the ends, per layer
        self.answers: dict[int, tuple[Array, Array]] = {}
        self.points: dict[int, Array] = {}

    def add(self, model: Model, names: Mapping[str, Layer], batch: Batch, place: int) -> None:
        """Run one checkpoint."""
        missing = next((layer.name for layer in self.layers if layer.name not in names), None)
        if missing is not None:
            raise InputError(f"{model.source} has no layer like {missing!r} of {self.last.source}: choose with --layer")
        tensors = [names[layer.name].output.name for layer in self.layers]
        classifier = _classifier(model) if self.classifier is not None else None
        deep = penultimate(model, classifier) if self.penultimate else None
        wanted = [*tensors, *([classifier.output] if classifier is not None else []), *([deep] if deep else [])]
        running = [Running(layer, self.readings.get(layer.output.name)) for layer in self.layers]
        grams: Grams = [[] for _ in self.layers]
        answers: list[tuple[Array, Array]] = []
        points: list[Array] = []
        for values in pieces(opened(model, wanted, self.make_engine), batch, wanted, self.parts):
            for row, tensor in enumerate(tensors):
                running[row].add(values[tensor], len(values[tensor]))
                if self.alike:
                    grams[row].append(cka.gram(values[tensor]))
            if classifier is not None:
                answers.append(_best(classifier, values[classifier.output]))
            if deep:
                points.append(values[deep].reshape(len(values[deep]), -1))
        self.statistics[place] = [one.result() for one in running]
        order = np.argsort(np.concatenate(self.parts))  # back from how the samples were dealt
        if answers:
            classes, scores = (np.concatenate(column)[order] for column in zip(*answers, strict=True))
            self.answers[place] = classes, scores
        if points:
            self.points[place] = np.concatenate(points)[order]
        self._compare(grams, place)

    def _compare(self, grams: Grams, place: int) -> None:
        """Likeness to both ends, as far as they are known; the last checkpoint comes first, then the first."""
        if not self.alike:
            return
        first, last = 0, self.count - 1
        if place in (first, last):
            self.ends[place] = grams
            for other, known in self.ends.items():
                self.likeness[other, place] = [_likeness(*pair) for pair in zip(known, grams, strict=True)]
        for end in (first, last):
            if end in self.ends:
                self.likeness[place, end] = [_likeness(*pair) for pair in zip(grams, self.ends[end], strict=True)]

    def tracks(self) -> tuple[LayerTrack, ...]:
        """What each layer did."""
        found = []
        for row, layer in enumerate(self.layers):
            first, last = (
                tuple(self.likeness[place, end][row] if self.alike else None for place in range(self.count))
                for end in (0, self.count - 1)
            )
            statistics = tuple(self.statistics[place][row] for place in range(self.count))
            found.append(LayerTrack(layer.name, layer.op_type, statistics, first, last))
        return tuple(found)

    def predictions(self) -> Predictions | None:
        """Best classes, where every checkpoint scores some."""
        if len(self.answers) != self.count:
            return None
        pairs = [self.answers[place] for place in range(self.count)]
        classes, scores = (np.stack(column) for column in zip(*pairs, strict=True))
        return Predictions(classes, scores, self.labels)

    def embeddings(self) -> Embeddings | None:
        """The inputs before the last linear layer, each checkpoint's laid onto the last one's."""
        if len(self.points) != self.count or len(self.sources) < 3 or not self.penultimate:
            return None
        clouds = [self.points[place].astype(np.float64) for place in range(self.count)]
        planes = [procrustes.principal_plane(cloud) for cloud in clouds]
        laid = [procrustes.align(plane.points, planes[-1].points) for plane in planes]
        return Embeddings(
            layer=self.penultimate,
            points=np.stack([points for points, _ in laid]),
            share=tuple(plane.share for plane in planes),
            disparity=tuple(disparity for _, disparity in laid),
            spread=tuple(float(np.sqrt(((c - c.mean(axis=0)) ** 2).sum(axis=1).mean())) for c in clouds),
        )


def _likeness(a: Sequence[cka.Floats], b: Sequence[cka.Floats]) -> float | None:
    """CKA of one layer at two checkpoints."""
    sums = cka.Sums(1, 1, shuffles=0)
    for one, other in zip(a, b, strict=True):
        sums.add([one], [other])
    value = float(cka.normalised(sums.between, *sums.within).item())
    return value if np.isfinite(value) else None


def _classifier(model: Model) -> Classifier | None:
    try:
        return classifiers.find(model)
    except TargetError:
        return None


def _best(classifier: Classifier, values: Array) -> tuple[Array, Array]:
    scores = probabilities(classifier, dequantised(classifier, matrix(values)))
    best = scores.argmax(axis=1)
    return best, scores[np.arange(len(best)), best]


def penultimate(model: Model, classifier: Classifier | None) -> str:
    """The tensor that the last linear layer before the class scores reads; "" where there is none."""
    name = classifier.scores if classifier is not None else ""
    while name and (node := model.producers.get(name)) is not None:
        data = [n for n in node.input if n and n not in model.constants]
        if node.op_type in ("Gemm", "MatMul", "Conv", "FusedGemm", "MatMulInteger", "QLinearMatMul", "QGemm"):
            return data[0] if data and data[0] in model.producers else ""
        if len(data) != 1:
            return ""
        name = data[0]
    return ""

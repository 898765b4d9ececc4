"""How a data set's activations become concepts: found on some positions, measured on all, weighed by what they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.channels import Maps, Tally
from onnx_inspect.analysis.concepts import Concepts, Floats, amounts, correlations, factorise
from onnx_inspect.cam.sobol import replicated, total_indices
from onnx_inspect.capture.local import Report, into_memory
from onnx_inspect.capture.setup import job
from onnx_inspect.channels import Part, Rows, Stream, fields_of, maps_of, stream_form
from onnx_inspect.engine import Engine
from onnx_inspect.errors import InputError, LayerError, ModelError, RunError
from onnx_inspect.forms import restore
from onnx_inspect.graph.model import Layer, Model
from onnx_inspect.graph.spatial import Spatial
from onnx_inspect.inputs.dataset_batches import Skipped
from onnx_inspect.sections import Sections, run, samples_first
from onnx_inspect.targets import matrix

POSITIONS = 20_000  # that concepts are found on
DESIGNS = 32  # rows of a Sobol design
RUNS = 20_000  # of the tail, for the importance of all classes
MOST, CLASSES = 8, 20  # samples of a class, and classes (the most frequent), whose importance is measured
BYTES = 64 * 2**20  # of variants that exist at one time


def concepts(
    stream: Stream,
    layer: Layer,
    *,
    count: int,
    top: int = 8,
    seed: int = 0,
    make_engine: Callable[[Model], Engine] = Engine,
    report: Report | None = None,
) -> tuple[Concepts, tuple[Skipped, ...]]:
    """Concepts of a layer over a data set; it is gone through twice, and memory doesn't grow with it.

    Parameters
    ----------
    count : int
        Concepts wanted.
    top : int
        Samples remembered for each.
    seed : int
        Of the positions picked, the factorisation and the Sobol designs.

    Raises
    ------
    LayerError
        The layer holds negative values, or too few positions.
    InputError
        No sample can be read.
    """
    basis, skipped = _found(stream, layer, count, seed, report)
    measured = _Measured(basis, Tally(count, top), Rows(stream))
    for part in stream.parts(report):
        if part.sources:
            measured.add(part.maps[layer.name], stream.groups(part), part)
    fields, extent = fields_of(stream.source, layer, stream_form(stream, layer))
    channels = measured.tally.result(
        layer=layer.name, kind="concept", fields=fields, plane=extent, **measured.rows.about()
    )
    found = Concepts(basis, measured.shares, measured.explained, channels, np.zeros((0, count)), "")
    return _weighed(found, stream, layer, np.concatenate(measured.means), seed, make_engine), skipped


def _found(
    stream: Stream, layer: Layer, count: int, seed: int, report: Report | None
) -> tuple[NDArray[np.float32], tuple[Skipped, ...]]:
    """The concepts of positions picked from all samples: which ones the seed and each sample's place alone decide."""
    picked: list[NDArray[np.float32]] = []
    skipped: list[Skipped] = []
    total = len(stream.source.reader)
    for part in stream.parts(report):
        skipped += part.skipped
        for maps, place in zip(part.maps[layer.name] if part.sources else (), part.places.tolist(), strict=True):
            if maps.min() < 0:
                raise LayerError(
                    f"layer {layer.name!r} holds negative values, which are no sums of parts: choose one behind a Relu"
                )
            rng = np.random.default_rng([seed, place])
            wanted = POSITIONS / total
            number = int(wanted) + int(rng.random() < wanted % 1)
            cells = maps.shape[1]
            some = slice(None) if number >= cells else np.sort(rng.choice(cells, number, replace=False))
            picked.append(maps.T[some])
    if not picked:
        raise InputError(f"no sample of the data set could be read: {skipped[0].reason}")
    return factorise(np.concatenate(picked), count, seed), tuple(skipped)


@dataclass
class _Measured:
    """What is kept of the second pass."""

    basis: NDArray[np.float32]
    tally: Tally
    rows: Rows

    def __post_init__(self) -> None:
        self.means: list[Floats] = []
        self._made = np.zeros(len(self.basis))
        self._left, self._squares, self._count = 0.0, 0.0, 0
        self._sums = np.zeros(self.basis.shape[1])

    def add(self, maps: Maps, groups: NDArray[np.int64], part: Part) -> None:
        count, width, cells = maps.shape
        rows = maps.transpose(0, 2, 1).reshape(-1, width)  # (n * cells, K)
        found = amounts(rows, self.basis)  # (n * cells, J)
        self._left += float(((rows - found @ self.basis).astype(np.float64) ** 2).sum())
        self._squares += float((rows.astype(np.float64) ** 2).sum())
        self._sums += rows.sum(axis=0, dtype=np.float64)
        self._count += len(rows)
        self._made += found.sum(axis=0, dtype=np.float64) * self.basis.sum(axis=1, dtype=np.float64)
        shaped = np.ascontiguousarray(found.reshape(count, cells, -1).transpose(0, 2, 1))
        self.tally.add(shaped, groups, part.places)
        self.means.append(shaped.mean(axis=2, dtype=np.float64))
        self.rows.add(part)

    @property
    def shares(self) -> Floats:
        return self._made / max(float(self._made.sum()), 1e-30)

    @property
    def explained(self) -> float:
        spread = self._squares - float((self._sums**2).sum()) / self._count
        return 1 - self._left / spread if spread > 0 else 0.0


def _weighed(
    found: Concepts, stream: Stream, layer: Layer, means: Floats, seed: int, make_engine: Callable[[Model], Engine]
) -> Concepts:
    """What each concept decides: by Sobol indices of the class scores through the tail, else by correlation."""
    classifier = stream.source.classifier
    if classifier is None or not len(found.channels.groups):
        return found
    try:
        importance = _Tail(stream, layer, found, classifier.scores, make_engine).importance(seed)
    except (LayerError, ModelError, RunError):  # no way from the layer to the scores that can be run on its own
        scores = _scores(stream, classifier.scores, make_engine)
        if scores is None or len(scores) != len(means):
            return found
        table = correlations(means, scores)
        groups = found.channels.groups
        known = np.array([table[g] if g < len(table) else np.zeros(table.shape[1]) for g in groups])
        return replace(found, importance=known, measure="correlation with the class score")
    return replace(found, importance=importance, measure="share in the class score (Sobol)")


def _scores(stream: Stream, tensor: str, make_engine: Callable[[Model], Engine]) -> Floats | None:
    """Class scores of all samples, (N, C); None where they are no layer's."""
    layer = next((la for la in stream.source.model.layers if la.output.name == tensor), None)
    if layer is None:
        return None
    captured = into_memory(job(stream.source, [layer], pool_by="flatten", make_engine=make_engine))
    return np.asarray(captured.array(layer.name), np.float64)


@dataclass
class _Tail:
    """Class scores of a layer made of concepts."""

    stream: Stream
    layer: Layer
    concepts: Concepts
    scores: str
    make_engine: Callable[[Model], Engine]

    def __post_init__(self) -> None:
        self.sections = Sections(self.stream.source.model, self.layer, (self.scores,), self.make_engine)
        self.form = stream_form(self.stream, self.layer)
        self.split = self.sections.split

    def importance(self, seed: int) -> Floats:
        """Mean total Sobol index of each concept over samples of each class, (C, J)."""
        channels, count = self.concepts.channels, len(self.concepts.basis)
        common = np.argsort(-channels.counts, kind="stable")[:CLASSES]
        most = int(np.clip(RUNS // (DESIGNS * (count + 1) * len(common)), 1, MOST))
        found = np.zeros((len(channels.groups), count))
        design = replicated(np.random.default_rng(seed), DESIGNS, count)  # (R, J)
        for row in common.tolist():
            group = int(channels.groups[row])
            mine = np.flatnonzero(channels.labels == group)
            picked = mine[np.unique(np.linspace(0, len(mine) - 1, most).round().astype(int))]
            found[row] = np.mean([self._indices(int(n), group, design) for n in picked], axis=0)
        return found

    def _indices(self, row: int, group: int, design: Floats) -> Floats:
        """Total Sobol indices for one sample's score of its class, (J,)."""
        place = int(self.concepts.channels.all_places[row])
        batch = self.stream.source.reader.read(range(place, place + 1)).batch
        if batch is None:
            raise InputError(f"{self.concepts.channels.sources[row]} can't be read any more")
        captured = self.sections.capture(batch)
        tensor = captured[self.split.tensor]
        maps = maps_of(tensor, self.form)  # (1, K, cells)
        amount = amounts(np.ascontiguousarray(maps[0].T), self.concepts.basis)  # (cells, J)
        step = max(1, BYTES // max(tensor.nbytes, 1))
        values = []
        for start in range(0, len(design), step):
            dimmed = design[start : start + step, None, :] * amount  # (R, cells, J)
            made = (dimmed @ self.concepts.basis).transpose(0, 2, 1).astype(np.float32)  # (R, K, cells)
            feeds = {**captured, self.split.tensor: put_back(made, tensor, self.form)}
            tail = self.sections.tail
            said = samples_first(tail, run(tail, feeds, [self.scores]), len(made))[self.scores]
            values.append(matrix(said))
        table = np.concatenate(values).astype(np.float64)  # (R, C)
        return total_indices(table[:, self._column(table, group)], DESIGNS)

    def _column(self, table: Floats, group: int) -> int:
        """Which score is the class's; where labels aren't the model's classes, the one that is highest."""
        if table.shape[1] == 1:
            return 0
        own = self.stream.source.reader.dataset.comparable or not self.stream.labelled
        return group if own and group < table.shape[1] else int(table.mean(axis=0).argmax())


def put_back(maps: Maps, tensor: NDArray[np.generic], form: Spatial | None) -> NDArray[np.generic]:
    """Variants (R, K, cells) in the layer's own form; the inverse of :func:`onnx_inspect.channels.maps_of`.

    Raises
    ------
    LayerError
        Nobody knows how the layer's axes lie.
    """
    of = np.zeros(len(maps), np.intp)
    if form is None:
        if tensor.ndim != 2:
            raise LayerError("a layer whose axes nobody knows can't be put together again")
        return maps[:, :, 0].astype(tensor.dtype)
    if form.form == "flat":
        whole = tensor[of].copy()
        whole[:, :, form.prefix : form.prefix + form.cells] = maps
        return whole
    grid = (1, *form.grid) if len(form.grid) == 1 else form.grid
    return restore(maps.reshape(*maps.shape[:2], *grid), tensor, of, form)

"""How a model, a batch and one layer become what a CAM method sees: cut, run, and put into one form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.cam._probe import Index, Maps, Probe, Rows
from onnx_inspect.engine import Engine, measure
from onnx_inspect.errors import LayerError, MethodError, TargetError
from onnx_inspect.graph import classifier as classifiers
from onnx_inspect.graph.batch import batch_axes
from onnx_inspect.graph.bind import bind
from onnx_inspect.graph.linear import linear_head
from onnx_inspect.graph.model import Layer, Model
from onnx_inspect.graph.spatial import Spatial, candidates, spatial
from onnx_inspect.graph.surgery import Cut, ancestors, cut, extract
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.targets import Target, are_probabilities, matrix

ROWS_BUDGET = 256 * 2**20  # bytes of variants that exist at one time


@dataclass(frozen=True)
class Scene:
    """A model and a batch looked at through one layer: everything that several methods share.

    Attributes
    ----------
    form : Spatial
        How the layer's axes lie over the input's plane.
    scores : Classifier or None
        None where the model has no class scores; then only methods that look at no class apply.
    why : str
        Why this layer, when it was chosen for the user.
    """

    model: Model
    batch: Batch
    layer: Layer
    form: Spatial
    scores: classifiers.Classifier | None
    reason: str  # why there are no class scores
    target: Target
    make_engine: Callable[[Model], Engine]
    seed: int
    why: str

    @cached_property
    def split(self) -> Cut:
        """Head up to the layer, and tail from it to the class scores."""
        return cut(self.model, self.layer, outputs=[self._scores().scores])

    @cached_property
    def head(self) -> Engine:
        """Runs inputs up to the layer; without class scores the layer is all it gives."""
        if self.scores is None:
            model = extract(self.model, [i.name for i in self.model.inputs], [self.layer.output.name])
            return self.make_engine(model)
        return self.make_engine(self.split.head)

    @cached_property
    def tail(self) -> Engine:
        """Runs activations from the layer to the class scores."""
        return self.make_engine(self.split.tail)

    @cached_property
    def whole(self) -> Engine:
        """Runs inputs to the class scores."""
        inputs = [i.name for i in self.model.inputs]
        return self.make_engine(extract(self.model, inputs, [self._scores().scores]))

    @cached_property
    def captured(self) -> dict[str, NDArray[Any]]:
        """The layer's own tensor and those that cross the cut, for the whole batch."""
        feeds = {name: a for name, a in self.batch.arrays.items() if name in {i.name for i in self.head.model.inputs}}
        return self.head.run(feeds, [o.name for o in self.head.model.outputs])

    @cached_property
    def base(self) -> NDArray[np.float64]:
        """Class scores of the batch, (N, classes)."""
        feeds = {self.split.tensor: self.captured[self.split.tensor]}
        feeds |= {name: self.captured[name] for name in self.split.crossing}
        own = {i.name for i in self.tail.model.inputs}
        name = self._scores().scores
        return matrix(self.tail.run({n: a for n, a in feeds.items() if n in own}, [name])[name])

    @cached_property
    def classes(self) -> Index:
        """Explained class of each input, (N,)."""
        return self.target.indices(self.base)

    def probe(self) -> Probe:
        """Build what a method sees."""
        no_scores = self.scores is None
        count = self.batch.n
        return Probe(
            inputs=present_input(self.batch),
            activations=present(self.captured[self.layer.output.name], self.form),
            classes=np.full(count, -1) if no_scores else self.classes,
            base=np.zeros((count, 0)) if no_scores else self.base,
            score_inputs=self._score_inputs,
            score_activations=self._score_activations,
            logits=not no_scores and not self._squashed(),
            weights=self._weights,
            rng=np.random.default_rng(self.seed),
        )

    def _scores(self) -> classifiers.Classifier:
        if self.scores is None:
            raise TargetError(self.reason)
        return self.scores

    def _squashed(self) -> bool:
        """Whether the scores are probabilities already."""
        return not self._scores().logits and are_probabilities(self.base)

    def _score_inputs(self, rows: Rows, of: Index) -> NDArray[np.float64]:
        batch, name = self.batch, self._scores().scores
        own = {i.name: i for i in self.whole.model.inputs}
        size = batch.arrays[batch.primary][0].nbytes * 4 // max(batch.arrays[batch.primary].itemsize, 1)

        def feeds(positions: Index) -> dict[str, NDArray[Any]]:
            variants = restore_input(rows(positions), batch)
            others = {
                n: a if n in batch.shared else a[of[positions]] for n, a in batch.arrays.items() if n != batch.primary
            }
            return {n: a for n, a in {**others, batch.primary: variants}.items() if n in own}

        return self._in_blocks(self.whole, feeds, name, of, size)

    def _score_activations(self, rows: Rows, of: Index) -> NDArray[np.float64]:
        split, name = self.split, self._scores().scores
        tensor = self.captured[split.tensor]

        def feeds(positions: Index) -> dict[str, NDArray[Any]]:
            inputs = of[positions]
            carried = {n: _take(self.captured[n], inputs, self.batch.n) for n in split.crossing}
            return {split.tensor: restore(rows(positions), tensor, inputs, self.form), **carried}

        crossing = sum(self.captured[n][:1].nbytes for n in split.crossing if self.captured[n].ndim)
        return self._in_blocks(self.tail, feeds, name, of, tensor[0].nbytes + crossing)

    @staticmethod
    def _in_blocks(
        engine: Engine, feeds: Callable[[Index], dict[str, NDArray[Any]]], name: str, of: Index, size: int
    ) -> NDArray[np.float64]:
        """Make and run variants block by block, so that memory doesn't grow with their number."""
        block = int(max(1, min(4 * engine.max_chunk, ROWS_BUDGET // max(size, 1))))
        parts = []
        for start in range(0, len(of), block):
            positions = np.arange(start, min(start + block, len(of)))
            parts.append(matrix(engine.run(feeds(positions), [name])[name]))
            if engine.progress is not None:
                engine.progress(int(positions[-1]) + 1, len(of))
        return np.concatenate(parts)

    def _weights(self, tolerance: float) -> Maps:
        """Weights of a linear tail, proved on the batch's own activations."""
        name = self._scores().scores
        head = linear_head(self.model, self.layer.output.name, name, self.form.cells)
        activations = present(self.captured[self.layer.output.name], self.form)
        pooled = activations.mean(axis=(2, 3), dtype=np.float64)  # (N, K)
        expected = (pooled if head.weight is None else pooled @ head.weight.T.astype(np.float64)) + head.bias
        scale = float(np.ptp(self.base)) or 1.0
        error = float(np.abs(expected - self.base).max()) / scale
        if not error <= tolerance:
            raise MethodError(
                f"cam is not exact after {self.layer.name!r}: pooling and a linear layer predict the scores only to"
                f" {error:.1%} of their range; choose a later layer or another method"
            )
        return np.stack([head.row(int(c), activations.shape[1]) for c in self.classes])


def scene(
    model: Model,
    batch: Batch,
    *,
    layer: str | Layer | None = None,
    target: Target | None = None,
    output: str | None = None,
    seed: int = 0,
    make_engine: Callable[[Model], Engine] = Engine,
) -> Scene:
    """Choose the layer (the best-ranked one by default), find the class scores, and prepare a Scene.

    Raises
    ------
    LayerError
        No such layer, or it holds no maps over the input's plane.
    """
    shapes = concrete_shapes(model, batch)
    try:
        scores, reason = classifiers.find(model, shapes, output), ""
    except TargetError as error:
        if output is not None:
            raise
        scores, reason = None, str(error)
    if layer is None:
        decisive = ancestors(model, [scores.scores] if scores else [o.name for o in model.outputs])
        ranked = [c for c in candidates(model, shapes) if c.layer.output.name in decisive]
        if not ranked:
            raise LayerError(
                f"{model.source} has no layer with maps over its input (no convolution, no patches): a CAM can't apply"
            )
        chosen, form, why = ranked[0].layer, ranked[0].spatial, ranked[0].why
    else:
        chosen = model.layer(layer) if isinstance(layer, str) else layer
        readings = spatial(model, shapes)
        if chosen.output.name not in readings or readings[chosen.output.name].form == "flat":
            best = ", ".join(repr(c.layer.name) for c in candidates(model, shapes)[:3]) or "none"
            raise LayerError(
                f"layer {chosen.name!r} ({chosen.op_type}, shape {shapes.get(chosen.output.name)}) holds no maps over"
                f" the input's plane; layers that do: {best}"
            )
        form, why = readings[chosen.output.name], ""
    if len(form.grid) > 2:
        raise LayerError(f"layer {chosen.name!r} holds volumes {form.grid}: a CAM needs maps or signals")
    return Scene(model, batch, chosen, form, scores, reason, target or Target(), make_engine, seed, why)


def concrete_shapes(model: Model, batch: Batch) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors for one sample of the batch: inferred, and measured by a run where inference can't tell."""
    axes = batch_axes(model)
    one = {
        name: array if (axis := axes.get(name)) is None else np.take(array, [0], axis)
        for name, array in batch.arrays.items()
    }
    shapes = bind(model, {name: array.shape for name, array in one.items()})
    unknown = [layer.output.name for layer in model.layers if layer.output.name not in shapes]
    return shapes | measure(model, one, unknown) if unknown else shapes


def present(tensor: NDArray[Any], form: Spatial) -> Maps:
    """Show a layer's tensor as (N, K, h, w), float32: channels first, prefix tokens left out, a signal as one row."""
    maps = np.asarray(tensor, np.float32)
    if form.form == "tokens":
        maps = maps[:, form.prefix : form.prefix + form.cells].reshape(len(maps), *form.grid, -1)
    if form.form in ("tokens", "channels-last"):
        maps = np.moveaxis(maps, -1, 1)
    return np.ascontiguousarray(maps[:, :, None] if len(form.grid) == 1 else maps)


def restore(maps: Maps, tensor: NDArray[Any], of: Index, form: Spatial) -> NDArray[Any]:
    """Put variants (B, K, h, w) back into the layer's own form; prefix tokens come from the inputs they stem from."""
    if len(form.grid) == 1:
        maps = maps[:, :, 0]
    if form.form in ("tokens", "channels-last"):
        maps = np.moveaxis(maps, 1, -1)
    if form.form == "tokens":
        whole = tensor[of].astype(np.float32)
        whole[:, form.prefix : form.prefix + form.cells] = maps.reshape(len(maps), form.cells, -1)
        maps = whole
    return np.ascontiguousarray(maps, tensor.dtype)


def present_input(batch: Batch) -> Maps:
    """Show the perturbed input as (N, C, H, W), float32; a signal (N, C, L) or (N, L) as one row.

    Raises
    ------
    MethodError
        It has more axes than a picture.
    """
    array = np.asarray(batch.arrays[batch.primary], np.float32)
    if array.ndim > 4:
        raise MethodError(f"input {batch.primary!r} of shape {array.shape} is no picture and no signal")
    if array.ndim < 4:
        return array.reshape(len(array), *(1,) * (3 - array.ndim), *array.shape[1:-1], 1, array.shape[-1])
    if array.ndim == 4 and batch.preprocess is not None and batch.preprocess.layout == "NHWC":
        return np.ascontiguousarray(np.moveaxis(array, -1, 1))
    return array


def restore_input(variants: Maps, batch: Batch) -> NDArray[Any]:
    """Put variants (B, C, H, W) back into the input's own layout and type; integers are rounded and clipped."""
    own = batch.arrays[batch.primary]
    if own.ndim < 4:
        variants = variants.reshape(len(variants), *own.shape[1:])
    elif own.ndim == 4 and batch.preprocess is not None and batch.preprocess.layout == "NHWC":
        variants = np.moveaxis(variants, 1, -1)
    if own.dtype.kind in "iu":
        info = np.iinfo(own.dtype)
        variants = np.clip(np.rint(variants), info.min, info.max)
    return np.ascontiguousarray(variants, own.dtype)


def _take(array: NDArray[Any], of: Index, count: int) -> NDArray[Any]:
    """Rows of a captured tensor for the inputs that variants stem from; what has no row per input stays as it is."""
    return array[of] if array.ndim and len(array) == count else array

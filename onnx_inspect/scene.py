"""How a model, a batch, one layer and a target become what a CAM method sees: cut, run, and put into one form."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect import slopes
from onnx_inspect.cam._probe import EXACT, Index, Maps, Probe, Rows
from onnx_inspect.engine import Engine, measure
from onnx_inspect.errors import LayerError, MethodError, TargetError
from onnx_inspect.forms import cells_of, present, present_input, restore, restore_inputs
from onnx_inspect.graph import classifier as classifiers
from onnx_inspect.graph.batch import batch_axes
from onnx_inspect.graph.bind import bind
from onnx_inspect.graph.dependence import descendants
from onnx_inspect.graph.linear import LinearHead
from onnx_inspect.graph.model import Layer, Model
from onnx_inspect.graph.spatial import Candidate, Spatial, candidates, spatial
from onnx_inspect.graph.surgery import ancestors, extract
from onnx_inspect.graph.window_samples import regrouped
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.sections import Arrays, Sections, samples_first
from onnx_inspect.targets import Context, Fixed, Floats, Target, matrix, suggest

TRIALS = 12  # layers that are tried until one is found that the target hangs on
LEAST = 0.05  # of the target's score: what a layer must move to count as deciding it
ROWS_BUDGET = 16 * 2**20  # bytes of variants, and of what the model says of them, that exist at one time
WEIGHED = ("Conv", "QLinearConv", "ConvInteger", "ConvTranspose", "Gemm", "MatMul")
Memory = dict[bytes, Floats]  # scores of blocks of variants, by the digest of what was run


@dataclass(frozen=True)
class Scene:
    """A model and a batch looked at through one layer, and what is explained: everything that several methods share.

    Attributes
    ----------
    form : Spatial or None
        How the layer's axes lie over the input's plane.
    target : Target or None
        None where the model has no scores to explain; then only methods that look at no class apply.
    reason : str
        Why there is no target.
    blind : str
        Why there is no layer: then only methods that look at none apply.
    why : str
        Why this layer, when it was chosen for the user.
    settled : Fixed or None
        The target as another scene of the same inputs settled it; settled here where None.
    memory : dict or None
        Scores that scenes of other classes have already asked for; None to keep none.
    """

    sections: Sections
    batch: Batch
    context: Context
    form: Spatial | None
    target: Target | None
    reason: str
    blind: str
    seed: int
    why: str
    settled: Fixed | None = None
    memory: Memory | None = field(default=None, repr=False)

    @property
    def layer(self) -> Layer | None:
        """Where the model is cut."""
        return self.sections.layer

    @property
    def head(self) -> Engine:
        """Runs inputs up to the layer."""
        return self.sections.head

    @property
    def tail(self) -> Engine:
        """Runs activations from the layer to what the target reads."""
        return self.sections.tail

    @property
    def whole(self) -> Engine:
        """Runs inputs to what the target reads."""
        return self.sections.whole

    @property
    def captured(self) -> Arrays:
        """The layer's own tensor and those that cross the cut, for the whole batch."""
        return self.sections.capture(self.batch)

    @property
    def outputs(self) -> Arrays:
        """What the target reads, for the inputs as they are, (N, ...)."""
        self._target()
        return self.sections.outputs(self.batch)

    @cached_property
    def fixed(self) -> Fixed:
        """The target settled for this batch."""
        return self.settled or self._target().fix(self.context, self.outputs)

    @cached_property
    def base(self) -> Floats:
        """Scores of the batch: (N, classes), or (N, 1) of a target that is no class."""
        return self.fixed.read(self.outputs, np.arange(self.batch.n))

    @property
    def class_count(self) -> int:
        """How many classes the model scores."""
        return matrix(self.outputs[self.sections.tensors[0]]).shape[1]

    @property
    def target_scores(self) -> Floats:
        """What each input's target scores, (N,): a probability where it can be had; NaN without a target."""
        if self.target is None:
            return np.full(self.batch.n, np.nan)
        return self.probe().base_scores(probability=True)

    def probe(self) -> Probe:
        """Build what a method sees."""
        none, count = self.target is None, self.batch.n
        return Probe(
            inputs=present_input(self.batch),
            activations=self._activations(),
            classes=np.zeros(count, np.intp) if none else self.fixed.columns,
            base=np.zeros((count, 0)) if none else self.base,
            score_inputs=self._score_inputs,
            score_activations=self._score_activations,
            logits=not none and bool(self.fixed.squash),
            independent=not none and self.fixed.squash == "sigmoid",
            every_class=not none and self.fixed.serves_all,
            finer=self._finer,
            readings={} if none else self.fixed.readings,
            weights=self._weights,
            score_pooled=self._score_pooled,
            cells=cells_of(self.batch),
            layer_gradients=lambda: slopes.layer_gradients(self),
            layer_curvature=lambda: slopes.layer_curvature(self),
            input_gradients=lambda rows, of: slopes.input_gradients(self, rows, of),
            guided_gradients=lambda rows, of: slopes.input_gradients(self, rows, of, guided=True),
            bias_shares=lambda index: slopes.bias_shares(self, index),
            rng=np.random.default_rng(self.seed),
        )

    def hangs_on_layer(self) -> bool:
        """Whether the target's score moves for any input when all of the layer is set to 0."""
        probe = self.probe()
        of = np.arange(self.batch.n)
        without = probe.tail_scores(lambda rows: np.zeros_like(probe.activations[of[rows]]), of)
        base = probe.base_scores()
        return bool((np.abs(without - base) > LEAST * np.abs(base)).any())

    def of(self, batch: Batch, *, settled: Fixed | None) -> Scene:
        """The same scene of other inputs, with its target settled already."""
        return replace(self, batch=batch, context=replace(self.context, batch=batch), settled=settled, memory=None)

    def _target(self) -> Target:
        if self.target is None:
            raise TargetError(self.reason)
        return self.target

    def _activations(self) -> Maps:
        if self.layer is None or self.form is None:
            return np.zeros((self.batch.n, 0, 1, 1), np.float32)
        return present(self.captured[self.layer.output.name], self.form)

    def _finer(self) -> tuple[Maps, ...]:
        """The last activations of each finer resolution before the layer, from coarse to fine."""
        if self.layer is None or self.form is None:
            return ()
        layers = _finer_layers(self.context, self.layer, self.form)
        found = self.sections.others(self.batch, [la.output.name for la, _ in layers]) if layers else {}
        return tuple(present(found[la.output.name], form) for la, form in layers)

    def _score_inputs(self, rows: Rows, of: Index) -> Floats:
        own = {i.name for i in self.whole.model.inputs}
        size = self.batch.arrays[self.batch.primary][0].size * 4

        def run(positions: Index) -> Floats:
            feeds = self.variants(rows(positions), of[positions])
            return self._recalled(self.whole, {n: a for n, a in feeds.items() if n in own}, of[positions])

        return self.in_blocks(run, of, size, self.whole)

    def variants(self, variants: Maps, of: Index) -> Arrays:
        """Variants (B, C, H, W) of the samples `of` as the whole model is fed them, beside what they don't change."""
        batch = self.batch
        changed = restore_inputs(variants, batch, of)
        others = {n: a if n in batch.shared else a[of] for n, a in batch.arrays.items() if n not in changed}
        return {**others, **changed}

    def _score_activations(self, rows: Rows, of: Index) -> Floats:
        if self.form is None:
            raise LayerError(self.blind)
        split, form = self.sections.split, self.form
        tensor = self.captured[split.tensor]

        def run(positions: Index) -> Floats:
            inputs = of[positions]
            carried = {n: _take(self.captured[n], inputs, self.batch.n) for n in split.crossing}
            feeds = {split.tensor: restore(rows(positions), tensor, inputs, form), **carried}
            return self._recalled(self.tail, feeds, inputs)

        crossing = sum(self.captured[n][:1].nbytes for n in split.crossing if self.captured[n].ndim)
        return self.in_blocks(run, of, tensor[0].nbytes + crossing, self.tail)

    def in_blocks(self, run: Callable[[Index], NDArray[Any]], of: Index, size: int, engine: Engine) -> NDArray[Any]:
        """Make and run variants block by block, so that memory doesn't grow with their number."""
        said = sum(array[0].nbytes for array in self.outputs.values())
        block = int(max(1, min(4 * engine.max_chunk, ROWS_BUDGET // max(size + said, 1))))
        parts = []
        for start in range(0, len(of), block):
            positions = np.arange(start, min(start + block, len(of)))
            parts.append(run(positions))
            if engine.progress is not None:
                engine.progress(int(positions[-1]) + 1, len(of))
        return np.concatenate(parts)

    def _recalled(self, engine: Engine, feeds: Arrays, of: Index) -> Floats:
        """Scores of a block of variants, from memory where the very same block was run before."""
        if self.memory is None or not self.fixed.serves_all:
            return self._run(engine, feeds, of)
        key = hashlib.blake2b(repr((id(engine), sorted((n, a.shape) for n, a in feeds.items()))).encode())
        for name in sorted(feeds):
            key.update(np.ascontiguousarray(feeds[name]).data)
        digest = key.digest()
        if digest not in self.memory:
            self.memory[digest] = self._run(engine, feeds, of)
        return self.memory[digest]

    def _run(self, engine: Engine, feeds: Arrays, of: Index) -> Floats:
        made = {o.name for o in engine.model.outputs}
        names = [name for name in self.sections.tensors if name in made]
        said = samples_first(engine, engine.run(feeds, names), len(of))
        unmoved = {name: self.outputs[name][of] for name in self.sections.tensors if name not in said}
        return self.fixed.read(said | unmoved, of)

    def _weights(self, tolerance: float) -> Maps:
        """Weights of a linear tail for each input's target, (N, K)."""
        head, mix = self._linear_head(tolerance), self.fixed.mix
        assert mix is not None
        asked = np.flatnonzero(mix.any(axis=0))
        channels = self._activations().shape[1]
        rows = np.stack([head.row(int(c), channels) for c in asked])  # (classes asked for, K)
        return np.asarray(mix[:, asked] @ rows, np.float32)

    def _score_pooled(self, pooled: Maps, of: Index) -> Floats:
        """What a linear tail says of channel means, (B, K)."""
        head, classifier = self._linear_head(EXACT), self.context.classifier
        assert classifier is not None
        return self.fixed.read({classifier.scores: head.scores(pooled)}, of)

    def _linear_head(self, tolerance: float) -> LinearHead:
        """What follows the layer, where that is pooling and a linear map: proved by the batch, once if exact."""
        classifier = self.context.classifier
        mixes = self.target is not None and self.fixed.mix is not None
        if not mixes or classifier is None or self.layer is None or self.form is None:
            raise MethodError(f"cam explains sums of class scores at a layer, not {self._target().describe()!r}")
        head = self.sections.linear_head(classifier.scores, self.form.cells)
        if classifier.scores in self.sections.proved:
            return head
        scores, activations = matrix(self.outputs[classifier.scores]), self._activations()
        means = activations.reshape(*activations.shape[:2], -1).mean(axis=2, dtype=np.float64)  # (N, K)
        scale = float(np.ptp(scores)) or 1.0
        error = float(np.abs(head.scores(means.astype(np.float32)) - scores).max()) / scale
        if not error <= tolerance:
            raise MethodError(
                f"cam is not exact after {self.layer.name!r}: pooling and a linear layer predict the scores only to"
                f" {error:.1%} of their range; choose a later layer or another method"
            )
        if error <= EXACT:
            self.sections.proved.add(classifier.scores)
        return head


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
    """Choose the target and the layer (the best-ranked one by default) where they aren't given, and prepare a Scene.

    Raises
    ------
    LayerError
        No such layer, or it holds no maps over the input's plane.
    TargetError
        The model has nothing of the target's kind.
    """
    context = _context(model, batch, output, make_engine)
    wanted = target or suggest(context)
    tensors = wanted.tensors(context) if wanted is not None else ()
    reason = "" if wanted is not None else context.reason

    def at(chosen: Layer | None, form: Spatial | None, why: str, blind: str = "") -> Scene:
        cut_at, whole = chosen, model
        if chosen is not None and form is not None and form.form == "windows":
            shape = context.shapes[chosen.output.name]
            if shape[0] != 1:  # the windows lie along the samples' axis
                whole, cut_at = regrouped(model, chosen, shape)
        sections = Sections(whole, cut_at, tensors, make_engine, shapes=context.shapes)
        return Scene(sections, batch, context, form, wanted, reason, blind, seed, why)

    if layer is not None:
        return at(*_given_layer(context, tensors, layer), "")
    ranked, blind = _ranked_layers(context, tensors)
    if not ranked:
        return at(None, None, "", blind)
    best = ranked[0]
    first = at(best.layer, best.spatial, best.why if best.rank == 1 else "the deepest maps that decide the target")
    of_class = context.classifier is not None and tensors == (context.classifier.scores,)
    if wanted is None or of_class or first.hangs_on_layer():
        return first
    why = f"the deepest maps that {wanted.describe()!r} hangs on"
    others = (at(other, form, why) for other, form in _other_layers(context, tensors)[:TRIALS])
    return next((view for view in others if view.hangs_on_layer()), first)


def _context(model: Model, batch: Batch, output: str | None, make_engine: Callable[[Model], Engine]) -> Context:
    """What targets may look at; an output that was named must hold class scores."""
    shapes = concrete_shapes(model, batch)
    classifier, reason = None, ""
    try:
        classifier = classifiers.find(model, shapes, output)
    except TargetError as error:
        if output is not None:
            raise
        reason = str(error)

    def run(feeds: Any, names: Any) -> dict[str, NDArray[Any]]:
        part = extract(model, [i.name for i in model.inputs], names)
        own = {i.name for i in part.inputs}
        engine = make_engine(part)
        values = engine.run({n: a for n, a in feeds.items() if n in own}, list(names))
        return samples_first(engine, values, len(feeds[batch.primary]))

    try:
        size = present_input(batch).shape[2:]
    except MethodError:
        size = ()
    plane = (size[0], size[1]) if len(size) == 2 else (1, 1)  # elsewhere there is no picture, and no box
    return Context(model, batch, shapes, plane, classifier, reason, run)


def _ranked_layers(context: Context, tensors: tuple[str, ...]) -> tuple[list[Candidate], str]:
    """Layers with maps that decide what is explained, best first; or why there is none."""
    model = context.model
    made = [ancestors(model, [name]) for name in tensors or [o.name for o in model.outputs]]
    known = candidates(model, context.shapes)
    ranked = []
    for decisive in (set.intersection(*made), set.union(*made)):  # what all of the target's tensors hang on comes first
        ranked += [c for c in known if c.layer.output.name in decisive - set(tensors)]
    if not ranked:
        reason = f"{model.source} has no layer with maps over its input (no convolution, no patches): a CAM can't apply"
        return [], f"{reason}, but occlusion, rise, lime and their like can: they need no layer"
    return ranked, ""


def _other_layers(context: Context, tensors: tuple[str, ...]) -> list[tuple[Layer, Spatial]]:
    """Last maps of each resolution that all of a target's tensors are made of, the coarsest first.

    What a detector says of small boxes doesn't hang on its coarsest maps.
    """
    model = context.model
    common = set.intersection(*(ancestors(model, [name]) for name in tensors)) - set(tensors)
    readings = spatial(model, context.shapes)
    last: dict[tuple[int, ...], tuple[Layer, Spatial]] = {}
    for layer in model.layers:
        form = readings.get(layer.output.name)
        if form is None or form.form == "flat" or form.cells < 2:
            continue
        if layer.output.name in common and layer.output.is_float:
            last[form.grid] = layer, form
    return sorted(last.values(), key=lambda found: found[1].cells)


def _finer_layers(context: Context, layer: Layer, form: Spatial) -> list[tuple[Layer, Spatial]]:
    """The last maps of each finer resolution that a layer is made of, from coarse to fine, behind the first weights."""
    model = context.model
    before = ancestors(model, [layer.output.name]) - {layer.output.name}
    learnt = next((la.output.name for la in model.layers if la.op_type in WEIGHED and la.output.name in before), None)
    below = descendants(model, learnt) if learnt is not None else set()
    readings = spatial(model, context.shapes)
    found = [(layer, form)]
    for one in reversed([la for la in model.layers if la.output.name in before & below]):
        own = readings.get(one.output.name)
        if own is None or own.form in ("flat", "windows") or len(own.grid) != len(form.grid) or one.op_type == "Pad":
            continue
        if one.output.is_float and own.cells >= 2 * found[-1][1].cells:
            found.append((one, own))
    return found[1:]


def _given_layer(context: Context, tensors: tuple[str, ...], layer: str | Layer) -> tuple[Layer, Spatial]:
    """The layer asked for.

    Raises
    ------
    LayerError
        It holds no maps over the input's plane, or comes too late for what is explained.
    """
    model, shapes = context.model, context.shapes
    chosen = model.layer(layer) if isinstance(layer, str) else layer
    readings = spatial(model, shapes)
    if chosen.output.name not in readings or readings[chosen.output.name].form == "flat":
        best = ", ".join(repr(c.layer.name) for c in candidates(model, shapes)[:3]) or "none"
        raise LayerError(
            f"layer {chosen.name!r} ({chosen.op_type}, shape {shapes.get(chosen.output.name)}) holds no maps over"
            f" the input's plane; layers that do: {best}"
        )
    if chosen.output.name in tensors:
        raise LayerError(f"layer {chosen.name!r} is itself what is explained: choose an earlier layer")
    return chosen, readings[chosen.output.name]


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


def _take(array: NDArray[Any], of: Index, count: int) -> NDArray[Any]:
    """Rows of a captured tensor for the inputs that variants stem from; what has no row per input stays as it is."""
    return array[of] if array.ndim and len(array) == count else array

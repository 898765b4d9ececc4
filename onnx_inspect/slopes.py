"""How a scene's target changes with its layer, its input and the model's biases: derivatives as methods see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.cam._probe import Index, Maps, Rows
from onnx_inspect.errors import LayerError, MethodError
from onnx_inspect.forms import present, present_input, restore
from onnx_inspect.graph.biases import biases
from onnx_inspect.graph.spatial import spatial
from onnx_inspect.sections import samples_first

if TYPE_CHECKING:
    from onnx_inspect.scene import Scene


def layer_gradients(view: Scene) -> Maps:
    """Gradient of each input's target score by the layer, (N, K, h, w)."""
    if view.layer is None or view.form is None:
        raise LayerError(view.blind)
    total = np.zeros(view.captured[view.layer.output.name].shape)
    for name, seed in view.fixed.slopes(view.outputs, np.arange(view.batch.n)).items():
        if name in {o.name for o in view.sections.split.tail.outputs}:
            total += view.sections.layer_gradient(name, view.captured, seed)
    return present(total, view.form)


def layer_curvature(view: Scene) -> Maps:
    """Second derivatives of each input's target score by the layer times the activations, (N, K, h, w).

    Raises
    ------
    MethodError
        The target isn't a sum of what the model gives.
    """
    if view.layer is None or view.form is None:
        raise LayerError(view.blind)
    if not view.fixed.linear:
        raise MethodError(f"second derivatives are for sums of the model's outputs, not {view.fixed.words[0]!r}")
    tensor = view.captured[view.layer.output.name]
    along = restore(present(tensor, view.form), np.zeros_like(tensor), np.arange(view.batch.n), view.form)
    total = np.zeros(tensor.shape)
    for name, seed in view.fixed.slopes(view.outputs, np.arange(view.batch.n)).items():
        if name in {o.name for o in view.sections.split.tail.outputs}:
            found = view.sections.layer_curvature(name, view.captured, seed, along)
            total += 0 if found is None else found
    return present(total, view.form)


def input_gradients(view: Scene, rows: Rows, of: Index, *, guided: bool = False) -> Maps:
    """Gradient of the target score by the input at variants of it, shown like them, (B, C, H, W)."""
    name = view.batch.primary
    size = 2 * view.batch.arrays[name][0].size * 4

    def run(positions: Index) -> Maps:
        feeds, inputs = view.variants(rows(positions), of[positions]), of[positions]
        outputs = {n: view.outputs[n][inputs] for n in view.sections.tensors}
        if not view.fixed.linear:
            outputs = samples_first(view.whole, view.whole.run(feeds, view.sections.tensors), len(inputs))
        total = np.zeros(feeds[name].shape)
        for tensor, seed in view.fixed.slopes(outputs, inputs).items():
            total += view.sections.input_gradient(name, tensor, feeds, seed, guided=guided)
        return present_input(view.batch, total)

    return view.in_blocks(run, of, size, view.whole)


def variant_gradients(view: Scene, rows: Rows, of: Index) -> Maps:
    """Gradient of the target score by the layer at variants of it, shown like them, (B, K, h, w)."""
    if view.layer is None or view.form is None:
        raise LayerError(view.blind)
    split, form, captured = view.sections.split, view.form, view.captured
    tensor = captured[split.tensor]

    def run(positions: Index) -> Maps:
        inputs = of[positions]
        carried = {n: a[inputs] if a.ndim and len(a) == view.batch.n else a for n, a in captured.items()}
        feeds = {**carried, split.tensor: restore(rows(positions), tensor, inputs, form)}
        own = {i.name for i in view.tail.model.inputs}
        made = [n for n in view.sections.tensors if n in {o.name for o in view.tail.model.outputs}]
        outputs = {n: view.outputs[n][inputs] for n in view.sections.tensors}
        if not view.fixed.linear:
            found = view.tail.run({n: a for n, a in feeds.items() if n in own}, made)
            outputs |= samples_first(view.tail, found, len(inputs))
        total = np.zeros(feeds[split.tensor].shape)
        for name, seed in view.fixed.slopes(outputs, inputs).items():
            if name in made:
                total += view.sections.layer_gradient(name, feeds, seed)
        return present(total, form)

    return view.in_blocks(run, of, 2 * tensor[0].nbytes, view.tail)


def bias_shares(view: Scene, index: int) -> list[Maps]:
    """Each bias times the score's gradient by it, of one input: (K, h, w), signed; (K, 1, 1) where it has no place."""
    model, batch, shapes = view.context.model, view.batch, view.context.shapes
    ranks, readings = {name: len(shape) for name, shape in shapes.items()}, spatial(model, shapes)
    feeds = {n: a if n in batch.shared else a[index : index + 1] for n, a in batch.arrays.items()}
    outputs = {n: view.outputs[n][index : index + 1] for n in view.sections.tensors}
    totals: dict[str, NDArray[Any]] = {}
    for tensor, seed in view.fixed.slopes(outputs, np.array([index])).items():
        known = biases(model, batch.primary, tensor, ranks)
        found = view.sections.gradients(batch.primary, [bias.tensor for bias in known], tensor, feeds, seed)
        for bias, gradient in zip(known, found, strict=True):
            totals[bias.tensor] = totals.get(bias.tensor, 0) + bias.values * gradient
    return [_placed(share, readings.get(name)) for name, share in totals.items()]


def _placed(share: NDArray[Any], form: Any) -> Maps:
    if form is None or form.form == "flat" or len(form.grid) > 2 or form.cells < 2:
        return share.reshape(-1, 1, 1).astype(np.float32)
    return present(share, form)[0]

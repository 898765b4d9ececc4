"""How a text's gradients are had: the model is looked at from its tokens' vectors, since ids have no gradient."""

from __future__ import annotations

from dataclasses import fields, replace

from onnx_inspect import slopes
from onnx_inspect.cam._probe import Probe
from onnx_inspect.errors import MethodError
from onnx_inspect.graph.embedding import ids_table
from onnx_inspect.graph.spatial import Spatial
from onnx_inspect.scene import Scene
from onnx_inspect.sections import Sections


class TokenScene(Scene):
    """A scene whose inputs are the vectors that a model looked up for the tokens of a text, (N, D, 1, T)."""

    def probe(self) -> Probe:
        """Build what a method sees."""
        made = super().probe()
        return replace(
            made,
            inputs=made.activations,
            score_inputs=made.score_activations,
            input_gradients=lambda rows, of: slopes.variant_gradients(self, rows, of),
            cells=None,
        )


def at_embedding(view: Scene) -> TokenScene:
    """See a text's scene from its tokens' vectors: what is added for places and segments stays as it is.

    Raises
    ------
    MethodError
        Nothing tells where the model looks the vectors up.
    """
    model, name = view.context.model, view.batch.primary
    table = ids_table(model, name)
    layer = next((la for la in model.layers if table is not None and la.name == table.node), None)
    shape = view.context.shapes.get(layer.output.name, ()) if layer is not None else ()
    count = view.batch.arrays[name].shape[-1]
    if layer is None or shape[1:-1] != (count,):
        raise MethodError(f"{model.source} looks its tokens up in no table of its own: use occlusion or kernel-shap")
    sections = Sections(model, layer, view.sections.tensors, view.sections.make_engine, shapes=view.context.shapes)
    form = Spatial("channels-last", (count,))
    own = {field.name: getattr(view, field.name) for field in fields(Scene)}
    return TokenScene(**own | {"sections": sections, "form": form, "memory": None})

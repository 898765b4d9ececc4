"""Which renderer draws the attributions of a batch, and what gathers its panels."""

from __future__ import annotations

from typing import Any

from onnx_inspect.analysis import saliency, token_saliency
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.render import cam, tokens


def explained(batch: Batch) -> tuple[Any, Any]:
    """Renderer of a batch's attributions, and what gathers its panels: a text's tokens, or pictures and signals."""
    return (tokens, token_saliency.of_batch) if batch.read_as else (cam, saliency.of_batch)

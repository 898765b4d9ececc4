"""What of an embedding TensorBoard gets: its projector's points, thumbnails and words, histograms, figures, curves."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.embedding import Embedding
from onnx_inspect.capture.reading import Captured
from onnx_inspect.embed._wide import narrowed
from onnx_inspect.embedding import features_of
from onnx_inspect.inputs.dataset_batches import Reader
from onnx_inspect.inputs.dataset_pictures import squares
from onnx_inspect.tensorboard import POINTS, SPRITE, Writer, projector

WIDEST, NARROW = 512, 50  # features that go to the projector as they are; components that stand for more
THUMBNAIL = 32  # pixels


def write(
    folder: str | Path, found: Embedding, captured: Captured, reader: Reader | None, *, figure: NDArray[np.uint8]
) -> tuple[str, ...]:
    """Write an embedding as a run for TensorBoard.

    Projector: each layer's features and our projection of them, class, prediction, confidence and source of each
    sample, and its picture. Histograms of the features, curves of the quality figures along depth, the figure, and
    what is known as text.

    Parameters
    ----------
    reader : Reader or None
        Where pictures are; without it there are no thumbnails.
    figure : ndarray, (H, W, 3), uint8

    Returns
    -------
    tuple of str
        What TensorBoard's limits changed, one line each.

    Raises
    ------
    MissingExtra
        TensorBoard isn't installed.
    OutputError
        The folder can't be written.
    """
    step = math.ceil(len(captured) / POINTS)
    notes: list[str] = []
    if step > 1:
        kept = len(range(0, len(captured), step))
        notes.append(
            f"projector: {kept:,} of {len(captured):,} samples, one of every {step}, for it loads at most {POINTS:,}"
        )
    tensors: dict[str, NDArray[Any]] = {}
    with Writer(folder) as writer:
        writer.text("about", f"```json\n{json.dumps(found.meta(), indent=1)}\n```")
        writer.image("embedding", figure)
        for depth, projection in enumerate(found.projections):
            layer = projection.layer
            features = features_of(captured, layer, int(found.params["seed"]))
            writer.histogram(f"features/{layer}", features, depth)
            for name, value in projection.quality.to_json().items():
                if name not in ("neighbours", "sampled") and math.isfinite(value):
                    writer.scalar(f"along depth/{name}", value, depth)
            if features.shape[1] > WIDEST:
                notes.append(
                    f"projector: {layer!r} has {features.shape[1]:,} features, {NARROW} components stand for them"
                )
                features = narrowed(features, NARROW, int(found.params["seed"]))
            tensors[layer] = features[::step]
            tensors[f"{layer} ({found.method}, {found.dim}-D)"] = projection.points[::step]
    pictures = _thumbnails(reader, captured.places[::step]) if reader is not None else None
    notes += projector(folder, tensors, _words(found, captured, step), pictures)
    return tuple(notes)


def _words(found: Embedding, captured: Captured, step: int) -> dict[str, Sequence[Any]]:
    """Columns of the projector's table."""
    columns: dict[str, Sequence[Any]] = {}
    if (found.labels >= 0).any():
        columns["class"] = _named(found.labels[::step], found.classes)
    if (found.predictions >= 0).any():
        columns["predicted"] = _named(found.predictions[::step], captured.outputs)
        columns["confidence"] = [f"{c:.3f}" for c in captured.confidences[::step]]
    if found.comparable:
        columns["right"] = ["wrong" if wrong else "right" for wrong in found.wrong[::step]]
    columns["source"] = found.sources[::step]
    return columns


def _named(numbers: NDArray[np.int64], names: Sequence[str] | None) -> list[str]:
    return [names[n] if names is not None and 0 <= n < len(names) else str(n) for n in numbers.tolist()]


def _thumbnails(reader: Reader, places: NDArray[np.int64]) -> NDArray[np.uint8] | None:
    """A picture of each sample, small enough for all to stand on one sheet; None where there are none."""
    side = min(THUMBNAIL, SPRITE // math.ceil(math.sqrt(len(places))))
    found = squares(reader, places.tolist(), side)
    if not found:
        return None
    blank = np.full((side, side, 3), 255, np.uint8)
    return np.stack([found.get(place, blank) for place in places.tolist()])

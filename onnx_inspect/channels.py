"""How a data set's activations become what channels answer to: streamed once, then the strongest crops are cut out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.channels import Channels, Crop, Maps, Tally
from onnx_inspect.capture.local import Report, blocks
from onnx_inspect.capture.reading import Captured, Sharded
from onnx_inspect.capture.setup import Job, Source
from onnx_inspect.errors import InputError
from onnx_inspect.forms import present
from onnx_inspect.graph.fields import Field, plane, reshaped
from onnx_inspect.graph.model import Layer
from onnx_inspect.graph.receptive import receptive
from onnx_inspect.graph.spatial import Spatial
from onnx_inspect.inputs.axes import CHANNELS, picture_plane
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.inputs.dataset_batches import Skipped
from onnx_inspect.inputs.dataset_crops import crops

SIDE = 84  # pixels of a crop's longer side
ROWS = 128  # samples of a capture that are looked at together


@dataclass(frozen=True)
class Part:
    """Some samples: maps by layer (n, K, cells), their labels, predictions, places and sources."""

    maps: Mapping[str, Maps]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    places: NDArray[np.int64]
    sources: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class Stream:
    """A data set's activations in portions; it can be gone through again, and no more than a portion is held.

    Attributes
    ----------
    source : Source
    layers : tuple of Layer
    parts : callable
        Takes a report function or None, gives the portions in order.
    labelled : bool
        Whether the data set says classes; else predictions stand for them.
    """

    source: Source
    layers: tuple[Layer, ...]
    parts: Callable[[Report | None], Iterator[Part]]
    labelled: bool

    def groups(self, part: Part) -> NDArray[np.int64]:
        """Class of each sample."""
        return part.labels if self.labelled else part.predictions

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names of the classes."""
        return self.source.reader.dataset.classes if self.labelled else self.source.reader.labels


def of_job(job: Job, source: Source, layers: Sequence[Layer]) -> Stream:
    """Run a model over a data set, each time that the stream is gone through."""

    def parts(report: Report | None) -> Iterator[Part]:
        for _, block in blocks(job.worker, range(job.plan.shards), report=report):
            made = {
                la.name: maps_of(block.arrays[la.name], job.worker.forms[la.name]) for la in layers if block.sources
            }
            yield _checked(
                Part(
                    made,
                    block.labels,
                    block.predictions,
                    np.array(block.places, np.int64),
                    block.sources,
                    block.skipped,
                )
            )

    return Stream(source, tuple(layers), parts, source.reader.dataset.labelled)


def of_capture(captured: Captured, source: Source, layers: Sequence[Layer]) -> Stream:
    """Read what was captured before.

    Raises
    ------
    InputError
        It was pooled, so that positions are lost.
    """
    if captured.pool != "none":
        raise InputError(
            f"activations were captured pooled by {captured.pool}, which says no positions:"
            " capture them again with --pool none"
        )

    def parts(report: Report | None) -> Iterator[Part]:
        for start in range(0, len(captured), ROWS):
            rows = slice(start, min(start + ROWS, len(captured)))
            arrays = {la.name: _rows(captured.array(la.name), rows) for la in layers}
            made = {name: maps_of(array, captured.forms.get(name)) for name, array in arrays.items()}
            labels, predictions = captured.labels[rows], captured.predictions[rows]
            yield _checked(Part(made, labels, predictions, captured.places[rows], captured.sources[rows]))
            if report is not None:
                report(rows.stop, len(captured))

    return Stream(source, tuple(layers), parts, bool((captured.labels >= 0).any()))


def channels(
    stream: Stream, *, top: int = 8, report: Report | None = None
) -> tuple[dict[str, Channels], tuple[Skipped, ...]]:
    """What each channel of each layer answers to, in one pass; memory doesn't grow with the number of samples.

    Parameters
    ----------
    top : int
        Samples remembered for each channel.

    Returns
    -------
    channels : dict of layer name to Channels
        Without crops; see :func:`with_crops`.
    skipped : tuple of Skipped

    Raises
    ------
    InputError
        No sample can be read, or activations aren't finite.
    """
    tallies: dict[str, Tally] = {}
    rows, skipped = Rows(stream), list[Skipped]()
    for part in stream.parts(report):
        skipped += part.skipped
        rows.add(part)
        for name, maps in part.maps.items():
            tallies.setdefault(name, Tally(maps.shape[1], top)).add(maps, stream.groups(part), part.places)
    if not rows.sources:
        raise InputError(f"no sample of the data set could be read: {skipped[0].reason}")
    about = rows.about()
    found = {}
    for layer in stream.layers:
        fields, extent = fields_of(stream.source, layer, stream_form(stream, layer))
        found[layer.name] = tallies[layer.name].result(layer=layer.name, fields=fields, plane=extent, **about)
    return found, tuple(skipped)


class Rows:
    """What the samples are that have passed: their sources, classes and places."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.sources: list[str] = []
        self._labels: list[NDArray[np.int64]] = []
        self._places: list[NDArray[np.int64]] = []

    def add(self, part: Part) -> None:
        """Take a portion's samples in."""
        self.sources += part.sources
        self._labels.append(self._stream.groups(part))
        self._places.append(part.places)

    def about(self) -> dict[str, Any]:
        """Fields of :class:`Channels` that say what the samples are."""
        labels = np.concatenate(self._labels)
        by = "class" if self._stream.labelled else "predicted class"
        return {
            "model": self._stream.source.model.source,
            "names": self._stream.names,
            "by": by if (labels >= 0).any() else "",
            "labels": labels,
            "sources": tuple(self.sources),
            "all_places": np.concatenate(self._places),
        }


def with_crops(found: Channels, stream: Stream, chosen: Sequence[int]) -> Channels:
    """The same with the crops of some channels, cut from the pictures; each picture is read once."""
    wanted: dict[int, list[tuple[int, int]]] = {}
    for k in chosen:
        for rank in np.flatnonzero(found.rows[k] >= 0).tolist():
            wanted.setdefault(int(found.places[k, rank]), []).append((k, rank))
    if not found.plane:
        return found

    def field(k: int, rank: int) -> NDArray[np.int32]:
        return found.fields[min(int(found.positions[k, rank]), len(found.fields) - 1)]

    asked = {place: [field(k, rank) for k, rank in marks] for place, marks in wanted.items()}
    pieces = crops(stream.source.reader, asked, found.plane, SIDE)
    cut = {
        mark: Crop(*piece)
        for place, marks in wanted.items()
        for mark, piece in zip(marks, pieces.get(place, ()), strict=False)
    }
    return replace(found, crops=cut)


def maps_of(array: NDArray[Any], form: Spatial | None) -> Maps:
    """A layer's tensor as channels and positions, (n, K, cells), float32; prefix tokens are left out.

    Where nobody knows how its axes lie, (n, T, K) are tokens, more axes have the channels first.
    """
    if form is not None and form.form == "flat":
        maps = np.asarray(array[:, :, form.prefix : form.prefix + form.cells], np.float32)
    elif form is not None:
        maps = present(array, form)
    else:
        maps = np.asarray(array, np.float32)
        maps = np.moveaxis(maps, -1, 1) if maps.ndim == 3 else maps
    return np.ascontiguousarray(maps.reshape(*(maps.shape[:2] if maps.ndim > 1 else (len(maps), 1)), -1))


def stream_form(stream: Stream, layer: Layer) -> Spatial | None:
    """How a layer's axes lie over the input's plane."""
    from onnx_inspect.graph.spatial import spatial

    return spatial(stream.source.model, stream.source.shapes).get(layer.output.name)


def fields_of(source: Source, layer: Layer, form: Spatial | None) -> tuple[NDArray[np.int32], tuple[int, ...]]:
    """Receptive field of each position of a layer, (cells or 1, axes, 2), and the extent of the input's plane.

    A layer that isn't followed through the graph, as one inside control flow, may see everything. An input that is
    neither picture nor signal has no plane: no axes.
    """
    name = source.reader.demand.primary
    start, extent = input_plane(source.first)
    if not extent:
        return np.zeros((1, 0, 2), np.int32), ()
    found = receptive(source.model, source.shapes, name, start).get(layer.output.name)
    if found is None:
        return np.array([[[0, size] for size in extent]], np.int32), extent
    return found.at(form), extent


def input_plane(first: Batch) -> tuple[Field, tuple[int, ...]]:
    """The primary input's own field, and the extent of its plane: height and width, a signal's length, or nothing."""
    array, known = first.arrays[first.primary], first.preprocess
    shape = (1, *array.shape[1:])
    if known is not None and array.ndim < 4:  # a picture in one row
        (height, width), channels = known.size, CHANNELS[known.colour]
        last = known.layout == "NHWC"
        whole = (1, height, width, channels) if last else (1, channels, height, width)
        if int(np.prod(whole)) == int(np.prod(shape)):
            return reshaped(plane(whole, (1, 2) if last else (2, 3)), whole, shape), (height, width)
    if array.dtype.kind not in "fiub" or (array.dtype.kind in "iub" and array.ndim < 3):
        return Field((), ()), ()
    axes = tuple(range(2, array.ndim)) if array.ndim > 2 else (1,)
    if array.ndim == 4 and _channels_last(first):
        axes = (1, 2)
    return plane(shape, axes), tuple(shape[a] for a in axes)


def _channels_last(first: Batch) -> bool:
    if first.preprocess is not None:
        return first.preprocess.layout == "NHWC"
    from onnx_inspect.graph.model import TensorSpec

    array = first.arrays[first.primary]
    found = picture_plane(TensorSpec(first.primary, str(array.dtype), array.shape))
    return found is not None and found.layout == "NHWC"


def _rows(array: Sharded | NDArray[Any], rows: slice) -> NDArray[Any]:
    return np.asarray(array[rows])


def _checked(part: Part) -> Part:
    for name, maps in part.maps.items():
        bad = ~np.isfinite(maps).all(axis=(1, 2))
        if bad.any():
            first = part.sources[int(np.flatnonzero(bad)[0])]
            raise InputError(f"layer {name!r} holds NaN or infinity for {first}: its channels can't be ranked")
    return part

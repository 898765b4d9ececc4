"""How a model, a data set and the user's words become a capture that is ready to run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect._version import __version__
from onnx_inspect.analysis import pooling
from onnx_inspect.analysis.pooling import Pool
from onnx_inspect.capture import plan as planning
from onnx_inspect.capture.plan import Plan
from onnx_inspect.capture.work import Worker, is_mask
from onnx_inspect.engine import Engine, version
from onnx_inspect.errors import LayerError, TargetError
from onnx_inspect.graph import classifier as classifiers
from onnx_inspect.graph.classifier import Classifier
from onnx_inspect.graph.cost import cost
from onnx_inspect.graph.model import Layer, Model
from onnx_inspect.graph.read import read
from onnx_inspect.graph.spatial import Spatial, spatial
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.inputs.dataset import Dataset, find
from onnx_inspect.inputs.dataset_batches import Reader, reader
from onnx_inspect.inputs.labels import read_labels
from onnx_inspect.inputs.read import primary_of
from onnx_inspect.scene import concrete_shapes
from onnx_inspect.targets import matrix


@dataclass(frozen=True)
class Source:
    """A data set as a model sees it: what layers can be chosen from, before any is captured.

    Attributes
    ----------
    model : Model
    reader : Reader
    first : Batch
        Its first sample.
    shapes : mapping of tensor name to tuple of int
        Of one sample.
    classifier : Classifier or None
        Where the class scores are.
    """

    model: Model
    reader: Reader
    first: Batch
    shapes: Mapping[str, tuple[int, ...]]
    classifier: Classifier | None


@dataclass(frozen=True)
class Job:
    """A capture that is ready to run."""

    plan: Plan
    worker: Worker
    first: Batch

    def about(self) -> dict[str, Any]:
        """What a manifest says besides the plan."""
        own = self.worker.reader
        forms = {layer: asdict(form) if form is not None else None for layer, form in self.worker.forms.items()}
        words = {"data": list(own.dataset.words), "primary": own.demand.primary, "notes": list(own.notes)}
        return self.naming() | {"forms": forms} | words

    def naming(self) -> dict[str, Any]:
        """What the rows' numbers mean."""
        own = self.worker.reader
        return {
            "classes": own.dataset.classes,
            "outputs": own.labels,
            "comparable": own.dataset.comparable,
            "pool": self.plan.pool,
            "model": self.worker.model.source,
            "forms": self.worker.forms,
            "masked": any(is_mask(name, array) for name, array in self.first.arrays.items()),
        }


def prepared(
    model: str | Path | Model,
    data: str | Path | Sequence[str | Path],
    layers: Sequence[str],
    *,
    pool: Pool = "none",
    preprocess: str | None = None,
    labels: Sequence[str] | None = None,
    shard: int | None = None,
    least: int = 1,
    make_engine: Callable[[Model], Engine] = Engine,
) -> Job:
    """Plan the capture of a data set from names alone, as the command line does.

    Parameters
    ----------
    data : str, Path or sequence of them
        See :func:`onnx_inspect.inputs.dataset.find`.
    layers : sequence of str
        As on the command line; globs may name several.
    labels : sequence of str, optional
        Class names; the model's own where None.

    Raises
    ------
    InspectError
        Model, data set or layers can't be had; the message says what to do.
    """
    net = model if isinstance(model, Model) else read(model)
    specs = {spec.name: spec for spec in net.inputs}
    primary = primary_of(specs)
    words = [str(data)] if isinstance(data, str | Path) else [str(word) for word in data]
    names = tuple(labels) if labels is not None else read_labels(None, net.metadata)
    found = source(net, find(words, specs, primary), primary=primary, preprocess=preprocess, labels=names)
    chosen = [layer for text in layers for layer in net.find(text)]
    return job(found, chosen, pool_by=pool, shard=shard, make_engine=make_engine)


def source(
    model: Model,
    dataset: Dataset,
    *,
    primary: str,
    named: Mapping[str, str] | None = None,
    preprocess: str | None = None,
    labels: tuple[str, ...] | None = None,
    output: str | None = None,
    seed: int = 0,
) -> Source:
    """Read a data set's first sample, and put its classes into the model's order.

    Parameters
    ----------
    labels : tuple of str or None
        The model's class names.
    output : str, optional
        The output that holds the class scores.

    Raises
    ------
    InputError
        No sample can be read.
    TargetError
        The output named holds no class scores.
    """
    specs = {spec.name: spec for spec in model.inputs}
    plain: dict[str, Any] = {"named": named, "preprocess": preprocess, "metadata": model.metadata, "seed": seed}
    first = reader(dataset, specs, primary, labels=labels, **plain).first()
    shapes = concrete_shapes(model, first)
    classifier, count = _classifier(model, shapes, output)
    aligned = dataset.aligned(labels, count)
    again = reader(aligned, specs, primary, labels=labels, **plain)
    return Source(model, again, first, shapes, classifier)


def job(
    source: Source,
    layers: Sequence[Layer],
    *,
    pool_by: Pool = "mean",
    shard: int | None = None,
    least: int = 1,
    make_engine: Callable[[Model], Engine] = Engine,
) -> Job:
    """Plan a capture.

    Parameters
    ----------
    layers : sequence of Layer
        At least one.
    pool_by : str
        See :func:`onnx_inspect.analysis.pooling.pool`.
    shard : int, optional
        Samples in each shard.
    least : int
        Shards wanted at least, as far as portions can be shared out, where `shard` isn't given.

    Raises
    ------
    LayerError
        A layer that can't be pooled in that way, or that doesn't hold numbers.
    """
    chosen = tuple(sorted(dict.fromkeys(layers), key=lambda layer: layer.index))
    readings = spatial(source.model, source.shapes)
    forms = {layer.name: readings.get(layer.output.name) for layer in chosen}
    width = sum(_pooled(source, layer, pool_by, forms[layer.name]).nbytes for layer in chosen)
    portion = planning.portion(source.model, chosen, source.shapes)
    size = shard or min(
        planning.shard(portion, width, _macs(source)), planning.shared(portion, len(source.reader), least)
    )
    engine = make_engine(source.model)
    plan = Plan(
        model=source.model.digest,
        data=source.reader.dataset.digest,
        layers=tuple(layer.name for layer in chosen),
        tensors=tuple(layer.output.name for layer in chosen),
        pool=pool_by,
        scores=_scores(source),
        samples=len(source.reader),
        shard=size,
        portion=min(portion, size),
        settings=_settings(source, engine),
    )
    return Job(plan, Worker(source.model, source.reader, plan, forms, source.classifier, make_engine), source.first)


def poolable(source: Source, layers: Sequence[Layer], how: Pool) -> list[Layer]:
    """Those of some layers that hold numbers and can be pooled in a way."""
    readings, found = spatial(source.model, source.shapes), []
    for layer in layers:
        try:
            _pooled(source, layer, how, readings.get(layer.output.name))
        except LayerError:
            continue
        found.append(layer)
    return found


def _pooled(source: Source, layer: Layer, how: Pool, form: Spatial | None) -> NDArray[Any]:
    """One sample's worth of what is kept of a layer: zeros of the right shape."""
    shape = source.shapes.get(layer.output.name)
    if shape is None or not np.prod(shape):
        raise LayerError(f"layer {layer.name!r} ({layer.op_type}) gives no numbers to capture")
    return pooling.pool(np.zeros((1, *shape[1:]), np.float32), how, form, layer=layer.name)


def _classifier(
    model: Model, shapes: Mapping[str, tuple[int, ...]], output: str | None
) -> tuple[Classifier | None, int | None]:
    """Where the class scores are, and of how many classes."""
    try:
        found = classifiers.find(model, shapes, output)
    except TargetError:
        if output is not None:
            raise
        return None, None
    shape = shapes.get(_output(model, found))
    if shape is None:
        return found, None
    count = matrix(np.zeros((1, *shape[1:]))).shape[1]
    return found, 2 if count == 1 else count


def _output(model: Model, found: Classifier) -> str:
    """The tensor that predictions are read from; a list of dictionaries is read before it is made."""
    return found.scores if model.tensor(found.output).dtype == "sequence" else found.output


def _macs(source: Source) -> int:
    """Multiply-accumulates that one sample takes, as far as they are known."""
    shapes = {spec.name: source.shapes[spec.name] for spec in source.model.inputs}
    return sum(macs or 0 for macs in cost(source.model, shapes).macs.values())


def _scores(source: Source) -> str:
    return _output(source.model, source.classifier) if source.classifier is not None else ""


def _settings(source: Source, engine: Engine) -> tuple[tuple[str, str], ...]:
    """How the model is fed and run, as far as it decides a bit of the result."""
    made = source.first.preprocess
    return (
        ("preprocess", json.dumps(made.to_json()) if made is not None else ""),
        ("values", json.dumps(sorted(source.reader.values.items()))),
        ("seed", str(source.reader.seed)),
        ("providers", "+".join(engine.wanted)),
        ("threads", str(engine.threads or "")),
        ("exact", str(engine.exact)),
        ("onnx-inspect", __version__),
        ("onnxruntime", version()),
    )

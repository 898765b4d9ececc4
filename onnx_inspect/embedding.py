"""How captured layers become embeddings: the wiring of capture, projections and their measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect import discover
from onnx_inspect.analysis.embedding import Embedding, Projection, anchors
from onnx_inspect.analysis.pooling import pool
from onnx_inspect.analysis.separation import quality
from onnx_inspect.capture.reading import Captured
from onnx_inspect.embed._wide import IN_MEMORY, narrowed
from onnx_inspect.errors import InputError, MethodError
from onnx_inspect.params import parse_params

METHODS = "onnx_inspect.embed"
DIMENSIONS = (2, 3)
LEAST = 3  # samples that make a picture
WIDE = 256  # components that stand for features too many to be held


def embed(
    captured: Captured,
    layers: Sequence[str],
    *,
    method: str = "pca",
    dim: int = 2,
    seed: int = 0,
    params: Mapping[str, str] | None = None,
    report: Callable[[int, int], None] | None = None,
) -> Embedding:
    """Project captured layers to two or three dimensions.

    Parameters
    ----------
    captured : Captured
        Vectors, or whole maps, which are put in a row.
    layers : sequence of str
        Captured ones, at least one.
    method : {'pca', 'tsne', 'umap'}
    params : mapping of str to str, optional
        The method's parameters.
    report : callable, optional
        Called with (layers done, layers in all).

    Raises
    ------
    MethodError
        An unknown method or parameter.
    InputError
        Too few samples, or a layer with values that aren't finite.
    MissingExtra
        The method needs a package that isn't installed.
    """
    module, settings = settled(method, len(captured), dim=dim, seed=seed, params=params)
    if len(captured) < LEAST:
        raise InputError(f"{len(captured)} samples make no picture: give {LEAST} or more")
    labelled = bool((captured.labels >= 0).any())
    groups = captured.labels if labelled else captured.predictions
    found = []
    for number, layer in enumerate(layers, 1):
        features = features_of(captured, layer, seed)
        points = module.fit(features, settings)
        measured = quality(features, points, captured.labels, seed=seed)
        axes, marked = _axes(module, features, points), anchors(points, groups)
        found.append(Projection(layer, captured.width(layer), points, measured, axes, marked))
        if report is not None:
            report(number, len(layers))
    return Embedding(
        projections=tuple(found),
        method=method,
        params={name: getattr(settings, name) for name in module.Params.__dataclass_fields__},
        pool=captured.pool,
        model=captured.model,
        labels=captured.labels,
        predictions=captured.predictions,
        groups=groups,
        names=captured.classes if labelled else captured.outputs,
        by="class" if labelled else "predicted class" if (groups >= 0).any() else "",
        wrong=captured.wrong,
        sources=captured.sources,
        classes=captured.classes,
        comparable=captured.comparable,
    )


def settled(
    method: str, count: int, *, dim: int = 2, seed: int = 0, params: Mapping[str, str] | None = None
) -> tuple[Any, Any]:
    """The module that projects by a method, and its parameters as they are for so many points.

    Raises
    ------
    MethodError
        An unknown method or parameter.
    """
    module = module_of(method)
    if dim not in DIMENSIONS:
        raise MethodError(f"dim is 2 or 3, got {dim}")
    given = parse_params(module.Params, {"dim": str(dim), "seed": str(seed), **(params or {})}, method)
    return module, module.settled(given, count) if hasattr(module, "settled") else given


def advice(method: str, count: int, params: Mapping[str, str] | None = None) -> str:
    """What to know before a method is run on so many points; "" where there is nothing."""
    module, given = settled(method, count, params=params)
    said: str = module.advice(given, count) if hasattr(module, "advice") else ""
    return said


def module_of(method: str) -> Any:
    """The module that projects by a method.

    Raises
    ------
    MethodError
        There is none.
    """
    try:
        return discover.load(METHODS, method)
    except KeyError:
        raise MethodError(f"unknown method {method!r}; there are: {', '.join(discover.names(METHODS))}") from None


def features_of(captured: Captured, layer: str, seed: int) -> NDArray[np.float32]:
    """A layer's features in memory, (N, D); their 256 principal components where they are too many.

    Raises
    ------
    InputError
        Some aren't finite.
    """
    array: Any = captured.array(layer)
    if array.ndim > 2 or array.ndim == 1:
        array = _in_rows(array)
    if array.nbytes > IN_MEMORY:
        return narrowed(array, WIDE, seed)
    features = np.asarray(array, np.float32)
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        first = captured.sources[int(np.flatnonzero(bad)[0])]
        raise InputError(f"layer {layer!r} holds NaN or infinity for {bad.sum():,} samples, the first of them {first}")
    return features


def _in_rows(array: Any) -> Any:
    """Whole maps as vectors; those on disk stay there."""
    from onnx_inspect.capture.reading import Sharded

    if isinstance(array, Sharded):
        return Sharded(tuple(part.reshape(len(part), -1) for part in array.shards))
    return pool(array, "flatten", None)


def _axes(module: Any, features: NDArray[np.float32], points: NDArray[np.float32]) -> tuple[str, ...]:
    """What a linear projection's axes are, with their share of the variance."""
    if not hasattr(module, "AXES"):
        return ()
    total = float(features.var(axis=0, dtype=np.float64).sum())
    shares = points.var(axis=0, dtype=np.float64) / total if total else np.zeros(points.shape[1])
    return tuple(f"{name} {share:.0%}" for name, share in zip(module.AXES, shares, strict=False))

"""What Python users call: a model, a picture and a method in, a saliency map out, in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis import attributions, saliency
from onnx_inspect.cam._budget import Budget, parse_budget
from onnx_inspect.cam._probe import Attribution
from onnx_inspect.engine import Engine
from onnx_inspect.errors import InputError, TargetError
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import read as read_model
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.inputs.labels import read_labels
from onnx_inspect.inputs.preprocess import Preprocess
from onnx_inspect.inputs.read import read as read_inputs
from onnx_inspect.inputs.samples import Demand, from_array
from onnx_inspect.inputs.text import beside
from onnx_inspect.methods import explain_all
from onnx_inspect.targets import EveryClass, Target, parse
from onnx_inspect.trace import save_arrays

Inputs = str | Path | NDArray[Any] | Batch | Sequence[str | Path]


@dataclass(frozen=True, kw_only=True)
class Explanation(Attribution):
    """Saliency maps with the pictures they belong to; draws itself in a notebook.

    Attributes
    ----------
    batch : Batch
        What was explained.
    model : str
        What explained it.
    """

    batch: Batch
    model: str

    @property
    def maps(self) -> NDArray[np.float32]:
        """Maps as they are drawn, (N, H, W), float32, in [0, 1], on the original pictures.

        0 where a picture was not seen by the network, and everywhere in a map without evidence.

        Raises
        ------
        InputError
            The pictures have different sizes: take :meth:`map` of each.
        """
        maps = [self.map(n) for n in range(self.batch.n)]
        if len({m.shape for m in maps}) > 1:
            raise InputError(
                "the pictures have different sizes, so their maps are no one array: take .map(index) of each"
            )
        return np.stack(maps)

    def map(self, index: int = 0) -> NDArray[np.float32]:
        """One map as it is drawn, (H, W), float32, in [0, 1], on its original picture."""
        return np.nan_to_num(self._panel(index).maps[0].values, nan=0.0)

    def overlay(self, index: int = 0, *, alpha: float = 0.5, colormap: str = "turbo") -> NDArray[np.uint8]:
        """Lay a map over its picture, (H, W, 3), uint8.

        Raises
        ------
        InputError
            The input is a signal.
        """
        from onnx_inspect.render.cam import overlay, overlay_segments

        panel = self._panel(index)
        if panel.picture is None:
            raise InputError(f"{self.batch.sources[index]} is a signal, no picture: .save(FILE.png) draws it")
        if panel.maps[0].segments is not None:
            return overlay_segments(panel.picture, panel.maps[0].values, panel.maps[0].segments, alpha=alpha)
        return overlay(panel.picture, panel.maps[0].values, alpha=alpha, colormap=colormap)

    def save(self, path: str | Path) -> None:
        """Write the raw signed values with all that is known of them (.npz), or a figure (.png, .svg, .pdf).

        Raises
        ------
        OutputError
            Another suffix, or a place that can't be written.
        """
        path = Path(path)
        if path.suffix == ".npz":
            meta = attributions.describe([self], self.batch, model=self.model, skipped={}, notes=self.batch.notes)
            save_arrays(path, attributions.arrays([self], meta))
        else:
            from onnx_inspect.render._save import save

            save(self._figure(), path)

    def _repr_png_(self) -> bytes:
        """The figure that a notebook shows."""
        from onnx_inspect.render._save import png

        return png(self._figure())

    def _panel(self, index: int) -> saliency.CamPanel:
        if self.batch.read_as is not None:
            raise InputError("a text has no map over a picture: take .values, or .save(FILE.png), which draws it")
        return saliency.of_batch([self], index, self.batch)

    def _figure(self) -> Any:
        from onnx_inspect.render import _save
        from onnx_inspect.render._explained import explained

        render, of_batch = explained(self.batch)
        return _save.drawn(render, [of_batch([self], n, self.batch) for n in range(self.batch.n)])


def explain(
    model: str | Path | Model,
    inputs: Inputs = (),
    *,
    text: str | Sequence[str] = (),
    tokenizer: str | Path | None = None,
    method: str = "recipro-cam",
    layer: str | Sequence[str] | None = None,
    target: str | int | Target | None = None,
    preprocess: Preprocess | str | Path | Mapping[str, Any] | None = None,
    labels: str | Path | Sequence[str] | None = None,
    params: Mapping[str, Any] | None = None,
    combine: str = "mean",
    smooth: str | None = None,
    budget: str | int | Budget | None = None,
    seed: int = 0,
    providers: Sequence[str] = ("cpu",),
    threads: int | None = None,
) -> Explanation:
    """Explain what a model sees: one saliency map for each input.

    Parameters
    ----------
    model : str, Path or Model
    inputs : str, Path, sequence of them, ndarray, or Batch
        Files, folders or globs; a uint8 picture (H, W, 3) or several (N, H, W, 3), which go through the preprocess; or
        an array as the network is fed, (N, C, H, W) float32 or whatever it takes.
    text : str or sequence of str
        Sentences, for a model that takes ids; ``A ||| B`` is a pair. Explain them by ``method="occlusion"`` or another
        method that hides tokens, or by the gradient of their vectors: ``method="integrated-gradients"``.
    tokenizer : str or Path, optional
        The model's ``tokenizer.json``; the one beside it where None.
    method : str
        As on the command line: ``recipro-cam``, ``score-cam``, ...
    layer : str or sequence of str, optional
        Where to look; chosen where None. Several are combined.
    target : str, int or Target, optional
        What to explain: a class index or label, ``cat~dog``, ``box:x0,y0,x1,y1@class``, ... (see
        :func:`onnx_inspect.targets.parse`), or an object of :mod:`onnx_inspect.targets`. Each input's best class, box
        or segment where None.
    preprocess : Preprocess, mapping or str, optional
        A preset, a JSON file, or its content; the model's own where None.
    labels : str, Path or sequence of str, optional
        Class names, or the file that holds them.
    params : mapping, optional
        The method's parameters.
    combine : {'mean', 'max', 'product'}
        How maps of several layers become one.
    smooth : {'augment', 'eigen'}, optional
    budget : int or str, optional
        Passes for each input (200), or seconds for all ('5s'), for methods that run many masks: the most informative
        ones first, until the map is stable. `estimate` says what was spent. The method's definition where None.
    seed : int
        Of everything random.
    providers : sequence of str
    threads : int, optional

    Returns
    -------
    Explanation
        `values` are the raw signed maps (N, h, w), `maps` what is drawn, (N, H, W) in [0, 1] on the pictures.

    Raises
    ------
    InspectError
        Model, input, layer, target or method can't be had; the message says what to do.

    Examples
    --------
    >>> found = explain("fixtures/shapes_resnet.onnx", "fixtures/inputs/shape_star.png")
    >>> found.targets, found.maps.shape, found.overlay().shape
    (('star',), (1, 64, 64), (64, 64, 3))
    """
    net = model if isinstance(model, Model) else read_model(model)
    said = [text] if isinstance(text, str) else list(text)
    batch = inputs if isinstance(inputs, Batch) else _read(net, inputs, preprocess, labels, seed, said, tokenizer)
    found, _ = explain_all(
        net,
        batch,
        methods=[method],
        layers=[layer] if isinstance(layer, str) else layer or [],
        params=[(name, str(value)) for name, value in (params or {}).items()],
        targets=_target(target, batch),
        combine=combine,
        smooth=smooth,
        budget=budget if budget is None or isinstance(budget, Budget) else parse_budget(str(budget)),
        seed=seed,
        make_engine=lambda part: Engine(part, providers=providers, threads=threads),
    )
    attribution = found[0][1]
    own = {field.name: getattr(attribution, field.name) for field in fields(Attribution)}
    return Explanation(**own, batch=batch, model=net.source)


def _target(target: str | int | Target | None, batch: Batch) -> list[Target]:
    if target is None or isinstance(target, Target):
        return [] if target is None else [target]
    parsed = parse(str(target), batch.labels)
    if len(parsed) > 1 or isinstance(parsed[0], EveryClass):
        raise TargetError(
            f"target {target!r} is several maps: call explain for each, like target=ClassTarget(rank=1) of"
            " onnx_inspect.targets for the second best class"
        )
    return list(parsed)


def _read(
    net: Model,
    inputs: str | Path | NDArray[Any] | Sequence[str | Path],
    preprocess: Preprocess | str | Path | Mapping[str, Any] | None,
    labels: str | Path | Sequence[str] | None,
    seed: int,
    text: Sequence[str],
    tokenizer: str | Path | None,
) -> Batch:
    """Make a batch of files, texts or of an array."""
    if isinstance(preprocess, Mapping):
        preprocess = json.dumps(dict(preprocess))
    made = str(preprocess) if isinstance(preprocess, Path) else preprocess
    file = Path(labels) if isinstance(labels, str | Path) else None
    names = tuple(labels) if isinstance(labels, Sequence) and not isinstance(labels, str) else None
    if isinstance(inputs, np.ndarray):
        batch = _of_array(net, inputs, made, read_labels(file, net.metadata))
    else:
        words = [str(inputs)] if isinstance(inputs, str | Path) else [str(one) for one in inputs]
        batch = read_inputs(
            net.inputs,
            words,
            preprocess=made,
            metadata=net.metadata,
            seed=seed,
            labels=file,
            texts=text,
            tokenizer=Path(tokenizer) if tokenizer is not None else beside(net.source) if text else None,
        )
    return replace(batch, labels=names) if names is not None else batch


def _of_array(
    net: Model, array: NDArray[Any], preprocess: Preprocess | str | None, labels: tuple[str, ...] | None
) -> Batch:
    if len(net.inputs) != 1:
        names = ", ".join(spec.name for spec in net.inputs)
        raise InputError(f"{net.source} takes {len(net.inputs)} inputs ({names}): give a Batch, or files")
    spec = net.inputs[0]
    samples = from_array(array, spec.name, Demand({spec.name: spec}, spec.name, preprocess, net.metadata), "the array")
    count = len(samples.array)
    return Batch(
        arrays={spec.name: samples.array},
        primary=spec.name,
        sources=("array",) if count == 1 else tuple(f"array[{n}]" for n in range(count)),
        originals=samples.originals or (None,) * count,
        placements=samples.placements or (None,) * count,
        preprocess=samples.preprocess,
        labels=labels,
        notes=samples.notes,
    )

"""What a second model is fed so that it sees what the first one sees, each through its own input convention."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import InputError
from onnx_inspect.graph.steps import Quantisers, Steps
from onnx_inspect.inputs.axes import is_picture, picture_plane
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.inputs.preprocess import Preprocess
from onnx_inspect.inputs.resolve import METADATA_KEY, resolve
from onnx_inspect.inputs.samples import Demand, from_pictures
from onnx_inspect.inputs.tensors import cast, fits

if TYPE_CHECKING:
    from onnx_inspect.graph.model import Model, TensorSpec

Array = NDArray[Any]
STEPS = ("uint8", "int8")


def convention(model: Model, sibling: Model) -> tuple[Preprocess, str] | None:
    """How pictures become `model`'s real numbers, read off the quantised input of its sibling; None where it can't be.

    A sibling that takes pixels as uint8, or int8 less 128, says by the scale and zero point of its input which real
    numbers these are: those that the float model was made for.
    """
    own, other = _picture(model), _picture(sibling)
    if own is None or other is None or METADATA_KEY in model.metadata or METADATA_KEY in sibling.metadata:
        return None
    if not own.is_float or other.dtype not in STEPS or (steps := Quantisers(sibling).of(other.name)) is None:
        return None
    try:
        made, _ = resolve(None, own, {})
    except InputError:
        return None
    shift = steps.zero_point + (128 if other.dtype == "int8" else 0)
    channels = len(made.mean)
    found = replace(
        made, scale=steps.scale, mean=(shift * steps.scale,) * channels, std=(1.0,) * channels, resize=made.resize
    )
    return found, (
        f"{model.source} records no preprocessing: {found.formula()} {found.describe()} taken from the quantised input"
        f" of {sibling.source}; override with --preprocess"
    )


def paired(
    batch: Batch, model: Model, other: Model, *, preprocess: Preprocess | str | None = None
) -> tuple[Batch, dict[str, str]]:
    """Feed `other` what `batch` feeds `model`.

    Pictures go through the second model's own preprocess. Arrays are given to the input of the same name, else to the
    one in the same place: cast to its type, turned from channels first to channels last, quantised by its own scale.

    Parameters
    ----------
    preprocess : Preprocess or str, optional
        Of the second model; see :func:`~onnx_inspect.inputs.resolve.resolve`.

    Returns
    -------
    batch : Batch
        Of the second model.
    names : mapping of input name to input name
        The second model's, by the first's.

    Raises
    ------
    InputError
        An input of the second model has no counterpart that it can be made of.
    """
    partners = _partners(model, other)
    specs = {spec.name: spec for spec in other.inputs}
    arrays: dict[str, Array] = {}
    notes: list[str] = []
    known = batch.preprocess if partners.get(batch.primary) is None else None
    for name, partner in partners.items():
        spec = specs[partner]
        if name == batch.primary and is_picture(spec) and _drawn(batch):
            demand = Demand(specs, partner, preprocess, other.metadata)
            made = from_pictures([p for p in batch.originals if p is not None], partner, demand)
            arrays[partner], known = made.array, made.preprocess
            notes += [f"{other.source}: {note}" for note in made.notes]
        else:
            arrays[partner] = _converted(batch.arrays[name], model, name, other, spec)
    primary = partners.get(batch.primary, next(iter(specs)))
    shared = frozenset(partners[name] for name in batch.shared if name in partners)
    second = Batch(
        arrays={name: arrays[name] for name in specs},
        primary=primary,
        sources=batch.sources,
        originals=batch.originals,
        placements=batch.placements,
        preprocess=known,
        labels=batch.labels,
        notes=tuple(dict.fromkeys(notes)),
        shared=shared,
    )
    return second, partners


def _picture(model: Model) -> TensorSpec | None:
    """The one input that takes pictures."""
    found = [spec for spec in model.inputs if is_picture(spec)]
    return found[0] if len(found) == 1 else None


def _drawn(batch: Batch) -> bool:
    """Whether each sample was made from its picture by the preprocess, so that another one can do it in its own way.

    Arrays have pictures too, to be shown: rounded ones, from which they can't be made again.
    """
    made, array = batch.preprocess, batch.arrays[batch.primary]
    if made is None or any(picture is None for picture in batch.originals):
        return False
    again = [made.apply(picture)[0] for picture in batch.originals if picture is not None]
    if array.dtype.kind in "iu":
        again = [np.rint(one) for one in again]
    return all(np.allclose(one.reshape(-1), array[i].reshape(-1), rtol=1e-3, atol=1e-5) for i, one in enumerate(again))


def _partners(model: Model, other: Model) -> dict[str, str]:
    """The second model's input for each of the first's: of the same name, else the only picture, else in its place."""
    names, others = [s.name for s in model.inputs], [s.name for s in other.inputs]
    found = {name: name for name in names if name in others}
    one, two = _picture(model), _picture(other)
    if one is not None and two is not None and one.name not in found and two.name not in found.values():
        found[one.name] = two.name
    rest = [name for name in others if name not in found.values()]
    found |= dict(zip((name for name in names if name not in found), rest, strict=False))
    missing = [spec for spec in other.inputs if spec.name not in found.values()]
    if missing:
        raise InputError(
            f"{other.source} also takes {missing[0].name!r} ({missing[0].describe()}), for which {model.source} has no"
            " input: the two can't be fed the same"
        )
    return found


def _converted(array: Array, model: Model, name: str, other: Model, spec: TensorSpec) -> Array:
    """One input's array in the form that the second model takes it."""
    where = f"input {name!r} of {model.source} for {spec.name!r} of {other.source}"
    steps = _steps(model, name, array), _steps(other, spec.name, spec)
    if array.dtype.name not in STEPS and spec.dtype in STEPS and steps[1] is None:
        raise InputError(f"{where}: the second takes {spec.describe()} in steps of an unknown scale; give a picture")
    real = steps[0].real(array).astype(np.float32) if steps[0] is not None and spec.is_float else array
    turned = _turned(real, spec)
    if turned is None:
        raise InputError(f"{where}: found {array.dtype} {list(array.shape)}, but it takes {spec.describe()}")
    if steps[1] is not None and turned.dtype.kind == "f":
        return steps[1].steps(turned, np.dtype(spec.dtype))
    return cast(turned, spec, where)


def _steps(model: Model, name: str, form: Any) -> Steps | None:
    return Quantisers(model).of(name) if str(form.dtype) in STEPS else None


def _turned(array: Array, spec: TensorSpec) -> Array | None:
    """The array in the input's shape: as it is, with its axes in another order, or laid out anew."""
    if fits(array.shape, spec):
        return array
    usual = [(0, 2, 3, 1), (0, 3, 1, 2)] if array.ndim == 4 and picture_plane(spec) else []
    for order in (*usual, *itertools.permutations(range(array.ndim))):
        if len(order) == array.ndim and fits(tuple(array.shape[axis] for axis in order), spec):
            return np.ascontiguousarray(array.transpose(order))
    if spec.shape is not None and all(isinstance(d, int) for d in spec.shape[1:]):
        wanted = [d for d in spec.shape[1:] if isinstance(d, int)]
        if array.size == len(array) * int(np.prod(wanted, dtype=np.int64)):
            return array.reshape(len(array), *wanted)
    return None

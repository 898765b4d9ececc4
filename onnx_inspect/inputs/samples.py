"""How pictures and arrays become samples of one input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import InputError
from onnx_inspect.inputs import synthetic
from onnx_inspect.inputs.axes import is_picture, picture_plane
from onnx_inspect.inputs.placement import Placement, place
from onnx_inspect.inputs.preprocess import Preprocess
from onnx_inspect.inputs.resolve import METADATA_KEY, resolve
from onnx_inspect.inputs.tensors import as_fitting, fit, fits, has_batch, numpy_dtype

if TYPE_CHECKING:
    from onnx_inspect.graph.model import TensorSpec

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Demand:
    """What the model takes, and how pictures are to be made into it; `drawn` where arrays need pictures to draw on."""

    specs: Mapping[str, TensorSpec]
    primary: str
    preprocess: Preprocess | str | None
    metadata: Mapping[str, str]
    drawn: bool = True

    def batched(self, name: str) -> bool:
        """Whether axis 0 of an input counts samples."""
        return has_batch(self.specs[name], self.specs[self.primary])


@dataclass(frozen=True)
class Samples:
    """n samples of one input, or the whole of an input without a batch axis; notes tell what was chosen.

    Pictures and placements, one per sample, are there for the primary input; others may leave them out.
    """

    array: NDArray[Any]
    originals: tuple[Picture | None, ...]
    placements: tuple[Placement | None, ...]
    preprocess: Preprocess | None = None
    notes: tuple[str, ...] = ()


def from_pictures(pictures: Sequence[Picture], name: str, demand: Demand) -> Samples:
    """Put uint8 pictures (H, W, 3) through the input's preprocess.

    Raises
    ------
    InputError
        The input can't take a picture.
    """
    numpy_dtype(demand.specs[name])
    made, reason = resolve(demand.preprocess, demand.specs[name], demand.metadata)
    return _through(made, pictures, demand.specs[name], (reason,))


def _through(made: Preprocess, pictures: Sequence[Picture], spec: TensorSpec, notes: tuple[str, ...]) -> Samples:
    applied = [made.apply(picture) for picture in pictures]
    stack = np.stack([array for array, _ in applied])  # (n, C, h, w) or (n, h, w, C)
    return Samples(_fitted(stack, spec), tuple(pictures), tuple(p for _, p in applied), made, notes)


def _fitted(stack: NDArray[np.float32], spec: TensorSpec) -> NDArray[Any]:
    """Pictures in the input's own rank and type; for integers rounded and clipped."""
    if spec.shape is not None and len(spec.shape) != stack.ndim:
        stack = stack.reshape(len(stack), *(d if isinstance(d, int) else -1 for d in spec.shape[1:]))
    dtype = numpy_dtype(spec) or np.dtype(np.float32)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        stack = np.clip(np.rint(stack), limits.min, limits.max)
    return stack.astype(dtype, order="C", copy=False)


def from_array(array: NDArray[Any], name: str, demand: Demand, where: str) -> Samples:
    """Take an array as pictures, or as the input itself.

    A uint8 array (H, W), (H, W, 1|3), (N, H, W), (N, H, W, 1|3) or with the channels before H is pictures and goes
    through the preprocess, unless the input takes uint8 of just that shape, or has no image axes and fits as it is.
    Everything else is taken as preprocessed already.

    Raises
    ------
    InputError
        Its shape or dtype doesn't fit.
    """
    spec = demand.specs[name]
    stack = _stack(array, spec) if demand.batched(name) else None
    found = f"input {name!r}: {array.dtype} {list(array.shape)}"
    if stack is not None:
        made = _from_stack(stack, name, demand)
        count = f"{len(stack)} pictures" if len(stack) > 1 else "a picture"
        return replace(made, notes=(f"{found} taken as {count}, put through the preprocess", *made.notes))
    fitted = fit(array, spec, where, batched=demand.batched(name))
    if name != demand.primary or not demand.batched(name) or not demand.drawn:
        return Samples(fitted, (), ())
    note = (f"{found} taken as preprocessed already",) if is_picture(spec) else ()
    return _displayed(fitted, spec, demand, note)


def as_pictures(array: NDArray[Any], spec: TensorSpec) -> list[Picture] | None:
    """Split a uint8 array into RGB pictures (H, W, 3); None when it isn't pictures, or is the input itself."""
    stack = _stack(array, spec)
    return None if stack is None else _split(stack)


def _split(stack: NDArray[Any]) -> list[Picture]:
    return [np.ascontiguousarray(np.broadcast_to(one, (*one.shape[:2], 3))) for one in stack]


def _stack(array: NDArray[Any], spec: TensorSpec) -> NDArray[Any] | None:
    """A uint8 array as pictures (n, H, W, 1 or 3); None when it isn't pictures, or is the input itself."""
    if array.dtype != np.uint8 or not 2 <= array.ndim <= 4 or not array.size:
        return None
    as_it_is = fits(array.shape, spec) or fits((1, *array.shape), spec)
    if as_it_is and (spec.dtype == "uint8" or not is_picture(spec)):
        return None
    return _channels_last(array, spec)


def _from_stack(stack: NDArray[Any], name: str, demand: Demand) -> Samples:
    """Put pictures (n, H, W, 1 or 3) through the preprocess, all at once where none is resized or drawn."""
    spec = demand.specs[name]
    if not demand.drawn:
        numpy_dtype(spec)
        made, reason = resolve(demand.preprocess, spec, demand.metadata)
        if made.keeps((stack.shape[1], stack.shape[2])):
            return Samples(_fitted(made.apply_all(stack), spec), (), (), made, (reason,))
    return from_pictures(_split(stack), name, demand)


def _channels_last(array: NDArray[Any], spec: TensorSpec) -> NDArray[Any] | None:
    """Bring pictures of any usual arrangement to (n, H, W, 1 or 3)."""
    if array.ndim == 2:
        return array[None, :, :, None]
    if array.shape[-1] in (1, 3):
        return array[None] if array.ndim == 3 else array
    if array.ndim == 4:
        return array.transpose(0, 2, 3, 1) if array.shape[1] in (1, 3) else None
    plane = picture_plane(spec)
    if plane and plane.layout == "NCHW" and plane.channels == array.shape[0]:
        return array.transpose(1, 2, 0)[None]  # one picture as the model takes it, without the batch axis
    return array[..., None]


def filled(
    word: str,
    name: str,
    demand: Demand,
    *,
    shape: tuple[int, ...] | None,
    bound: Mapping[str, int],
    rng: np.random.Generator,
) -> Samples:
    """Make an input of ``random``, ``zeros`` or ``ones``; random pictures of noise where it takes pictures.

    Parameters
    ----------
    shape : tuple of int or None
        What the user said; a missing batch axis is added.
    bound : mapping of symbol to int
        Lengths of free axes that other inputs say.

    Raises
    ------
    InputError
        The shape doesn't fit, or can't be known.
    """
    spec, batched, note = demand.specs[name], demand.batched(name), ""
    numpy_dtype(spec)
    if shape is not None:
        given, shape = shape, as_fitting(shape, spec, batched)
        if shape is None:
            raise InputError(f"input {name!r} takes {spec.describe()}, found a shape of {list(given)}")
    if word == "random" and batched and (made := _for_noise(spec, demand, shape)):
        n = shape[0] if shape else spec.shape[0] if spec.shape and isinstance(spec.shape[0], int) else 1
        note = f"input {name!r}: noise for a picture, put through {made.formula()} {made.describe()}"
        return _through(made, [synthetic.picture(made, rng) for _ in range(n)], spec, (note,))
    if shape is None:
        shape, note = synthetic.full_shape(spec, bound, batched=batched)
    array = synthetic.make(word, spec, shape, rng)
    if name == demand.primary and batched:
        return _displayed(array, spec, demand, (note,) if note else ())
    return Samples(array, (), (), None, (note,) if note else ())


def _for_noise(spec: TensorSpec, demand: Demand, shape: tuple[int, ...] | None) -> Preprocess | None:
    """Find the preprocess that noise goes through, at the size of `shape`; None where the input takes no pictures."""
    try:
        made, _ = resolve(demand.preprocess, spec, demand.metadata)
    except InputError:
        if is_picture(spec) and _said(demand):
            raise
        return None  # the input takes no pictures: it gets plain numbers
    if shape is not None and len(shape) == 4:
        height, width = shape[2:] if made.layout == "NCHW" else shape[1:3]
        made = replace(made, size=(height, width))
    return replace(made, resize="stretch")


def _displayed(array: NDArray[Any], spec: TensorSpec, demand: Demand, notes: tuple[str, ...]) -> Samples:
    """Give an array its pictures: by the inverse of a known preprocess, else stretched from minimum to maximum."""
    known = _known(spec, demand)
    if known is not None and (shape := _sample_shape(array, known)) is not None:
        originals = tuple(known.picture(sample.reshape(shape)) for sample in array)
    elif plane := picture_plane(spec):
        originals = tuple(_min_max(s.transpose(1, 2, 0) if plane.layout == "NCHW" else s) for s in array)
        notes = (*notes, "drawn from each sample's minimum (black) to its maximum (white), for no preprocess is known")
    else:
        return Samples(array, (None,) * len(array), (None,) * len(array), None, notes)
    placements = tuple(place(o.shape[:2], o.shape[:2], "stretch") for o in originals)
    return Samples(array, originals, placements, known, notes)


def _known(spec: TensorSpec, demand: Demand) -> Preprocess | None:
    """Return the preprocess that was said or recorded, or that integers make certain; never a guess."""
    if not _said(demand) and not (spec.dtype in ("uint8", "int8") and picture_plane(spec)):
        return None
    try:
        return resolve(demand.preprocess, spec, demand.metadata)[0]
    except InputError:
        if is_picture(spec):
            raise
        return None  # meant for pictures, and an array without image axes needs none


def _said(demand: Demand) -> bool:
    return demand.preprocess is not None or METADATA_KEY in demand.metadata


def _sample_shape(array: NDArray[Any], known: Preprocess) -> tuple[int, ...] | None:
    """Return one sample's picture shape; None where the preprocess describes other arrays."""
    channels = len(known.mean)
    if array.ndim == 4:
        return array.shape[1:] if array.shape[1 if known.layout == "NCHW" else 3] == channels else None
    if array[0].size != known.size[0] * known.size[1] * channels:
        return None
    return (channels, *known.size) if known.layout == "NCHW" else (*known.size, channels)


def _min_max(values: NDArray[Any]) -> Picture:
    """Stretch (h, w, C) to 0..255; a constant becomes middle grey, NaN black."""
    values = values.astype(np.float64)
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    scaled = (values - low) / (high - low) * 255 if high > low else np.where(np.isfinite(values), 128.0, 0.0)
    pixels = np.rint(np.clip(np.nan_to_num(scaled, nan=0.0), 0, 255)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))

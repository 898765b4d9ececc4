"""Which preprocessing a model's input gets, and why."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnx_inspect.errors import InputError
from onnx_inspect.inputs.axes import CHANNELS, Plane, planes
from onnx_inspect.inputs.preprocess import KEYS, PRESETS, Preprocess, parse

if TYPE_CHECKING:
    from onnx_inspect.graph.model import TensorSpec

METADATA_KEY = "onnx_inspect.preprocess"


def resolve(given: Preprocess | str | None, spec: TensorSpec, metadata: Mapping[str, str]) -> tuple[Preprocess, str]:
    """Choose how pictures are made into the input `spec`, from what was said, recorded or inferred.

    Tried in this order: `given`, the model's metadata key ``onnx_inspect.preprocess``, the input's shape and dtype.
    What a preset or JSON leaves out is inferred in the same way: layout from which axis is 1 or 3; RGB for 3 channels,
    GRAY for 1; the model's size, 224 where it is free; ``stretch``; ``unit`` for real numbers, ``raw`` for integers,
    minus 128 for int8.

    Parameters
    ----------
    given : Preprocess, str or None
        A whole one, a preset's name, a JSON file's path, or JSON itself.
    spec : TensorSpec
    metadata : mapping
        The model's.

    Returns
    -------
    preprocess : Preprocess
    reason : str
        One line saying where it came from and what was inferred.

    Raises
    ------
    InputError
        An unknown preset or key, a value that doesn't fit the input, or a shape that doesn't tell what is asked of it.

    Examples
    --------
    >>> from onnx_inspect.graph.model import TensorSpec
    >>> resolve("caffe", TensorSpec("x", "float32", (1, 3, 64, 48)), {})[0].describe()
    'BGR NCHW 64x48 stretch'
    """
    declared, origin = _declared(given, metadata)
    plane = _plane(spec, declared)
    values = {**_inferred(spec, plane, declared), **declared}
    made = Preprocess.from_json(values, origin or "preprocess")
    _check(made, spec, plane, origin)
    return made, _reason(made, spec, plane, declared, origin)


def _declared(given: Preprocess | str | None, metadata: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """Read what was said, and name who said it; nothing at all is empty."""
    if isinstance(given, Preprocess):
        return given.to_json(), "the preprocess given"
    if given is not None:
        return _said(given)
    if METADATA_KEY not in metadata:
        return {}, ""
    origin = f"the model's metadata {METADATA_KEY}"
    try:
        return parse(metadata[METADATA_KEY], origin), origin
    except InputError as error:
        raise InputError(f"{error}; override it with --preprocess") from None


def _said(text: str) -> tuple[dict[str, Any], str]:
    if text in PRESETS:
        return dict(PRESETS[text]), f"preset {text}"
    if text.lstrip().startswith("{"):
        return parse(text, "--preprocess"), "--preprocess"
    path = Path(text).expanduser()
    try:
        return parse(path.read_text("utf-8-sig"), str(path)), str(path)
    except FileNotFoundError:
        near = difflib.get_close_matches(text, PRESETS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise InputError(
            f"preprocess {text!r} is neither a preset nor a file{hint}; presets: {', '.join(PRESETS)},"
            f" or a JSON file with keys {', '.join(KEYS)}"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a JSON file: it isn't text") from None
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}") from error


def _plane(spec: TensorSpec, declared: Mapping[str, Any]) -> Plane | None:
    """Find the axes that hold the picture; None for an input without image axes that a picture is reshaped to."""
    ways = planes(spec)
    if spec.shape is None and {"layout", "colour"} <= declared.keys():
        return Plane(declared["layout"], CHANNELS[declared["colour"]], None, None)
    if not ways:
        _check_flat(spec, declared)
        return None
    colour, size = declared.get("colour"), declared.get("size")
    laid_out = [way for way in ways if declared.get("layout", way.layout) == way.layout]
    fitting = [way for way in laid_out if way.takes(colour, size)]
    if len(fitting) > 1:
        raise InputError(
            f"input {spec.name!r} {spec.describe()}: its shape doesn't tell which axis holds the channels; say"
            ' --preprocess \'{"layout": "NCHW", "colour": "RGB"}\' (or NHWC, BGR, GRAY)'
        )
    if not fitting:
        said = ", ".join(f"{key} {declared[key]}" for key in ("layout", "colour", "size") if key in declared)
        raise InputError(f"input {spec.name!r} takes {spec.describe()}, which doesn't fit the preprocess given: {said}")
    if colour is None and fitting[0].channels not in (1, 3):
        raise InputError(
            f"input {spec.name!r} {spec.describe()}: its number of channels is free; say it with --preprocess"
            f' \'{{"layout": "{fitting[0].layout}", "colour": "RGB"}}\' (or BGR, GRAY)'
        )
    return fitting[0]


def _check_flat(spec: TensorSpec, declared: Mapping[str, Any]) -> None:
    """Let a picture of a declared size into an input without image axes when the numbers of elements agree."""
    what = f"input {spec.name!r} takes {spec.describe()}"
    if spec.shape is None or spec.dtype in ("string", "bool"):
        raise InputError(
            f"{what}, which doesn't say how a picture goes in; feed an array (.npy, .npz),"
            " or give --preprocess with layout, size and colour"
        )
    if len(spec.shape) == 3 and spec.shape[0] == 3:
        raise InputError(f"{what}, which has no batch axis; feed an array (.npy, .npz) of just that shape")
    if len(spec.shape) == 4:
        raise InputError(
            f"{what}: neither axis 1 ({spec.shape[1]}) nor axis 3 ({spec.shape[3]}) can be a picture's 3 channels or 1;"
            " feed an array (.npy, .npz) instead"
        )
    rest = spec.shape[1:]
    elements = math.prod(d for d in rest if isinstance(d, int))
    free = sum(not isinstance(d, int) for d in rest)
    if free > 1 or not rest:
        raise InputError(f"{what}, which doesn't say how a picture goes in; feed an array (.npy, .npz)")
    if "size" not in declared:
        raise InputError(f"{what}, which has no image axes; feed an array (.npy, .npz){_flat_example(elements, free)}")
    size = declared["size"]
    colours = [declared["colour"]] if "colour" in declared else ["RGB", "GRAY"]
    given = [size[0] * size[1] * CHANNELS[colour] for colour in colours]
    if not any(n == elements or (free and elements and n % elements == 0) for n in given):
        raise InputError(
            f"{what}: {elements} elements, but size {size[0]}x{size[1]} {' or '.join(colours)} gives"
            f" {' or '.join(map(str, given))}"
        )


def _flat_example(elements: int, free: int) -> str:
    if free or elements < 16:  # no picture one would draw
        return ""
    side = math.isqrt(elements)
    colour = "GRAY"
    if side * side != elements and elements % 3 == 0 and math.isqrt(elements // 3) ** 2 == elements // 3:
        side, colour = math.isqrt(elements // 3), "RGB"
    return f', or say what picture fills it, like --preprocess \'{{"size": [{side}, {side}], "colour": "{colour}"}}\''


def _inferred(spec: TensorSpec, plane: Plane | None, declared: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that shape and dtype tell; what was declared wins over it."""
    size = declared.get("size")
    channels = plane.channels if plane else None
    if plane is None and size and spec.shape:
        elements = math.prod(d for d in spec.shape[1:] if isinstance(d, int))
        channels = 1 if size[0] * size[1] == elements else 3
    integer = spec.dtype.startswith(("int", "uint"))
    return {
        "size": size or (plane.size if plane else None),
        "resize": "stretch",
        "layout": plane.layout if plane else "NCHW",
        "colour": "GRAY" if channels == 1 else "RGB",
        "scale": 1.0 if integer else 1 / 255,
        "mean": 128.0 if spec.dtype == "int8" else 0.0,
        "std": 1.0,
    }


def _check(made: Preprocess, spec: TensorSpec, plane: Plane | None, origin: str) -> None:
    """Compare with a fixed model input, and with what an integer input can hold."""
    who = origin or "the preprocess inferred"
    if plane and not plane.takes(made.colour, made.size):
        raise InputError(f"{who} gives {made.describe()}, but input {spec.name!r} takes {spec.describe()}")
    if not spec.dtype.startswith(("int", "uint")):
        return
    ends = (np.outer([0.0, 255.0], made.scale) - made.mean) / made.std
    low, high = float(ends.min()), float(ends.max())
    try:
        holds = np.iinfo(np.dtype(spec.dtype))
    except TypeError:  # int4 and uint4 aren't numpy's own
        return
    if low < holds.min - 0.5 or high > holds.max + 0.5 or high - low < 2:
        raise InputError(
            f"{who} gives values {low:g}..{high:g}, but input {spec.name!r} takes {spec.dtype}"
            f" ({holds.min}..{holds.max}); leave --preprocess out to have it inferred, or give scale, mean and std"
        )


def _reason(made: Preprocess, spec: TensorSpec, plane: Plane | None, declared: Mapping[str, Any], origin: str) -> str:
    free = "" if "size" in declared or plane is None or plane.fixed else _free(made)
    if not origin:
        return (
            f"no preprocessing recorded: inferred {made.formula()} {made.describe()} from {spec.describe()}{free};"
            " override with --preprocess"
        )
    guessed = [key for key in KEYS if key not in declared]
    rest = f"; {', '.join(guessed)} inferred from {spec.describe()}" if guessed else ""
    formula = "" if origin.startswith("preset ") else f"{made.formula()} "
    return f"preprocess from {origin}: {formula}{made.describe()}{rest}{free}"


def _free(made: Preprocess) -> str:
    return f" (the model leaves the size free: {made.size[0]}x{made.size[1]} chosen)"

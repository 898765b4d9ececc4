"""How a picture becomes the numbers a model expects: the only preprocessing there is."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import InputError
from onnx_inspect.inputs.axes import CHANNELS, Colour, Layout
from onnx_inspect.inputs.placement import Placement, Resize, place

BAR = 114  # grey of the letterbox bars, as YOLO's tools fill them

PRESETS: dict[str, dict[str, Any]] = {
    "imagenet": {
        "resize": "crop",
        "colour": "RGB",
        "scale": 1 / 255,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
    "unit": {"scale": 1 / 255, "mean": 0.0, "std": 1.0},
    "signed": {"scale": 1 / 127.5, "mean": 1.0, "std": 1.0},
    "raw": {"scale": 1.0, "mean": 0.0, "std": 1.0},
    "caffe": {"colour": "BGR", "scale": 1.0, "mean": [104.0, 117.0, 123.0], "std": 1.0},
}


@dataclass(frozen=True)
class Preprocess:
    """From a uint8 picture to a model's input: resize, colour, ``x = (pixel * scale - mean) / std``, layout.

    Attributes
    ----------
    size : tuple of int
        Height and width.
    resize : {'stretch', 'crop', 'letterbox'}
        See :func:`~onnx_inspect.inputs.placement.place`.
    layout : {'NCHW', 'NHWC'}
    colour : {'RGB', 'BGR', 'GRAY'}
        GRAY is Pillow's ``convert('L')``: ITU-R 601 luma.
    scale : float
    mean, std : tuple of float
        One per channel, in the order of `colour`.

    Raises
    ------
    InputError
        A value that makes no sense; the message names its key.
    """

    size: tuple[int, int]
    resize: Resize
    layout: Layout
    colour: Colour
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for key, problem in _problems(self):
            raise InputError(f"preprocess: {key} {problem}, found {getattr(self, key)!r}")

    def apply(self, picture: NDArray[np.uint8]) -> tuple[NDArray[np.float32], Placement]:
        """Make one picture the model's input.

        Parameters
        ----------
        picture : ndarray, (H, W, 3), uint8, RGB

        Returns
        -------
        array : ndarray, (C, h, w) or (h, w, C) as `layout` says, float32
            Without a batch axis. ``stretch`` is exactly ``Image.resize((w, h), Image.BILINEAR)``.
        placement : Placement
            The way back onto the picture.
        """
        pixels, placement = self._resized(picture)
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        values = (pixels * np.float32(self.scale) - mean) / std  # (h, w, C)
        return np.ascontiguousarray(values.transpose(2, 0, 1) if self.layout == "NCHW" else values), placement

    def keeps(self, size: tuple[int, int]) -> bool:
        """Whether pictures of a size (H, W) fill the model's plane as they are, pixel for pixel."""
        return size == self.size and self.resize != "crop"

    def apply_all(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Make many pictures that the plane keeps the model's input: what :meth:`apply` gives for each, bit for bit.

        Parameters
        ----------
        pictures : ndarray, (n, H, W, 3) RGB or (n, H, W, 1) grey, uint8

        Returns
        -------
        ndarray, (n, C, h, w) or (n, h, w, C) as `layout` says, float32
        """
        if self.colour == "GRAY" and pictures.shape[-1] == 3:
            pictures = _luma(pictures)
        elif self.colour != "GRAY" and pictures.shape[-1] == 1:
            pictures = np.broadcast_to(pictures, (*pictures.shape[:3], 3))
        pixels = pictures[..., ::-1] if self.colour == "BGR" else pictures
        if self.layout == "NCHW":
            pixels = pixels.transpose(0, 3, 1, 2)
        shape = (-1, 1, 1) if self.layout == "NCHW" else (-1,)
        values = np.array(pixels, np.float32, order="C")
        values *= np.float32(self.scale)
        values -= np.asarray(self.mean, np.float32).reshape(shape)
        values /= np.asarray(self.std, np.float32).reshape(shape)
        return values

    def _resized(self, picture: NDArray[np.uint8]) -> tuple[NDArray[np.float32], Placement]:
        from PIL import Image

        image = Image.fromarray(picture)
        if self.colour == "GRAY":
            image = image.convert("L")
        placement = place((image.height, image.width), self.size, self.resize)
        image = image.resize(placement.resized[::-1], Image.Resampling.BILINEAR)
        if placement.resized != self.size:
            plane = Image.new(image.mode, self.size[::-1], (BAR,) * len(image.getbands()))
            plane.paste(image, placement.corner[::-1])
            image = plane
        pixels = np.asarray(image, np.float32).reshape(*self.size, CHANNELS[self.colour])
        return (pixels[..., ::-1] if self.colour == "BGR" else pixels), placement

    def picture(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Make a model's input a picture again: the inverse of the formula, at the input's own size.

        Parameters
        ----------
        values : ndarray, (C, h, w) or (h, w, C) as `layout` says

        Returns
        -------
        ndarray, (h, w, 3), uint8, RGB
            Rounded and clipped to 0..255; NaN becomes 0.
        """
        channels_last = values.transpose(1, 2, 0) if self.layout == "NCHW" else values
        pixels = (channels_last.astype(np.float64) * self.std + self.mean) / self.scale
        pixels = np.clip(np.rint(np.nan_to_num(pixels, nan=0.0)), 0, 255).astype(np.uint8)
        if self.colour == "GRAY":
            return np.repeat(pixels, 3, axis=2)
        return np.ascontiguousarray(pixels[..., ::-1] if self.colour == "BGR" else pixels)

    def describe(self) -> str:
        """Text like ``RGB NCHW 224x224 stretch``, height first."""
        return f"{self.colour} {self.layout} {self.size[0]}x{self.size[1]} {self.resize}"

    def formula(self) -> str:
        """Text like ``unit`` where a preset says it, else the numbers."""
        slope, shift = self.scale / np.asarray(self.std), np.asarray(self.mean) / self.std
        for name, preset in PRESETS.items():
            mean, std = (np.asarray(_per_channel(preset[key], self.colour)) for key in ("mean", "std"))
            if len(mean) == len(shift) and np.allclose([slope, shift], [preset["scale"] / std, mean / std]):
                return name
        text = "pixel" if self.scale == 1 else f"pixel*{self.scale:g}"
        text = f"{text} - {_brief(self.mean)}" if any(self.mean) else text
        return f"({text})/{_brief(self.std)}" if set(self.std) != {1.0} else f"({text})"

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys `size`, `resize`, `layout`, `colour`, `scale`, `mean`, `std`."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str = "preprocess") -> Preprocess:
        """Read what :meth:`to_json` wrote; a single number for `mean` or `std` counts for every channel.

        Raises
        ------
        InputError
            A key is unknown or missing, or a value makes no sense.

        Examples
        --------
        >>> Preprocess.from_json({"size": [8, 8], "resize": "stretch", "layout": "NHWC", "colour": "GRAY",
        ...                       "scale": 1, "mean": 0, "std": 1}).describe()
        'GRAY NHWC 8x8 stretch'
        """
        check(values, where)
        if missing := [key for key in KEYS if key not in values]:
            raise InputError(f"{where} has no {', '.join(missing)}: give all of {', '.join(KEYS)}")
        try:
            return cls(
                size=(values["size"][0], values["size"][1]),
                resize=values["resize"],
                layout=values["layout"],
                colour=values["colour"],
                scale=float(values["scale"]),
                mean=_per_channel(values["mean"], values["colour"]),
                std=_per_channel(values["std"], values["colour"]),
            )
        except InputError as error:
            raise InputError(f"{where}: {str(error).removeprefix('preprocess: ')}") from None


def _luma(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey of RGB pictures (..., 3) as (..., 1), in Pillow's own whole numbers."""
    weighted = pictures.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
    return ((weighted + 0x8000) >> 16).astype(np.uint8)[..., None]


KEYS = tuple(field.name for field in fields(Preprocess))


def parse(text: str, where: str) -> dict[str, Any]:
    """Read preprocess JSON, all its keys optional, and check each value by itself.

    Raises
    ------
    InputError
        Not a JSON object, an unknown key, or a value of the wrong kind.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        raise InputError(f"{where} is not JSON ({error}): it must be an object with keys {', '.join(KEYS)}") from None
    if not isinstance(values, dict):
        raise InputError(f"{where} must be a JSON object with keys {', '.join(KEYS)}, found {values!r:.60}")
    check(values, where)
    return values


def check(values: Mapping[str, Any], where: str) -> None:
    """Check keys and kinds of values; missing keys are fine here.

    Raises
    ------
    InputError
        The message names the key, what it may be, and what was found.
    """
    for key, value in values.items():
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise InputError(f"{where}: unknown key {key!r}{hint}; the keys are {', '.join(KEYS)}")
        if problem := _wrong_kind(key, value):
            raise InputError(f"{where}: {key} {problem}, found {json.dumps(value, default=str)}")


def _wrong_kind(key: str, value: Any) -> str:
    """Say what a JSON value should have been, or nothing."""
    choices = {"resize": get_args(Resize), "layout": get_args(Layout), "colour": get_args(Colour)}
    if key in choices:
        return "" if value in choices[key] else f"must be one of {', '.join(choices[key])}"
    if key == "scale":
        return "" if _is_number(value) else "must be a number"
    many = isinstance(value, (list, tuple)) and all(map(_is_number, value))
    if key == "size":
        return "" if many and len(value) == 2 else "must be [height, width]"
    return "" if _is_number(value) or (many and value) else "must be a list with one number per channel"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _per_channel(value: Any, colour: str) -> tuple[float, ...]:
    return (float(value),) * CHANNELS[colour] if _is_number(value) else tuple(map(float, value))


def _brief(values: tuple[float, ...]) -> str:
    texts = [f"{value:g}" for value in values]
    return texts[0] if len(set(texts)) == 1 else f"[{', '.join(texts)}]"


def _problems(given: Preprocess) -> list[tuple[str, str]]:
    """Which fields hold values that no picture could be made with, and why."""
    channels = CHANNELS.get(given.colour, 0)
    per_channel = f"must hold one number per channel of {given.colour} ({channels})"
    rules = [
        ("resize", given.resize in get_args(Resize), f"must be one of {', '.join(get_args(Resize))}"),
        ("layout", given.layout in get_args(Layout), f"must be one of {', '.join(get_args(Layout))}"),
        ("colour", given.colour in get_args(Colour), f"must be one of {', '.join(get_args(Colour))}"),
        (
            "size",
            len(given.size) == 2 and all(isinstance(s, int) and s > 0 for s in given.size),
            "must be [height, width], whole and positive",
        ),
        ("scale", math.isfinite(given.scale) and given.scale != 0, "must be finite and not 0"),
        ("mean", len(given.mean) == channels, per_channel),
        ("std", len(given.std) == channels, per_channel),
        ("mean", all(map(math.isfinite, given.mean)), "must be finite"),
        ("std", all(math.isfinite(s) and s != 0 for s in given.std), "must be finite and not 0"),
    ]
    return [(key, problem) for key, holds, problem in rules if not holds]

"""Which axes of a model's input are a picture's channels, height and width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from onnx_inspect.graph.model import Dim, TensorSpec

Layout = Literal["NCHW", "NHWC"]
Colour = Literal["RGB", "BGR", "GRAY"]
CHANNELS: dict[str, int] = {"RGB": 3, "BGR": 3, "GRAY": 1}
FREE_SIZE = 224  # pixels, for a height or width that the model leaves free


@dataclass(frozen=True)
class Plane:
    """One way an input may hold a picture; what is free in it is None or a symbol."""

    layout: Layout
    channels: Dim
    height: Dim
    width: Dim

    @property
    def fixed(self) -> bool:
        """Whether the model itself says height and width."""
        return isinstance(self.height, int) and isinstance(self.width, int)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, 224 where the model leaves them free."""
        height = self.height if isinstance(self.height, int) else FREE_SIZE
        width = self.width if isinstance(self.width, int) else FREE_SIZE
        return height, width

    def takes(self, colour: str | None, size: tuple[int, int] | None) -> bool:
        """Whether a picture of this colour and size fits; None fits always."""
        if colour and isinstance(self.channels, int) and self.channels != CHANNELS[colour]:
            return False
        if size is None:
            return True
        return all(not isinstance(d, int) or d == s for d, s in zip((self.height, self.width), size, strict=True))


def planes(spec: TensorSpec) -> tuple[Plane, ...]:
    """All ways an input may hold a picture: rank 4, numbers, and 1 or 3 channels on axis 1 or 3.

    A channel axis that is declared 1 or 3 rules out one that is free. More than one way means that the shape doesn't
    tell, none means that the input isn't a picture's.
    """
    if spec.shape is None or len(spec.shape) != 4 or spec.dtype in ("bool", "string"):
        return ()
    _, a, b, c = spec.shape
    ways = (Plane("NCHW", a, b, c), Plane("NHWC", c, a, b))
    sure = tuple(way for way in ways if way.channels in (1, 3))
    return sure or tuple(way for way in ways if not isinstance(way.channels, int))


def picture_plane(spec: TensorSpec) -> Plane | None:
    """Return the one way an input holds a picture, where its shape alone tells; else None.

    Examples
    --------
    >>> from onnx_inspect.graph.model import TensorSpec
    >>> picture_plane(TensorSpec("x", "float32", ("N", 3, 32, 48))).size
    (32, 48)
    >>> picture_plane(TensorSpec("x", "float32", (1, 3, 32, 3))) is None
    True
    """
    ways = planes(spec)
    return ways[0] if len(ways) == 1 and ways[0].channels in (1, 3) else None


def is_picture(spec: TensorSpec) -> bool:
    """Whether an input looks like a picture's, even where its layout needs saying."""
    return any(way.channels in (1, 3) for way in planes(spec))

"""What a convolution's window is, whatever its node leaves to defaults, and how far it reaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx_inspect.graph.input_shapes import Shape, fixed
from onnx_inspect.graph.rules._step import Step


@dataclass(frozen=True)
class Window:
    """Kernel, strides and dilations per spatial axis; `given` are the node's pads, None where `auto` decides them."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    given: tuple[int, ...] | None
    auto: str

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def axes(self) -> range:
        """The spatial axes."""
        return range(2, 2 + self.rank)

    @property
    def reach(self) -> tuple[int, ...]:
        """Positions from a window's first to its last."""
        return tuple(d * (k - 1) for k, d in zip(self.kernel, self.dilations, strict=True))

    def pads(self, wide: Shape | None) -> list[int] | None:
        """Pads at the begins and ends for an input of these sizes; None where they follow from unknown sizes."""
        if self.given is not None:
            return list(self.given)
        if wide is None:
            return None
        begins, ends = [], []
        for size, stride, reach in zip(wide, self.strides, self.reach, strict=True):
            total = max((-(-size // stride) - 1) * stride + reach + 1 - size, 0)
            less, more = total // 2, total - total // 2
            begins.append(more if self.auto == "SAME_LOWER" else less)
            ends.append(less if self.auto == "SAME_LOWER" else more)
        return begins + ends


def window(step: Step, kernel: Sequence[int] | None = None) -> Window:
    """Read a node's window; the kernel is its attribute, or `kernel`.

    Raises
    ------
    NoRule
        Nothing tells the kernel's size.
    """
    sizes = step.attribute("kernel_shape") or kernel
    if sizes is None:
        raise step.fail("nothing tells its kernel's size")
    rank = len(sizes)
    auto = step.attribute("auto_pad", "NOTSET")
    same = auto in ("SAME_UPPER", "SAME_LOWER")
    pads = [0] * 2 * rank if auto == "VALID" else step.attribute("pads") or [0] * 2 * rank
    return Window(
        tuple(sizes),
        tuple(step.attribute("strides") or [1] * rank),
        tuple(step.attribute("dilations") or [1] * rank),
        None if same else tuple(pads),
        auto,
    )


def space(step: Step, name: str) -> Shape | None:
    """Spatial sizes of a tensor (N, C, ...), None where one is unknown."""
    shape = step.shape(name)
    return None if shape is None else fixed(shape[2:])


def room(step: Step, name: str) -> str:
    """Tensor that holds the spatial sizes of another at run time."""
    return step.op("Slice", step.shape_of(name), step.ints([2]), step.ints([2**31]))

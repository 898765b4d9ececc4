"""What a convolution's window is, whatever its node leaves to defaults, and how far it reaches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnx_inspect.graph.input_shapes import Shape, fixed
from onnx_inspect.graph.rules._step import Step

END = 2**62  # as far as there is something


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
    return step.op("Slice", step.shape_of(name), step.ints([2]), step.ints([END]))


def to_wide(step: Step, view: Window, gradient: str, weight: str, turned: Callable[[], str | None], groups: int) -> str:
    """Bring a gradient from a window's narrow side, the node's output, to the wide one, its input.

    Parameters
    ----------
    gradient : str
        (N, M, ...); N and M need not be the node's own.
    weight : str
        (M, C/groups, kernel), as the convolution read it.
    turned : callable
        Gives the weight (C, M/groups, kernel), reversed along space, for windows that move by single steps; None where
        that can't be had.
    """
    wide, narrow = space(step, step.inputs[0]), space(step, step.outputs[0])
    pads = view.pads(wide)
    more = {"dilations": view.dilations, "group": groups, "kernel_shape": view.kernel}
    if pads is not None and all(s == 1 for s in view.strides) and not step.attribute("ceil_mode", 0):
        back = [reach - pad for reach, pad in zip(view.reach * 2, pads, strict=True)]
        weight_back = turned() if min(back) >= 0 else None
        if weight_back is not None:
            return step.op("Conv", gradient, weight_back, pads=back, **more)
    more["strides"] = view.strides
    if pads is None or wide is None or narrow is None:
        return _to_wide_at_run_time(step, view, pads, step.op("ConvTranspose", gradient, weight, **more))
    full = [(n - 1) * s + r + 1 for n, s, r in zip(narrow, view.strides, view.reach, strict=True)]
    begins, ends = pads[: view.rank], pads[view.rank :]
    left = [w + b + e - f for w, b, e, f in zip(wide, begins, ends, full, strict=True)]
    ends = [e - min(rest, 0) for e, rest in zip(ends, left, strict=True)]  # ceil_mode: windows that end outside
    left = [max(rest, 0) for rest in left]
    return step.op("ConvTranspose", gradient, weight, pads=[*begins, *ends], output_padding=left, **more)


def _to_wide_at_run_time(step: Step, view: Window, pads: list[int] | None, full: str) -> str:
    """Cut the input's part out of all that the windows cover, where a size isn't known before."""
    if pads is None:
        total = step.op("Sub", room(step, full), room(step, step.inputs[0]))
        total = step.op("Max", total, step.ints([0]))
        begins = step.op("Div", total, step.ints([2]))
        if view.auto == "SAME_LOWER":
            begins = step.op("Sub", total, begins)
    else:
        begins = step.ints(pads[: view.rank])
    after = [max(s - 1, 0) + (pads[view.rank + i] if pads else 0) for i, s in enumerate(view.strides)]
    if any(after):  # positions after the last window get no gradient
        full = step.op("Pad", full, step.ints([0] * (4 + view.rank) + after))
    return cropped(step, full, begins, view)


def cropped(step: Step, name: str, begins: str, view: Window) -> str:
    """The part of a tensor that lies over the input."""
    ends = step.op("Add", begins, room(step, step.inputs[0]))
    return step.op("Slice", name, begins, ends, step.ints(view.axes))

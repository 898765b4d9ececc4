"""Which colour each of many groups gets, and the legend that stays readable whether there are three or a thousand."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from onnx_inspect.render import _style as style
from onnx_inspect.render._style import FAINT, INK, LABEL, SMALL, Page

# The first nine are matplotlib's; the others were chosen each as far as possible from all before it in CIELAB.
PALETTE = (
    "#1f77b4 #ff7f0e #2ca02c #d62728 #9467bd #8c564b #e377c2 #bcbd22 #17becf #0000ff #ff00ff #005539 #ffbd97 #00ec00"
    " #005eff #c6c6ff #686800 #8e0055 #a1d097 #ff007b #8400aa #ff7b84 #a15500 #00e397"
).split()
NOBODY = "#b8bec4"  # of points without a group
WIDTH = 1.75  # inches of a legend
BAR = 0.16
LIGHTNESS = (0.42, 0.58, 0.5)  # neighbours on the wheel differ in it
ROW = style.line_height(LABEL)


@dataclass(frozen=True)
class Groups:
    """Groups that have points, and their colours.

    Attributes
    ----------
    numbers : ndarray, (G,), int
        In the order of the legend.
    counts : ndarray, (G,), int
    colours : ndarray, (G, 3), float
    names : tuple of str, G
    nobody : int
        Points without a group.
    """

    numbers: NDArray[np.int64]
    counts: NDArray[np.int64]
    colours: NDArray[np.float64]
    names: tuple[str, ...]
    nobody: int

    @property
    def many(self) -> bool:
        """Whether there are more than colours that can be told apart."""
        return len(self.numbers) > len(PALETTE)

    def of(self, groups: NDArray[np.int64]) -> NDArray[np.float64]:
        """Colour of each point, (N, 3)."""
        found = np.tile(np.array(to_rgb(NOBODY)), (len(groups), 1))
        if len(self.numbers):
            order = np.argsort(self.numbers)
            place = np.clip(np.searchsorted(self.numbers[order], groups), 0, len(order) - 1)
            known = self.numbers[order][place] == groups
            found[known] = self.colours[order][place[known]]
        return found

    def name(self, number: int) -> str:
        """A group's name."""
        return self.names[int(np.flatnonzero(self.numbers == number)[0])]


def grouped(groups: NDArray[np.int64], names: Sequence[str] | None, points: NDArray[np.float32]) -> Groups:
    """Give groups colours: distinct ones to up to 24; more share a wheel, on which those beside each other are alike.

    Parameters
    ----------
    groups : ndarray, (N,), int
        -1 for none.
    points : ndarray, (N, 2 or 3)
        Where they lie: groups that lie beside each other get like colours, where there are many.
    """
    numbers, counts = np.unique(groups[groups >= 0], return_counts=True)
    if len(numbers) <= len(PALETTE):
        colours = np.array([to_rgb(c) for c in PALETTE[: len(numbers)]]).reshape(-1, 3)
    else:
        middle = points[:, :2].mean(axis=0)
        centres = np.stack([points[groups == n][:, :2].mean(axis=0) - middle for n in numbers])
        order = np.argsort(np.arctan2(centres[:, 1], centres[:, 0]), kind="stable")
        numbers, counts = numbers[order], counts[order]
        wheel = [
            colorsys.hls_to_rgb(n / len(numbers), LIGHTNESS[n % len(LIGHTNESS)], 0.72) for n in range(len(numbers))
        ]
        colours = np.array(wheel)
    words = tuple(names[n] if names is not None and n < len(names) else str(n) for n in numbers.tolist())
    return Groups(numbers, counts, colours, words, int((groups < 0).sum()))


def legend_height(groups: Groups) -> float:
    """Inches that a legend wants."""
    rows = len(groups.numbers) + (groups.nobody > 0) + 1
    return 4.2 if groups.many else rows * ROW


def legend(page: Page, groups: Groups, left: float, top: float, height: float, *, by: str) -> None:
    """Write the legend: each group with its number of points; or, of many, a bar with as many names as fit."""
    if not len(groups.numbers):
        return
    page.text(left, top, by, size=LABEL, color=FAINT)
    top, height = top + ROW, height - ROW
    if groups.many:
        _bar(page, groups, left, top, height)
        return
    entries = list(zip(groups.names, groups.counts.tolist(), groups.colours, strict=True))
    if groups.nobody:
        entries.append(("none", groups.nobody, np.array(to_rgb(NOBODY))))
    numbers = [f"{count:,}" for _, count, _ in entries]
    most = max((style.text_width(number, size=SMALL) for number in numbers), default=0)
    words = [style.fit(name, WIDTH - 0.3 - most) for name, _, _ in entries]
    end = left + 0.28 + max((style.text_width(word) for word in words), default=0) + most
    for row, (word, number, (_, _, colour)) in enumerate(zip(words, numbers, entries, strict=True)):
        dot = page.axes(left, top + row * ROW + 0.02, 0.12, 0.12)
        dot.set_facecolor(tuple(colour))
        page.text(left + 0.18, top + row * ROW, word)
        page.text(end, top + row * ROW + 0.02, number, size=SMALL, color=FAINT, ha="right")


def _bar(page: Page, groups: Groups, left: float, top: float, height: float) -> None:
    """All colours in their order, and names beside them at equal distances."""
    total = len(groups.numbers)
    note = f"{total:,}, by where they lie"
    page.text(left, top, style.fit(note, WIDTH, size=SMALL), size=SMALL, color=FAINT)
    top, height = top + ROW, height - ROW
    axes = page.axes(left, top, BAR, height)
    axes.imshow(groups.colours[:, None], aspect="auto", extent=(0, 1, total, 0), interpolation="nearest")
    for row in np.unique(np.linspace(0, total - 1, max(2, int(height / ROW))).round().astype(int)):
        middle = top + (row + 0.5) / total * height
        name = style.fit(groups.names[row], WIDTH - BAR - 0.1, size=SMALL)
        page.text(left + BAR + 0.08, middle, name, size=SMALL, color=INK, va="center")

"""How points in three dimensions are put on paper: seen from one side, in a box, the far ones smaller and paler."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Polygon
from numpy.typing import NDArray

from onnx_inspect.render._style import RULE

AWAY = 5.0  # how far the eye is from a box of side 2
PANE = "#f3f5f7"
GRID = 4  # cells along each side of a pane
PALE = 0.55  # share of white in the farthest points


@dataclass(frozen=True)
class View:
    """Where the eye is: turned about the vertical axis, and raised, in degrees."""

    turn: float
    rise: float

    def see(self, points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Places on the paper (..., 2) of points in the box of side 2 around 0, and how far away each is (...)."""
        turn, rise = np.radians(self.turn), np.radians(self.rise)
        x, y, z = np.moveaxis(points, -1, 0)
        across = np.cos(turn) * x + np.sin(turn) * y
        deep = -np.sin(turn) * x + np.cos(turn) * y
        up = np.cos(rise) * z + np.sin(rise) * deep
        away = np.cos(rise) * deep - np.sin(rise) * z
        scale = AWAY / (AWAY + away)
        return np.stack([across * scale, up * scale], axis=-1), away


VIEWS = (View(-35, 22), View(55, 22))


def boxed(points: NDArray[np.float32]) -> NDArray[np.float64]:
    """Points moved and scaled, alike in all directions, into the box of side 2 around 0."""
    middle = (points.max(axis=0) + points.min(axis=0)) / 2
    half = float(np.ptp(points, axis=0).max()) / 2 or 1.0
    return (points.astype(np.float64) - middle) / half * 0.97


def box(axes: Axes, view: View) -> None:
    """Draw the three sides of the box that lie behind the points, and fit the axes to it."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    flat, away = view.see(corners)
    farthest = corners[away.argmax()]
    lines = []
    for axis in range(3):
        one, two = (a for a in range(3) if a != axis)
        pane = np.tile(farthest, (4, 1))
        pane[:, one], pane[:, two] = (-1, 1, 1, -1), (-1, -1, 1, 1)
        axes.add_patch(Polygon(view.see(pane)[0], closed=True, facecolor=PANE, edgecolor=RULE, linewidth=0.6, zorder=0))
        for at in np.linspace(-1, 1, GRID + 1)[1:-1]:
            for along, across in ((one, two), (two, one)):
                line = np.tile(farthest, (2, 1))
                line[:, along], line[:, across] = (-1, 1), at
                lines.append(view.see(line)[0])
    axes.add_collection(LineCollection(lines, colors="white", linewidths=0.8, zorder=0.5))
    low, high = flat.min(axis=0), flat.max(axis=0)
    middle, reach = (low + high) / 2, float((high - low).max()) / 2 * 1.08
    axes.set_xlim(middle[0] - reach, middle[0] + reach)
    axes.set_ylim(middle[1] - reach, middle[1] + reach)
    axes.set_aspect("equal")


def outside(view: View) -> NDArray[np.float64]:
    """Where names of the three axes stand: beside an edge of the outline along each, below or to the left, (3, 2)."""
    places = []
    for axis in range(3):
        middles = np.array([np.insert([a, b], axis, 0) for a in (-1, 1) for b in (-1, 1)], float)
        flat, away = view.see(middles)
        outline = np.argsort(away)[1:3]  # the nearest edge and the farthest one lie inside
        best = outline[flat[outline, 0 if axis == 2 else 1].argmin()]
        places.append(view.see(middles[best] * 1.13)[0])
    return np.array(places)


def paled(colours: NDArray[np.float64], away: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours (N, 3) mixed with white by how far away their points are."""
    share = np.clip((away + 1.2) / 2.4, 0, 1)[:, None] * PALE
    return colours * (1 - share) + share


def shrunk(size: float, away: NDArray[np.float64]) -> NDArray[np.float64]:
    """Areas of points by how far away they are."""
    return size * (AWAY / (AWAY + away)) ** 3

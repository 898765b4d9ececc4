"""Where to look next for a function's maximum: DIRECT, dividing rectangles of the unit square."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Direct:
    """Global search without derivatives that asks for many points at once (Jones, Perttunen and Stuckman 1993).

    Every rectangle is known by the value at its centre. In each round those that could hold the maximum, for some rate
    of change, are cut into three along their longest sides.

    Parameters
    ----------
    budget : int
        Most points ever asked for.
    epsilon : float
        Least improvement worth a rectangle, as a share of the best value: larger searches more widely.
    """

    def __init__(self, budget: int, epsilon: float) -> None:
        self.budget, self.epsilon = budget, epsilon
        self.points = np.full((1, 2), 0.5)
        self.values = np.zeros(0)
        self._cuts = np.zeros((1, 2), np.intp)  # how often each rectangle's sides were divided by three
        self._plan: list[tuple[int, list[int]]] = []  # a rectangle, and the sides along which it is divided

    def ask(self) -> Floats:
        """Points (P, 2) whose values are wanted; none when the budget is spent."""
        return self.points[len(self.values) :]

    def tell(self, values: Floats) -> None:
        """Take the values of the points asked for, divide, and choose the next points."""
        start = len(self.values)
        self.values = np.concatenate([self.values, values])
        for rectangle, sides in self._plan:
            pairs = [(start + 2 * i, start + 2 * i + 1) for i in range(len(sides))]
            start += 2 * len(sides)
            # The side with the best value is divided first, which leaves the largest rectangle to that value.
            for side, pair in sorted(zip(sides, pairs, strict=True), key=lambda s: -self.values[list(s[1])].max()):
                self._cuts[rectangle, side] += 1
                self._cuts[list(pair)] = self._cuts[rectangle]
        self._plan = []
        self._choose()

    def _choose(self) -> None:
        """Plan to divide promising rectangles, as far as the budget goes."""
        new: list[Floats] = []
        for rectangle in self._promising():
            cuts = self._cuts[rectangle]
            sides = [int(s) for s in np.flatnonzero(cuts == cuts.min())]
            if len(self.points) + len(new) + 2 * len(sides) > self.budget:
                break
            self._plan.append((rectangle, sides))
            for side in sides:
                step = np.zeros(2)
                step[side] = 3.0 ** -(int(cuts[side]) + 1)
                new += [self.points[rectangle] - step, self.points[rectangle] + step]
        if new:
            self.points = np.concatenate([self.points, np.stack(new)])
            self._cuts = np.concatenate([self._cuts, np.zeros((len(new), 2), np.intp)])

    def _promising(self) -> list[int]:
        """Rectangles that for some rate of change K > 0 could hold the maximum: value + K size is the largest."""
        sizes = np.round(0.5 * np.linalg.norm(3.0**-self._cuts, axis=1), 12)
        order = np.unique(sizes)[::-1]  # large ones first
        best = [int(np.flatnonzero(sizes == s)[np.argmax(self.values[sizes == s])]) for s in order]
        values = self.values[best]
        enough = float(self.values.max()) + self.epsilon * abs(float(self.values.max()))
        chosen = []
        for j, rectangle in enumerate(best):
            most = np.min((values[j] - values[:j]) / (order[:j] - order[j]), initial=np.inf)
            least = np.max((values[j + 1 :] - values[j]) / (order[j] - order[j + 1 :]), initial=0.0)
            if most > 0 and least <= most and values[j] + most * order[j] >= enough:
                chosen.append(rectangle)
        return chosen
